//! What happens to an image before it reaches the device.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mae_data::{
    Loader, LoaderConfig, MaskSampler, PatchGrid, SampleKey, SyntheticDataset, patchify, shuffle,
    unpatchify, unshuffle,
};

/// ImageNet's usual size: 224 x 224 RGB in patches of 16.
fn grid() -> PatchGrid {
    PatchGrid::new(224, 224, 16, 3).expect("16 divides 224")
}

fn image(grid: &PatchGrid) -> Vec<u8> {
    (0..grid.image_len())
        .map(|i| (i * 31 % 251) as u8)
        .collect()
}

fn patches(criterion: &mut Criterion) {
    let grid = grid();
    let image = image(&grid);
    let rows = patchify(&image, &grid).expect("the image fits");
    let mut group = criterion.benchmark_group("patches");
    group.throughput(Throughput::Bytes(image.len() as u64));
    group.bench_function("patchify", |b| {
        b.iter(|| patchify(black_box(&image), &grid))
    });
    group.bench_function("unpatchify", |b| {
        b.iter(|| unpatchify(black_box(&rows), &grid))
    });
    group.finish();
}

fn masks(criterion: &mut Criterion) {
    let grid = grid();
    let rows = patchify(&image(&grid), &grid).expect("the image fits");
    let sample = |index| {
        let key = SampleKey {
            seed: 0,
            epoch: 0,
            index,
        };
        MaskSampler::Random
            .sample(&grid, 0.75, key)
            .expect("0.75 of 196 is fine")
    };
    let mut group = criterion.benchmark_group("masks");
    group.throughput(Throughput::Bytes(rows.len() as u64));
    let mut index = 0;
    group.bench_function("mask + shuffle", |b| {
        b.iter(|| {
            index += 1;
            shuffle(black_box(&rows), grid.patch_dim(), &sample(index))
        })
    });
    let mask = sample(0);
    let (visible, masked) = shuffle(&rows, grid.patch_dim(), &mask).expect("the mask fits");
    group.bench_function("unshuffle", |b| {
        b.iter(|| {
            unshuffle(
                black_box(&visible),
                black_box(&masked),
                grid.patch_dim(),
                &mask,
            )
        })
    });
    group.finish();
}

fn loader(criterion: &mut Criterion) {
    const IMAGES: usize = 512;
    let grid = PatchGrid::new(64, 64, 8, 3).expect("8 divides 64");
    let scenes = Arc::new(SyntheticDataset::new(IMAGES, 64, 64, 3, 0).expect("a usual size"));
    let loader = Loader::new(scenes, LoaderConfig::new(grid, 64)).expect("a valid config");
    let mut group = criterion.benchmark_group("loader");
    group
        .throughput(Throughput::Elements(IMAGES as u64))
        .sample_size(20);
    let mut epoch = 0;
    group.bench_function("synthetic 64 x 64", |b| {
        b.iter_batched(
            || {
                epoch += 1;
                epoch
            },
            |epoch| {
                loader
                    .epoch(epoch, 0)
                    .map(|batch| batch.expect("scenes are never broken").len())
                    .sum::<usize>()
            },
            BatchSize::PerIteration,
        )
    });
    group.finish();
}

criterion_group!(benches, patches, masks, loader);
criterion_main!(benches);

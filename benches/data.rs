//! What happens to an image before it reaches the device.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mae_data::{
    ImageLoader, ImageLoaderConfig, Loader, LoaderConfig, MaskSampler, PackConfig, PackEncoding,
    PackedDataset, PatchGrid, SampleKey, SyntheticDataset, Transform, pack, patchify, shuffle,
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

/// Centre crops of 224 from a packed file that the system has in its cache, on two workers.
fn packed(criterion: &mut Criterion) {
    const IMAGES: usize = 1024;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut group = criterion.benchmark_group("packed");
    group
        .throughput(Throughput::Elements(IMAGES as u64))
        .sample_size(20);
    for (name, height, width, encoding) in [
        ("pixels 224 x 224", 224, 224, PackEncoding::Raw),
        ("pixels 256 x 341", 256, 341, PackEncoding::Raw),
        ("jpeg 95 256 x 341", 256, 341, PackEncoding::Jpeg(95)),
    ] {
        let scenes = SyntheticDataset::new(IMAGES, height, width, 3, 0).expect("a usual size");
        let path = folder.path().join("scenes.mae");
        let config = PackConfig {
            size: height,
            encoding,
            max_broken_share: 0.0,
        };
        pack(&scenes, &config, &path, |_| ControlFlow::Continue(())).expect("room for a file");
        let packed = Arc::new(PackedDataset::open(&path, 3).expect("what was just packed"));
        let config = ImageLoaderConfig {
            workers: 2,
            ..ImageLoaderConfig::new(Transform::center_crop(224, 224), 64)
        };
        let loader = ImageLoader::new(packed, config).expect("a valid config");
        group.bench_function(name, |b| {
            b.iter(|| {
                loader
                    .epoch(0, 0)
                    .map(|batch| batch.expect("scenes are never broken").len())
                    .sum::<usize>()
            })
        });
    }
    group.finish();
}

criterion_group!(benches, patches, masks, loader, packed);
criterion_main!(benches);

//! What happens to an image before it reaches the device.

use std::borrow::Cow;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use mae_data::{
    Augmentation, ColorJitter, Content, CropBox, DataError, Dataset, Image, ImageLoader,
    ImageLoaderConfig, Loader, LoaderConfig, MaskSampler, Nodata, PackConfig, PackEncoding,
    PackedDataset, PatchGrid, SampleKey, SyntheticDataset, Transform, pack, patchify,
    patchify_shuffled_into, shuffle, unpatchify, unshuffle,
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
    let image = image(&grid);
    let visible_len = mask.kept() * grid.patch_dim();
    let mut visible = vec![0; visible_len];
    let mut masked = vec![0; rows.len() - visible_len];
    group.bench_function("mask + gather", |b| {
        b.iter(|| {
            index += 1;
            let mask = sample(index);
            patchify_shuffled_into(black_box(&image), &grid, &mask, &mut visible, &mut masked)
        })
    });
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

fn samplers(criterion: &mut Criterion) {
    let grid = grid();
    let mut group = criterion.benchmark_group("samplers");
    for (name, sampler) in [
        ("random", MaskSampler::Random),
        ("block", MaskSampler::Block),
        ("grid", MaskSampler::Grid),
    ] {
        let mut index = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                index += 1;
                let key = SampleKey {
                    seed: 0,
                    epoch: 0,
                    index,
                };
                sampler.sample(black_box(&grid), 0.75, key)
            })
        });
    }
    group.finish();
}

/// Each property by itself, then all, on 224 x 224 pixels.
fn color_jitter(criterion: &mut Criterion) {
    let scenes = SyntheticDataset::new(1, 224, 224, 3, 0).expect("a usual size");
    let image = scenes.image(0).expect("in range");
    let all = ColorJitter::default();
    let none = ColorJitter {
        brightness: 0.0,
        contrast: 0.0,
        saturation: 0.0,
        hue: 0.0,
    };
    let mut group = criterion.benchmark_group("color jitter");
    for (name, jitter) in [
        (
            "brightness",
            ColorJitter {
                brightness: 0.4,
                ..none
            },
        ),
        (
            "contrast",
            ColorJitter {
                contrast: 0.4,
                ..none
            },
        ),
        (
            "saturation",
            ColorJitter {
                saturation: 0.4,
                ..none
            },
        ),
        ("hue", ColorJitter { hue: 0.1, ..none }),
        ("all", all),
    ] {
        let mut index = 0;
        group.bench_function(name, |b| {
            b.iter_batched(
                || image.clone(),
                |image| {
                    index += 1;
                    let key = SampleKey {
                        seed: 0,
                        epoch: 0,
                        index,
                    };
                    jitter.apply(image, key)
                },
                BatchSize::SmallInput,
            )
        });
    }
    group.finish();
}

/// A scene with the grain of a camera, as JPEG, about as large as a photograph of ImageNet.
fn photo(height: usize, width: usize, index: usize) -> Vec<u8> {
    let scenes = SyntheticDataset::new(index + 1, height, width, 3, 0).expect("a usual size");
    let scene = scenes.image(index).expect("in range");
    let mut pixels = scene.pixels().as_u8().expect("of bytes").to_vec();
    let mut state = index as u32;
    for value in &mut pixels {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *value = value.saturating_add((state >> 29) as u8);
    }
    let mut content = Vec::new();
    JpegEncoder::new_with_quality(&mut content, 90)
        .encode(
            &pixels,
            width as u32,
            height as u32,
            ExtendedColorType::Rgb8,
        )
        .expect("memory suffices");
    content
}

/// The paper's augmentation.
fn paper() -> Transform {
    Transform {
        augmentation: Augmentation::random_resized_crop(),
        hflip: true,
        ..Transform::center_crop(224, 224)
    }
}

fn jpeg(criterion: &mut Criterion) {
    let content = photo(375, 500, 0);
    let image = Image::decode(&content, 3, "photo").expect("a whole file");
    let mut index = 0;
    let mut next_key = move || {
        index += 1;
        SampleKey {
            seed: 0,
            epoch: 0,
            index,
        }
    };
    let mut group = criterion.benchmark_group("jpeg");
    group.bench_function("library's decoder, 500 x 375", |b| {
        b.iter(|| Image::decode(black_box(&content), 3, "photo"))
    });
    group.bench_function("decode without resize, 224 x 224", |b| {
        let content = photo(224, 224, 0);
        let as_it_is = Transform::center_crop(224, 224);
        b.iter(|| as_it_is.apply_encoded(black_box(&content), 3, Nodata::Auto, "photo", next_key()))
    });
    group.bench_function("decode and resize random crops", |b| {
        b.iter(|| paper().apply_encoded(black_box(&content), 3, Nodata::Auto, "photo", next_key()))
    });
    group.bench_function("resize pixels, 385 x 290", |b| {
        let crop = CropBox {
            top: 40.0,
            left: 60.0,
            height: 290.0,
            width: 385.0,
        };
        b.iter(|| black_box(&image).crop_resize(crop, 224, 224))
    });
    group.bench_function("transform pixels, random crops", |b| {
        b.iter_batched(
            || image.clone(),
            |image| paper().apply(image, next_key()),
            BatchSize::SmallInput,
        )
    });
    group.finish();
}

/// JPEGs in memory.
struct Photos(Vec<Vec<u8>>);

impl Dataset for Photos {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn channels(&self) -> usize {
        3
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        Image::decode(&self.0[index], 3, &self.name(index))
    }

    fn content(&self, index: usize) -> Result<Content<'_>, DataError> {
        Ok(Content::Encoded(Cow::Borrowed(&self.0[index])))
    }

    fn name(&self, index: usize) -> String {
        format!("photo {index}")
    }
}

fn photo_loader(criterion: &mut Criterion) {
    const IMAGES: usize = 128;
    let photos = Photos((0..IMAGES).map(|index| photo(375, 500, index)).collect());
    let config = LoaderConfig {
        transform: paper(),
        ..LoaderConfig::new(grid(), 64)
    };
    let loader = Loader::new(Arc::new(photos), config).expect("a valid config");
    let mut group = criterion.benchmark_group("loader");
    group
        .throughput(Throughput::Elements(IMAGES as u64))
        .sample_size(20);
    let mut epoch = 0;
    group.bench_function("jpeg 500 x 375", |b| {
        b.iter(|| {
            epoch += 1;
            (loader.epoch(epoch, 0))
                .map(|batch| batch.expect("the photos are whole").len())
                .sum::<usize>()
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

criterion_group!(
    benches,
    patches,
    masks,
    samplers,
    color_jitter,
    jpeg,
    photo_loader,
    loader,
    packed
);
criterion_main!(benches);

//! Batches of numbers.

use super::*;
use crate::loader::{ImageLoader, ImageLoaderConfig};
use crate::pixels::{PixelKind, Pixels};
use crate::{ColorJitter, unpatchify, unshuffle};

const CHANNELS: usize = 5;

/// Images of numbers, every other one of bytes, as a folder of both may hand them over.
struct Measured;

impl Dataset for Measured {
    fn len(&self) -> usize {
        8
    }

    fn channels(&self) -> usize {
        CHANNELS
    }

    fn kind(&self) -> PixelKind {
        PixelKind::F32
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        if index == 6 {
            return Err(broken(index));
        }
        let values = 0..16 * 24 * CHANNELS;
        match index % 2 {
            0 => {
                let values: Vec<f32> = values.map(|at| (at + index) as f32 * 10.0).collect();
                Image::new(16, 24, CHANNELS, values)
            }
            _ => {
                let values: Vec<u8> = values.map(|at| (at * index) as u8).collect();
                Image::new(16, 24, CHANNELS, values)
            }
        }
    }

    fn name(&self, index: usize) -> String {
        format!("measured:{index}")
    }
}

/// What a batch must hold of an image.
fn expected(index: usize) -> Vec<f32> {
    Measured.image(index).unwrap().into_pixels().into_f32()
}

fn masked_config() -> LoaderConfig {
    LoaderConfig {
        max_broken_share: 0.5,
        ..LoaderConfig::new(PatchGrid::new(16, 24, 4, CHANNELS).unwrap(), 8)
    }
}

#[test]
fn numbers_reach_masked_batches_whole_and_bytes_are_widened() {
    let config = masked_config();
    let grid = config.grid;
    let loader = Loader::new(Arc::new(Measured), config).unwrap();
    let batch = batches(&loader, 0, 0).remove(0);
    assert_eq!(batch.len(), 7);
    let (kept, dim) = (batch.kept, grid.patch_dim());
    let removed = grid.patches() - kept;
    for (row, &index) in batch.indices.iter().enumerate() {
        let ids = &batch.ids_shuffle[row * grid.patches()..][..grid.patches()];
        let ids = ids.iter().map(|&id| id as u32).collect();
        let mask = crate::Mask::from_ids_shuffle(ids, kept).unwrap();
        let patches = unshuffle(
            &batch
                .visible
                .range_f32(row * kept * dim..(row + 1) * kept * dim),
            &batch
                .masked
                .range_f32(row * removed * dim..(row + 1) * removed * dim),
            dim,
            &mask,
        );
        let image = unpatchify(&patches.unwrap(), &grid).unwrap();
        assert_eq!(image, expected(index), "image {index}");
    }
    assert_eq!(batch.visible.kind(), PixelKind::F32);
}

#[test]
fn numbers_reach_batches_of_images() {
    let transform = Transform::center_crop(16, 24);
    let config = ImageLoaderConfig {
        max_broken_share: 0.5,
        ..ImageLoaderConfig::new(transform, 8)
    };
    let loader = ImageLoader::new(Arc::new(Measured), config).unwrap();
    let batch = loader.epoch(0, 0).next().unwrap().unwrap();
    let all: Vec<f32> = (batch.indices.iter())
        .flat_map(|&index| expected(index))
        .collect();
    assert_eq!(batch.pixels, Pixels::F32(all));
    assert_eq!(batch.len(), 7);
}

/// The mask, the crop and the flip of an image are the same whatever its values are.
#[test]
fn widened_images_are_augmented_as_bytes_are() {
    struct Widened(Arc<SyntheticDataset>);

    impl Dataset for Widened {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn channels(&self) -> usize {
            3
        }

        fn kind(&self) -> PixelKind {
            PixelKind::F32
        }

        fn image(&self, index: usize) -> Result<Image, DataError> {
            self.0.image(index)
        }

        fn name(&self, index: usize) -> String {
            self.0.name(index)
        }
    }

    let config = LoaderConfig {
        transform: Transform {
            augmentation: Augmentation::random_resized_crop(),
            hflip: true,
            ..Transform::center_crop(16, 24)
        },
        ..config(4)
    };
    let narrow = Loader::new(scenes(8), config.clone()).unwrap();
    let wide = Loader::new(Arc::new(Widened(scenes(8))), config).unwrap();
    for (narrow, wide) in batches(&narrow, 1, 0).into_iter().zip(batches(&wide, 1, 0)) {
        assert_eq!(wide.visible, Pixels::F32(narrow.visible.into_f32()));
        assert_eq!(wide.masked, Pixels::F32(narrow.masked.into_f32()));
        assert_eq!(wide.ids_shuffle, narrow.ids_shuffle);
    }
}

#[test]
fn colours_of_numbers_cannot_be_changed() {
    let mut config = masked_config();
    config.transform.color_jitter = Some(ColorJitter::default());
    let message = Loader::new(Arc::new(Measured), config)
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.starts_with("color_jitter: expected images of 8 bits") && message.contains("f32"),
        "{message}"
    );
    let image = Measured.image(0).unwrap();
    let key = SampleKey {
        seed: 0,
        epoch: 0,
        index: 0,
    };
    assert!(ColorJitter::default().apply(image.clone(), key).is_err());
    assert!(crate::RandAugment::default().apply(image, key).is_err());
}

/// A data set of bytes in which an image has more bits counts it as broken.
#[test]
fn numbers_among_bytes_are_broken_images() {
    struct Mixed(Arc<SyntheticDataset>);

    impl Dataset for Mixed {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn channels(&self) -> usize {
            3
        }

        fn image(&self, index: usize) -> Result<Image, DataError> {
            match index {
                2 => Image::new(20, 30, 3, vec![0.5_f32; 1800]),
                _ => self.0.image(index),
            }
        }

        fn name(&self, index: usize) -> String {
            self.0.name(index)
        }
    }

    let config = LoaderConfig {
        max_broken_share: 0.5,
        ..config(8)
    };
    let loader = Loader::new(Arc::new(Mixed(scenes(8))), config).unwrap();
    assert_eq!(batches(&loader, 0, 0)[0].len(), 7);
    let broken = loader.broken();
    assert!(
        broken[0].0 == "synthetic:2" && broken[0].1.contains("more than 8 bits"),
        "{broken:?}"
    );
}

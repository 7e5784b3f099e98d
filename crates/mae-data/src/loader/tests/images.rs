//! Batches of whole images: what differs from masked ones, and what must not.

use super::*;

fn config(batch_size: usize) -> ImageLoaderConfig {
    let transform = Transform {
        augmentation: Augmentation::random_resized_crop(),
        hflip: true,
        ..Transform::center_crop(16, 24)
    };
    ImageLoaderConfig {
        workers: 2,
        seed: 5,
        order: Order::Shuffled,
        ..ImageLoaderConfig::new(transform, batch_size)
    }
}

fn batches(loader: &ImageLoader, epoch: u64, first_batch: usize) -> Vec<ImageBatch> {
    loader
        .epoch(epoch, first_batch)
        .map(Result::unwrap)
        .collect()
}

#[test]
fn a_batch_holds_what_the_transform_makes() {
    let scenes = scenes(10);
    let loader = ImageLoader::new(scenes.clone(), config(4)).unwrap();
    let found = batches(&loader, 3, 0);
    let lens: Vec<usize> = found.iter().map(ImageBatch::len).collect();
    assert_eq!(lens, [4, 4, 2]);
    for batch in found {
        assert!(!batch.is_empty());
        assert_eq!(batch.pixels.len(), batch.len() * 16 * 24 * 3);
        for (row, &index) in batch.indices.iter().enumerate() {
            let key = SampleKey {
                seed: 5,
                epoch: 3,
                index: index as u64,
            };
            let image = config(4)
                .transform
                .apply(scenes.image(index).unwrap(), key)
                .unwrap();
            let len = image.bytes().len();
            assert_eq!(
                batch.pixels.as_u8().unwrap()[row * len..][..len],
                *image.bytes()
            );
            assert_eq!(batch.labels[row], scenes.label(index));
        }
    }
}

#[test]
fn images_and_masked_batches_come_in_the_same_order() {
    let masked = Loader::new(scenes(30), super::config(7)).unwrap();
    let config = ImageLoaderConfig {
        drop_last: true,
        ..config(7)
    };
    let images = ImageLoader::new(scenes(30), config).unwrap();
    assert_eq!(images.batches_per_epoch(), 4);
    for (masked, image) in super::batches(&masked, 1, 0)
        .into_iter()
        .zip(batches(&images, 1, 0))
    {
        assert_eq!(masked.number, image.number);
        assert_eq!(masked.indices, image.indices);
        assert_eq!(masked.labels, image.labels);
    }
}

#[test]
fn evaluation_visits_every_image_in_order() {
    let config = ImageLoaderConfig::new(Transform::center_crop(8, 8), 4);
    let loader = ImageLoader::new(scenes(10), config).unwrap();
    let indices: Vec<usize> = batches(&loader, 0, 0)
        .into_iter()
        .flat_map(|batch| batch.indices)
        .collect();
    assert_eq!(indices, (0..10).collect::<Vec<_>>());
}

#[test]
fn images_do_not_depend_on_workers_or_prefetch() {
    let run = |workers, prefetch| {
        let config = ImageLoaderConfig {
            workers,
            prefetch,
            ..config(7)
        };
        batches(&ImageLoader::new(scenes(50), config).unwrap(), 2, 0)
    };
    let one = run(1, 0);
    assert_eq!(one.len(), 8);
    assert_eq!(one, run(2, 1));
    assert_eq!(one, run(5, 9));
}

#[test]
fn an_epoch_of_images_can_begin_in_the_middle() {
    let loader = ImageLoader::new(scenes(50), config(7)).unwrap();
    let whole = batches(&loader, 1, 0);
    assert_eq!(batches(&loader, 1, 5), whole[5..]);
    assert_eq!(batches(&loader, 1, 8), []);
}

#[test]
fn a_broken_image_takes_its_pixels_and_its_label_along() {
    let config = ImageLoaderConfig {
        max_broken_share: 0.1,
        ..config(8)
    };
    let whole = ImageLoader::new(scenes(20), config.clone()).unwrap();
    let dataset = misbehaving(20, |index| match index {
        7 | 11 => Err(broken(index)),
        _ => Ok(()),
    });
    let loader = ImageLoader::new(dataset, config).unwrap();
    let image_len = 16 * 24 * 3;
    for (whole, found) in batches(&whole, 0, 0).iter().zip(batches(&loader, 0, 0)) {
        let rows: Vec<usize> = (0..whole.len())
            .filter(|&row| ![7, 11].contains(&whole.indices[row]))
            .collect();
        assert_eq!(found.len(), rows.len());
        assert_eq!(found.labels.len(), rows.len());
        assert_eq!(found.pixels.len(), rows.len() * image_len);
        for (to, from) in rows.into_iter().enumerate() {
            assert_eq!(found.indices[to], whole.indices[from]);
            assert_eq!(found.labels[to], whole.labels[from]);
            assert_eq!(
                found.pixels.as_u8().unwrap()[to * image_len..][..image_len],
                whole.pixels.as_u8().unwrap()[from * image_len..][..image_len]
            );
        }
    }
    assert_eq!(loader.broken().len(), 2);

    let dataset = misbehaving(20, |index| Err(broken(index)));
    let loader = ImageLoader::new(dataset, self::config(8)).unwrap();
    let error = loader.epoch(0, 0).next().unwrap().unwrap_err();
    assert!(matches!(error, DataError::TooManyBroken { .. }), "{error}");
}

#[test]
fn bad_settings_are_refused() {
    let message = |change: fn(&mut ImageLoaderConfig)| {
        let mut config = config(8);
        change(&mut config);
        ImageLoader::new(scenes(20), config)
            .err()
            .unwrap()
            .to_string()
    };
    assert!(message(|config| config.batch_size = 0).starts_with("batch_size: expected at least 1"));
    assert!(message(|config| config.max_broken_share = 2.0).starts_with("max_broken_share"));
    assert!(message(|config| config.transform.height = 0).starts_with("height"));
}

#[test]
fn an_image_with_other_channels_ends_the_epoch() {
    struct Liar;
    impl Dataset for Liar {
        fn len(&self) -> usize {
            8
        }
        fn channels(&self) -> usize {
            3
        }
        fn image(&self, _: usize) -> Result<Image, DataError> {
            Image::new(4, 4, 1, vec![0; 16])
        }
        fn name(&self, index: usize) -> String {
            format!("liar:{index}")
        }
    }
    let loader = ImageLoader::new(Arc::new(Liar), config(8)).unwrap();
    let error = loader.epoch(0, 0).next().unwrap().unwrap_err();
    assert!(matches!(error, DataError::Shape { .. }), "{error}");
}

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::dataset::{FolderDataset, SyntheticDataset};
use crate::image::Image;
use crate::shuffle::shuffle;
use crate::{Augmentation, MaskSampler, PatchGrid, Pixels, Transform, patchify};

mod images;
mod shards;
mod values;

fn grid() -> PatchGrid {
    PatchGrid::new(16, 24, 4, 3).unwrap()
}

fn config(batch_size: usize) -> LoaderConfig {
    LoaderConfig {
        workers: 2,
        seed: 5,
        ..LoaderConfig::new(grid(), batch_size)
    }
}

fn scenes(len: usize) -> Arc<SyntheticDataset> {
    Arc::new(SyntheticDataset::new(len, 20, 30, 3, 1).unwrap())
}

fn batches(loader: &Loader, epoch: u64, first_batch: usize) -> Vec<MaskedBatch> {
    loader
        .epoch(epoch, first_batch)
        .map(Result::unwrap)
        .collect()
}

/// Synthetic scenes in which some images misbehave.
struct Misbehaving<F> {
    scenes: Arc<SyntheticDataset>,
    misbehave: F,
}

impl<F> Dataset for Misbehaving<F>
where
    F: Fn(usize) -> Result<(), DataError> + Send + Sync,
{
    fn len(&self) -> usize {
        self.scenes.len()
    }

    fn channels(&self) -> usize {
        self.scenes.channels()
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        (self.misbehave)(index)?;
        self.scenes.image(index)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.scenes.label(index)
    }

    fn name(&self, index: usize) -> String {
        self.scenes.name(index)
    }
}

fn misbehaving(
    len: usize,
    misbehave: impl Fn(usize) -> Result<(), DataError> + Send + Sync + 'static,
) -> Arc<dyn Dataset> {
    Arc::new(Misbehaving {
        scenes: scenes(len),
        misbehave,
    })
}

fn broken(index: usize) -> DataError {
    DataError::Image {
        name: format!("synthetic:{index}"),
        reason: "broken".to_owned(),
    }
}

#[test]
fn a_batch_holds_what_its_parts_make() {
    let scenes = scenes(10);
    let loader = Loader::new(scenes.clone(), config(4)).unwrap();
    let batch = batches(&loader, 3, 0).remove(1);
    let (kept, patches, patch_dim) = (batch.kept, grid().patches(), grid().patch_dim());
    assert_eq!((batch.number, batch.len(), kept), (1, 4, 6));
    for (row, &index) in batch.indices.iter().enumerate() {
        let key = SampleKey {
            seed: 5,
            epoch: 3,
            index: index as u64,
        };
        let image = Transform::center_crop(16, 24)
            .apply(scenes.image(index).unwrap(), key)
            .unwrap();
        let mask = MaskSampler::Random.sample(&grid(), 0.75, key).unwrap();
        let (visible, masked) =
            shuffle(&patchify(image.bytes(), &grid()).unwrap(), patch_dim, &mask).unwrap();
        assert_eq!(
            batch.visible.as_u8().unwrap()[row * visible.len()..][..visible.len()],
            visible
        );
        assert_eq!(
            batch.masked.as_u8().unwrap()[row * masked.len()..][..masked.len()],
            masked
        );
        let ids: Vec<i64> = mask.ids_shuffle().iter().map(|&id| i64::from(id)).collect();
        assert_eq!(batch.ids_shuffle[row * patches..][..patches], ids);
        assert_eq!(batch.labels[row], scenes.label(index));
    }
}

#[test]
fn batches_do_not_depend_on_workers_or_prefetch() {
    let run = |workers, prefetch| {
        let config = LoaderConfig {
            workers,
            prefetch,
            transform: Transform {
                augmentation: Augmentation::random_resized_crop(),
                hflip: true,
                ..Transform::center_crop(16, 24)
            },
            ..config(7)
        };
        batches(&Loader::new(scenes(50), config).unwrap(), 2, 0)
    };
    let one = run(1, 0);
    assert_eq!(one.len(), 7);
    assert_eq!(one, run(2, 1));
    assert_eq!(one, run(5, 9));
}

#[test]
fn an_epoch_can_begin_in_the_middle() {
    let loader = Loader::new(scenes(50), config(7)).unwrap();
    let whole = batches(&loader, 1, 0);
    assert_eq!(batches(&loader, 1, 4), whole[4..]);
    assert_eq!(batches(&loader, 1, 7), []);
    assert_eq!(batches(&loader, 1, 100), []);
}

#[test]
fn an_epoch_visits_each_image_once_in_an_order_of_its_own() {
    let loader = |order, drop_last| {
        let config = LoaderConfig {
            order,
            drop_last,
            ..config(8)
        };
        Loader::new(scenes(30), config).unwrap()
    };
    let indices = |loader: &Loader, epoch| {
        let batches = batches(loader, epoch, 0);
        assert_eq!(batches.len(), loader.batches_per_epoch());
        batches
            .into_iter()
            .flat_map(|batch| batch.indices)
            .collect::<Vec<_>>()
    };
    let all: Vec<usize> = (0..30).collect();
    let shuffled = loader(Order::Shuffled, false);
    let mut first = indices(&shuffled, 0);
    assert_ne!(first, indices(&shuffled, 1));
    assert_ne!(first, all);
    first.sort_unstable();
    assert_eq!(first, all);
    assert_eq!(indices(&loader(Order::Sequential, false), 1), all);
    assert_eq!(indices(&loader(Order::Sequential, true), 1), all[..24]);
}

#[test]
fn broken_images_leave_their_batch_and_no_other() {
    let config = LoaderConfig {
        max_broken_share: 0.1,
        ..config(8)
    };
    let whole = Loader::new(scenes(40), config.clone()).unwrap();
    let dataset = misbehaving(40, |index| match index {
        7 => Err(broken(7)),
        11 => Err(DataError::Io {
            path: "gone.jpg".into(),
            source: std::io::ErrorKind::NotFound.into(),
        }),
        _ => Ok(()),
    });
    let loader = Loader::new(dataset, config).unwrap();
    for epoch in 0..2 {
        for (whole, found) in batches(&whole, epoch, 0)
            .iter()
            .zip(batches(&loader, epoch, 0))
        {
            let rows: Vec<usize> = (0..8)
                .filter(|&row| ![7, 11].contains(&whole.indices[row]))
                .collect();
            let visible_len = whole.visible.len() / 8;
            let masked_len = whole.masked.len() / 8;
            assert_eq!(found.len(), rows.len());
            assert_eq!(found.labels.len(), rows.len());
            assert_eq!(found.ids_shuffle.len(), rows.len() * grid().patches());
            for (to, from) in rows.into_iter().enumerate() {
                assert_eq!(found.indices[to], whole.indices[from]);
                assert_eq!(
                    found.visible.as_u8().unwrap()[to * visible_len..][..visible_len],
                    whole.visible.as_u8().unwrap()[from * visible_len..][..visible_len]
                );
                assert_eq!(
                    found.masked.as_u8().unwrap()[to * masked_len..][..masked_len],
                    whole.masked.as_u8().unwrap()[from * masked_len..][..masked_len]
                );
            }
        }
        let names: Vec<String> = loader.broken().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["synthetic:7", "gone.jpg"]);
    }
}

#[test]
fn a_batch_of_broken_images_is_not_given_out() {
    let config = LoaderConfig {
        order: Order::Sequential,
        max_broken_share: 0.5,
        ..config(4)
    };
    let dataset = misbehaving(12, |index| match index {
        4..8 => Err(broken(index)),
        _ => Ok(()),
    });
    let loader = Loader::new(dataset, config).unwrap();
    let numbers: Vec<usize> = batches(&loader, 0, 0)
        .iter()
        .map(|batch| batch.number)
        .collect();
    assert_eq!(numbers, [0, 2]);
}

#[test]
fn too_many_broken_images_end_the_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: String, content: &[u8]| std::fs::write(folder.path().join(name), content);
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(9, 9)
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    for n in 0..20 {
        write(format!("good{n}.png"), png.get_ref()).unwrap();
    }
    for n in 0..12 {
        write(format!("text{n:02}.jpg"), b"not a picture").unwrap();
    }
    write("empty.png".to_owned(), b"").unwrap();

    let dataset = Arc::new(FolderDataset::open(folder.path(), 3).unwrap());
    let loader = Loader::new(dataset, config(33)).unwrap();
    let mut epoch = loader.epoch(0, 0);
    let message = epoch.next().unwrap().unwrap_err().to_string();
    assert!(
        message.starts_with("13 of 33 images are broken"),
        "{message}"
    );
    assert!(
        message.contains("empty.png (the file is empty;"),
        "{message}"
    );
    assert!(message.ends_with("and 10 more"), "{message}");
    assert!(epoch.next().is_none());
    assert_eq!(loader.broken().len(), 13);
}

#[test]
fn a_panic_becomes_an_error_that_names_the_image() {
    let dataset = misbehaving(16, |index| {
        assert_ne!(index, 9, "nine is bad");
        Ok(())
    });
    let loader = Loader::new(dataset, config(16)).unwrap();
    let mut epoch = loader.epoch(0, 0);
    let message = epoch.next().unwrap().unwrap_err().to_string();
    assert!(
        message.starts_with("synthetic:9: the loader panicked"),
        "{message}"
    );
    assert!(message.contains("nine is bad"), "{message}");
    assert!(epoch.next().is_none());
}

#[test]
fn any_other_error_ends_the_epoch() {
    let dataset = misbehaving(16, |index| match index {
        3 => DataError::check_len("pixels", 1, 2),
        _ => Ok(()),
    });
    let loader = Loader::new(dataset, config(16)).unwrap();
    let error = loader.epoch(0, 0).next().unwrap().unwrap_err();
    assert!(matches!(error, DataError::Shape { .. }), "{error}");
    assert!(loader.broken().is_empty());
}

#[test]
fn dropping_an_epoch_stops_the_workers() {
    let read = Arc::new(AtomicUsize::new(0));
    let dataset = misbehaving(10_000, {
        let read = Arc::clone(&read);
        move |_| {
            read.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2));
            Ok(())
        }
    });
    // The second batch alone would take five seconds.
    let loader = Loader::new(dataset, config(5000)).unwrap();
    let begin = Instant::now();
    let epoch = loader.epoch(0, 0);
    std::thread::sleep(Duration::from_millis(50));
    drop(epoch);
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    let after_drop = read.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(read.load(Ordering::Relaxed), after_drop);
}

#[test]
fn bad_settings_are_refused_with_a_remedy() {
    let message = |change: fn(&mut LoaderConfig)| {
        let mut config = config(8);
        change(&mut config);
        Loader::new(scenes(20), config).err().unwrap().to_string()
    };
    assert_eq!(
        message(|config| config.batch_size = 32),
        "batch_size: expected at most 20, the number of images, found 32; lower batch_size, \
         add images, or keep the incomplete last batch (drop_last)"
    );
    assert!(message(|config| config.batch_size = 0).starts_with("batch_size: expected at least 1"));
    assert!(message(|config| config.mask_ratio = 1.0).starts_with("mask_ratio"));
    let cells = |config: &mut LoaderConfig| {
        config.sampler = MaskSampler::Grid;
        config.mask_ratio = 0.5;
    };
    assert!(message(cells).starts_with("mask_ratio: expected 0.75"));
    assert!(message(|config| config.max_broken_share = f64::NAN).starts_with("max_broken_share"));
    assert!(
        message(|config| config.transform.height = 20).starts_with("transform: expected the size")
    );
    let grey = |config: &mut LoaderConfig| config.grid = PatchGrid::new(16, 24, 4, 1).unwrap();
    assert!(message(grey).starts_with("channels"));
    let config = LoaderConfig {
        drop_last: false,
        ..config(32)
    };
    assert_eq!(
        batches(&Loader::new(scenes(20), config).unwrap(), 0, 0)[0].len(),
        20
    );
}

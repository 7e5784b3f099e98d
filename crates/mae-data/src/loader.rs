//! From a data set to masked batches, in a reproducible order, on several threads.

mod batch;
mod epoch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

pub use self::batch::MaskedBatch;
pub use self::epoch::Epoch;
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::mask::{MaskSampler, kept_patches};
use crate::patch::PatchGrid;
use crate::rng::{Rng, SampleKey, Stream};
use crate::transform::Transform;

/// The order in which an epoch visits the images.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A random order, another one in each epoch.
    Shuffled,
    /// The order of the data set.
    Sequential,
}

/// What a [`Loader`] does to a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderConfig {
    /// Images per batch.
    pub batch_size: usize,
    /// Threads that read and transform images; 0 for one per available core.
    pub workers: usize,
    /// Batches that may wait, ready, for the consumer; one more is being made meanwhile.
    pub prefetch: usize,
    /// Leaves out the last batch of an epoch if it would be smaller than the others.
    pub drop_last: bool,
    /// The order of the images.
    pub order: Order,
    /// The seed of order, augmentation and masks.
    pub seed: u64,
    /// The share of the images that may be broken, from 0 to 1, before an epoch fails.
    pub max_broken_share: f64,
    /// The share of the patches that is masked, between 0 and 1.
    pub mask_ratio: f64,
    /// How the masked patches are chosen.
    pub sampler: MaskSampler,
    /// What happens to an image before it is cut into patches.
    pub transform: Transform,
    /// How images are cut into patches; of the size that `transform` gives.
    pub grid: PatchGrid,
}

impl LoaderConfig {
    /// A config for training on images of the size of `grid`: batches of `batch_size`, shuffled,
    /// masked at random at ratio 0.75, from the centre of each image, seed 0, one worker per core,
    /// 2 batches ahead, the incomplete last batch left out, at most 1 % broken images.
    pub fn new(grid: PatchGrid, batch_size: usize) -> LoaderConfig {
        LoaderConfig {
            batch_size,
            workers: 0,
            prefetch: 2,
            drop_last: true,
            order: Order::Shuffled,
            seed: 0,
            max_broken_share: 0.01,
            mask_ratio: 0.75,
            sampler: MaskSampler::Random,
            transform: Transform::center_crop(grid.height(), grid.width()),
            grid,
        }
    }

    fn validate(&self, dataset: &dyn Dataset) -> Result<(), DataError> {
        self.transform.validate()?;
        kept_patches(self.grid.patches(), self.mask_ratio)?;
        let refuse = |key, expected: String, found: String, remedy: &str| {
            Err(DataError::Config {
                key,
                expected,
                found,
                remedy: remedy.to_owned(),
            })
        };
        let grid = (self.grid.height(), self.grid.width());
        let transform = (self.transform.height, self.transform.width);
        if transform != grid {
            return refuse(
                "transform",
                format!("the size of the grid, {} x {}", grid.0, grid.1),
                format!("{} x {}", transform.0, transform.1),
                "give both the same height and width",
            );
        }
        if dataset.channels() != self.grid.channels() {
            return refuse(
                "channels",
                format!("those of the grid, {}", self.grid.channels()),
                format!("a data set of {}", dataset.channels()),
                "open the data set with the channels of the grid",
            );
        }
        if !(0.0..=1.0).contains(&self.max_broken_share) {
            return refuse(
                "max_broken_share",
                "a number from 0 to 1".to_owned(),
                self.max_broken_share.to_string(),
                "0.01 accepts one broken image in a hundred",
            );
        }
        if self.batch_size == 0 {
            return refuse(
                "batch_size",
                "at least 1".to_owned(),
                "0".to_owned(),
                "give the number of images per batch",
            );
        }
        if self.batches(dataset.len()) == 0 {
            return refuse(
                "batch_size",
                format!("at most {}, the number of images", dataset.len()),
                self.batch_size.to_string(),
                "lower batch_size, add images, or keep the incomplete last batch (drop_last)",
            );
        }
        Ok(())
    }

    fn batches(&self, images: usize) -> usize {
        if self.drop_last {
            images / self.batch_size
        } else {
            images.div_ceil(self.batch_size)
        }
    }
}

/// Makes masked batches of a data set, epoch by epoch.
///
/// Which images a batch holds, and what becomes of each, depends on the seed, the epoch and the
/// place in it alone: not on the number of workers, nor on where in the epoch one starts.
///
/// # Broken images
/// An image that cannot be read is left out of its batch, which is then smaller; the images of the
/// other batches stay the same, and a batch without any whole image is not given out.
/// It is warned of once per loader, and listed by [`Loader::broken`].
/// Once more than `max_broken_share` of the data set is broken, the epoch ends with
/// [`DataError::TooManyBroken`].
pub struct Loader {
    source: Arc<Source>,
}

/// What the threads of a loader share.
struct Source {
    dataset: Arc<dyn Dataset>,
    config: LoaderConfig,
    pool: ThreadPool,
    broken: Broken,
}

impl Loader {
    /// A loader of `dataset`; starts the worker threads, which sleep until an epoch begins.
    ///
    /// # Errors
    /// [`DataError::Config`] if settings are out of range, contradict each other or the data set,
    /// or make no batch; [`DataError::Threads`] if the threads cannot be started.
    pub fn new(dataset: Arc<dyn Dataset>, config: LoaderConfig) -> Result<Loader, DataError> {
        config.validate(dataset.as_ref())?;
        let pool = ThreadPoolBuilder::new()
            .num_threads(config.workers)
            .thread_name(|worker| format!("mae-loader-{worker}"))
            .build()
            .map_err(|error| DataError::Threads {
                source: error.into(),
            })?;
        Ok(Loader {
            source: Arc::new(Source {
                dataset,
                config,
                pool,
                broken: Broken::default(),
            }),
        })
    }

    /// The number of batches of an epoch, those without any whole image included.
    pub fn batches_per_epoch(&self) -> usize {
        self.source.config.batches(self.source.dataset.len())
    }

    /// The batches of an epoch from number `first_batch` on.
    ///
    /// They equal the last ones of the epoch begun at 0, so a run can be resumed anywhere.
    /// Past the end of the epoch there are none.
    pub fn epoch(&self, epoch: u64, first_batch: usize) -> Epoch {
        Epoch::start(Arc::clone(&self.source), epoch, first_batch)
    }

    /// Name and reason of every broken image met so far, in data set order.
    pub fn broken(&self) -> Vec<(String, String)> {
        self.source.broken.list()
    }
}

impl Source {
    /// The images of an epoch in the order of the batches.
    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.dataset.len()).collect();
        match self.config.order {
            Order::Shuffled => {
                let key = SampleKey {
                    seed: self.config.seed,
                    epoch,
                    index: 0,
                };
                Rng::new(key, Stream::Order).shuffle(&mut order);
            }
            Order::Sequential => {}
        }
        order
    }

    fn check_broken(&self) -> Result<(), DataError> {
        const SHOWN: usize = 10;
        let broken = self.broken.lock().len();
        let len = self.dataset.len();
        let max_broken_share = self.config.max_broken_share;
        if broken as f64 <= max_broken_share * len as f64 {
            return Ok(());
        }
        let mut first = self.broken.list();
        first.truncate(SHOWN);
        Err(DataError::TooManyBroken {
            broken,
            len,
            max_broken_share,
            first,
        })
    }
}

/// Name and reason of each broken image, by index.
#[derive(Default)]
struct Broken(Mutex<BTreeMap<usize, (String, String)>>);

impl Broken {
    /// Remembers an image and warns of it, the first time only.
    fn report(&self, index: usize, name: String, reason: String) {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.lock().entry(index) {
            log::warn!("left out a broken image: {name}: {reason}");
            entry.insert((name, reason));
        }
    }

    fn list(&self) -> Vec<(String, String)> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, (String, String)>> {
        // The map is whole after a panic elsewhere: nothing panics halfway through an insertion.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

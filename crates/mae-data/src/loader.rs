//! From a data set to batches, in a reproducible order, on several threads.

mod batch;
mod epoch;
mod images;
mod masked;
mod recipe;
mod shard;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use self::batch::BrokenImage;
pub use self::epoch::Epoch;
pub use self::images::{ImageBatch, ImageLoaderConfig};
pub use self::masked::{LoaderConfig, MaskedBatch};
use self::recipe::{Batching, Recipe};
pub use self::shard::Shard;
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::rng::{Rng, SampleKey, Stream};

/// The order in which an epoch visits the images.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A random order, another one in each epoch.
    Shuffled,
    /// The order of the data set.
    Sequential,
}

/// Makes batches of a data set, epoch by epoch.
///
/// The config decides what kind of batch: [`LoaderConfig`] makes [`MaskedBatch`]es,
/// [`ImageLoaderConfig`] makes [`ImageBatch`]es.
///
/// Which images a batch holds, and what becomes of each, depends on the seed, the epoch and the
/// place in it alone: not on the number of workers, nor on where in the epoch one starts.
///
/// # Broken images
/// An image that cannot be read is left out of its batch, which is then smaller; the images of the
/// other batches stay the same, and a batch without any whole image is not given out, unless other
/// processes may have some of it.
/// It is warned of once per loader, and listed by [`Loader::broken`].
/// Once more than `max_broken_share` of the data set is broken, the epoch ends with
/// [`DataError::TooManyBroken`].
pub struct Loader<C = LoaderConfig> {
    source: Arc<Source<C>>,
}

/// A [`Loader`] of whole images, for evaluation and fine-tuning.
pub type ImageLoader = Loader<ImageLoaderConfig>;

/// What the threads of a loader share.
struct Source<C> {
    dataset: Arc<dyn Dataset>,
    recipe: C,
    batching: Batching,
    pool: ThreadPool,
    broken: Broken,
}

impl<C: Recipe> Loader<C> {
    /// A loader of `dataset`; starts the worker threads, which sleep until an epoch begins.
    ///
    /// # Errors
    /// [`DataError::Config`] if settings are out of range, contradict each other or the data set,
    /// or make no batch; [`DataError::Threads`] if the threads cannot be started.
    pub fn new(dataset: Arc<dyn Dataset>, config: C) -> Result<Loader<C>, DataError> {
        let batching = config.batching();
        config.validate(dataset.as_ref())?;
        batching.validate(dataset.len())?;
        let pool = ThreadPoolBuilder::new()
            .num_threads(batching.workers)
            .thread_name(|worker| format!("mae-loader-{worker}"))
            .build()
            .map_err(|error| DataError::Threads {
                source: error.into(),
            })?;
        Ok(Loader {
            source: Arc::new(Source {
                dataset,
                recipe: config,
                batching,
                pool,
                broken: Broken::default(),
            }),
        })
    }

    /// The number of batches of an epoch, those without any whole image included.
    pub fn batches_per_epoch(&self) -> usize {
        self.source.batching.batches(self.source.dataset.len())
    }

    /// The batches of an epoch from number `first_batch` on.
    ///
    /// They equal the last ones of the epoch begun at 0, so a run can be resumed anywhere.
    /// Past the end of the epoch there are none.
    pub fn epoch(&self, epoch: u64, first_batch: usize) -> Epoch<C::Batch> {
        Epoch::start(Arc::clone(&self.source), epoch, first_batch)
    }

    /// Name and reason of every broken image met so far, in data set order.
    pub fn broken(&self) -> Vec<(String, String)> {
        self.source.broken.list()
    }
}

impl<C> Source<C> {
    /// The images of an epoch in the order of the batches.
    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.dataset.len()).collect();
        match self.batching.order {
            Order::Shuffled => {
                let key = SampleKey {
                    seed: self.batching.seed,
                    epoch,
                    index: 0,
                };
                Rng::new(key, Stream::Order).shuffle(&mut order);
            }
            Order::Sequential => {}
        }
        order
    }

    /// Adds to the broken images; the error says that they are too many.
    fn report_broken(&self, images: Vec<BrokenImage>) -> Result<(), DataError> {
        const SHOWN: usize = 10;
        for image in images {
            self.broken.report(image.index, image.name, image.reason);
        }
        let broken = self.broken.lock().len();
        let len = self.dataset.len();
        let max_broken_share = self.batching.max_broken_share;
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

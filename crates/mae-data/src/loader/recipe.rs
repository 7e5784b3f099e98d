use super::{Order, Shard};
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::image::Image;
use crate::rng::SampleKey;
use crate::transform::Transform;

/// What a loader makes of the images of a batch: all that differs between kinds of batches.
///
/// Loaders need it of their config; the config types of this crate alone implement it.
pub trait Recipe: Send + Sync + 'static {
    /// The images of one step, ready for the device.
    type Batch: Send + 'static;
    /// Where one image of a batch goes.
    type Slot<'a>: Send;

    /// Which images a batch holds, and who makes it.
    fn batching(&self) -> Batching;

    /// Refuses settings that are out of range or do not fit the data set.
    fn validate(&self, dataset: &dyn Dataset) -> Result<(), DataError>;

    /// A batch of the right size whose slots are still to be filled.
    fn blank(
        &self,
        dataset: &dyn Dataset,
        number: usize,
        indices: &[usize],
    ) -> Result<Self::Batch, DataError>;

    /// One slot for each image of the batch.
    fn slots<'a>(&self, batch: &'a mut Self::Batch) -> Vec<Self::Slot<'a>>;

    /// What happens to an image first.
    fn transform(&self) -> &Transform;

    /// Brings a transformed image into its slot.
    fn fill(&self, image: &Image, key: SampleKey, slot: Self::Slot<'_>) -> Result<(), DataError>;

    /// Leaves out the images that are not wanted.
    fn keep(batch: &mut Self::Batch, is_wanted: &[bool]);

    /// Whether no image is left.
    fn is_empty(batch: &Self::Batch) -> bool;
}

/// The settings that all loaders share.
#[derive(Copy, Clone, Debug)]
pub struct Batching {
    pub(super) batch_size: usize,
    pub(super) workers: usize,
    pub(super) prefetch: usize,
    pub(super) drop_last: bool,
    pub(super) order: Order,
    pub(super) seed: u64,
    pub(super) max_broken_share: f64,
    pub(super) shard: Shard,
}

impl Batching {
    pub(super) fn validate(&self, images: usize) -> Result<(), DataError> {
        let refuse = |key, expected: String, found: String, remedy: &str| {
            Err(DataError::Config {
                key,
                expected,
                found,
                remedy: remedy.to_owned(),
            })
        };
        if !(0.0..=1.0).contains(&self.max_broken_share) {
            return refuse(
                "max_broken_share",
                "a number from 0 to 1".to_owned(),
                self.max_broken_share.to_string(),
                "0.01 accepts one broken image in a hundred",
            );
        }
        self.shard.validate()?;
        if self.batch_size == 0 {
            return refuse(
                "batch_size",
                "at least 1".to_owned(),
                "0".to_owned(),
                "give the number of images per batch",
            );
        }
        if self.batch_size < self.shard.size {
            return refuse(
                "batch_size",
                format!(
                    "at least {}, an image for each process, for it is of all processes together",
                    self.shard.size
                ),
                self.batch_size.to_string(),
                "raise batch_size, or start fewer processes",
            );
        }
        if self.batches(images) == 0 {
            return refuse(
                "batch_size",
                format!("at most {images}, the number of images"),
                self.batch_size.to_string(),
                "lower batch_size, add images, or keep the incomplete last batch (drop_last)",
            );
        }
        Ok(())
    }

    /// The number of batches of an epoch over `images` images.
    pub(super) fn batches(&self, images: usize) -> usize {
        if self.drop_last {
            images / self.batch_size
        } else {
            images.div_ceil(self.batch_size)
        }
    }
}

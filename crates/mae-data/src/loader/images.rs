use super::batch::{keep_pixels, keep_rows, labels};
use super::recipe::{Batching, Recipe};
use super::{Order, Shard};
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::image::Image;
use crate::pixels::{Pixels, PixelsMut};
use crate::rng::SampleKey;
use crate::transform::Transform;

/// What an [`ImageLoader`](super::ImageLoader) does to a data set to make batches of images.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageLoaderConfig {
    /// Images per batch, of all processes.
    pub batch_size: usize,
    /// Threads that read and transform images; 0 for one per available core.
    pub workers: usize,
    /// Batches that may wait, ready, for the consumer; two more, or as many as keep all workers
    /// busy, are being made meanwhile.
    pub prefetch: usize,
    /// Leaves out the last batch of an epoch if it would be smaller than the others.
    pub drop_last: bool,
    /// The order of the images.
    pub order: Order,
    /// The seed of order and augmentation.
    pub seed: u64,
    /// The share of the images that may be broken, from 0 to 1, before an epoch fails.
    pub max_broken_share: f64,
    /// The part of each batch that is made here, the others being made by other processes.
    pub shard: Shard,
    /// What happens to an image.
    pub transform: Transform,
}

impl ImageLoaderConfig {
    /// A config for evaluation on images that `transform` makes: batches of `batch_size`, every
    /// image once and in the order of the data set, seed 0, one worker per core, 2 batches ahead,
    /// at most 1 % broken images.
    pub fn new(transform: Transform, batch_size: usize) -> ImageLoaderConfig {
        ImageLoaderConfig {
            batch_size,
            workers: 0,
            prefetch: 2,
            drop_last: false,
            order: Order::Sequential,
            seed: 0,
            max_broken_share: 0.01,
            shard: Shard::default(),
            transform,
        }
    }
}

/// Whole images of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageBatch {
    /// The number of the batch in its epoch, from 0.
    pub number: usize,
    /// Pixels, `[batch, height, width, channels]`, of the data set's kind.
    pub pixels: Pixels,
    /// Index of each image in the data set, `[batch]`.
    pub indices: Vec<usize>,
    /// Class of each image, `[batch]`.
    pub labels: Vec<Option<u32>>,
}

impl ImageBatch {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

impl Recipe for ImageLoaderConfig {
    type Batch = ImageBatch;
    /// Pixels, `[height, width, channels]`.
    type Slot<'a> = PixelsMut<'a>;

    fn batching(&self) -> Batching {
        Batching {
            batch_size: self.batch_size,
            workers: self.workers,
            prefetch: self.prefetch,
            drop_last: self.drop_last,
            order: self.order,
            seed: self.seed,
            max_broken_share: self.max_broken_share,
            shard: self.shard,
        }
    }

    fn validate(&self, dataset: &dyn Dataset) -> Result<(), DataError> {
        self.transform
            .validate_for(dataset.channels(), dataset.kind())
    }

    fn blank(
        &self,
        dataset: &dyn Dataset,
        number: usize,
        indices: &[usize],
    ) -> Result<ImageBatch, DataError> {
        let image_len = self.transform.height * self.transform.width * dataset.channels();
        Ok(ImageBatch {
            number,
            pixels: Pixels::zeros(dataset.kind(), indices.len() * image_len),
            indices: indices.to_vec(),
            labels: labels(dataset, indices),
        })
    }

    fn slots<'a>(&self, batch: &'a mut ImageBatch) -> Vec<PixelsMut<'a>> {
        // Of no images there are no pixels, and any length does.
        let image_len = batch.pixels.len() / batch.indices.len().max(1);
        batch.pixels.chunks_exact_mut(image_len.max(1))
    }

    fn transform(&self) -> &Transform {
        &self.transform
    }

    fn fill(&self, image: &Image, _key: SampleKey, slot: PixelsMut) -> Result<(), DataError> {
        match (image.pixels(), slot) {
            (Pixels::U8(values), PixelsMut::U8(slot)) => copy(values, slot),
            (Pixels::F32(values), PixelsMut::F32(slot)) => copy(values, slot),
            _ => unreachable!("a transformed image is of the data set's kind"),
        }
    }

    fn keep(batch: &mut ImageBatch, is_wanted: &[bool]) {
        keep_pixels(&mut batch.pixels, is_wanted);
        keep_rows(&mut batch.indices, is_wanted);
        keep_rows(&mut batch.labels, is_wanted);
    }

    fn is_empty(batch: &ImageBatch) -> bool {
        batch.is_empty()
    }
}

fn copy<T: Copy>(values: &[T], slot: &mut [T]) -> Result<(), DataError> {
    DataError::check_len("image", slot.len(), values.len())?;
    slot.copy_from_slice(values);
    Ok(())
}

use super::batch::{keep_pixels, keep_rows, labels};
use super::recipe::{Batching, Recipe};
use super::{Order, Shard};
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::image::Image;
use crate::mask::MaskSampler;
use crate::patch::PatchGrid;
use crate::pixels::{Pixels, PixelsMut};
use crate::rng::SampleKey;
use crate::shuffle::patchify_shuffled_into;
use crate::transform::Transform;

/// What a [`Loader`](super::Loader) does to a data set to make masked batches.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderConfig {
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
    /// The seed of order, augmentation and masks.
    pub seed: u64,
    /// The share of the images that may be broken, from 0 to 1, before an epoch fails.
    pub max_broken_share: f64,
    /// The part of each batch that is made here, the others being made by other processes.
    pub shard: Shard,
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
            shard: Shard::default(),
            mask_ratio: 0.75,
            sampler: MaskSampler::Random,
            transform: Transform::center_crop(grid.height(), grid.width()),
            grid,
        }
    }
}

/// Images as patches, split into what the encoder sees and what the decoder must predict.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskedBatch {
    /// The number of the batch in its epoch, from 0.
    pub number: usize,
    /// Pixels of the visible patches, `[batch, kept, patch_dim]`, in the order of `ids_shuffle`; of the
    /// data set's kind.
    pub visible: Pixels,
    /// Pixels of the masked patches, `[batch, patches - kept, patch_dim]`, in the order of
    /// `ids_shuffle`; likewise.
    pub masked: Pixels,
    /// Patch numbers in shuffled order, `[batch, patches]`; the first `kept` of each row are
    /// visible.
    pub ids_shuffle: Vec<i64>,
    /// The number of visible patches per image.
    pub kept: usize,
    /// Index of each image in the data set, `[batch]`.
    pub indices: Vec<usize>,
    /// Class of each image, `[batch]`.
    pub labels: Vec<Option<u32>>,
}

impl MaskedBatch {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

/// Where one image of a masked batch goes.
pub struct MaskedSlot<'a> {
    visible: PixelsMut<'a>,
    masked: PixelsMut<'a>,
    ids_shuffle: &'a mut [i64],
}

impl Recipe for LoaderConfig {
    type Batch = MaskedBatch;
    type Slot<'a> = MaskedSlot<'a>;

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
        (self.transform).validate_for(dataset.channels(), dataset.kind())?;
        self.sampler.kept(&self.grid, self.mask_ratio)?;
        let grid = (self.grid.height(), self.grid.width());
        let transform = (self.transform.height, self.transform.width);
        if transform != grid {
            return Err(DataError::Config {
                key: "transform",
                expected: format!("the size of the grid, {} x {}", grid.0, grid.1),
                found: format!("{} x {}", transform.0, transform.1),
                remedy: "give both the same height and width".to_owned(),
            });
        }
        if dataset.channels() != self.grid.channels() {
            return Err(DataError::Config {
                key: "channels",
                expected: format!("those of the grid, {}", self.grid.channels()),
                found: format!("a data set of {}", dataset.channels()),
                remedy: "open the data set with the channels of the grid".to_owned(),
            });
        }
        Ok(())
    }

    fn blank(
        &self,
        dataset: &dyn Dataset,
        number: usize,
        indices: &[usize],
    ) -> Result<MaskedBatch, DataError> {
        let kept = self.sampler.kept(&self.grid, self.mask_ratio)?;
        let visible_len = kept * self.grid.patch_dim();
        let masked_len = self.grid.image_len() - visible_len;
        Ok(MaskedBatch {
            number,
            visible: Pixels::zeros(dataset.kind(), indices.len() * visible_len),
            masked: Pixels::zeros(dataset.kind(), indices.len() * masked_len),
            ids_shuffle: vec![0; indices.len() * self.grid.patches()],
            kept,
            indices: indices.to_vec(),
            labels: labels(dataset, indices),
        })
    }

    fn slots<'a>(&self, batch: &'a mut MaskedBatch) -> Vec<MaskedSlot<'a>> {
        let visible_len = batch.kept * self.grid.patch_dim();
        let masked_len = self.grid.image_len() - visible_len;
        (batch.visible.chunks_exact_mut(visible_len).into_iter())
            .zip(batch.masked.chunks_exact_mut(masked_len))
            .zip(batch.ids_shuffle.chunks_exact_mut(self.grid.patches()))
            .map(|((visible, masked), ids_shuffle)| MaskedSlot {
                visible,
                masked,
                ids_shuffle,
            })
            .collect()
    }

    fn transform(&self) -> &Transform {
        &self.transform
    }

    fn fill(&self, image: &Image, key: SampleKey, slot: MaskedSlot<'_>) -> Result<(), DataError> {
        let mask = self.sampler.sample(&self.grid, self.mask_ratio, key)?;
        match (image.pixels(), slot.visible, slot.masked) {
            (Pixels::U8(image), PixelsMut::U8(visible), PixelsMut::U8(masked)) => {
                patchify_shuffled_into(image, &self.grid, &mask, visible, masked)?;
            }
            (Pixels::F32(image), PixelsMut::F32(visible), PixelsMut::F32(masked)) => {
                patchify_shuffled_into(image, &self.grid, &mask, visible, masked)?;
            }
            _ => unreachable!("a transformed image is of the data set's kind"),
        }
        for (out, &id) in slot.ids_shuffle.iter_mut().zip(mask.ids_shuffle()) {
            *out = i64::from(id);
        }
        Ok(())
    }

    fn keep(batch: &mut MaskedBatch, is_wanted: &[bool]) {
        keep_pixels(&mut batch.visible, is_wanted);
        keep_pixels(&mut batch.masked, is_wanted);
        keep_rows(&mut batch.ids_shuffle, is_wanted);
        keep_rows(&mut batch.indices, is_wanted);
        keep_rows(&mut batch.labels, is_wanted);
    }

    fn is_empty(batch: &MaskedBatch) -> bool {
        batch.is_empty()
    }
}

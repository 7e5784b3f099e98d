use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::Source;
use crate::error::DataError;
use crate::mask::kept_patches;
use crate::rng::SampleKey;
use crate::shuffle::patchify_shuffled_into;

/// Images as patches, split into what the encoder sees and what the decoder must predict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedBatch {
    /// The number of the batch in its epoch, from 0.
    pub number: usize,
    /// Pixels of the visible patches, `[batch, kept, patch_dim]`, in the order of `ids_shuffle`.
    pub visible: Vec<u8>,
    /// Pixels of the masked patches, `[batch, patches - kept, patch_dim]`, in the order of
    /// `ids_shuffle`.
    pub masked: Vec<u8>,
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

/// What became of one image of a batch.
enum Outcome {
    Whole,
    Broken,
    /// The epoch was dropped before the image's turn came.
    Stopped,
}

/// Where one image of a batch goes.
struct Slot<'a> {
    visible: &'a mut [u8],
    masked: &'a mut [u8],
    ids_shuffle: &'a mut [i64],
}

impl Source {
    /// Makes a batch on the worker threads; `None` if the epoch was stopped meanwhile.
    pub(super) fn batch(
        &self,
        epoch: u64,
        number: usize,
        indices: &[usize],
        stop: &AtomicBool,
    ) -> Result<Option<MaskedBatch>, DataError> {
        let grid = &self.config.grid;
        let kept = kept_patches(grid.patches(), self.config.mask_ratio)?;
        let visible_len = kept * grid.patch_dim();
        let masked_len = grid.image_len() - visible_len;
        let mut batch = MaskedBatch {
            number,
            visible: vec![0; indices.len() * visible_len],
            masked: vec![0; indices.len() * masked_len],
            ids_shuffle: vec![0; indices.len() * grid.patches()],
            kept,
            indices: indices.to_vec(),
            labels: indices
                .iter()
                .map(|&index| self.dataset.label(index))
                .collect(),
        };
        let slots = (batch.visible.par_chunks_exact_mut(visible_len))
            .zip(batch.masked.par_chunks_exact_mut(masked_len))
            .zip(batch.ids_shuffle.par_chunks_exact_mut(grid.patches()))
            .zip(indices);
        let outcomes: Vec<Outcome> = self.pool.install(|| {
            slots
                // An image takes far longer than handing it over, and sizes differ widely.
                .with_max_len(1)
                .map(|(((visible, masked), ids_shuffle), &index)| {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(Outcome::Stopped);
                    }
                    let slot = Slot {
                        visible,
                        masked,
                        ids_shuffle,
                    };
                    self.fill_or_report(epoch, index, slot)
                })
                .collect::<Result<_, DataError>>()
        })?;
        if outcomes
            .iter()
            .any(|outcome| matches!(outcome, Outcome::Stopped))
        {
            return Ok(None);
        }
        let is_whole: Vec<bool> = outcomes
            .iter()
            .map(|outcome| matches!(outcome, Outcome::Whole))
            .collect();
        keep_rows(&mut batch.visible, visible_len, &is_whole);
        keep_rows(&mut batch.masked, masked_len, &is_whole);
        keep_rows(&mut batch.ids_shuffle, grid.patches(), &is_whole);
        keep_rows(&mut batch.indices, 1, &is_whole);
        keep_rows(&mut batch.labels, 1, &is_whole);
        Ok(Some(batch))
    }

    fn fill_or_report(
        &self,
        epoch: u64,
        index: usize,
        slot: Slot<'_>,
    ) -> Result<Outcome, DataError> {
        let filled = catch_unwind(AssertUnwindSafe(|| self.fill(epoch, index, slot)));
        let error = match filled {
            Ok(Ok(())) => return Ok(Outcome::Whole),
            Ok(Err(error)) => error,
            Err(panic) => DataError::Panic {
                name: self.dataset.name(index),
                message: panic_message(panic.as_ref()),
            },
        };
        match error {
            DataError::Image { name, reason } => self.broken.report(index, name, reason),
            DataError::Io { path, source } => {
                let name = path.display().to_string();
                self.broken.report(index, name, source.to_string());
            }
            error => return Err(error),
        }
        Ok(Outcome::Broken)
    }

    fn fill(&self, epoch: u64, index: usize, slot: Slot<'_>) -> Result<(), DataError> {
        let config = &self.config;
        let key = SampleKey {
            seed: config.seed,
            epoch,
            index: index as u64,
        };
        let image = config.transform.apply(self.dataset.image(index)?, key)?;
        let mask = config
            .sampler
            .sample(&config.grid, config.mask_ratio, key)?;
        patchify_shuffled_into(
            image.pixels(),
            &config.grid,
            &mask,
            slot.visible,
            slot.masked,
        )?;
        for (out, &id) in slot.ids_shuffle.iter_mut().zip(mask.ids_shuffle()) {
            *out = i64::from(id);
        }
        Ok(())
    }
}

/// Moves the wanted rows to the front and cuts off the rest.
fn keep_rows<T: Copy>(values: &mut Vec<T>, row_len: usize, is_wanted: &[bool]) {
    let mut kept = 0;
    for (row, &wanted) in is_wanted.iter().enumerate() {
        if wanted {
            if kept != row {
                values.copy_within(row * row_len..(row + 1) * row_len, kept * row_len);
            }
            kept += 1;
        }
    }
    values.truncate(kept * row_len);
}

/// What a panic said, if it said it in words.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message.clone()
    } else {
        "no message".to_owned()
    }
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::Source;
use super::recipe::Recipe;
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::pixels::Pixels;
use crate::rng::SampleKey;

/// A batch, and the images that it should have held.
pub(super) struct Made<B> {
    pub(super) batch: B,
    pub(super) broken: Vec<BrokenImage>,
}

/// An image that cannot be read.
pub(super) struct BrokenImage {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) reason: String,
}

/// What became of one image of a batch.
enum Outcome {
    Whole,
    Broken(BrokenImage),
    /// The epoch was dropped before the image's turn came.
    Stopped,
}

impl<C: Recipe> Source<C> {
    /// Makes a batch on the worker threads; `None` if the epoch was stopped meanwhile.
    pub(super) fn batch(
        &self,
        epoch: u64,
        number: usize,
        indices: &[usize],
        stop: &AtomicBool,
    ) -> Result<Option<Made<C::Batch>>, DataError> {
        let mut batch = self.recipe.blank(self.dataset.as_ref(), number, indices)?;
        let slots = self.recipe.slots(&mut batch);
        let outcomes: Vec<Outcome> = self.pool.install(|| {
            (slots.into_par_iter().zip(indices))
                // An image takes far longer than handing it over, and sizes differ widely.
                .with_max_len(1)
                .map(|(slot, &index)| {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(Outcome::Stopped);
                    }
                    self.fill_unless_broken(epoch, index, slot)
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
        C::keep(&mut batch, &is_whole);
        let broken = (outcomes.into_iter())
            .filter_map(|outcome| match outcome {
                Outcome::Broken(image) => Some(image),
                Outcome::Whole | Outcome::Stopped => None,
            })
            .collect();
        Ok(Some(Made { batch, broken }))
    }

    fn fill_unless_broken(
        &self,
        epoch: u64,
        index: usize,
        slot: C::Slot<'_>,
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
        let (name, reason) = match error {
            DataError::Image { name, reason } => (name, reason),
            DataError::Io { path, source } => (path.display().to_string(), source.to_string()),
            error => return Err(error),
        };
        Ok(Outcome::Broken(BrokenImage {
            index,
            name,
            reason,
        }))
    }

    fn fill(&self, epoch: u64, index: usize, slot: C::Slot<'_>) -> Result<(), DataError> {
        let key = SampleKey {
            seed: self.batching.seed,
            epoch,
            index: index as u64,
        };
        let image = (self.recipe.transform()).apply_content(self.dataset.as_ref(), index, key)?;
        self.recipe.fill(&image, key, slot)
    }
}

pub(super) fn labels(dataset: &dyn Dataset, indices: &[usize]) -> Vec<Option<u32>> {
    indices.iter().map(|&index| dataset.label(index)).collect()
}

/// As [`keep_rows`].
pub(super) fn keep_pixels(pixels: &mut Pixels, is_wanted: &[bool]) {
    match pixels {
        Pixels::U8(values) => keep_rows(values, is_wanted),
        Pixels::F32(values) => keep_rows(values, is_wanted),
    }
}

/// Moves the wanted rows to the front and cuts off the rest.
pub(super) fn keep_rows<T: Copy>(values: &mut Vec<T>, is_wanted: &[bool]) {
    if is_wanted.is_empty() {
        return;
    }
    let row_len = values.len() / is_wanted.len();
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

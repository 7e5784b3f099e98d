//! Every image of a data set to a row of numbers, in a file that grows and that an interruption does not spoil.

mod layout;
mod partial;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mae_data::{DataError, Dataset, ImageBatch, ImageLoader, Shard};
use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use crate::data::digest::{digest_of, hex};
use crate::eval::features::{BATCH, Extraction};
use crate::run::interrupt::Interrupt;
use crate::run::progress::Progress;

pub use layout::{Format, Layout};
pub use partial::{Identity, Partial, check_free};

/// The work of making rows of the images of a data set.
pub struct Rows<'a> {
    /// The images, a row each but for broken ones, in this order.
    pub dataset: &'a Arc<dyn Dataset>,
    /// How they are loaded and computed.
    pub extraction: Extraction<'a>,
    /// What is being done, for a person: one word.
    pub doing: &'a str,
    /// Whether it was asked to stop.
    pub interrupt: &'a Interrupt,
    /// What a person sees.
    pub progress: &'a Progress,
}

/// What the rows are of.
pub struct Made {
    /// The index of the image of each row.
    pub rows: Vec<usize>,
    /// Name and reason of each image that none is of.
    pub broken: Vec<(String, String)>,
}

impl Rows<'_> {
    /// Goes on with `partial` until all images are behind: a batch becomes what `row` makes of it, `[batch, ..]`.
    ///
    /// `None` after a signal; what is there is then noted.
    ///
    /// # Errors
    /// If too many images are broken, or all, or the file cannot be written.
    pub fn fill(
        &self,
        partial: &mut Partial,
        row: impl Fn(&ImageBatch) -> Result<Tensor>,
    ) -> Result<Option<Made>> {
        let made = self.go_on(partial, row);
        if made.is_err() && partial.is_empty() {
            // Nothing that could be gone on with.
            partial.discard()?;
        }
        made
    }

    fn go_on(
        &self,
        partial: &mut Partial,
        row: impl Fn(&ImageBatch) -> Result<Tensor>,
    ) -> Result<Option<Made>> {
        let (dataset, max_broken_share) = (self.dataset.as_ref(), self.extraction.max_broken_share);
        let loader = self.extraction.loader(self.dataset, Shard::default())?;
        let (first, count) = (partial.batches(), loader.batches_per_epoch());
        if first > 0 {
            self.progress.line(&format!(
                "going on where it stopped: {} of {} images are done",
                (first * BATCH).min(dataset.len()),
                dataset.len()
            ));
        }
        let bar = self.progress.start(first as u64, count as u64);
        let started = Instant::now();
        for batch in loader.epoch(0, first) {
            let batch = batch?;
            let numbers = row(&batch)?;
            let done = batch.number + 1;
            let broken = left_out(dataset, partial.batches()..done, &batch.indices, &loader);
            partial.append(&numbers, done, broken)?;
            check_broken(dataset, partial.broken(), max_broken_share)?;
            bar.advance_to(done as u64);
            let rate = ((done - first) * BATCH) as f64 / started.elapsed().as_secs_f64();
            let (doing, images) = (self.doing, dataset.len());
            bar.message(&format!("{doing} {images} images  {rate:.0} images/s"));
            if self.interrupt.signal().is_some() {
                partial.commit()?;
                return Ok(None);
            }
        }
        // Batches without any whole image do not arrive.
        let broken = left_out(dataset, partial.batches()..count, &[], &loader);
        partial.skip(count, broken);
        check_broken(dataset, partial.broken(), max_broken_share)?;
        let broken = (partial.broken().iter())
            .map(|(&index, reason)| (dataset.name(index), reason.clone()))
            .collect();
        let rows: Vec<usize> = (0..dataset.len())
            .filter(|index| !partial.broken().contains_key(index))
            .collect();
        ensure!(
            !rows.is_empty(),
            "no image of {} can be read",
            dataset.len()
        );
        partial.commit()?;
        Ok(Some(Made { rows, broken }))
    }
}

impl Identity {
    /// That of rows which a model makes of images; `settings` is all else that they depend on, in words.
    ///
    /// # Errors
    /// If `weights` cannot be read.
    pub fn new(
        what: &str,
        weights: &Path,
        dataset: &dyn Dataset,
        settings: &str,
        device: Device,
    ) -> Result<Self> {
        let device = match device {
            Device::Cuda(_) => "CUDA",
            _ => "the CPU",
        };
        Ok(Self {
            what: what.into(),
            weights: weights.display().to_string(),
            model: sha256_of(weights)?,
            images: digest_of(dataset),
            settings: format!("{settings} on {device}"),
        })
    }
}

/// The name of an image's class; empty where it has none.
pub fn class_of(dataset: &dyn Dataset, index: usize) -> &str {
    let label = dataset.label(index);
    let class = label.and_then(|label| dataset.classes().get(label as usize));
    class.map_or("", String::as_str)
}

/// Index and reason of the images of `batches` that are not among the `indices` that can be read.
fn left_out(
    dataset: &dyn Dataset,
    batches: Range<usize>,
    indices: &[usize],
    loader: &ImageLoader,
) -> Vec<(usize, String)> {
    let end = (batches.end * BATCH).min(dataset.len());
    let broken: Vec<usize> = (batches.start * BATCH..end)
        .filter(|index| indices.binary_search(index).is_err())
        .collect();
    if broken.is_empty() {
        return Vec::new();
    }
    let reasons: HashMap<String, String> = loader.broken().into_iter().collect();
    let reason = |index| {
        reasons
            .get(&dataset.name(index))
            .cloned()
            .unwrap_or_default()
    };
    (broken.into_iter().map(|index| (index, reason(index)))).collect()
}

/// Counts the broken images of before an interruption, which the loader does not know of.
fn check_broken(
    dataset: &dyn Dataset,
    broken: &BTreeMap<usize, String>,
    max_broken_share: f64,
) -> Result<()> {
    const SHOWN: usize = 10;
    if broken.len() as f64 <= max_broken_share * dataset.len() as f64 {
        return Ok(());
    }
    let first = (broken.iter().take(SHOWN))
        .map(|(&index, reason)| (dataset.name(index), reason.clone()))
        .collect();
    Err(DataError::TooManyBroken {
        broken: broken.len(),
        len: dataset.len(),
        max_broken_share,
        first,
    }
    .into())
}

/// As sha256sum prints it.
fn sha256_of(path: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file
            .read(&mut buffer)
            .with_context(|| format!("reading {}", path.display()))?
        {
            0 => return Ok(hex(&digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}

//! From a data set to the files.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mae_data::Shard;
use mae_data::{DataError, Dataset, ImageLoader};
use mae_model::EMBEDDINGS;
use sha2::{Digest, Sha256};
use tch::Device;

use super::Embedding;
use super::format::{Format, Layout};
use super::partial::{Identity, Partial};
use crate::data::digest::{digest_of, hex};
use crate::data::tell_of_images;
use crate::error::Error;
use crate::eval::features::BATCH;

/// What [`embed`] wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Images in the file.
    pub images: usize,
    /// What each became: see [`Embedding::shape`].
    pub shape: Vec<usize>,
    /// The file that says which image each row is.
    pub csv: PathBuf,
    /// Name and reason of each broken image, which is in neither file.
    pub broken: Vec<(String, String)>,
}

/// Writes what the encoder makes of every image of `dataset`, in its order, and beside it a CSV file with
/// `index,path,label` of each row: its place in `dataset`, its name, and the name of its class.
///
/// `out` ends in `.npy`, for one array `[images, ..]` of f32, or in `.safetensors`, for `features`, `indices` (i64) and,
/// if the images have any, `labels` (i64; -1 for an image without), with what they were made of as metadata.
///
/// The numbers go to `out` with `.partial` after it, and from time to time `.partial.json` notes how far they are whole:
/// called again, it goes on there, and the files become the same to the byte. `out` appears once it is complete.
/// `None` after a signal.
///
/// # Errors
/// If a file is there already and must not be replaced, what is unfinished was begun with another model, other images
/// or settings, too many images are broken, or files cannot be written.
pub fn embed(
    embedding: &Embedding,
    dataset: &Arc<dyn Dataset>,
    out: &Path,
) -> Result<Option<Summary>, Error> {
    Ok(write(embedding, dataset, out)?)
}

fn write(embedding: &Embedding, dataset: &Arc<dyn Dataset>, out: &Path) -> Result<Option<Summary>> {
    let format = Format::of(out)?;
    tell_of_images(&[dataset.as_ref()], &embedding.progress);
    let csv = out.with_extension("csv");
    let identity = embedding.identity(dataset.as_ref())?;
    let metadata = embedding.metadata(dataset.as_ref(), &identity);
    let layout = Layout::new(format, dataset.len(), embedding.shape(), &metadata);
    let mut partial = Partial::open(out, &csv, identity, layout, embedding.overwrite)?;

    let loader = embedding.extraction().loader(dataset, Shard::default())?;
    let (first, count) = (partial.batches(), loader.batches_per_epoch());
    let bar = embedding.progress.start(first as u64, count as u64);
    let started = Instant::now();
    for batch in loader.epoch(0, first) {
        let batch = batch?;
        let features = embedding.encode(&batch)?;
        let done = batch.number + 1;
        let broken = left_out(
            dataset.as_ref(),
            partial.batches()..done,
            &batch.indices,
            &loader,
        );
        partial.append(&features, done, broken)?;
        check_broken(
            dataset.as_ref(),
            partial.broken(),
            embedding.max_broken_share,
        )?;
        bar.advance_to(done as u64);
        let rate = ((done - first) * BATCH) as f64 / started.elapsed().as_secs_f64();
        let images = dataset.len();
        bar.message(&format!("embedding {images} images  {rate:.0} images/s"));
        if embedding.interrupt.signal().is_some() {
            partial.commit()?;
            return Ok(None);
        }
    }
    // Batches without any whole image do not arrive.
    let broken = left_out(dataset.as_ref(), partial.batches()..count, &[], &loader);
    partial.skip(count, broken);
    check_broken(
        dataset.as_ref(),
        partial.broken(),
        embedding.max_broken_share,
    )?;
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
    let labels = (!dataset.classes().is_empty()).then(|| {
        let label = |&index: &usize| dataset.label(index).map_or(-1, i64::from);
        rows.iter().map(label).collect::<Vec<i64>>()
    });
    mae_report::write_atomic_with(&csv, |path| write_csv(path, dataset.as_ref(), &rows))?;
    partial.finish(&rows, labels.as_deref())?;
    Ok(Some(Summary {
        images: rows.len(),
        shape: embedding.shape(),
        csv,
        broken,
    }))
}

impl Embedding {
    /// What must be the same for two halves to make a whole.
    fn identity(&self, dataset: &dyn Dataset) -> Result<Identity> {
        let device = match self.model.device() {
            Device::Cuda(_) => "CUDA",
            _ => "the CPU",
        };
        Ok(Identity {
            weights: self.weights.display().to_string(),
            model: sha256_of(&self.weights)?,
            images: digest_of(dataset),
            settings: format!(
                "tokens {}, in {} on {device}",
                self.tokens,
                self.precision.name()
            ),
        })
    }

    /// What a `.safetensors` says of itself.
    fn metadata(&self, dataset: &dyn Dataset, identity: &Identity) -> BTreeMap<String, String> {
        let json = |value: serde_json::Result<String>| value.expect("plain values");
        let model = &self.model;
        let entries = [
            (EMBEDDINGS, identity.model.clone()),
            ("tokens", self.tokens.to_string()),
            ("precision", self.precision.name().to_string()),
            (
                "config",
                json(serde_json::to_string(&model.config().encoder)),
            ),
            (
                "normalization",
                json(serde_json::to_string(model.normalization())),
            ),
            ("classes", json(serde_json::to_string(dataset.classes()))),
        ];
        entries.map(|(key, value)| (key.to_string(), value)).into()
    }
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

fn write_csv(path: &Path, dataset: &dyn Dataset, rows: &[usize]) -> io::Result<()> {
    let mut csv = csv::Writer::from_path(path)?;
    csv.write_record(["index", "path", "label"])?;
    for &index in rows {
        let label = dataset.label(index);
        let class = label.and_then(|label| dataset.classes().get(label as usize));
        let class = class.map_or("", String::as_str);
        csv.write_record([&index.to_string(), &dataset.name(index), class])?;
    }
    csv.flush()
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

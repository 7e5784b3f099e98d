//! From a data set to the files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use mae_data::Dataset;
use mae_model::EMBEDDINGS;

use super::Embedding;
use crate::data::tell_of_images;
use crate::error::Error;
use crate::rows::{Format, Identity, Layout, Made, Partial, Rows, class_of};

/// What [`embed`] wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Images in the file.
    pub images: usize,
    /// What each became: see [`Embedding::shape`].
    pub shape: Vec<usize>,
    /// The index in the data set of the image of each row.
    pub rows: Vec<usize>,
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

    let work = Rows {
        dataset,
        extraction: embedding.extraction(),
        doing: "embedding",
        interrupt: &embedding.interrupt,
        progress: &embedding.progress,
    };
    let Some(Made { rows, broken }) = work.fill(&mut partial, |batch| embedding.encode(batch))?
    else {
        return Ok(None);
    };
    let labels = (!dataset.classes().is_empty()).then(|| {
        let label = |&index: &usize| dataset.label(index).map_or(-1, i64::from);
        rows.iter().map(label).collect::<Vec<i64>>()
    });
    mae_report::write_atomic_with(&csv, |path| write_csv(path, dataset.as_ref(), &rows))?;
    partial.finish(&rows, labels.as_deref(), None)?;
    Ok(Some(Summary {
        images: rows.len(),
        shape: embedding.shape(),
        rows,
        csv,
        broken,
    }))
}

impl Embedding {
    /// What must be the same for two halves to make a whole.
    fn identity(&self, dataset: &dyn Dataset) -> Result<Identity> {
        let settings = format!("tokens {}, in {}", self.tokens, self.precision.name());
        Identity::new(
            "embedding",
            &self.weights,
            dataset,
            &settings,
            self.model.device(),
        )
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

fn write_csv(path: &Path, dataset: &dyn Dataset, rows: &[usize]) -> io::Result<()> {
    let mut csv = csv::Writer::from_path(path)?;
    csv.write_record(["index", "path", "label"])?;
    for &index in rows {
        let name = dataset.name(index);
        csv.write_record([&index.to_string(), &name, class_of(dataset, index)])?;
    }
    csv.flush()
}

//! What a file or folder is, and what is in it: weights, runs, evaluations, images.

mod images;
mod lines;
mod model;
mod run;
mod sheet;
mod tensors;
mod weights;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use mae_data::{Nodata, PackedDataset};
use mae_model::formats::has_weights;
use serde::Serialize;

use crate::config::DataSource;
use crate::eval::report::Report;
use crate::eval::{CLASSIFIER, SETTINGS};
use crate::run::checkpoint::find_model;
use crate::run::folder::RunDir;
use crate::run::progress::Progress;
use crate::run::shell;

pub use images::{Broken, Class, Images, Sizes};
pub use model::{Embeddings, Model};
pub use run::{Accuracy, Checkpoint, History, Run};
pub use sheet::contact_sheet;
pub use tensors::Group;
pub use weights::{Parameters, Weights};

/// What something is, and what is in it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Inspection {
    /// A file of weights.
    Weights(Box<Weights>),
    /// The folder of a run.
    Run(Box<Run>),
    /// The folder of an evaluation.
    Evaluation(Box<Report>),
    /// Images.
    Images(Box<Images>),
}

/// Looks at what is at `path`; of images, read with `channels` or as many as the first one has and without values
/// that `nodata` names, at `sample` random ones, or at all.
///
/// # Errors
/// If there is nothing, or it is none of what is known, or damaged so far that nothing can be said of it.
pub fn inspect(
    path: &Path,
    channels: Option<usize>,
    nodata: Nodata,
    sample: Option<usize>,
    progress: &Progress,
) -> Result<Inspection> {
    // Braces may stand for several tar files.
    let is_there = path.exists() || DataSource::of(path) == DataSource::Tar;
    ensure!(
        is_there,
        "{}: there is no such file or folder; give weights, the folder of a run or of an evaluation, or images",
        path.display()
    );
    if path.is_dir() {
        if path.join("eval.json").exists() {
            return Ok(Inspection::Evaluation(Box::new(read_report(path)?)));
        }
        ensure!(
            !path.join(SETTINGS).exists(),
            "{}: an evaluation that has no results yet; go on with: mae-train eval --resume --out {}",
            path.display(),
            shell::word(path)
        );
        if path.join("config.toml").exists() && is_run(path) {
            return Ok(Inspection::Run(Box::new(Run::read(path)?)));
        }
        if path.join("model.safetensors").exists() {
            let weights = Weights::read(&find_model(path)?)?;
            return Ok(Inspection::Weights(Box::new(weights)));
        }
        if path.join(CLASSIFIER).exists() {
            let weights = Weights::read(&path.join(CLASSIFIER))?;
            return Ok(Inspection::Weights(Box::new(weights)));
        }
        if has_weights(path) {
            let weights = Weights::of_others(path)?;
            return Ok(Inspection::Weights(Box::new(weights)));
        }
    } else if is_weights(path)? {
        return Ok(Inspection::Weights(Box::new(Weights::read(path)?)));
    }
    let images = Images::survey(path, channels, nodata, sample, progress)?;
    if let ([broken], true) = (&images.broken[..], images.is_one_file()) {
        bail!(
            "{}: neither weights nor packed images nor an image: {}",
            path.display(),
            broken.reason
        );
    }
    Ok(Inspection::Images(Box::new(images)))
}

impl Inspection {
    /// The facts as lines to read.
    pub fn text(&self) -> String {
        match self {
            Self::Weights(weights) => weights.text(),
            Self::Run(run) => run.text(),
            Self::Evaluation(report) => {
                format!(
                    "an evaluation of {}\n{}\n",
                    report.checkpoint,
                    report.table()
                )
            }
            Self::Images(images) => images.text(),
        }
    }
}

fn read_report(folder: &Path) -> Result<Report> {
    let path = folder.join("eval.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is no report of an evaluation", path.display()))
}

fn is_run(path: &Path) -> bool {
    RunDir::checkpoints_of(path).exists() || path.join("metrics.jsonl").exists()
}

/// Whether a file is one of weights, this project's or another's, by its name or its content.
fn is_weights(path: &Path) -> Result<bool> {
    if !path.is_file() || DataSource::of(path) == DataSource::Tar {
        return Ok(false);
    }
    let reading = || format!("reading {}", path.display());
    if PackedDataset::is_packed(path).with_context(reading)? {
        return Ok(false);
    }
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    // Arrays, which are zip archives as files of torch.save are.
    if extension.eq_ignore_ascii_case("npz") {
        return Ok(false);
    }
    if ["safetensors", "pth", "pt", "ckpt", "bin"].contains(&&*extension.to_lowercase()) {
        return Ok(true);
    }
    let mut start = Vec::new();
    let file = File::open(path).with_context(reading)?;
    file.take(9).read_to_end(&mut start).with_context(reading)?;
    // The length of a header, and the header, which is JSON.
    Ok(weights::is_pickle(&start) || start.get(8) == Some(&b'{'))
}

//! What ablations found: a page and a text to read, and lines to compute with.
//!
//! [`table`] and [`findings`] turn runs into cells and sentences once, [`page`] adds charts and pictures, and [`html`] and
//! [`markdown`] show the same page.

mod findings;
mod html;
mod lines;
mod markdown;
mod page;
mod statistics;
mod table;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use mae_report::write_atomic;
use serde::{Deserialize, Serialize};

/// All that a report shows; words are plain text, without markup.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub title: String,
    /// The exact command that made it.
    pub command: String,
    /// What it ran on, in words.
    pub machine: String,
    /// The code's version.
    pub revision: String,
    /// The configuration that all values begin from, TOML.
    pub base_config: String,
    /// What a reader should know first, a sentence or more each.
    pub notes: Vec<String>,
    pub studies: Vec<StudyReport>,
}

/// One setting, varied.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyReport {
    /// As on the command line: `mask-ratio`.
    pub name: String,
    /// The letter of the paper's table 1.
    pub panel: Option<char>,
    pub title: String,
    /// What it varies and why, one sentence.
    pub question: String,
    /// What stands along the chart's axis: `mask ratio, %`.
    pub axis: String,
    /// Whether the values are numbers in order (a line), not names (bars).
    pub numeric: bool,
    /// How the paper's values were scaled to this model, if they were.
    pub rule: Option<String>,
    /// Whether the pre-training losses of two values measure the same.
    pub loss_comparable: bool,
    /// The index of the value that times and costs are relative to.
    pub reference: usize,
    /// Where the values' paper numbers are from: `ViT-L/16 on ImageNet-1K, 800 epochs; table 1a`.
    pub paper: Option<String>,
    pub values: Vec<ValueReport>,
}

/// One value of a setting.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueReport {
    pub label: String,
    pub number: Option<f64>,
    /// What is set beside the base configuration, as for `--set`.
    pub settings: Vec<String>,
    /// The paper's top-1 accuracy in percent, by `linear` and `finetune`.
    pub paper: BTreeMap<String, f64>,
    /// One a seed, the unfinished ones too.
    pub runs: Vec<RunReport>,
    /// The exact command of its first seed.
    pub command: String,
    /// Its complete configuration, TOML.
    pub config: String,
    /// The reconstructions of its first seed: a PNG as mae-train draws it.
    pub picture: Option<PathBuf>,
}

/// One seed of a value: a pre-training and what it was judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    pub seed: u64,
    pub folder: PathBuf,
    pub outcome: Outcome,
    /// Top-1 accuracy, 0 to 1, by protocol as in `eval.json`: `knn k=20`, `linear`.
    pub scores: BTreeMap<String, f64>,
    /// The mean pre-training loss of the last epoch.
    pub loss: Option<f64>,
    /// Wall-clock time of the pre-training, seconds.
    pub pretrain_s: Option<f64>,
    /// Wall-clock time of the evaluation, seconds.
    pub eval_s: Option<f64>,
    /// Images that pre-training takes in a second.
    pub images_per_s: Option<f64>,
    /// Floating-point operations of a training step, for each image.
    pub flops_per_image: Option<u64>,
}

/// How far a run came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Finished,
    /// With the reason.
    Failed(String),
    /// Not begun, or interrupted.
    Unfinished,
}

/// Writes `report.html`, `report.md`, `results.jsonl`, `charts/` and `pictures/` into `folder`.
///
/// Each file is replaced as a whole, so a report can be written anew after each run and read meanwhile.
///
/// # Errors
/// If a file cannot be written.
pub fn write(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let page = page::Page::draw(report, folder)?;
    for (name, text) in [
        ("results.jsonl", lines::render(report)?),
        ("report.md", markdown::render(&page)),
        ("report.html", html::render(&page)),
    ] {
        write_atomic(&folder.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// How to read the numbers, a sentence or two each.
const READING: [&str; 3] = [
    "A score is the mean over seeds ± half its 95 % confidence interval (Student's t); a value of one seed has no \
     interval. Intervals hold the chance of the seed, not that of the choice of images.",
    "A score is bold if its interval overlaps that of no other value of the study.",
    "The paper's numbers are of another model and other images: compare the order of values, not the numbers.",
];

impl Report {
    /// Those of [`READING`] that are of something in it.
    fn reading(&self) -> &'static [&'static str] {
        let has_papers_numbers = self.studies.iter().any(|study| study.paper.is_some());
        &READING[..READING.len() - usize::from(!has_papers_numbers)]
    }
}

/// What a row of a picture shows.
const TILES: &str = "First seed, images that a run shows at its end, from left to right: the original, \
    what the encoder sees, the prediction, and the prediction with the visible patches. \
    Predictions of normalised patches are shown with the mean and deviation of the true ones.";

#[cfg(test)]
mod tests;

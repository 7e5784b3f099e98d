//! The results of an evaluation: a table for people, JSON for programs, confusion matrices for the eye.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use mae_report::{Confusion, confusion_svg, write_atomic};
use serde::{Deserialize, Serialize};

use super::config::EvalConfig;
use super::score::Score;
use super::spectrum::Spectra;
use super::{Protocol, Start};

/// What `eval.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The weights that were judged.
    pub checkpoint: String,
    /// How they were judged.
    pub config: EvalConfig,
    /// Images that heads were trained on.
    pub train_images: usize,
    /// Images that they were judged by.
    pub val_images: usize,
    /// The classes, in label order.
    pub classes: Vec<String>,
    /// One for each protocol and start.
    pub rows: Vec<Row>,
    /// What `spectrum` found, one for each start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlabelled: Vec<Unlabelled>,
}

/// The result of one protocol from one start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The protocol, with the number of neighbours or blocks.
    pub protocol: String,
    /// `pre-trained` or `random`.
    pub start: String,
    /// Share of the images whose class came first, 0 to 1.
    pub top1: f64,
    /// Share of the images whose class was among the first five, 0 to 1.
    pub top5: f64,
    /// Wall-clock time, with the extraction of features where it was the first to need them.
    pub seconds: f64,
    /// Images of each class by the class that they were taken for.
    pub confusion: Confusion,
}

/// What can be said of an encoder without labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unlabelled {
    /// `pre-trained` or `random`.
    pub start: String,
    /// Of the images to learn from.
    pub spectra: Spectra,
    /// Mean loss of the validation images, partly hidden; `None` without a decoder.
    pub val_loss: Option<f64>,
    /// Wall-clock time.
    pub seconds: f64,
}

impl Report {
    /// Takes over what is in the report at `path`, if there is one, for a resumed evaluation to add to.
    ///
    /// # Errors
    /// If it is not readable, or of other weights, images or settings.
    pub fn go_on_from(&mut self, path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let found: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no report of an evaluation", path.display()))?;
        let is_same = [
            ("checkpoint", self.checkpoint == found.checkpoint),
            ("config", self.config.continues(&found.config)),
            ("train_images", self.train_images == found.train_images),
            ("val_images", self.val_images == found.val_images),
            // There are none until a protocol needs them.
            (
                "classes",
                found.classes.is_empty()
                    || self.classes.is_empty()
                    || self.classes == found.classes,
            ),
        ];
        let others: Vec<&str> = is_same
            .into_iter()
            .filter_map(|(key, same)| (!same).then_some(key))
            .collect();
        ensure!(
            others.is_empty(),
            "{} is of another {}: repeat the command that began it with --resume, or give another --out",
            path.display(),
            others.join(" and ")
        );
        if self.classes.is_empty() {
            self.classes = found.classes;
        }
        (self.rows, self.unlabelled) = (found.rows, found.unlabelled);
        Ok(())
    }

    /// Protocol and start of all that is there.
    pub(super) fn finished(&self) -> Vec<(String, String)> {
        let rows = self
            .rows
            .iter()
            .map(|row| (row.protocol.clone(), row.start.clone()));
        let spectrum = Protocol::Spectrum.to_string();
        let unlabelled =
            (self.unlabelled.iter()).map(|found| (spectrum.clone(), found.start.clone()));
        rows.chain(unlabelled).collect()
    }

    /// The names of the rows that a protocol makes.
    pub(super) fn names(&self, protocol: &Protocol) -> Vec<String> {
        match protocol {
            Protocol::Knn => (self.config.knn.k.iter())
                .map(|k| format!("knn k={k}"))
                .collect(),
            _ => vec![protocol.to_string()],
        }
    }

    /// Adds a row, in place of an earlier one of the same protocol and start.
    pub fn put(&mut self, row: Row) {
        let is_same = |old: &&mut Row| old.protocol == row.protocol && old.start == row.start;
        match self.rows.iter_mut().find(is_same) {
            Some(old) => *old = row,
            None => self.rows.push(row),
        }
    }

    /// Adds what `spectrum` found, in place of an earlier finding of the same start.
    pub fn put_unlabelled(&mut self, found: Unlabelled) {
        self.unlabelled.retain(|old| old.start != found.start);
        self.unlabelled.push(found);
    }

    /// The tables, ready to be printed.
    pub fn table(&self) -> String {
        let mut tables = Vec::new();
        if !self.rows.is_empty() {
            tables.push(self.table_of_rows());
        }
        tables.extend(self.unlabelled.iter().map(Unlabelled::table));
        tables.join("\n\n")
    }

    /// The table of accuracies: protocols as rows; where there are two starts, side by side.
    fn table_of_rows(&self) -> String {
        let starts: Vec<&str> = [Start::Pretrained.name(), Start::Random.name()]
            .into_iter()
            .filter(|start| self.rows.iter().any(|row| row.start == *start))
            .collect();
        let mut protocols: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !protocols.contains(&row.protocol.as_str()) {
                protocols.push(&row.protocol);
            }
        }
        let mut table = format!(
            "{} training images, {} validation images, {} classes\n\n{:14}",
            self.train_images,
            self.val_images,
            self.classes.len(),
            "protocol"
        );
        // Writing to a string cannot fail.
        for start in &starts {
            let _ = write!(table, "  {start}: top-1 %  top-5 %     time");
        }
        for protocol in protocols {
            let _ = write!(table, "\n{protocol:14}");
            for start in &starts {
                let width = start.len() + 9;
                let row =
                    (self.rows.iter()).find(|row| row.protocol == protocol && row.start == *start);
                let Some(row) = row else {
                    let _ = write!(table, "  {:>width$}  {:>7}  {:>7}", "-", "-", "-");
                    continue;
                };
                // Five of five classes are always right.
                let top5 = match self.classes.len() {
                    0..=5 => "-".to_string(),
                    _ => format!("{:.2}", 100.0 * row.top5),
                };
                let _ = write!(
                    table,
                    "  {:>width$.2}  {top5:>7}  {:>7}",
                    100.0 * row.top1,
                    format!("{:.1} s", row.seconds)
                );
            }
        }
        let judged = self.rows.iter().map(|row| row.confusion.images()).min();
        match judged.map_or(0, |judged| (self.val_images as u64).saturating_sub(judged)) {
            0 => {}
            1 => table += "\n\n1 validation image is broken and was not judged",
            broken => {
                let _ = write!(
                    table,
                    "\n\n{broken} validation images are broken and were not judged"
                );
            }
        }
        table
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        write_atomic(path, &json)?;
        Ok(())
    }

    /// Draws which classes one protocol took for which.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn draw_confusion(
        &self,
        folder: &Path,
        protocol: &str,
        start: Start,
        score: &Score,
    ) -> Result<()> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("creating {}", folder.display()))?;
        let name = match protocol.strip_prefix("knn k=") {
            Some(k) => format!("confusion-k{k}.svg"),
            None => "confusion.svg".into(),
        };
        let title = format!(
            "{protocol}, {} encoder: {:.2} % top-1",
            start.name(),
            100.0 * score.top1
        );
        confusion_svg(&folder.join(name), &self.classes, &score.confusion, &title)?;
        Ok(())
    }
}

impl Unlabelled {
    /// The measures as rows, tokens as columns.
    fn table(&self) -> String {
        let Spectra {
            images,
            class_token,
            mean_patch,
        } = &self.spectra;
        let mut table = format!(
            "without labels, {} encoder, {images} images, {:.1} s\n\n{:14}  {:>11}  {:>15}",
            self.start, self.seconds, "measure", "class token", "mean of patches"
        );
        let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
        for (name, [class_token, mean_patch]) in [
            (
                "RankMe",
                [class_token, mean_patch].map(|found| Some(found.rank_me)),
            ),
            (
                "effective rank",
                [class_token, mean_patch].map(|found| Some(found.effective_rank)),
            ),
            (
                "alpha-ReQ",
                [class_token, mean_patch].map(|found| found.alpha),
            ),
            ("LiDAR", [class_token, mean_patch].map(|found| found.lidar)),
        ] {
            table += &format!(
                "\n{name:14}  {:>11}  {:>15}",
                number(class_token),
                number(mean_patch)
            );
        }
        if let Some(loss) = self.val_loss {
            table += &format!("\n\nloss of the validation images, partly hidden: {loss:.4}");
        }
        table
    }
}

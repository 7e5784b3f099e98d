//! The results of an evaluation: a table for people, JSON for programs, confusion matrices for the eye.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use mae_report::{confusion_svg, write_atomic};
use serde::{Deserialize, Serialize};

use super::Start;
use super::config::EvalConfig;
use super::score::Score;

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
    /// Images of each class (row) by what they were taken for (column).
    pub confusion: Vec<Vec<u32>>,
}

impl Report {
    /// The table, ready to be printed: protocols as rows; where there are two starts, side by side.
    pub fn table(&self) -> String {
        let of = |start: Start| {
            let rows = self.rows.iter().filter(|row| row.start == start.name());
            rows.collect::<Vec<_>>()
        };
        let (pretrained, random) = (of(Start::Pretrained), of(Start::Random));
        let columns: Vec<(&str, &Vec<&Row>)> = [
            (Start::Pretrained.name(), &pretrained),
            (Start::Random.name(), &random),
        ]
        .into_iter()
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
        let mut table = format!(
            "{} training images, {} validation images, {} classes\n\n{:14}",
            self.train_images,
            self.val_images,
            self.classes.len(),
            "protocol"
        );
        // Writing to a string cannot fail.
        for (start, _) in &columns {
            let _ = write!(
                table,
                "  {:>28}",
                format!("{start}: top-1 %  top-5 %     time")
            );
        }
        let Some((_, first)) = columns.first() else {
            return table;
        };
        for (i, row) in first.iter().enumerate() {
            let _ = write!(table, "\n{:14}", row.protocol);
            for (start, rows) in &columns {
                let Some(row) = rows.get(i) else { continue };
                // Five of five classes are always right.
                let top5 = match self.classes.len() {
                    0..=5 => "-".to_string(),
                    _ => format!("{:.2}", 100.0 * row.top5),
                };
                let width = start.len() + 9;
                let _ = write!(
                    table,
                    "  {:>width$.2}  {top5:>7}  {:>7}",
                    100.0 * row.top1,
                    format!("{:.1} s", row.seconds)
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

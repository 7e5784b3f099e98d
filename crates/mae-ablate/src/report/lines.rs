//! `results.jsonl`: a line a run.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Report, RunReport};

/// A run with what was varied: all that the report shows can be computed from these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub study: String,
    /// The letter of the paper's table 1.
    pub panel: Option<char>,
    pub value: String,
    pub number: Option<f64>,
    pub settings: Vec<String>,
    /// The paper's top-1 accuracy in percent: the value's, so each of its runs has the same.
    pub paper: BTreeMap<String, f64>,
    #[serde(flatten)]
    pub run: RunReport,
}

/// The text of the file.
pub fn render(report: &Report) -> Result<String> {
    let mut text = String::new();
    for study in &report.studies {
        for value in &study.values {
            for run in &value.runs {
                let line = Line {
                    study: study.name.clone(),
                    panel: study.panel,
                    value: value.label.clone(),
                    number: value.number,
                    settings: value.settings.clone(),
                    paper: value.paper.clone(),
                    run: run.clone(),
                };
                text += &serde_json::to_string(&line)?;
                text.push('\n');
            }
        }
    }
    Ok(text)
}

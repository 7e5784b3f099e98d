//! A study in a table.

use std::collections::BTreeSet;

use super::{
    Outcome, Report, RunReport, StudyReport, ValueReport,
    statistics::{Estimate, Order},
};

/// A table, the same for every way to show it.
#[derive(Debug, PartialEq)]
pub struct Table {
    pub columns: Vec<Column>,
    /// A cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

#[derive(Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Name,
    Measured,
    /// The paper's, not measured here.
    Paper,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    pub text: String,
    /// Higher than all others by more than the intervals.
    pub clear: bool,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, clear: false }
    }
}

impl Table {
    /// A row for each value of `study`.
    pub fn of(study: &StudyReport) -> Self {
        let mut table = Self {
            columns: Vec::new(),
            rows: vec![Vec::new(); study.values.len()],
        };
        let cells = |cell: fn(&ValueReport) -> String| {
            study
                .values
                .iter()
                .map(|value| cell(value).into())
                .collect()
        };
        let name = study.axis.clone();
        table.push(name, Kind::Name, cells(|value| value.label.clone()));
        table.push("seeds".into(), Kind::Name, cells(seeds));

        for protocol in protocols(study) {
            let estimates = scores(study, &protocol);
            let order = Order::of(&estimates);
            let clear = order.and_then(|order| order.clear());
            let cells = estimates.iter().enumerate().map(|(index, estimate)| Cell {
                text: estimate.map_or_else(missing, percent),
                clear: clear == Some(index),
            });
            table.push(format!("{protocol}, %"), Kind::Measured, cells.collect());
        }
        for protocol in PAPER {
            let numbers = study.values.iter().map(|value| value.paper.get(protocol));
            if numbers.clone().any(|number| number.is_some()) {
                let cells =
                    numbers.map(|number| number.map_or_else(missing, |n| format!("{n:.1}")).into());
                table.push(format!("{protocol}, %"), Kind::Paper, cells.collect());
            }
        }

        let loss = match study.loss_comparable {
            true => "loss",
            false => "loss (not comparable)",
        };
        table.push_quantity(study, loss, |run| run.loss, |loss| with_interval(loss, 4));
        let mean = |show: fn(f64) -> String| move |estimate: Estimate| show(estimate.mean);
        table.push_relative(study, "pre-training", |run| run.pretrain_s, mean(duration));
        table.push_relative(study, "images/s", |run| run.images_per_s, mean(significant));
        table.push_relative(
            study,
            "GFLOPs an image",
            |run| run.flops_per_image.map(|flops| flops as f64 / 1e9),
            mean(significant),
        );
        table
    }

    /// A row for each study of `report`.
    pub fn overview(report: &Report) -> Self {
        let mut table = Self {
            columns: Vec::new(),
            rows: vec![Vec::new(); report.studies.len()],
        };
        let studies = || report.studies.iter();
        let titles = studies().map(|study| study.heading().into()).collect();
        table.push("study".into(), Kind::Name, titles);
        let runs = studies().map(|study| {
            let runs = || study.values.iter().flat_map(|value| &value.runs);
            format!("{} of {}", finished(runs()), runs().count()).into()
        });
        table.push("runs finished".into(), Kind::Name, runs.collect());

        let all: BTreeSet<String> = studies().flat_map(protocols).collect();
        for protocol in in_order(all) {
            let cells = studies().map(|study| {
                let estimates = scores(study, &protocol);
                let Some(order) = Order::of(&estimates) else {
                    return missing().into();
                };
                let best = order.ranked[0];
                let score = estimates[best].map_or_else(missing, percent);
                Cell {
                    text: format!("{} ({score})", study.values[best].label),
                    clear: order.clear().is_some(),
                }
            });
            let name = format!("highest {protocol}, %");
            table.push(name, Kind::Measured, cells.collect());
        }
        for protocol in PAPER {
            let best = |study: &StudyReport| {
                (study.values.iter())
                    .filter_map(|value| Some((value, *value.paper.get(protocol)?)))
                    .max_by(|a, b| a.1.total_cmp(&b.1))
                    .map(|(value, number)| format!("{} ({number:.1})", value.label))
            };
            if studies().any(|study| best(study).is_some()) {
                let cells = studies().map(|study| best(study).unwrap_or_else(missing).into());
                let name = format!("highest {protocol}, %");
                table.push(name, Kind::Paper, cells.collect());
            }
        }
        table
    }

    fn push(&mut self, name: String, kind: Kind, cells: Vec<Cell>) {
        self.columns.push(Column { name, kind });
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            row.push(cell);
        }
    }

    /// A column of what was measured, if it was.
    fn push_quantity(
        &mut self,
        study: &StudyReport,
        name: &str,
        quantity: fn(&RunReport) -> Option<f64>,
        show: impl Fn(Estimate) -> String,
    ) {
        let estimates = estimates(study, quantity);
        if estimates.iter().any(Option::is_some) {
            let cells = estimates
                .into_iter()
                .map(|estimate| estimate.map_or_else(missing, &show).into());
            self.push(name.to_owned(), Kind::Measured, cells.collect());
        }
    }

    /// As [`Table::push_quantity`], with a column beside it of how many times the reference's it is.
    fn push_relative(
        &mut self,
        study: &StudyReport,
        name: &str,
        quantity: fn(&RunReport) -> Option<f64>,
        show: impl Fn(Estimate) -> String,
    ) {
        let reference = estimates(study, quantity)
            .get(study.reference)
            .and_then(|estimate| Some((*estimate)?.mean))
            .filter(|mean| *mean > 0.0 && study.values.len() > 1);
        self.push_quantity(study, name, quantity, |estimate| match reference {
            Some(reference) => {
                let times = estimate.mean / reference;
                format!("{} (×{times:.2})", show(estimate))
            }
            None => show(estimate),
        });
    }
}

/// The paper's protocols, as [`ValueReport::paper`] has them.
pub const PAPER: [&str; 2] = ["linear", "finetune"];

/// The protocols that finished runs of `study` were judged by.
pub fn protocols(study: &StudyReport) -> Vec<String> {
    let finished = study.runs().filter(|run| run.outcome == Outcome::Finished);
    in_order(
        finished
            .flat_map(|run| run.scores.keys().cloned())
            .collect(),
    )
}

/// From those that train least to those that train most.
fn in_order(protocols: BTreeSet<String>) -> Vec<String> {
    let mut protocols: Vec<String> = protocols.into_iter().collect();
    protocols.sort_by_key(|protocol| {
        ["knn", "linear", "partial", "finetune"]
            .iter()
            .position(|kind| protocol.starts_with(kind))
            .unwrap_or(usize::MAX)
    });
    protocols
}

/// The accuracy of each value, 0 to 1.
pub fn scores(study: &StudyReport, protocol: &str) -> Vec<Option<Estimate>> {
    estimates(study, |run| run.scores.get(protocol).copied())
}

/// Over the finished runs of each value.
pub fn estimates(
    study: &StudyReport,
    quantity: impl Fn(&RunReport) -> Option<f64>,
) -> Vec<Option<Estimate>> {
    let of_value = |value: &ValueReport| {
        let finished = value
            .runs
            .iter()
            .filter(|run| run.outcome == Outcome::Finished);
        Estimate::of(&finished.filter_map(&quantity).collect::<Vec<_>>())
    };
    study.values.iter().map(of_value).collect()
}

impl StudyReport {
    pub fn runs(&self) -> impl Iterator<Item = &RunReport> {
        self.values.iter().flat_map(|value| &value.runs)
    }

    /// The title, with the letter of the paper's table.
    pub fn heading(&self) -> String {
        match self.panel {
            Some(panel) => format!("{} (the paper's table 1{panel})", self.title),
            None => self.title.clone(),
        }
    }
}

fn seeds(value: &ValueReport) -> String {
    let failed = (value.runs.iter())
        .filter(|run| matches!(run.outcome, Outcome::Failed(_)))
        .count();
    let (finished, all) = (finished(&value.runs), value.runs.len());
    match failed {
        0 if finished == all => all.to_string(),
        0 => format!("{finished} of {all}"),
        _ => format!("{finished} of {all}, {failed} failed"),
    }
}

fn finished<'a>(runs: impl IntoIterator<Item = &'a RunReport>) -> usize {
    let is_finished = |run: &&RunReport| run.outcome == Outcome::Finished;
    runs.into_iter().filter(is_finished).count()
}

fn missing() -> String {
    "–".to_owned()
}

fn percent(share: Estimate) -> String {
    let percent = Estimate {
        mean: 100.0 * share.mean,
        half_width: share.half_width.map(|half| 100.0 * half),
    };
    with_interval(percent, 1)
}

/// With so many digits after the point.
fn with_interval(Estimate { mean, half_width }: Estimate, digits: usize) -> String {
    let least = 10_f64.powi(-(digits as i32));
    match half_width {
        Some(half) if half < least / 2.0 => format!("{mean:.digits$} ± <{least}"),
        Some(half) => format!("{mean:.digits$} ± {half:.digits$}"),
        None => format!("{mean:.digits$}"),
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{seconds:.1} s"),
        ..6000.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// Three digits of it.
fn significant(number: f64) -> String {
    let whole = number.abs().log10().floor() as i32 + 1;
    format!("{number:.*}", (3 - whole).clamp(0, 6) as usize)
}

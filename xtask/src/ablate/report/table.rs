//! A study in a table, and what can be said of it in words.

use std::collections::BTreeSet;

use super::{
    Outcome, Report, RunReport, StudyReport, ValueReport,
    statistics::{Estimate, Order, Verdict},
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
            let cells = estimates.iter().enumerate().map(|(index, estimate)| Cell {
                text: estimate.map_or_else(missing, percent),
                clear: order.as_ref().is_some_and(|order| {
                    order.verdict == Verdict::Clear && order.ranked[0] == index
                }),
            });
            table.push(format!("{protocol}, %"), Kind::Measured, cells.collect());
        }
        for (protocol, name) in PAPER {
            let numbers = study.values.iter().map(|value| value.paper.get(protocol));
            if numbers.clone().any(|number| number.is_some()) {
                let cells =
                    numbers.map(|number| number.map_or_else(missing, |n| format!("{n:.1}")).into());
                table.push(format!("{name}, %"), Kind::Paper, cells.collect());
            }
        }

        let loss = match study.loss_comparable {
            true => "loss",
            false => "loss (not comparable)",
        };
        table.push_quantity(
            study,
            loss,
            |run| run.loss,
            |loss| match loss.half_width {
                Some(half_width) => format!("{:.4} ± {half_width:.4}", loss.mean),
                None => format!("{:.4}", loss.mean),
            },
        );
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
                    clear: order.verdict == Verdict::Clear,
                }
            });
            let name = format!("highest {protocol}, %");
            table.push(name, Kind::Measured, cells.collect());
        }
        for (protocol, name) in PAPER {
            let best = |study: &StudyReport| {
                (study.values.iter())
                    .filter_map(|value| Some((value, *value.paper.get(protocol)?)))
                    .max_by(|a, b| a.1.total_cmp(&b.1))
                    .map(|(value, number)| format!("{} ({number:.1})", value.label))
            };
            if studies().any(|study| best(study).is_some()) {
                let cells = studies().map(|study| best(study).unwrap_or_else(missing).into());
                let name = format!("highest {name}, %");
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

/// What can be said of `study` from its runs, a sentence or two each.
pub fn sentences(study: &StudyReport) -> Vec<String> {
    let label = |index: &usize| quoted(&study.values[*index].label);
    let mut sentences = Vec::new();
    for protocol in protocols(study) {
        let estimates = scores(study, &protocol);
        let Some(Order { ranked, verdict }) = Order::of(&estimates) else {
            continue;
        };
        let mean = |index: usize| estimates[index].map_or(f64::NAN, |estimate| estimate.mean);
        let lead = 100.0 * (mean(ranked[0]) - mean(ranked[1]));
        let (best, next) = (label(&ranked[0]), label(&ranked[1]));
        let found = format!("{protocol}: {best} is highest, {lead:.1} points above {next}");
        sentences.push(match verdict {
            Verdict::Clear => format!(
                "{found}; that is more than the intervals, which overlap no other value's."
            ),
            Verdict::Overlaps(rivals) => {
                let all = rivals.len() + 1 == ranked.len();
                let who = if all {
                    "every other value".to_owned()
                } else {
                    list(rivals.iter().map(label))
                };
                let rest = if all {
                    "no difference here is larger than the intervals"
                } else {
                    "only the others are lower by more than the intervals"
                };
                format!(
                    "{found}; its interval overlaps that of {who}, so their order may be chance, and {rest}."
                )
            }
            Verdict::Unknown => format!(
                "{found}; a value of one seed has no interval, so the order may be chance."
            ),
        });
    }
    let has_loss = estimates(study, |run| run.loss).iter().any(Option::is_some);
    if has_loss && !study.loss_comparable {
        sentences.push(
            "The losses are means over different targets or different patches, so a lower one is no better."
                .to_owned(),
        );
    }
    if let Some(reference) = study.values.get(study.reference)
        && study.values.len() > 1
        && study.runs().any(|run| run.pretrain_s.is_some())
    {
        sentences.push(format!(
            "In brackets: how many times that of {}.",
            quoted(&reference.label)
        ));
    }
    for value in &study.values {
        for run in &value.runs {
            if let Outcome::Failed(reason) = &run.outcome {
                let (label, seed) = (quoted(&value.label), run.seed);
                let folder = run.folder.display();
                sentences.push(format!(
                    "{label}, seed {seed}, failed: {reason} ({folder})."
                ));
            }
        }
    }
    sentences
}

/// The paper's protocols as [`ValueReport::paper`] has them, and as a reader is told.
const PAPER: [(&str, &str); 2] = [("linear", "linear"), ("finetune", "fine-tuning")];

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
fn estimates(
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
    fn runs(&self) -> impl Iterator<Item = &RunReport> {
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
    let mean = 100.0 * share.mean;
    match share.half_width.map(|half| 100.0 * half) {
        Some(half) if half < 0.05 => format!("{mean:.1} ± <0.1"),
        Some(half) => format!("{mean:.1} ± {half:.1}"),
        None => format!("{mean:.1}"),
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

fn quoted(label: &str) -> String {
    format!("“{label}”")
}

/// `a, b and c`.
fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match &items[..] {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

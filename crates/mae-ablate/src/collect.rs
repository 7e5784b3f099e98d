//! From the folders of cells to the numbers of a report.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use mae_report::{Record, read_metrics};
use serde::Deserialize;

use super::{
    cell::Folder,
    plan::{Key, Plan, Planned},
    report::{Outcome, Report, RunReport, StudyReport, ValueReport},
    study::Variant,
};

/// Everything that is known of an ablation so far.
///
/// # Errors
/// If what a cell wrote cannot be read.
pub fn collect(plan: &Plan, out: &Path) -> Result<Report> {
    let machine = &plan.machine;
    let studies = (plan.studies.iter())
        .map(|planned| study(plan, planned, out))
        .collect::<Result<_>>()?;
    Ok(Report {
        title: "Ablations".into(),
        command: each(plan, |planned| &planned.command).join("\n"),
        machine: format!("{}, {} cores, {}", machine.cpu, machine.cores, machine.os),
        revision: plan.revision.clone(),
        base_config: plan.base_config.clone(),
        notes: each(plan, |planned| &planned.engine),
        studies,
    })
}

/// What the studies say, each thing once.
fn each(plan: &Plan, say: impl Fn(&Planned) -> &String) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for said in plan.studies.iter().map(say) {
        if !words.contains(said) {
            words.push(said.clone());
        }
    }
    words
}

fn study(plan: &Plan, planned: &Planned, out: &Path) -> Result<StudyReport> {
    let Planned { study, cells, .. } = planned;
    let values = (study.variants.iter().zip(cells))
        .map(|(variant, keys)| value(plan, variant, keys, out))
        .collect::<Result<_>>()?;
    Ok(StudyReport {
        name: study.name.clone(),
        panel: study.panel,
        title: study.title.clone(),
        question: study.question.clone(),
        axis: study.axis.clone(),
        numeric: study.numeric,
        rule: study.rule.clone(),
        loss_comparable: study.loss_comparable,
        reference: study.reference,
        paper: study.paper.clone(),
        values,
    })
}

fn value(plan: &Plan, variant: &Variant, keys: &[Key], out: &Path) -> Result<ValueReport> {
    let folder = |key: &Key| Folder::new(out, &key.hash, &plan.settings);
    let runs = (keys.iter())
        .map(|key| run(plan, variant, key, &folder(key)))
        .collect::<Result<_>>()?;
    let first = keys.first().map(folder);
    Ok(ValueReport {
        label: variant.label.clone(),
        number: variant.number,
        settings: variant.set.clone(),
        paper: variant.paper.clone(),
        runs,
        command: first
            .as_ref()
            .map_or_else(String::new, |first| commands(plan, variant, first)),
        config: (first.as_ref())
            .and_then(|first| std::fs::read_to_string(first.config()).ok())
            .unwrap_or_default(),
        picture: first.and_then(|first| picture(&first.run())),
    })
}

/// What repeats a value's first seed by hand.
fn commands(plan: &Plan, variant: &Variant, folder: &Folder) -> String {
    let protocols = match &variant.protocol {
        Some(protocol) => protocol.clone(),
        None => plan.protocols().join(","),
    };
    let mut eval = plan.settings.eval_arguments();
    eval.iter_mut()
        .filter(|word| word.contains([' ', '[', '{']))
        .for_each(|word| *word = format!("'{word}'"));
    let name = folder.path.file_name().unwrap_or_default().display();
    format!(
        "mae-train pretrain --config {} --out runs/{name}\nmae-train eval --from runs/{name} {}{}--protocols {protocols}",
        folder.config().display(),
        eval.join(" "),
        if eval.is_empty() { "" } else { " " },
    )
}

fn run(plan: &Plan, variant: &Variant, key: &Key, folder: &Folder) -> Result<RunReport> {
    let metrics = folder.run().join("metrics.jsonl");
    let records = match metrics.exists() {
        true => read_metrics(&metrics)?,
        false => Vec::new(),
    };
    let mut rates: Vec<f64> = (records.iter())
        .filter_map(|record| match record {
            Record::Step { images_per_s, .. } => Some(*images_per_s),
            _ => None,
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    let last_epoch = records.iter().rev().find_map(|record| match record {
        Record::Epoch {
            loss,
            flops_per_image,
            ..
        } => Some((*loss, *flops_per_image)),
        _ => None,
    });
    let pretrain_s = records.iter().rev().find_map(|record| match record {
        Record::Step { elapsed_s, .. } => Some(*elapsed_s),
        _ => None,
    });
    let (scores, eval_s) = scores(plan, variant, folder)?;
    let judged = match &variant.protocol {
        Some(_) => scores.len() == 1,
        None => (plan.protocols().iter())
            .all(|protocol| scores.keys().any(|name| is_of(name, protocol))),
    };
    let outcome = match std::fs::read_to_string(folder.failed()) {
        Ok(reason) => Outcome::Failed(reason),
        Err(_) if judged => Outcome::Finished,
        Err(_) => Outcome::Unfinished,
    };
    Ok(RunReport {
        seed: key.seed,
        folder: folder.path.clone(),
        outcome,
        scores,
        loss: last_epoch.map(|(loss, _)| loss),
        pretrain_s,
        eval_s,
        images_per_s: rates.get(rates.len() / 2).copied(),
        flops_per_image: last_epoch.and_then(|(_, flops)| flops),
    })
}

/// What is needed of `eval.json`.
#[derive(Deserialize)]
struct Eval {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    protocol: String,
    start: String,
    top1: f64,
    seconds: f64,
}

/// The accuracies that a value is compared by, and the seconds they took.
fn scores(
    plan: &Plan,
    variant: &Variant,
    folder: &Folder,
) -> Result<(BTreeMap<String, f64>, Option<f64>)> {
    let path = folder.eval.join("eval.json");
    let Ok(text) = std::fs::read(&path) else {
        return Ok((BTreeMap::new(), None));
    };
    let eval: Eval = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    let protocols = plan.protocols();
    let mut scores = BTreeMap::new();
    // The rows of one protocol share their time.
    let mut seconds: BTreeMap<&str, f64> = BTreeMap::new();
    for row in eval.rows.iter().filter(|row| row.start == "pre-trained") {
        let name = match &variant.protocol {
            // All values of such a study are one line of its chart.
            Some(protocol) if *protocol == row.protocol => "fine-tuned".to_string(),
            Some(_) => continue,
            None if protocols
                .iter()
                .any(|protocol| is_of(&row.protocol, protocol)) =>
            {
                row.protocol.clone()
            }
            None => continue,
        };
        seconds.insert(
            row.protocol.split(' ').next().unwrap_or_default(),
            row.seconds,
        );
        scores.insert(name, row.top1);
    }
    let seconds = (!scores.is_empty()).then(|| seconds.values().sum());
    Ok((scores, seconds))
}

/// Whether a row of that name is of a protocol: `knn k=20` of `knn`.
fn is_of(name: &str, protocol: &str) -> bool {
    name.split(' ').next() == Some(protocol)
}

/// The small picture of a run.
fn picture(run: &Path) -> Option<PathBuf> {
    let path = run.join("reconstructions/small.png");
    path.exists().then_some(path)
}

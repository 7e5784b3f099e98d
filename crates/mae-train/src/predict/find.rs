//! Where a classifier is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::eval::report::Report;
use crate::eval::{CLASSIFIER, Protocol, REPORT, SETTINGS, Start};
use crate::run::folder::RunDir;
use crate::run::shell;

/// The classifier's file at `path`: the file itself, that of a protocol's folder in an evaluation, or that of an
/// evaluation that learned one classifier from the pre-trained encoder.
///
/// # Errors
/// If there is none, or several: with what there is, and what to give.
pub fn find(path: &Path) -> Result<PathBuf> {
    ensure!(
        path.exists(),
        "{}: there is no such file or folder; give the folder of an evaluation that fine-tuned, or a classifier's file",
        path.display()
    );
    if !path.is_dir() {
        return Ok(path.into());
    }
    let own = path.join(CLASSIFIER);
    if own.exists() {
        return Ok(own);
    }
    if path.join(SETTINGS).exists() {
        return in_evaluation(path);
    }
    let parent = path
        .parent()
        .filter(|parent| parent.join(SETTINGS).exists());
    if let Some(evaluation) = parent {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let keeps_none = [Protocol::Knn, Protocol::Attentive];
        ensure!(
            !keeps_none
                .iter()
                .any(|protocol| name.starts_with(&protocol.to_string())),
            "{}: nearest neighbours and the attentive probe leave no classifier that could be kept; give the folder of \
             linear, partial or finetune",
            path.display()
        );
        bail!(
            "{} has no classifier yet: it is written when the protocol ends; go on with: mae-train eval --resume --out {}",
            path.display(),
            shell::word(evaluation)
        );
    }
    match RunDir::checkpoints_of(path).exists() {
        true => bail!(
            "{} is a pre-training run, which knows no classes; teach its encoder some with: mae-train eval --from {} \
             --data LABELLED-IMAGES --protocols finetune",
            path.display(),
            shell::word(path)
        ),
        false => bail!(
            "{} is no folder of an evaluation: give one that fine-tuned, or a classifier's file",
            path.display()
        ),
    }
}

/// Whether `path` is the folder of an evaluation, or of a protocol in one.
pub fn is_of_evaluation(path: &Path) -> bool {
    let has_settings = |folder: &Path| folder.join(SETTINGS).exists();
    path.is_dir() && (has_settings(path) || path.parent().is_some_and(has_settings))
}

/// The classifier of an evaluation's folder.
fn in_evaluation(folder: &Path) -> Result<PathBuf> {
    let pretrained = format!("-{}", Start::Pretrained.name());
    let mut found = Vec::new();
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("reading {}", folder.display()))?
            .path();
        let is_pretrained = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().ends_with(&pretrained));
        if is_pretrained && path.join(CLASSIFIER).exists() {
            found.push(path);
        }
    }
    found.sort();
    match &found[..] {
        [one] => Ok(one.join(CLASSIFIER)),
        [] => bail!(
            "{} has no classifier: learn one with: mae-train eval --resume --out {} --protocols finetune",
            folder.display(),
            shell::word(folder)
        ),
        several => {
            let choices: Vec<String> = (several.iter())
                .map(|path| format!("  {}{}", path.display(), accuracy(folder, path)))
                .collect();
            bail!(
                "{} has several classifiers; give one of\n{}",
                folder.display(),
                choices.join("\n")
            )
        }
    }
}

/// How good the classifier in `path` is, in words, if the evaluation says so.
fn accuracy(folder: &Path, path: &Path) -> String {
    let report = std::fs::read(folder.join(REPORT)).ok();
    let report = report.and_then(|text| serde_json::from_slice::<Report>(&text).ok());
    let rows = report.map(|report| report.rows).unwrap_or_default();
    let row = rows.iter().find(|row| {
        let name = format!("{}-{}", row.protocol.replace(':', "-"), row.start);
        path.file_name().is_some_and(|own| own == name.as_str())
    });
    row.map_or(String::new(), |row| {
        format!("  {:.2} % top-1", 100.0 * row.top1)
    })
}

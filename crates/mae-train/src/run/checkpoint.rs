//! Checkpoints of a run: a folder each, there whole or not at all, enough to go on exactly.
//!
//! `step-NNNNNNNN/model.safetensors` is the model alone, for everyone;
//! `state.safetensors` beside it holds what only the training needs.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use mae_model::ModelError;
use mae_model::tensor_file::{check_keys, read_tensors, write_tensors};
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use crate::run::folder::RunDir;

/// What a checkpoint is made of.
pub trait Saved {
    /// Writes the model, for everyone.
    ///
    /// # Errors
    /// If it cannot be written.
    fn save_model(&self, path: &Path) -> mae_model::Result<()>;

    /// Reads its weights back.
    ///
    /// # Errors
    /// If the file is damaged or another model's.
    fn load_model(&self, path: &Path) -> mae_model::Result<()>;

    /// The weights; the tensors are shared, so that they can be filled.
    fn weights(&self) -> Vec<Tensor>;

    /// Notes that all [`weights`](Self::weights) were filled.
    fn note_loaded(&self) {}

    /// What only the training needs; the tensors are shared, so that they can be filled.
    fn trainer_tensors(&self) -> BTreeMap<String, Tensor>;
}

pub(crate) const MODEL: &str = "model.safetensors";
pub(crate) const STATE: &str = "state.safetensors";
const POSITION: &str = "position";

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Updates made, or skipped, so far.
    pub step: u64,
    /// Epochs finished.
    pub epoch: u64,
    /// Batches of the next epoch already seen.
    pub batch: usize,
    /// Images of the data set; the order of an epoch depends on it.
    pub images: usize,
    /// Seconds of training so far, over all interruptions.
    pub elapsed_s: f64,
    /// Of them, seconds in the unfinished epoch.
    pub epoch_s: f64,
}

/// Writes a checkpoint into `folder`, then deletes the oldest ones beyond `keep`. Returns where it is.
///
/// # Errors
/// If the disk is full or cannot be written to; older checkpoints are then untouched.
pub fn save(
    folder: &Path,
    position: &Position,
    state: &impl Saved,
    keep: usize,
) -> Result<PathBuf> {
    let path = folder.join(format!("step-{:08}", position.step));
    let partial = folder.join(format!(".step-{:08}.partial", position.step));
    if path.exists() {
        // Resumed here and interrupted before the next step.
        return Ok(path);
    }
    let write = || -> Result<()> {
        std::fs::create_dir_all(&partial)?;
        mae_report::sync_folder(folder)?;
        state.save_model(&partial.join(MODEL))?;
        let metadata = HashMap::from([(POSITION.to_string(), serde_json::to_string(position)?)]);
        write_tensors(&partial.join(STATE), &state.trainer_tensors(), metadata)?;
        std::fs::rename(&partial, &path)?;
        mae_report::sync_folder(&path)?;
        Ok(())
    };
    write().with_context(|| format!("writing the checkpoint {}", path.display()))?;

    let old = list(folder)?.into_iter().rev().skip(keep);
    for (_, old) in old {
        std::fs::remove_dir_all(&old)
            .with_context(|| format!("deleting the old {}", old.display()))?;
    }
    Ok(path)
}

/// The latest checkpoint in `folder`, if there is one.
///
/// # Errors
/// If the folder cannot be read.
pub fn latest(folder: &Path) -> Result<Option<PathBuf>> {
    Ok(list(folder)?.pop().map(|(_, path)| path))
}

/// The model at `path`: a file, or of the latest checkpoint in a run's folder, or in a checkpoint's folder.
///
/// # Errors
/// If there is none.
pub fn find_model(path: &Path) -> Result<PathBuf> {
    if path.join(MODEL).exists() {
        return Ok(path.join(MODEL));
    }
    if path.is_dir() {
        ensure!(
            !path.join("config.json").exists(),
            "{}: the folder of another program's model; make it this program's with: mae-train convert {0} base.safetensors",
            path.display()
        );
        let latest = latest(&RunDir::checkpoints_of(path))?.with_context(|| {
            format!(
                "{} has no checkpoints: give a run's folder or a model.safetensors",
                path.display()
            )
        })?;
        return Ok(latest.join(MODEL));
    }
    ensure!(
        path.exists(),
        "{}: there is no such file or folder; give a run's folder, a checkpoint's folder or a model.safetensors",
        path.display()
    );
    Ok(path.into())
}

/// The folder of the run that `model`, a file, is a checkpoint of, if it lies in one.
pub fn run_of(model: &Path) -> Option<&Path> {
    let checkpoints = model.parent()?.parent()?;
    let run = checkpoints.parent()?;
    (RunDir::checkpoints_of(run) == checkpoints && run.join("config.toml").exists()).then_some(run)
}

/// Deletes what an interrupted [`save`] left behind.
///
/// # Errors
/// If the folder cannot be read or written to.
pub fn clean(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?
    {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "partial")
        {
            std::fs::remove_dir_all(&path)
                .with_context(|| format!("deleting {}", path.display()))?;
        }
    }
    Ok(())
}

/// Puts the latest checkpoint in `folder` that is whole into `state`; returns how far it had come, `None` if there is
/// no checkpoint.
///
/// Damaged ones that are later are renamed to `damaged-step-NNNNNNNN`, with a warning.
///
/// # Errors
/// If there are checkpoints, but none is whole, or one cannot be read for another reason.
pub fn load_latest(folder: &Path, state: &impl Saved) -> Result<Option<Position>> {
    let mut damaged: Vec<(PathBuf, anyhow::Error)> = Vec::new();
    for (_, path) in list(folder)?.into_iter().rev() {
        match load(&path, state) {
            Ok(position) => {
                for (damaged, error) in &damaged {
                    let aside = set_aside(damaged)?;
                    log::warn!(
                        "{error:#}; it is {} now, and the run goes on from {}",
                        aside.display(),
                        path.display()
                    );
                }
                return Ok(Some(position));
            }
            Err(error) if is_damage(&error) => damaged.push((path, error)),
            Err(error) => return Err(error),
        }
    }
    match damaged.into_iter().next() {
        None => Ok(None),
        Some((path, error)) => Err(error.context(format!(
            "no checkpoint of the run is whole: put a copy of {} in its place, or delete {} to begin the run anew",
            path.display(),
            folder.display()
        ))),
    }
}

/// Whether a checkpoint was not read for what is in it, and not for want of memory or rights.
fn is_damage(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<ModelError>() {
        Some(ModelError::Io { source, .. }) => source.kind() == std::io::ErrorKind::NotFound,
        Some(ModelError::Torch(_) | ModelError::Tch(_)) => false,
        _ => true,
    }
}

/// Renames a damaged checkpoint, so that it is in nobody's way; one of its files may still be of use.
fn set_aside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("damaged-{name}"));
    let rename = || {
        if aside.exists() {
            std::fs::remove_dir_all(&aside)?;
        }
        std::fs::rename(path, &aside)?;
        mae_report::sync_folder(&aside)
    };
    rename().with_context(|| format!("renaming {} to {}", path.display(), aside.display()))?;
    Ok(aside)
}

/// Puts the checkpoint at `path` into `state`; returns how far it had come.
///
/// # Errors
/// If a file is damaged or of another model, named.
pub fn load(path: &Path, state: &impl Saved) -> Result<Position> {
    let read = || -> Result<Position> {
        state.load_model(&path.join(MODEL))?;
        let file = path.join(STATE);
        let (found, metadata) = read_tensors(&file)?;
        let expected = state.trainer_tensors();
        check_keys(&file, &expected, &found)?;
        no_grad(|| {
            for (key, mut tensor) in expected {
                tensor.f_copy_(&found[&key])?;
            }
            anyhow::Ok(())
        })?;
        let position = metadata
            .get(POSITION)
            .ok_or_else(|| anyhow!("{}: no position", file.display()))?;
        Ok(serde_json::from_str(position)?)
    };
    read().with_context(|| format!("the checkpoint {} cannot be resumed from", path.display()))
}

/// Whole checkpoints by step, oldest first.
pub(crate) fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut checkpoints = Vec::new();
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?
    {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some(step) = name
            .strip_prefix("step-")
            .and_then(|step| step.parse().ok())
        {
            checkpoints.push((step, path));
        }
    }
    checkpoints.sort();
    Ok(checkpoints)
}

//! What a run's folder tells of it.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mae_model::tensor_file::verify;
use mae_report::{Record, read_metrics};
use serde::Serialize;
use toml::{Table, Value};

use super::lines::{Lines, count, duration, size};
use super::weights::Weights;
use crate::eval::SETTINGS;
use crate::run::checkpoint::{MODEL, STATE, list};
use crate::run::folder::RunDir;
use crate::run::shell;

/// What a run's folder tells of it.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The folder.
    pub folder: PathBuf,
    /// The command that made it: `pretrain`, `tokenizer` or `eval`.
    pub command: &'static str,
    /// The complete configuration.
    pub config: Table,
    /// What happened so far; none before the first metrics.
    pub history: Option<History>,
    /// Whether all of its epochs are done.
    pub is_finished: bool,
    /// Whether a process is training in it now.
    pub is_running: bool,
    /// Its checkpoints, oldest first.
    pub checkpoints: Vec<Checkpoint>,
    /// The command that goes on with it, if anything is left to do.
    pub resume: Option<String>,
    /// The weights of the latest checkpoint that is whole.
    pub weights: Option<Weights>,
}

/// What happened in a run so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct History {
    /// Epochs that are finished.
    pub epochs: u64,
    /// Updates of the weights.
    pub steps: u64,
    /// Updates that were skipped, because a gradient was not finite.
    pub skipped_steps: u64,
    /// The loss of the first step that was noted.
    pub first_loss: Option<f64>,
    /// The mean loss of the last epoch, or before its end that of the last step that was noted.
    pub last_loss: Option<f64>,
    /// The lowest mean loss of an epoch.
    pub best_loss: Option<f64>,
    /// The epoch of that.
    pub best_epoch: Option<u64>,
    /// Median of the images a second.
    pub images_per_s: Option<f64>,
    /// Wall time of training over all interruptions, seconds.
    pub seconds: f64,
    /// Images of the last epoch that could not be read.
    pub broken_images: u64,
    /// The last loss of held-out images.
    pub val_loss: Option<f64>,
    /// The lowest.
    pub best_val_loss: Option<f64>,
    /// The epoch of that.
    pub best_val_epoch: Option<u64>,
    /// The last RankMe of the mean of the patch tokens.
    pub rank_me: Option<f64>,
    /// What the run measured of itself, each protocol.
    pub accuracy: Vec<Accuracy>,
    /// A tokenizer's mean squared error, tokens in use, and their perplexity after the last epoch.
    pub tokens: Option<(f64, u64, f64)>,
}

/// How well the model classifies, by one protocol.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// For example `knn k=20`.
    pub protocol: String,
    /// The last epoch that it was measured after.
    pub epoch: u64,
    /// Share of the images whose class came first then.
    pub top1: f64,
    /// The highest such share.
    pub best_top1: f64,
    /// The epoch of that.
    pub best_epoch: u64,
}

/// A checkpoint of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Checkpoint {
    /// Its folder.
    pub folder: PathBuf,
    /// Updates made by then.
    pub step: u64,
    /// Size of the model's file.
    pub model_bytes: u64,
    /// Size of the file that resuming needs besides.
    pub state_bytes: u64,
    /// Whether both files have checksums, which were compared.
    pub has_checksums: bool,
    /// What is wrong with them.
    pub damage: Option<String>,
}

impl Run {
    /// Reads what the run in `folder` left, also while it is running.
    ///
    /// # Errors
    /// If a file is damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.toml");
        let config: Table = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?
            .parse()
            .with_context(|| format!("{} is not valid TOML", path.display()))?;
        let metrics = folder.join("metrics.jsonl");
        let history = match metrics.exists() {
            true => History::of(&read_metrics(&metrics)?),
            false => None,
        };
        let checkpoints: Vec<Checkpoint> = list(&RunDir::checkpoints_of(folder))?
            .into_iter()
            .map(|(step, folder)| Checkpoint::at(step, folder))
            // The run may delete it meanwhile.
            .filter(|checkpoint| checkpoint.folder.exists())
            .collect();
        let whole = (checkpoints.iter()).rfind(|checkpoint| checkpoint.damage.is_none());
        let weights = whole
            .map(|whole| Weights::read(&whole.folder.join(MODEL)))
            .transpose()?;
        let is_damaged = checkpoints.last().is_some_and(|last| last.damage.is_some());
        let command = match () {
            _ if config.contains_key("mask") => "pretrain",
            _ if config.contains_key("relaxation") => "tokenizer",
            _ => "eval",
        };
        let section = match command {
            "eval" => "finetune",
            _ => "optim",
        };
        let epochs = value(&config, &format!("{section}.epochs")).and_then(Value::as_integer);
        let done = history.as_ref().map_or(0, |history| history.epochs);
        let is_finished = epochs.is_some_and(|epochs| done >= epochs as u64);
        Ok(Self {
            resume: (!is_finished || is_damaged).then(|| resume(command, folder)),
            folder: folder.into(),
            command,
            config,
            history,
            is_finished,
            is_running: is_locked(folder),
            checkpoints,
            weights,
        })
    }

    /// The facts as lines to read.
    pub fn text(&self) -> String {
        let mut lines = Lines::default();
        let state = match (self.is_running, self.is_finished) {
            (true, _) => "running now",
            (false, true) => "finished",
            (false, false) => "not finished",
        };
        let what = match self.command {
            "pretrain" => "a pre-training run",
            "tokenizer" => "a tokenizer's run",
            _ => "a fine-tuning run of mae-train eval",
        };
        lines.line(&format!("{}: {what}, {state}", self.folder.display()));
        self.describe_config(&mut lines);
        match &self.history {
            Some(history) => history.describe(&mut lines),
            None => drop(lines.fact("history", "nothing has been noted yet")),
        }
        lines.fact("checkpoints", count(self.checkpoints.len(), "checkpoint"));
        lines.items(&self.checkpoints, 20, |checkpoint| {
            let files = format!(
                "{}: model {}, state {}",
                checkpoint.folder.display(),
                size(checkpoint.model_bytes),
                size(checkpoint.state_bytes)
            );
            match (&checkpoint.damage, checkpoint.has_checksums) {
                (Some(damage), _) => format!("{files}; DAMAGED: {damage}"),
                (None, true) => format!("{files}; as written"),
                (None, false) => format!("{files}; without checksums"),
            }
        });
        if let Some(resume) = &self.resume {
            lines.fact("go on with", resume);
        }
        let mut text = lines.into_text();
        if let Some(weights) = &self.weights {
            text.push('\n');
            text += &weights.text();
        }
        text
    }

    fn describe_config(&self, lines: &mut Lines) {
        let facts: [(&str, &[&str]); 6] = [
            (
                "images",
                &[
                    "data.source",
                    "data.path",
                    "data.augmentation",
                    "data.hflip",
                ],
            ),
            ("mask", &["mask.ratio", "mask.sampler"]),
            (
                "relaxation",
                &["relaxation.temperature_start", "relaxation.temperature_end"],
            ),
            (
                "optim",
                &[
                    "optim.epochs",
                    "optim.batch_size",
                    "optim.accumulate",
                    "optim.base_lr",
                    "optim.weight_decay",
                ],
            ),
            (
                "finetune",
                &["finetune.epochs", "finetune.batch_size", "finetune.base_lr"],
            ),
            (
                "run",
                &["seed", "run.device", "run.precision", "run.kernels"],
            ),
        ];
        for (label, keys) in facts {
            // An evaluation's configuration has sections for all protocols.
            let words: Vec<String> = (keys.iter())
                .filter_map(|key| {
                    let name = key.rsplit('.').next().unwrap_or(key);
                    Some(format!("{name} {}", words(value(&self.config, key)?)))
                })
                .collect();
            if !words.is_empty() {
                lines.fact(label, words.join(", "));
            }
        }
    }
}

impl History {
    /// None of no records.
    fn of(records: &[Record]) -> Option<Self> {
        let mut history = Self::default();
        let mut speeds = Vec::new();
        for record in records {
            history.steps = history.steps.max(record.step());
            match record {
                Record::Step {
                    loss,
                    images_per_s,
                    skipped,
                    elapsed_s,
                    ..
                } => {
                    history.first_loss.get_or_insert(*loss);
                    history.last_loss = Some(*loss);
                    history.skipped_steps = *skipped;
                    history.seconds = *elapsed_s;
                    speeds.push(*images_per_s);
                }
                Record::Epoch {
                    epoch,
                    loss,
                    broken_images,
                    ..
                } => {
                    history.epochs = *epoch;
                    history.last_loss = Some(*loss);
                    history.broken_images = *broken_images;
                    if history.best_loss.is_none_or(|best| *loss < best) {
                        (history.best_loss, history.best_epoch) = (Some(*loss), Some(*epoch));
                    }
                }
                Record::Accuracy {
                    epoch,
                    protocol,
                    top1,
                    ..
                } => history.measure(protocol, *epoch, *top1),
                Record::Validation {
                    epoch, val_loss, ..
                } => {
                    history.val_loss = Some(*val_loss);
                    if history.best_val_loss.is_none_or(|best| *val_loss < best) {
                        (history.best_val_loss, history.best_val_epoch) =
                            (Some(*val_loss), Some(*epoch));
                    }
                }
                Record::Spectrum {
                    tokens, rank_me, ..
                } if tokens == "mean" => history.rank_me = Some(*rank_me),
                Record::Spectrum { .. } => {}
                Record::Tokens {
                    mse,
                    used,
                    perplexity,
                    ..
                } => history.tokens = Some((*mse, *used, *perplexity)),
            }
        }
        speeds.sort_by(f64::total_cmp);
        history.images_per_s = speeds.get(speeds.len() / 2).copied();
        (!records.is_empty()).then_some(history)
    }

    fn measure(&mut self, protocol: &str, epoch: u64, top1: f64) {
        let known = self.accuracy.iter().position(|a| a.protocol == protocol);
        let at = known.unwrap_or_else(|| {
            self.accuracy.push(Accuracy {
                protocol: protocol.into(),
                epoch,
                top1,
                best_top1: top1,
                best_epoch: epoch,
            });
            self.accuracy.len() - 1
        });
        let accuracy = &mut self.accuracy[at];
        (accuracy.epoch, accuracy.top1) = (epoch, top1);
        if top1 > accuracy.best_top1 {
            (accuracy.best_top1, accuracy.best_epoch) = (top1, epoch);
        }
    }

    fn describe(&self, lines: &mut Lines) {
        let mut done = format!(
            "{}, {}, in {}",
            count(self.epochs as usize, "epoch"),
            count(self.steps as usize, "step"),
            duration(self.seconds)
        );
        if let Some(speed) = self.images_per_s {
            done += &format!(", {speed:.0} images/s in the median");
        }
        lines.fact("history", done);
        let mut losses = Vec::new();
        if let Some(loss) = self.first_loss {
            losses.push(format!("first {loss:.4}"));
        }
        if let Some(loss) = self.last_loss {
            losses.push(format!("last {loss:.4}"));
        }
        if let (Some(loss), Some(epoch)) = (self.best_loss, self.best_epoch) {
            losses.push(format!("best {loss:.4} in epoch {epoch}"));
        }
        lines.fact("loss", losses.join(", "));
        if let (Some(last), Some(best), Some(epoch)) =
            (self.val_loss, self.best_val_loss, self.best_val_epoch)
        {
            let words = format!("last {last:.4}, best {best:.4} in epoch {epoch}");
            lines.fact("held-out loss", words);
        }
        if let Some(rank_me) = self.rank_me {
            lines.fact(
                "RankMe",
                format!("{rank_me:.1}, of the mean of the patch tokens"),
            );
        }
        if self.skipped_steps > 0 {
            let steps = count(self.skipped_steps as usize, "update");
            lines.fact(
                "skipped",
                format!("{steps}, whose gradients were not finite"),
            );
        }
        if self.broken_images > 0 {
            let images = count(self.broken_images as usize, "image");
            lines.fact("broken", format!("{images} in the last epoch"));
        }
        for a in &self.accuracy {
            lines.fact(
                "accuracy",
                format!(
                    "{}: top-1 {:.2} % after epoch {}; best {:.2} % after epoch {}",
                    a.protocol,
                    100.0 * a.top1,
                    a.epoch,
                    100.0 * a.best_top1,
                    a.best_epoch
                ),
            );
        }
        if let Some((mse, used, perplexity)) = self.tokens {
            lines.fact(
                "tokens",
                format!("{used} in use, perplexity {perplexity:.0}, mean squared error {mse:.4}"),
            );
        }
    }
}

impl Checkpoint {
    fn at(step: u64, folder: PathBuf) -> Self {
        let bytes = |name: &str| std::fs::metadata(folder.join(name)).map_or(0, |file| file.len());
        let found: mae_model::Result<Vec<bool>> = [MODEL, STATE]
            .into_iter()
            .map(|name| verify(&folder.join(name)))
            .collect();
        Self {
            model_bytes: bytes(MODEL),
            state_bytes: bytes(STATE),
            has_checksums: (found.as_ref()).is_ok_and(|found| found.iter().all(|&has| has)),
            damage: found.err().map(|error| error.to_string()),
            step,
            folder,
        }
    }
}

fn resume(command: &str, folder: &Path) -> String {
    match (command, folder.parent()) {
        ("eval", Some(parent)) if parent.join(SETTINGS).exists() => {
            format!("mae-train eval --resume --out {}", shell::word(parent))
        }
        ("eval", Some(parent)) => format!(
            "the command of mae-train eval that began it, with --resume --out {}",
            shell::word(parent)
        ),
        _ => format!("mae-train {command} --resume --out {}", shell::word(folder)),
    }
}

/// Whether a process is training in a folder.
fn is_locked(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(".lock")) else {
        return false;
    };
    matches!(
        lock.try_lock_shared(),
        Err(std::fs::TryLockError::WouldBlock)
    )
}

/// The value at `a.b`.
fn value<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((section, key)) => value(table.get(section)?.as_table()?, key),
    }
}

/// A value as words.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

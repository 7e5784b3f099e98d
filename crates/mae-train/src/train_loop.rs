//! The loop that pre-training and fine-tuning share: batches in, updates, metrics, checkpoints, interruptions.

use std::iter::Peekable;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mae_data::{Epoch, ImageBatch, MaskedBatch};
use mae_report::Record;

use crate::config::{OptimSection, RunSection};
use crate::distributed::World;
use crate::error::Diverged;
use crate::run::checkpoint::{self, Position, Saved};
use crate::run::folder::RunDir;
use crate::run::interrupt::Interrupt;
use crate::run::journal::Journal;
use crate::run::progress::{Progress, Steps};
use crate::train::schedule::Schedule;
use crate::train::trainer::Trainer;

/// How a loop ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// After its last epoch.
    Finished {
        /// Mean loss of the last epoch; `None` if it had ended before this call.
        loss: Option<f64>,
        /// The last checkpoint; `None` in processes that do not write.
        checkpoint: Option<PathBuf>,
    },
    /// Saved and stopped by a signal.
    Interrupted {
        /// The signal's number.
        signal: i32,
        /// Where it can be resumed from; `None` in processes that do not write.
        checkpoint: Option<PathBuf>,
    },
}

/// What a loop trains.
pub trait Task: Saved {
    /// What it learns from.
    type Batch: Batch;

    /// One update from the batches of `group`; `step` counts updates from 0. Returns its images, of all processes.
    ///
    /// # Errors
    /// If the batches do not fit the model, or libtorch refuses.
    fn update(&mut self, group: &[Self::Batch], lr: f64, step: u64) -> Result<usize>;

    /// What moves the weights, and the sums for the metrics.
    fn trainer(&mut self) -> &mut Trainer;

    /// Floating-point operations that an image's forward and backward pass need.
    ///
    /// # Errors
    /// If the configuration describes no model.
    fn flops_per_image(&self) -> Result<u64>;

    /// What is due after an epoch, counted from 1, besides its loss. Returns words for the epoch's line.
    ///
    /// # Errors
    /// If it cannot be computed or written.
    fn end_epoch(&mut self, epoch: u64, step: u64, journal: &mut Journal) -> Result<String>;
}

/// A batch of a loader.
pub trait Batch {
    /// Its number in the epoch, from 0.
    fn number(&self) -> usize;
}

impl Batch for MaskedBatch {
    fn number(&self) -> usize {
        self.number
    }
}

impl Batch for ImageBatch {
    fn number(&self) -> usize {
        self.number
    }
}

/// Where a loop's batches come from.
pub struct Batches<'a, B> {
    /// Batches of an epoch.
    pub per_epoch: usize,
    /// Images of the data set.
    pub images: usize,
    /// The batches of an epoch from one on.
    pub epoch: &'a dyn Fn(u64, usize) -> Epoch<B>,
    /// Broken images met so far.
    pub broken: &'a dyn Fn() -> usize,
}

/// Updates skipped in a row, for a loss or gradient that is not finite, before a run gives up.
///
/// A loss scale that starts too high needs some of them to settle.
const MAX_SKIPPED_IN_ROW: u64 = 40;

/// Trains `task` from the latest checkpoint in `run_dir`, or from the start if there is none.
///
/// Of several processes the first alone has a `run_dir`; the others are given its weights and position.
///
/// # Errors
/// If the data or the run's files cannot be read or written, training diverges, or another process is gone.
pub fn train<T: Task>(
    task: &mut T,
    batches: &Batches<T::Batch>,
    optim: &OptimSection,
    run: &RunSection,
    run_dir: Option<&RunDir>,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Outcome> {
    let world = Rc::clone(task.trainer().world());
    let position = start(task, batches.images, run_dir, &world)?;
    ensure!(
        position.images == batches.images,
        "the data set has {} images, but had {} when the run began: a run can only go on with the same images",
        batches.images,
        position.images
    );
    let (device, precision) = (task.trainer().device(), task.trainer().precision().kind());
    let matmul_flops = run.kernels.matmul_flops(device, precision)?;
    let _threads = run.kernels.take_threads(device, precision);
    progress.line(&format!(
        "matrix products in {} by {}: up to {:.0} GFLOP/s",
        task.trainer().precision().name(),
        run.kernels.products(device, precision),
        matmul_flops / 1e9
    ));
    let flops_per_image = task.flops_per_image()?;
    let steps_per_epoch = batches.per_epoch.div_ceil(optim.accumulate) as u64;
    let mut run = Run {
        journal: match run_dir {
            Some(run_dir) => Journal::open(run_dir, position.step, position.epoch)?,
            None => Journal::of_another(),
        },
        bar: progress.start(position.step, steps_per_epoch * optim.epochs),
        clock: Clock::start(&position),
        schedule: optim.schedule(steps_per_epoch),
        full_speed: world.size() as f64 * matmul_flops / flops_per_image as f64,
        flops_per_image,
        steps_per_epoch,
        position,
        run_dir,
        optim,
        settings: run,
    };

    let mut last_loss = None;
    while run.position.epoch < optim.epochs {
        let epoch = run.position.epoch;
        let mut epoch_batches = (batches.epoch)(epoch, run.position.batch).peekable();
        while let Some(group) = next_group(&mut epoch_batches, optim.accumulate)? {
            let group_number = group[0].number() / optim.accumulate;
            run.step(task, &group, group_number as u64)?;
            // All stop if one is asked to, at the same update.
            let signal = world.max(i64::from(interrupt.signal().unwrap_or(0)))? as i32;
            if signal != 0 {
                let checkpoint = run.save(task)?;
                if let Some(run_dir) = run_dir {
                    checkpoint.as_ref().with_context(|| {
                        format!(
                            "stopped while the loss is not finite: not saved in {}",
                            run_dir.path().display()
                        )
                    })?;
                }
                run.journal.publish()?;
                return Ok(Outcome::Interrupted { signal, checkpoint });
            }
        }
        let [broken] = world.sums([(batches.broken)() as i64])?;
        last_loss = Some(run.end_epoch(task, broken as u64)?);
    }
    let checkpoint = match run_dir {
        Some(run_dir) => {
            let latest = checkpoint::latest(&run_dir.checkpoints())?;
            Some(latest.context("the run saved no checkpoint")?)
        }
        None => None,
    };
    Ok(Outcome::Finished {
        loss: last_loss,
        checkpoint,
    })
}

/// Puts the latest whole checkpoint into the task of every process, or the first process's weights where there is none.
/// Returns how far the run has come.
fn start(
    task: &mut impl Task,
    images: usize,
    run_dir: Option<&RunDir>,
    world: &World,
) -> Result<Position> {
    let beginning = Position {
        images,
        ..Position::default()
    };
    let position = match run_dir {
        Some(run_dir) => {
            checkpoint::clean(&run_dir.checkpoints())?;
            checkpoint::load_latest(&run_dir.checkpoints(), task)?
        }
        None => None,
    };
    let position = position.unwrap_or(beginning);
    let mut tensors = task.weights();
    tensors.extend(task.trainer_tensors().into_values());
    world.copy_from_first(&tensors)?;
    if !world.is_first() {
        task.note_loaded();
    }
    let position = world.from_first(|| Ok(serde_json::to_string(&position)?))?;
    Ok(serde_json::from_str(&position)?)
}

/// The batches of the next update, in order; `None` after the last one of the epoch.
///
/// # Errors
/// Those of the loader.
pub(crate) fn next_group<B: Batch>(
    batches: &mut Peekable<Epoch<B>>,
    accumulate: usize,
) -> Result<Option<Vec<B>>> {
    let Some(first) = batches.next().transpose()? else {
        return Ok(None);
    };
    let group_number = first.number() / accumulate;
    let is_same = |batch: &B| batch.number() / accumulate == group_number;
    let mut group = vec![first];
    // Looks at the next batch only where the group is not full, for looking is waiting.
    while group
        .last()
        .is_some_and(|last| (last.number() + 1) % accumulate != 0)
        && let Some(batch) = batches.next_if(|next| next.as_ref().map_or(true, is_same))
    {
        group.push(batch?);
    }
    Ok(Some(group))
}

/// A run in progress, but for what training changes.
struct Run<'a> {
    optim: &'a OptimSection,
    settings: &'a RunSection,
    /// `None` in processes that do not write.
    run_dir: Option<&'a RunDir>,
    journal: Journal<'a>,
    bar: Steps<'a>,
    clock: Clock,
    schedule: Schedule,
    /// Images a second if the device did nothing but the model's matrix products.
    full_speed: f64,
    flops_per_image: u64,
    steps_per_epoch: u64,
    position: Position,
}

impl Run<'_> {
    /// One update from the batches of a group, and what is due after it.
    fn step<T: Task>(&mut self, task: &mut T, group: &[T::Batch], group_number: u64) -> Result<()> {
        self.clock.data_arrived();
        // From the group's number, not from a count: a group of broken images alone is never seen.
        let step = self.position.epoch * self.steps_per_epoch + group_number;
        let lr = self.schedule.lr(step);
        self.clock.images += task.update(group, lr, step)?;
        self.bar.advance();

        self.position.step = step + 1;
        self.position.batch = group.last().map_or(0, |batch| batch.number() + 1);
        let ends_epoch = (step + 1).is_multiple_of(self.steps_per_epoch);
        if (step + 1).is_multiple_of(self.settings.log_every) || ends_epoch {
            self.log(task.trainer(), lr)?;
        }
        self.clock.tell(&mut self.position);
        let minutes = self.settings.checkpoint_minutes;
        if minutes > 0.0 && self.clock.saved.elapsed().as_secs_f64() > 60.0 * minutes {
            self.save(task)?;
        }
        self.clock.waiting = Instant::now();
        Ok(())
    }

    /// Reads the sums back from the device, writes them down, and looks for divergence.
    fn log(&mut self, trainer: &mut Trainer, lr: f64) -> Result<()> {
        let means = trainer.totals.take_window();
        let (images_per_s, data_wait) = self.clock.take_window();
        let epoch = self.position.step as f64 / self.steps_per_epoch as f64;
        let skipped = trainer.totals.skipped();
        self.clock.tell(&mut self.position);
        self.journal.record(&Record::Step {
            step: self.position.step,
            epoch,
            loss: means.loss,
            lr,
            grad_norm: means.grad_norm,
            images_per_s,
            mfu: Some(images_per_s / self.full_speed),
            data_wait,
            loss_scale: trainer.scaler.as_ref().map(|scaler| scaler.current()),
            skipped,
            elapsed_s: self.position.elapsed_s,
        })?;
        let mut message = format!(
            "epoch {epoch:.2}/{}  loss {:.4}  lr {lr:.2e}  {images_per_s:.0} images/s",
            self.optim.epochs, means.loss
        );
        if skipped > 0 {
            message += &match skipped {
                1 => "  1 update skipped".to_string(),
                _ => format!("  {skipped} updates skipped"),
            };
        }
        self.bar.message(&message);

        let in_row = trainer.totals.skipped_in_row();
        if in_row >= MAX_SKIPPED_IN_ROW {
            let latest = match self.run_dir {
                Some(run_dir) => checkpoint::latest(&run_dir.checkpoints())?,
                None => None,
            };
            let kept = match latest {
                Some(path) => format!("the last good checkpoint is {}", path.display()),
                None => "no checkpoint had been saved yet".into(),
            };
            return Err(Diverged(format!(
                "the loss or a gradient was not finite in {in_row} updates in a row, the last of them step {}; {kept}; \
                 start a new run with a smaller base_lr (now {:e}), a longer warmup_epochs, \
                 clip_grad=1, or run.precision=fp32",
                self.position.step,
                self.optim.base_lr
            ))
            .into());
        }
        Ok(())
    }

    /// Closes an epoch: its record, what the task has to do, a checkpoint if it is due. Returns its mean loss.
    fn end_epoch(&mut self, task: &mut impl Task, broken_images: u64) -> Result<f64> {
        let loss = task.trainer().totals.take_epoch().loss;
        self.clock.tell(&mut self.position);
        let seconds = self.clock.take_epoch();
        self.position = Position {
            step: (self.position.epoch + 1) * self.steps_per_epoch,
            epoch: self.position.epoch + 1,
            batch: 0,
            epoch_s: 0.0,
            ..self.position
        };
        let Position { epoch, step, .. } = self.position;
        self.journal.record(&Record::Epoch {
            epoch,
            step,
            loss,
            seconds,
            broken_images,
            flops_per_image: Some(self.flops_per_image),
        })?;
        let words = task.end_epoch(epoch, step, &mut self.journal)?;
        self.bar.line(&format!(
            "epoch {epoch}/{}  loss {loss:.4}  {seconds:.1} s{words}",
            self.optim.epochs
        ));
        self.journal.publish()?;
        if is_due(self.settings.checkpoint_every, epoch, self.optim.epochs) {
            self.save(task)?;
        }
        self.clock.waiting = Instant::now();
        Ok(loss)
    }

    /// Saves a checkpoint, unless the latest update was skipped: then the one before is the last good one.
    fn save(&mut self, task: &mut impl Task) -> Result<Option<PathBuf>> {
        self.clock.saved = Instant::now();
        let Some(run_dir) = self.run_dir else {
            return Ok(None);
        };
        if task.trainer().totals.skipped_in_row() > 0 {
            log::warn!(
                "step {}: not saved, for its loss or gradient is not finite",
                self.position.step
            );
            return Ok(None);
        }
        let keep = self.settings.keep_checkpoints;
        checkpoint::save(&run_dir.checkpoints(), &self.position, task, keep).map(Some)
    }
}

/// Whether what happens `every` so many epochs, and after the last one, happens after `epoch`.
pub fn is_due(every: u64, epoch: u64, epochs: u64) -> bool {
    epoch == epochs || (every > 0 && epoch.is_multiple_of(every))
}

/// Wall-clock time: of the run, of the epoch, and since the last line of metrics.
struct Clock {
    run: Instant,
    run_before: f64,
    epoch: Instant,
    epoch_before: f64,
    window: Instant,
    images: usize,
    waited: f64,
    waiting: Instant,
    saved: Instant,
}

impl Clock {
    fn start(position: &Position) -> Self {
        let now = Instant::now();
        Self {
            run: now,
            run_before: position.elapsed_s,
            epoch: now,
            epoch_before: position.epoch_s,
            window: now,
            images: 0,
            waited: 0.0,
            waiting: now,
            saved: now,
        }
    }

    fn data_arrived(&mut self) {
        self.waited += self.waiting.elapsed().as_secs_f64();
    }

    fn tell(&self, position: &mut Position) {
        position.elapsed_s = self.run_before + self.run.elapsed().as_secs_f64();
        position.epoch_s = self.epoch_before + self.epoch.elapsed().as_secs_f64();
    }

    /// Images a second and the share of time spent waiting for them, since the last call.
    fn take_window(&mut self) -> (f64, f64) {
        let seconds = self.window.elapsed().as_secs_f64();
        let result = (self.images as f64 / seconds, self.waited / seconds);
        (self.window, self.images, self.waited) = (Instant::now(), 0, 0.0);
        result
    }

    /// Seconds of the epoch, over all interruptions.
    fn take_epoch(&mut self) -> f64 {
        let seconds = self.epoch_before + self.epoch.elapsed().as_secs_f64();
        (self.epoch, self.epoch_before) = (Instant::now(), 0.0);
        seconds
    }
}

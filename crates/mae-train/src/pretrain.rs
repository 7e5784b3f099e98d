//! The training loop.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use mae_data::MaskedBatch;
use mae_report::Record;
use tch::Device;

use crate::checkpoint::{self, Position};
use crate::config::RunConfig;
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::progress::{Progress, Steps};
use crate::run_dir::RunDir;
use crate::schedule::Schedule;
use crate::state::TrainState;
use crate::{data, reconstruct};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// After its last epoch.
    Finished {
        /// Mean loss of the last epoch; `None` if it had ended before this call.
        loss: Option<f64>,
        /// The last checkpoint.
        checkpoint: PathBuf,
    },
    /// Saved and stopped by a signal.
    Interrupted {
        /// The signal's number.
        signal: i32,
        /// Where it can be resumed from.
        checkpoint: PathBuf,
    },
}

/// Updates skipped in a row, for a loss or gradient that is not finite, before a run gives up.
///
/// A loss scale that starts too high needs some of them to settle.
const MAX_SKIPPED_IN_ROW: u64 = 40;

/// Trains from the latest checkpoint in `run_dir`, or from the start if there is none.
///
/// # Errors
/// If the data or the run's files cannot be read or written, or training diverges.
pub fn pretrain(
    mut config: RunConfig,
    run_dir: &RunDir,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Outcome> {
    if let Device::Cuda(_) = config.device {
        // TF32 where products are in f32 at all; 10 bits of mantissa are the norm for training on CUDA.
        torch_ext::set_float32_matmul_precision(torch_ext::MatmulPrecision::High)?;
    }
    let dataset = data::open(&config)?;
    let normalization = data::settle_normalization(&mut config, dataset.as_ref())?;
    let loader = data::loader(&config, dataset.clone())?;
    let samples = reconstruct::pick(&config, dataset.clone())?;
    if !run_dir.config().exists() {
        run_dir.write_config(&config)?;
    }

    let mut state = TrainState::new(&config, &normalization)?;
    checkpoint::clean(&run_dir.checkpoints())?;
    let position = match checkpoint::latest(&run_dir.checkpoints())? {
        Some(path) => checkpoint::load(&path, &state)?,
        None => Position {
            images: dataset.len(),
            ..Position::default()
        },
    };
    ensure!(
        position.images == dataset.len(),
        "the data set has {} images, but had {} when the run began: a run can only go on with the same images",
        dataset.len(),
        position.images
    );
    let steps_per_epoch = loader.batches_per_epoch().div_ceil(config.optim.accumulate) as u64;
    let mut run = Run {
        journal: Journal::open(run_dir, position.step)?,
        bar: progress.start(position.step, steps_per_epoch * config.optim.epochs),
        clock: Clock::start(&position),
        schedule: config.schedule(steps_per_epoch),
        steps_per_epoch,
        position,
        run_dir,
        config: &config,
    };

    let mut last_loss = None;
    while run.position.epoch < config.optim.epochs {
        let epoch = run.position.epoch;
        let mut batches = loader.epoch(epoch, run.position.batch).peekable();
        while let Some(first) = batches.next().transpose()? {
            let accumulate = config.optim.accumulate;
            let group_number = first.number / accumulate;
            let is_same = |batch: &MaskedBatch| batch.number / accumulate == group_number;
            let mut group = vec![first];
            // Looks at the next batch only where the group is not full, for looking is waiting.
            while group
                .last()
                .is_some_and(|last| (last.number + 1) % accumulate != 0)
                && let Some(batch) = batches.next_if(|next| next.as_ref().map_or(true, is_same))
            {
                group.push(batch?);
            }
            run.step(&mut state, &group, group_number as u64)?;
            if let Some(signal) = interrupt.signal() {
                let checkpoint = run
                    .save(&state)?
                    .context("stopped while the loss is not finite: not saved")?;
                run.journal.publish()?;
                return Ok(Outcome::Interrupted { signal, checkpoint });
            }
        }
        last_loss = Some(run.end_epoch(&mut state, &samples, loader.broken().len() as u64)?);
    }
    let checkpoint =
        checkpoint::latest(&run_dir.checkpoints())?.context("the run saved no checkpoint")?;
    Ok(Outcome::Finished {
        loss: last_loss,
        checkpoint,
    })
}

/// A run in progress, but for what training changes.
struct Run<'a> {
    config: &'a RunConfig,
    run_dir: &'a RunDir,
    journal: Journal<'a>,
    bar: Steps<'a>,
    clock: Clock,
    schedule: Schedule,
    steps_per_epoch: u64,
    position: Position,
}

impl Run<'_> {
    /// One update from the batches of a group, and what is due after it.
    fn step(
        &mut self,
        state: &mut TrainState,
        group: &[MaskedBatch],
        group_number: u64,
    ) -> Result<()> {
        self.clock.data_arrived(group);
        // From the group's number, not from a count: a group of broken images alone is never seen.
        let step = self.position.epoch * self.steps_per_epoch + group_number;
        let lr = self.schedule.lr(step);
        state.update(group, lr)?;
        self.bar.advance();

        self.position.step = step + 1;
        self.position.batch = group.last().map_or(0, |batch| batch.number + 1);
        let ends_epoch = (step + 1).is_multiple_of(self.steps_per_epoch);
        if (step + 1).is_multiple_of(self.config.run.log_every) || ends_epoch {
            self.log(state, lr)?;
        }
        self.clock.update(&mut self.position);
        let minutes = self.config.run.checkpoint_minutes;
        if minutes > 0.0 && self.clock.saved.elapsed().as_secs_f64() > 60.0 * minutes {
            self.save(state)?;
        }
        self.clock.waiting = Instant::now();
        Ok(())
    }

    /// Reads the sums back from the device, writes them down, and looks for divergence.
    fn log(&mut self, state: &mut TrainState, lr: f64) -> Result<()> {
        let means = state.totals.take_window();
        let (images_per_s, data_wait) = self.clock.take_window();
        let epoch = self.position.step as f64 / self.steps_per_epoch as f64;
        let skipped = state.totals.skipped();
        self.clock.update(&mut self.position);
        self.journal.record(&Record::Step {
            step: self.position.step,
            epoch,
            loss: means.loss,
            lr,
            grad_norm: means.grad_norm,
            images_per_s,
            data_wait,
            loss_scale: state.scaler.as_ref().map(|scaler| scaler.current()),
            skipped,
            elapsed_s: self.position.elapsed_s,
        })?;
        let mut message = format!(
            "epoch {epoch:.2}/{}  loss {:.4}  lr {lr:.2e}  {images_per_s:.0} images/s",
            self.config.optim.epochs, means.loss
        );
        if skipped > 0 {
            message += &format!("  {skipped} updates skipped");
        }
        self.bar.message(&message);

        let in_row = state.totals.skipped_in_row();
        if in_row >= MAX_SKIPPED_IN_ROW {
            let kept = match checkpoint::latest(&self.run_dir.checkpoints())? {
                Some(path) => format!("the last good checkpoint is {}", path.display()),
                None => "no checkpoint had been saved yet".into(),
            };
            bail!(
                "the loss or a gradient was not finite in {in_row} updates in a row, the last of them step {}; {kept}; \
                 start a new run with a smaller optim.base_lr (now {:e}), a longer optim.warmup_epochs, \
                 optim.clip_grad=1, or run.precision=fp32",
                self.position.step,
                self.config.optim.base_lr
            );
        }
        Ok(())
    }

    /// Closes an epoch: its record, and the picture and checkpoint if they are due. Returns its mean loss.
    fn end_epoch(
        &mut self,
        state: &mut TrainState,
        samples: &MaskedBatch,
        broken_images: u64,
    ) -> Result<f64> {
        let loss = state.totals.take_epoch().loss;
        self.clock.update(&mut self.position);
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
        })?;
        self.bar.line(&format!(
            "epoch {epoch}/{}  loss {loss:.4}  {seconds:.1} s",
            self.config.optim.epochs
        ));

        let is_last = epoch == self.config.optim.epochs;
        let is_due = |every: u64| is_last || (every > 0 && epoch % every == 0);
        if is_due(self.config.run.reconstruct_every) {
            let picture = reconstruct::draw(&state.model, samples)?;
            self.journal.picture(&picture, epoch, step)?;
        }
        self.journal.publish()?;
        if is_due(self.config.run.checkpoint_every) {
            self.save(state)?;
        }
        self.clock.waiting = Instant::now();
        Ok(loss)
    }

    /// Saves a checkpoint, unless the latest update was skipped: then the one before is the last good one.
    fn save(&mut self, state: &TrainState) -> Result<Option<PathBuf>> {
        self.clock.saved = Instant::now();
        if state.totals.skipped_in_row() > 0 {
            log::warn!(
                "step {}: not saved, for its loss or gradient is not finite",
                self.position.step
            );
            return Ok(None);
        }
        let keep = self.config.run.keep_checkpoints;
        checkpoint::save(&self.run_dir.checkpoints(), &self.position, state, keep).map(Some)
    }
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

    fn data_arrived(&mut self, group: &[MaskedBatch]) {
        self.waited += self.waiting.elapsed().as_secs_f64();
        self.images += group.iter().map(MaskedBatch::len).sum::<usize>();
    }

    fn update(&self, position: &mut Position) {
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

//! How fast images come and how fast they are learned from, alone and together.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mae_data::{Dataset, Loader, MaskedBatch};
use mae_model::Normalization;
use serde::Serialize;
use tch::Device;

use super::machine;
use crate::config::RunConfig;
use crate::distributed::World;
use crate::pretrain::{TrainState, learned_target};
use crate::run::progress::Progress;
use crate::train_loop::next_group;
use crate::{data, reconstruct};

/// What was measured on real images, with weights that are thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Images a second of the loader while nothing else runs.
    pub loader: f64,
    /// Images a second of updates whose batches are there already.
    pub step: f64,
    /// Images a second of the loop: updates from batches that the loader makes meanwhile.
    pub together: f64,
    /// Share of the loop's time that updates wait for images.
    pub waiting: f64,
    /// The model's operations a second in the loop, over those of the fastest matrix products.
    pub mfu: f64,
    /// Images that went through the model at once: fewer than `optim.batch_size` where a batch would take too long.
    pub batch: usize,
    /// Batches of an update as it was measured: fewer than `optim.accumulate` where an update would take too long.
    pub accumulated: usize,
    /// Seconds for a picture of reconstructions.
    pub picture_s: f64,
    /// Bytes of a picture of reconstructions.
    pub picture_bytes: u64,
    /// The most bytes of the device's memory that were taken, where the system says so and whole batches were measured.
    pub peak_memory: Option<u64>,
}

/// Images of the first try.
const TRIED: usize = 2;
/// Of the seconds of measuring, what one update may take.
const SHARE: f64 = 0.1;

impl Speed {
    /// Whether updates wait for images more than they should.
    pub fn loader_limits(&self) -> bool {
        self.waiting > 0.1
    }
}

/// So small that weights hardly move: they stay fit for measuring.
const LR: f64 = 1e-6;
/// Batches that updates take in turn, alone.
const BATCHES: usize = 4;

/// Measures the loop of `config` for `seconds`, and the loader and the updates alone for half of it each.
/// With what is before and between it takes up to about three times as long, for a model of any size.
///
/// # Errors
/// If the images cannot be read, or libtorch refuses.
pub fn measure(
    config: &RunConfig,
    dataset: &Arc<dyn Dataset>,
    normalization: &Normalization,
    seconds: f64,
    progress: &Progress,
) -> Result<Speed> {
    progress.line("building the model and trying a few images");
    let free_before = machine::memory(config.device).map(|memory| memory.free);
    let mut state = TrainState::new(config, normalization, &Rc::new(World::alone()))?;
    learned_target::prepare(config, dataset, &state.model, progress)?;
    let (device, precision) = (config.device, config.precision.kind());
    let matmul_flops = config.run.kernels.matmul_flops(device, precision)?;
    let _threads = config.run.kernels.take_threads(device, precision);

    let batch_size = config.optim.batch_size;
    let batch = images_at_once(config, dataset, &mut state, SHARE * seconds)?;
    let config = &with_batch(config, batch);
    let loader = &data::loader(config, Arc::clone(dataset), &World::alone())?;
    progress.line(&format!("measuring updates alone, of {batch} images"));
    let step = updates_alone(config, &mut state, loader, seconds / 2.0)?;
    progress.line("measuring the loader alone");
    let loading = loader_alone(loader, seconds / 2.0)?;
    progress.line("measuring both together");
    let batch_s = batch as f64 / step;
    let accumulated = (seconds / (3.0 * batch_s)) as usize;
    let accumulated = accumulated.clamp(1, config.optim.accumulate);
    let (together, waiting) = both(config, &mut state, loader, accumulated, seconds)?;

    let samples = reconstruct::pick(config, Arc::clone(dataset))?;
    let started = Instant::now();
    let png = reconstruct::draw(&state.model, &samples)?.whole.png()?;
    let picture_s = started.elapsed().as_secs_f64();
    let peak_memory = match config.device {
        _ if batch < batch_size => None,
        // libtorch keeps what it once took.
        Device::Cuda(_) => free_before
            .zip(machine::memory(device))
            .map(|(before, now)| before.saturating_sub(now.free)),
        _ => machine::peak_resident(),
    };
    let flops_per_image = config.method.flops()?.training() as f64;
    Ok(Speed {
        loader: loading,
        step,
        together,
        waiting,
        mfu: together * flops_per_image / matmul_flops,
        batch,
        accumulated,
        picture_s,
        picture_bytes: png.len() as u64,
        peak_memory,
    })
}

/// How many images an update is measured with: a batch, or fewer if that would take more than `budget` seconds.
fn images_at_once(
    config: &RunConfig,
    dataset: &Arc<dyn Dataset>,
    state: &mut TrainState,
    budget: f64,
) -> Result<usize> {
    let batch_size = config.optim.batch_size;
    let mut tried = batch_size.min(TRIED);
    loop {
        let loader = data::loader(
            &with_batch(config, tried),
            Arc::clone(dataset),
            &World::alone(),
        )?;
        let mut took = budget;
        // The first one does not count, if there are two: memory is touched for the first time, code is loaded.
        for batch in loader.epoch(0, 0).take(2) {
            let batch = batch?;
            let started = Instant::now();
            state.update(&[batch], LR)?;
            synchronize(config.device);
            took = started.elapsed().as_secs_f64();
            if SHARE * took > budget {
                // Slower than all of the measuring: a second one would say no more.
                break;
            }
        }
        // At least in proportion: part of an update is the same for any number of images.
        let fitting = (tried as f64 * budget / took) as usize;
        if fitting >= batch_size {
            return Ok(batch_size);
        }
        if fitting <= 2 * tried {
            return Ok(fitting.max(1));
        }
        tried = fitting;
    }
}

fn with_batch(config: &RunConfig, batch_size: usize) -> RunConfig {
    let mut config = config.clone();
    config.optim.batch_size = batch_size;
    config
}

/// Images a second of updates from one batch, whose images are there already.
fn updates_alone(
    config: &RunConfig,
    state: &mut TrainState,
    loader: &Loader,
    seconds: f64,
) -> Result<f64> {
    let batches: Vec<MaskedBatch> = loader.epoch(0, 0).take(BATCHES).collect::<Result<_, _>>()?;
    ensure!(!batches.is_empty(), "no image can be read");
    let mut turns = batches.iter().cycle();
    let mut update = |state: &mut TrainState| -> Result<usize> {
        let batch = turns.next().context("a cycle has no end")?;
        state.update(std::slice::from_ref(batch), LR)?;
        synchronize(config.device);
        Ok(batch.len())
    };
    let started = Instant::now();
    let mut images = 0;
    loop {
        images += update(state)?;
        if started.elapsed().as_secs_f64() >= seconds {
            return Ok(images as f64 / started.elapsed().as_secs_f64());
        }
    }
}

/// Images a second of batches that nobody uses.
fn loader_alone(loader: &Loader, seconds: f64) -> Result<f64> {
    let mut images = 0;
    let mut started = None;
    for epoch in 0.. {
        for batch in loader.epoch(epoch, 0) {
            let batch = batch?;
            // The first one fills the pipeline.
            let Some(started) = started else {
                started = Some(Instant::now());
                continue;
            };
            images += batch.len();
            let elapsed = Instant::now().duration_since(started).as_secs_f64();
            if elapsed >= seconds {
                return Ok(images as f64 / elapsed);
            }
        }
    }
    unreachable!("epochs do not end")
}

/// Images a second of the loop, and the share of its time that it waits for them.
fn both(
    config: &RunConfig,
    state: &mut TrainState,
    loader: &Loader,
    accumulate: usize,
    seconds: f64,
) -> Result<(f64, f64)> {
    // The batches that are made before the first update would be a present.
    let present = super::memory::batches_held(
        config.optim.batch_size,
        config.optim.accumulate,
        config.run.workers,
    );
    let patience = Duration::from_secs_f64(seconds / 2.0);
    let begun = Instant::now();
    let mut window: Option<Window> = None;
    let (mut taken, mut updates) = (0, 0);
    for epoch in 0.. {
        let mut batches = loader.epoch(epoch, 0).peekable();
        loop {
            let asked = Instant::now();
            let Some(group) = next_group(&mut batches, accumulate)? else {
                break;
            };
            let waited = asked.elapsed();
            state.update(&group, LR)?;
            updates += 1;
            if updates % config.run.log_every == 0 {
                // As the loop does: it waits for the device.
                state.trainer.totals.take_window();
            }
            taken += group.len();
            let Some(window) = &mut window else {
                if taken >= present || begun.elapsed() >= patience {
                    synchronize(config.device);
                    window = Some(Window::new());
                }
                continue;
            };
            window.images += group.iter().map(MaskedBatch::len).sum::<usize>();
            window.waited += waited;
            if window.started.elapsed().as_secs_f64() >= seconds {
                synchronize(config.device);
                return Ok(window.close());
            }
        }
    }
    unreachable!("epochs do not end")
}

struct Window {
    started: Instant,
    images: usize,
    waited: Duration,
}

impl Window {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            images: 0,
            waited: Duration::ZERO,
        }
    }

    fn close(&self) -> (f64, f64) {
        let seconds = self.started.elapsed().as_secs_f64();
        let waited = self.waited.as_secs_f64();
        (self.images as f64 / seconds, waited / seconds)
    }
}

fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

//! What a run will need and how long it will take, and what may be wrong with it, before it begins.
//!
//! [`examine`] writes nothing: it computes the [`Plan`], estimates the memory ([`RunMemory`]), trains for some seconds
//! on real images with weights that it throws away ([`Speed`]), and lists what it finds ([`Finding`]).

mod advice;
mod images;
pub mod machine;
mod measure;
mod memory;
mod plan;
pub mod scaling;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use mae_data::{Dataset, LeftOut, hold_out, shared_classes};
use mae_model::{Kernels, LossRegion, MaeConfig};
use serde::Serialize;
use tch::Device;

use crate::config::RunConfig;
use crate::data;
use crate::device;
use crate::distributed::World;
use crate::run::progress::Progress;
use crate::train::precision::Precision;

pub use advice::{Finding, Severity};
pub use images::ImageSample;
pub use machine::DeviceMemory;
pub use measure::Speed;
pub use memory::{RunMemory, batch_bytes, batches_held, checkpoint_bytes};
pub use plan::Plan;

/// Everything that was found out about a run; what an error made impossible is `None`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Diagnosis {
    /// The device's name.
    pub device: Option<String>,
    /// What products are computed in.
    pub precision: Option<&'static str>,
    /// Who computes the products of transformer blocks.
    pub products: Option<&'static str>,
    /// The instructions of this CPU for bf16 that the run leaves unused, with which it would be faster.
    pub unused_bf16: Option<&'static str>,
    /// Cores that the program may use.
    pub cores: usize,
    /// Threads that load images.
    pub workers: usize,
    /// The sizes of the run.
    pub plan: Option<Plan>,
    /// What the images are like.
    pub sample: Option<ImageSample>,
    /// What lies beside the images and is none of them.
    pub left_out: Vec<LeftOut>,
    /// The memory that the run needs.
    pub memory: Option<RunMemory>,
    /// The memory that the device has, without what this process has taken of it.
    pub device_memory: Option<DeviceMemory>,
    /// What was measured.
    pub speed: Option<Speed>,
    /// How long the run takes.
    pub time: Option<RunTime>,
    /// What the run writes, and whether there is room for it.
    pub disk: Option<RunDisk>,
    /// Mistakes and advice, mistakes first.
    pub findings: Vec<Finding>,
}

/// Seconds of a run, predicted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RunTime {
    /// Until the first update.
    pub start: f64,
    /// Updates of an epoch.
    pub epoch: f64,
    /// Updates of the run.
    pub updates: f64,
    /// Pictures of reconstructions.
    pub pictures: f64,
    /// What `run.eval_every` asks for: features of all images, at the speed of training.
    pub evaluations: f64,
    /// Writing checkpoints, at 500 MB/s.
    pub checkpoints: f64,
    /// All of it.
    pub total: f64,
}

/// Bytes that a run writes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RunDisk {
    /// Of one checkpoint.
    pub checkpoint: u64,
    /// Checkpoints that are there at once: while one is written, the old ones still are.
    pub checkpoints: u64,
    /// Metrics, TensorBoard's events and pictures, about.
    pub logs: u64,
    /// All of it.
    pub total: u64,
    /// What is free there, where the system says so.
    pub free: Option<u64>,
}

/// Bytes a second that checkpoints are taken to be written with: nothing is written to find out.
const WRITING: f64 = 500e6;

impl Diagnosis {
    /// Of a configuration that cannot be a run.
    pub fn refused(error: &anyhow::Error) -> Self {
        Self {
            findings: vec![Finding::error("configuration", format!("{error:#}"), "")],
            ..Self::default()
        }
    }

    /// Whether the run can begin.
    pub fn can_start(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.all(|finding| finding.severity != Severity::Error)
    }
}

/// Examines the run of `config` that would be written into `out`, measuring for two to three times `seconds`.
///
/// Nothing is written. What would stop the run is a [`Finding`] of the result, as far as it can go on without it.
///
/// # Errors
/// If libtorch refuses what it is asked for.
pub fn examine(
    mut config: RunConfig,
    out: &Path,
    seconds: f64,
    progress: &Progress,
) -> Result<Diagnosis> {
    let started = Instant::now();
    device::prefer_speed(config.device)?;
    let cores = machine::cores();
    let workers = match config.run.workers {
        0 => cores,
        workers => workers,
    };
    let mut found = Diagnosis {
        device: Some(crate::device::name(config.device)),
        precision: Some(config.precision.name()),
        products: Some((config.run.kernels).products(config.device, config.precision.kind())),
        unused_bf16: Kernels::bf16_instructions().filter(|_| {
            config.device == Device::Cpu
                && config.precision == Precision::Fp32
                && config.run.kernels != Kernels::Plain
        }),
        cores,
        workers,
        ..Diagnosis::default()
    };
    found.findings.extend(advice::of_configuration(&config));
    found.findings.extend(advice::of_machine(
        &config,
        cores,
        machine::has_gpu(),
        Kernels::bf16_instructions().is_some(),
    ));
    found.findings.extend(advice::of_folder(out));

    let grid = config.grid;
    let opened = data::open(&config.data, &grid, config.seed);
    let dataset = found.keep("data", opened);
    if let Some(dataset) = &dataset {
        let plan = Plan::new(&config, dataset.len())?;
        let sample = ImageSample::take(dataset.as_ref(), grid.height(), grid.width());
        (found.findings).extend(advice::of_plan(&config, &plan));
        (found.findings).extend(advice::of_images(&config, &sample));
        (found.findings).extend(advice::of_parts(&config, dataset.as_ref()));
        (found.findings).extend(advice::of_notes(&config, dataset.as_ref()));
        if config.run.eval_every > 0 {
            found.keep("run.eval_every", check_labels(dataset, config.seed));
        }
        found.left_out = dataset.left_out().to_vec();
        found.plan = Some(plan);
        found.sample = Some(sample);
    }

    let program = machine::resident().unwrap_or(0);
    let memory = RunMemory::estimate(&config, program, workers)?;
    let device_memory = machine::memory(config.device).map(|memory| DeviceMemory {
        // The run will not share it with this process.
        free: match config.device {
            Device::Cuda(_) => memory.free,
            _ => memory.free + program,
        },
        ..memory
    });
    (found.findings).extend(advice::of_memory(&config, &memory, device_memory));
    (found.memory, found.device_memory) = (Some(memory), device_memory);

    if let Some(dataset) = &dataset
        && found.can_start()
    {
        let measured = start(&mut config, dataset).and_then(|normalization| {
            let start_s = started.elapsed().as_secs_f64();
            let speed = measure::measure(&config, dataset, &normalization, seconds, progress)?;
            Ok((start_s, speed))
        });
        if let Some((start_s, speed)) = found.keep("data", measured)
            && let Some(plan) = &found.plan
        {
            (found.findings).extend(advice::of_speed(&config, &speed, cores, workers));
            let time = RunTime::predict(&config, plan, &speed, start_s)?;
            (found.findings).extend(advice::of_time(&config, &time));
            (found.speed, found.time) = (Some(speed), Some(time));
        }
    }

    if let Some(plan) = &found.plan {
        let disk = RunDisk::predict(
            &config,
            plan,
            found.speed.as_ref(),
            found.time.as_ref(),
            out,
        )?;
        found.findings.extend(advice::of_disk(&disk));
        found.disk = Some(disk);
    }
    found.findings.sort_by_key(|finding| finding.severity);
    Ok(found)
}

/// What comes before the first update of a run.
fn start(config: &mut RunConfig, dataset: &Arc<dyn Dataset>) -> Result<mae_model::Normalization> {
    let (grid, seed) = (config.grid, config.seed);
    let normalization =
        data::settle_normalization(&mut config.data, &grid, seed, dataset.as_ref())?;
    // It refuses what makes no batches.
    data::loader(config, Arc::clone(dataset), &World::alone())?;
    Ok(normalization)
}

/// Whether the images can be classified, as `run.eval_every` must.
fn check_labels(dataset: &Arc<dyn Dataset>, seed: u64) -> Result<()> {
    let (train, val) = hold_out(Arc::clone(dataset), 0.1, seed)?;
    shared_classes(&train, &val).context("`run.eval_every` needs labelled images")?;
    Ok(())
}

impl Diagnosis {
    /// The value, or its error as a finding.
    fn keep<T>(&mut self, key: &'static str, result: Result<T>) -> Option<T> {
        let error = |error: anyhow::Error| {
            (self.findings).push(Finding::error(key, format!("{error:#}"), ""));
        };
        result.map_err(error).ok()
    }
}

impl RunTime {
    fn predict(config: &RunConfig, plan: &Plan, speed: &Speed, start: f64) -> Result<Self> {
        let epoch = plan.images_per_epoch as f64 / speed.together;
        let updates = epoch * plan.epochs as f64;
        let pictures = plan.pictures as f64 * speed.picture_s;
        // Features of whole images: as many tokens as mask tokens would make, and nothing goes back.
        let whole = MaeConfig {
            encoder_mask_tokens: true,
            loss_region: LossRegion::Masked,
            ..config.method.model.clone()
        };
        let flops = whole.flops(config.method.mask.ratio)?.encoder as f64 * plan.images as f64;
        let flops_per_s = speed.together * plan.training_flops as f64;
        let evaluations = plan.evaluations as f64 * flops / flops_per_s;
        let checkpoints = plan.checkpoints as f64 * checkpoint_bytes(config)? as f64 / WRITING;
        Ok(Self {
            start,
            epoch,
            updates,
            pictures,
            evaluations,
            checkpoints,
            total: start + updates + pictures + evaluations + checkpoints,
        })
    }
}

impl RunDisk {
    fn predict(
        config: &RunConfig,
        plan: &Plan,
        speed: Option<&Speed>,
        time: Option<&RunTime>,
        out: &Path,
    ) -> Result<Self> {
        // A line of metrics.jsonl and its events, as they are; a picture is in its own file and among the events.
        const LINE: u64 = 700;
        let lines = plan.steps.div_ceil(config.run.log_every) + plan.epochs;
        let picture = speed.map_or(0, |speed| speed.picture_bytes);
        let logs = lines * LINE + plan.pictures * 2 * picture;
        let checkpoint = checkpoint_bytes(config)?;
        let by_time = match (time, config.run.checkpoint_minutes) {
            (Some(time), minutes) if minutes > 0.0 => (time.total / (60.0 * minutes)) as u64,
            _ => 0,
        };
        let most = config.run.keep_checkpoints as u64 + 1;
        let checkpoints = most.min(plan.checkpoints + by_time);
        Ok(Self {
            checkpoint,
            checkpoints,
            logs,
            total: checkpoint * checkpoints + logs,
            free: machine::free_disk(out),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{Source, read};

    /// The quickstart on the CPU, with keys changed.
    pub fn config(keys: &[&str]) -> RunConfig {
        let keys = [&["run.device=cpu"], keys].concat();
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let config = read(&Source::Recipe("quickstart".into()), None, &keys);
        config.unwrap().resolve().unwrap()
    }

    pub const SPEED: Speed = Speed {
        loader: 4000.0,
        step: 1500.0,
        together: 1024.0,
        waiting: 0.01,
        mfu: 0.5,
        batch: 64,
        accumulated: 1,
        picture_s: 0.25,
        picture_bytes: 1000,
        peak_memory: None,
    };

    #[test]
    fn time_adds_up() {
        let config = config(&["run.eval_every=6"]);
        let plan = Plan::new(&config, 8192).unwrap();
        let time = RunTime::predict(&config, &plan, &SPEED, 2.0).unwrap();
        assert_eq!((time.epoch, time.updates), (8.0, 96.0));
        assert_eq!(time.pictures, 6.0 * 0.25);
        // Two, each with the encoder's part of the forward pass of all tokens of all images.
        let whole = MaeConfig {
            encoder_mask_tokens: true,
            ..config.method.model.clone()
        };
        let share = whole.flops(0.75).unwrap().encoder as f64 / plan.training_flops as f64;
        assert!((time.evaluations - 2.0 * 8.0 * share).abs() < 1e-9);
        let parts = time.start + time.updates + time.pictures + time.evaluations;
        assert_eq!(time.total, parts + time.checkpoints);
    }

    #[test]
    fn disk_holds_one_checkpoint_more_than_is_kept() {
        let here = Path::new(".");
        let disk = |keys: &[&str]| {
            let config = config(keys);
            let plan = Plan::new(&config, 8192).unwrap();
            let time = RunTime::predict(&config, &plan, &SPEED, 0.0).unwrap();
            RunDisk::predict(&config, &plan, Some(&SPEED), Some(&time), here).unwrap()
        };
        let plenty = disk(&["run.checkpoint_every=1"]);
        assert_eq!(plenty.checkpoints, 3);
        assert_eq!(plenty.total, 3 * plenty.checkpoint + plenty.logs);
        assert_eq!(disk(&["run.checkpoint_every=0"]).checkpoints, 1);
        // One more a minute, of a run of 98 seconds.
        let keys = ["run.checkpoint_every=0", "run.checkpoint_minutes=1"];
        assert_eq!(disk(&keys).checkpoints, 2);
    }
}

//! Measures whole training steps as the program does them: masks, forward, backward, gradient norm, AdamW.
//!
//! ```sh
//! cargo run --release -p mae-train --example train_step -- --config vit_ti2_32
//! ```
//!
//! prints one line of JSON. The images are random and in memory; the configurations are in `benches/steps.json`.
//! Peak memory is that of the steps; the products of matrices that `mfu` is taken against come after them.

// The program's own allocator, or it would not be the program that is measured.
#[cfg(target_os = "linux")]
#[path = "../src/allocator.rs"]
mod allocator;

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Parser, ValueEnum};
use mae_data::{
    MaskSampler, MaskedBatch, PatchGrid, SampleKey, kept_patches, patchify_shuffled_into,
};
use mae_model::{Kernels, MaeConfig, Normalization};
use mae_train::config::{RunConfig, Source, read};
use mae_train::distributed::World;
use mae_train::pretrain::TrainState;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

const STEPS: &str = include_str!("../../../benches/steps.json");
const MASK_RATIO: f64 = 0.75;
const WARM_UP: usize = 3;

/// Measures whole training steps on the CPU, and prints one line of JSON.
#[derive(Parser)]
struct Args {
    /// A name in benches/steps.json
    #[arg(long)]
    config: String,
    /// What computes transformer blocks, as `run.kernels`
    #[arg(long, value_enum, default_value_t = BlockKernels::Auto)]
    kernels: BlockKernels,
    /// What products are computed in, as `run.precision`
    #[arg(long, value_enum, default_value_t = StepPrecision::Fp32)]
    precision: StepPrecision,
    /// How long to measure
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

#[derive(Clone, Copy, ValueEnum)]
enum BlockKernels {
    Auto,
    Fused,
    FusedMkl,
    Plain,
}

#[derive(Clone, Copy, ValueEnum)]
enum StepPrecision {
    Fp32,
    Bf16,
}

#[derive(Deserialize)]
struct Step {
    batch_size: usize,
    model: MaeConfig,
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<serde_json::Value> {
    let step = find(&args.config)?;
    let config = run_config(&step, args.precision)?;
    let images = Images::random(&step)?;
    let mut state = TrainState::new(&config, &Normalization::IMAGENET, &Rc::new(World::alone()))?;
    let kernels = match args.kernels {
        BlockKernels::Auto => Kernels::Auto.here(),
        BlockKernels::Fused => Kernels::Fused,
        BlockKernels::FusedMkl => Kernels::FusedMkl,
        BlockKernels::Plain => Kernels::Plain,
    };
    state.model.set_kernels(kernels);
    let threads = tch::get_num_threads();
    let taken_threads = kernels.take_threads(config.device, config.precision.kind());
    let mut number = 0;
    let mut update = || -> Result<Duration> {
        let start = Instant::now();
        let batch = images.mask(number)?;
        state.update(&[batch], 1e-4)?;
        number += 1;
        Ok(start.elapsed())
    };

    for _ in 0..WARM_UP {
        update()?;
    }
    let mut taken = Vec::new();
    while taken.len() < WARM_UP || taken.iter().sum::<Duration>().as_secs_f64() < args.seconds {
        taken.push(update()?);
    }
    let peak_rss_mb = peak_rss_mb();
    drop(taken_threads);
    ensure!(
        state.trainer.totals.skipped() == 0,
        "an update was skipped because its loss was not finite: what was measured is no training"
    );

    let seconds = taken.iter().sum::<Duration>().as_secs_f64();
    let images_per_s = (taken.len() * step.batch_size) as f64 / seconds;
    let gflops_per_image = step.model.flops(MASK_RATIO)?.training() as f64 / 1e9;
    // Of libtorch alone, and of the faster of the two that the program has.
    let matmul_gflops = |kernels: Kernels| -> Result<f64> {
        Ok(kernels.matmul_flops(Device::Cpu, config.precision.kind())? / 1e9)
    };
    let libtorch_gflops = matmul_gflops(Kernels::Plain)?;
    let matmul_gflops = [Kernels::Fused, Kernels::FusedMkl]
        .into_iter()
        .map(matmul_gflops)
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .fold(0.0, f64::max);
    Ok(serde_json::json!({
        "images_per_s": images_per_s,
        "step_ms": median(&mut taken).as_secs_f64() * 1e3,
        "batches": taken.len(),
        "seconds": seconds,
        "peak_rss_mb": peak_rss_mb,
        "gflops_per_image": gflops_per_image,
        "libtorch_matmul_gflops": libtorch_gflops,
        "matmul_gflops": matmul_gflops,
        "mfu": images_per_s * gflops_per_image / matmul_gflops,
        "threads": threads,
        "kernels": kernels.name(),
    }))
}

fn find(name: &str) -> Result<Step> {
    let mut steps: BTreeMap<String, Step> =
        serde_json::from_str(STEPS).context("benches/steps.json")?;
    steps.remove(name).ok_or_else(|| {
        let names: Vec<_> = steps.keys().map(String::as_str).collect();
        anyhow!(
            "--config is {name}, expected one of benches/steps.json: {}",
            names.join(", ")
        )
    })
}

/// A recipe's optimizer around the configuration's network.
fn run_config(step: &Step, precision: StepPrecision) -> Result<RunConfig> {
    let precision = match precision {
        StepPrecision::Fp32 => "fp32",
        StepPrecision::Bf16 => "bf16",
    };
    let overrides = [
        "run.device=cpu".to_string(),
        format!("run.precision={precision}"),
    ];
    let mut config = read(&Source::Recipe("quickstart".into()), None, &overrides)?.resolve()?;
    config.method.model = step.model.clone();
    config.grid = step.model.grid()?;
    Ok(config)
}

/// A batch of images in memory.
struct Images {
    pixels: Vec<u8>,
    len: usize,
    grid: PatchGrid,
}

impl Images {
    fn random(step: &Step) -> Result<Self> {
        let grid = step.model.grid()?;
        let size = (step.batch_size * grid.image_len()) as i64;
        let pixels = Tensor::randint(256, [size], (Kind::Uint8, Device::Cpu));
        Ok(Self {
            pixels: Vec::try_from(pixels)?,
            len: step.batch_size,
            grid,
        })
    }

    /// What the loader makes of them in the step `number`: fresh masks, patches in their order.
    fn mask(&self, number: u64) -> Result<MaskedBatch> {
        let (grid, patch_dim) = (&self.grid, self.grid.patch_dim());
        let kept = kept_patches(grid.patches(), MASK_RATIO)?;
        let removed = grid.patches() - kept;
        let mut visible = vec![0_u8; self.len * kept * patch_dim];
        let mut masked = vec![0_u8; self.len * removed * patch_dim];
        let mut ids_shuffle = Vec::with_capacity(self.len * grid.patches());
        let images = (self.pixels.chunks_exact(grid.image_len()))
            .zip(visible.chunks_exact_mut(kept * patch_dim))
            .zip(masked.chunks_exact_mut(removed * patch_dim));
        for (index, ((image, visible), masked)) in images.enumerate() {
            let key = SampleKey {
                seed: 0,
                epoch: number,
                index: index as u64,
            };
            let mask = MaskSampler::Random.sample(grid, MASK_RATIO, key)?;
            patchify_shuffled_into(image, grid, &mask, visible, masked)?;
            let ids = mask.ids_shuffle().iter().map(|&id| i64::from(id));
            ids_shuffle.extend(ids);
        }
        Ok(MaskedBatch {
            number: number as usize,
            visible: visible.into(),
            masked: masked.into(),
            ids_shuffle,
            kept,
            indices: (0..self.len).collect(),
            labels: vec![None; self.len],
        })
    }
}

fn median(taken: &mut [Duration]) -> Duration {
    taken.sort();
    let middle = taken.len() / 2;
    (taken[middle] + taken[(taken.len() - 1) / 2]) / 2
}

/// The most memory that the process has had, in MB, where the system says so.
fn peak_rss_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mae_data::{Mask, patchify, unshuffle};

    #[test]
    fn every_configuration_can_be_trained() {
        let steps: BTreeMap<String, Step> = serde_json::from_str(STEPS).unwrap();
        for (name, step) in &steps {
            assert_eq!(
                run_config(step, StepPrecision::Fp32).unwrap().method.model,
                step.model,
                "{name}"
            );
            step.model.flops(MASK_RATIO).unwrap();
            assert!(step.batch_size > 0, "{name}");
        }
        let error = find("vit_x").err().unwrap().to_string();
        assert!(
            error.contains("vit_x") && error.contains("vit_ti4_32"),
            "{error}"
        );
    }

    #[test]
    fn a_masked_batch_has_every_patch_of_its_images() {
        let mut step = find("vit_ti4_32").unwrap();
        step.batch_size = 2;
        let images = Images::random(&step).unwrap();
        let batch = images.mask(3).unwrap();
        let (grid, patch_dim) = (&images.grid, images.grid.patch_dim());
        let (patches, kept) = (grid.patches(), batch.kept);
        assert_eq!((batch.len(), kept, patches), (2, 16, 64));
        for index in 0..2 {
            let ids = &batch.ids_shuffle[index * patches..][..patches];
            let mask = Mask::from_ids_shuffle(ids.iter().map(|&id| id as u32).collect(), kept);
            let visible =
                &batch.visible.as_u8().unwrap()[index * kept * patch_dim..][..kept * patch_dim];
            let removed = (patches - kept) * patch_dim;
            let masked = &batch.masked.as_u8().unwrap()[index * removed..][..removed];
            let image = &images.pixels[index * grid.image_len()..][..grid.image_len()];
            assert_eq!(
                unshuffle(visible, masked, patch_dim, &mask.unwrap()).unwrap(),
                patchify(image, grid).unwrap()
            );
        }
        assert_ne!(batch.ids_shuffle, images.mask(4).unwrap().ids_shuffle);
    }

    #[test]
    fn medians() {
        let seconds = |values: &[u64]| -> Vec<Duration> {
            values
                .iter()
                .map(|&value| Duration::from_secs(value))
                .collect()
        };
        assert_eq!(median(&mut seconds(&[3, 1, 2])), Duration::from_secs(2));
        assert_eq!(
            median(&mut seconds(&[4, 1, 2, 3])),
            Duration::from_millis(2500)
        );
    }
}

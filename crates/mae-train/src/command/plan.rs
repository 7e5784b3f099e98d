//! `mae-train plan`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;
use mae_train::config::{ON_CPU, RunConfig, Source};
use mae_train::data;
use mae_train::doctor::scaling::{Cluster, Job, Limit, Link, Update};
use serde::Serialize;
use torch_ext::Reducer;

use super::run::TrainingArgs;
use super::write_stdout;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train plan                                          imagenet_vit_b16 on A100s; of ImageNet-1k unless --data says
  mae-train plan --recipe imagenet_vit_h14 --devices 64,512 --network 400
  mae-train plan --recipe imagenet_vit_l16 --tflops 989 --link 450   on H100s
  mae-train plan --config my.toml --data photos --devices 1,2,4 --cores 16
  mae-train plan --json > plan.json                       for scripts

These are formulas, in mae_train::doctor::scaling; docs/scaling.md says how far they can be trusted.";

/// What is to be trained, on what.
#[derive(Args)]
pub struct PlanArgs {
    #[command(flatten)]
    training: TrainingArgs,
    /// Numbers of devices
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_values_t = [1, 8, 64, 512],
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..)
    )]
    devices: Vec<usize>,
    /// Devices of one machine
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    node: usize,
    /// Peak of a device's matrix products, 10^12 operations a second; 312 is an A100 in bfloat16
    #[arg(long, value_name = "TFLOPS", default_value_t = 312.0, value_parser = positive)]
    tflops: f64,
    /// Share of the peak that training reaches, 0 to 1; 0.3 is what the paper's hours come to: see docs/scaling.md
    #[arg(long, value_name = "SHARE", default_value_t = 0.3, value_parser = share)]
    mfu: f64,
    /// Links between the devices of a machine, in each direction, GB/s; 300 is an A100's NVLink
    #[arg(long, value_name = "GB/S", default_value_t = 300.0, value_parser = positive)]
    link: f64,
    /// Networks between machines, Gbit/s of each machine
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [100.0, 400.0], value_parser = positive)]
    network: Vec<f64>,
    /// Cores of a machine that load images
    #[arg(long, value_name = "N", default_value_t = 96.0, value_parser = positive)]
    cores: f64,
    /// Images that a core loads in a second; 2,000 is what docs/results/performance.md has for JPEG files of 500 x 375
    #[arg(long, value_name = "IMAGES/S", default_value_t = 2000.0, value_parser = positive)]
    core_speed: f64,
    /// Prints one line of JSON: sizes in bytes, times in seconds
    #[arg(long)]
    json: bool,
}

/// Seconds until the first byte arrives: within a machine, between machines. NCCL's rings need about as long.
const LATENCY: [f64; 2] = [5e-6, 20e-6];

#[derive(Serialize)]
struct Row {
    network_gbit: f64,
    devices: usize,
    batch_size: usize,
    accumulate: usize,
    update: Update,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a number above 0".into()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match positive(text) {
        Ok(number) if number <= 1.0 => Ok(number),
        _ => Err("expected a share, above 0 and at most 1".into()),
    }
}

impl PlanArgs {
    /// Prints what the formulas give.
    pub fn run(&self) -> Result<ExitCode> {
        let training = &self.training;
        let default = || Source::Recipe("imagenet_vit_b16".into());
        let source = training.source().unwrap_or_else(default);
        // The formulas need no images, but a configuration names some.
        let path = training.data.as_deref().unwrap_or(Path::new("."));
        // Nor do they need the device that it names.
        let keys = [training.set.as_slice(), &[ON_CPU.into()]].concat();
        let config = RunConfig::read(&source, Some(path), &keys)?;
        let images = match training.data {
            Some(_) => data::open(&config.data, &config.grid, config.seed)?.len(),
            None => IMAGENET_IMAGES,
        };
        let mut rows = Vec::new();
        for &network_gbit in &self.network {
            for &devices in &self.devices {
                rows.push(self.row(&config, images, devices, network_gbit)?);
            }
        }
        let text = match self.json {
            true => serde_json::to_string(&rows)? + "\n",
            false => self.describe(&config, images, &rows)?,
        };
        write_stdout(|out| out.write_all(text.as_bytes()))
    }

    fn row(
        &self,
        config: &RunConfig,
        images: usize,
        devices: usize,
        network_gbit: f64,
    ) -> Result<Row> {
        let update = config.optim.effective_batch();
        ensure!(
            devices <= update,
            "--devices {devices} is more than the {update} images of an update: give fewer, or raise optim.batch_size \
             or optim.accumulate"
        );
        // What one device holds at once, the configuration says; as many batches as that makes.
        let accumulate = update.div_ceil(devices * config.optim.batch_size);
        let job = Job {
            gradient_bytes: gradient_bytes(config)?,
            last_bucket_bytes: Reducer::BUCKET_BYTES as f64,
            flops_per_image: config.method.flops()?.training() as f64,
            images_per_update: update as f64,
            accumulate: accumulate as f64,
            images: (images / update * update) as f64 * config.optim.epochs as f64,
        };
        let cluster = Cluster {
            devices,
            devices_per_node: self.node,
            flops: self.tflops * 1e12 * self.mfu,
            local: Link {
                bytes_per_s: self.link * 1e9,
                latency: LATENCY[0],
            },
            network: Link {
                bytes_per_s: network_gbit * 1e9 / 8.0,
                latency: LATENCY[1],
            },
            cores_per_node: self.cores,
            images_per_core: self.core_speed,
        };
        Ok(Row {
            network_gbit,
            devices,
            batch_size: update.div_ceil(accumulate),
            accumulate,
            update: job.on(&cluster),
        })
    }

    fn describe(&self, config: &RunConfig, images: usize, rows: &[Row]) -> Result<String> {
        let mut text = format!(
            "model     {:.1} M parameters, {:.0} MB of gradients; {:.2} GFLOP to learn from an image\n\
             run       {} epochs of {images} images, {} an update\n\
             device    {} TFLOP/s, of which {:.0} % are reached; {} GB/s to the {} others of its machine\n\
             loading   {} cores a machine, {} images/s each\n",
            config.method.model.parameter_count()?.trained() as f64 / 1e6,
            gradient_bytes(config)? / 1e6,
            config.method.flops()?.training() as f64 / 1e9,
            config.optim.epochs,
            config.optim.effective_batch(),
            self.tflops,
            100.0 * self.mfu,
            self.link,
            self.node - 1,
            self.cores,
            self.core_speed,
        );
        let mut network = None;
        for row in rows {
            if network != Some(row.network_gbit) {
                network = Some(row.network_gbit);
                write!(
                    text,
                    "\n{} Gbit/s between machines\n\
                     devices  batch_size  accumulate  compute ms  all-reduce ms  exposed ms  update ms  \
                     cores/device  limit       hours  device-hours\n",
                    row.network_gbit
                )?;
            }
            let update = &row.update;
            let ms = |seconds: f64| 1e3 * seconds;
            writeln!(
                text,
                "{:>7}  {:>10}  {:>10}  {:>10.1}  {:>13.1}  {:>10.1}  {:>9.1}  {:>12.1}  {:<7} {:>9.1}  {:>12.0}",
                row.devices,
                row.batch_size,
                row.accumulate,
                ms(update.compute),
                ms(update.all_reduce),
                ms(update.exposed),
                ms(update.total),
                update.cores_per_device,
                match update.limit {
                    Limit::Compute => "compute",
                    Limit::Network => "network",
                    Limit::Loading => "loading",
                },
                update.run / 3600.0,
                update.run / 3600.0 * row.devices as f64,
            )?;
        }
        Ok(text)
    }
}

/// Training images of ImageNet-1k.
const IMAGENET_IMAGES: usize = 1_281_167;

fn gradient_bytes(config: &RunConfig) -> Result<f64> {
    Ok(4.0 * config.method.model.parameter_count()?.trained() as f64)
}

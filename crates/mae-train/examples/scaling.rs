//! How two processes of this machine train beside one: the measured numbers of `docs/scaling.md`.
//!
//! ```sh
//! cargo run --release -p mae-train --example scaling -- --recipe cifar10 --set optim.batch_size=32
//! ```
//!
//! The program starts itself twice, each with its share of the cores. In turn, in every round: one process makes an
//! update of the whole batch while the other rests; both make updates of half of it and tell each other nothing;
//! both make updates of half of it and average the gradients; both average as many bytes without computing.
//! It prints the medians, and the least and the most, as one line of JSON.

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use mae_data::{MaskedBatch, SyntheticDataset};
use mae_model::Normalization;
use mae_train::config::{RunConfig, Source, read};
use mae_train::data;
use mae_train::distributed::{World, end_with_launcher, launch};
use mae_train::pretrain::TrainState;
use tch::{Device, Kind, Tensor};
use torch_ext::Reducer;

const PROCESSES: usize = 2;
/// Updates before the first that is measured: buckets are built anew after the first.
const WARM_UP: usize = 3;
/// Images of the data set, which are drawn.
const IMAGES: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(600);

/// Measures updates by one and by two processes.
#[derive(Parser)]
struct Args {
    /// An embedded recipe
    #[arg(long, default_value = "quickstart")]
    recipe: String,
    /// Changes one key of the recipe, for example `optim.batch_size=64`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Measurements of each kind
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

fn main() -> ExitCode {
    let run = || match end_with_launcher()? {
        true => measure(&Args::parse()),
        // Looked at here, too, so that a mistake is told once.
        false => {
            let _ = Args::parse();
            launch(PROCESSES)
        }
    };
    run().unwrap_or_else(|error: anyhow::Error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn measure(args: &Args) -> Result<ExitCode> {
    let world = Rc::new(World::join(TIMEOUT)?);
    // Of the images a recipe names only the size matters here.
    let source = Source::Recipe(args.recipe.clone());
    let config = read(&source, Some(Path::new(".")), &args.set)?.resolve()?;
    let alone = Rc::new(World::alone());
    let mut whole = Side::new(&config, &alone, &alone)?;
    let mut half = Side::new(&config, &alone, &world)?;
    let mut averaging = Side::new(&config, &world, &world)?;
    let gradients: usize = averaging.bytes() / 4;
    let buckets: Vec<Tensor> = (0..gradients.div_ceil(Reducer::BUCKET_BYTES / 4))
        .map(|i| {
            let left = gradients - i * Reducer::BUCKET_BYTES / 4;
            let len = left.min(Reducer::BUCKET_BYTES / 4) as i64;
            Tensor::zeros([len], (Kind::Float, Device::Cpu))
        })
        .collect();

    let mut times: [Vec<f64>; 4] = Default::default();
    for round in 0..WARM_UP + args.rounds {
        let round_times = [
            together(&world, || match world.is_first() {
                true => whole.update(),
                false => Ok(()),
            })?,
            together(&world, || half.update())?,
            together(&world, || averaging.update())?,
            together(&world, || {
                buckets.iter().try_for_each(|bucket| world.sum(bucket))
            })?,
        ];
        if round >= WARM_UP {
            for (times, time) in times.iter_mut().zip(round_times) {
                times.push(time);
            }
        }
    }
    if world.is_first() {
        let names = ["one_process", "two_apart", "two_averaging", "all_reduce"];
        let mut found = serde_json::Map::new();
        found.insert("recipe".into(), args.recipe.clone().into());
        found.insert("parameters".into(), gradients.into());
        found.insert("batch_size".into(), config.optim.batch_size.into());
        for (name, mut times) in names.into_iter().zip(times) {
            times.sort_by(f64::total_cmp);
            let (least, most) = (times[0], times[times.len() - 1]);
            found.insert(
                format!("{name}_ms"),
                serde_json::json!({"median": 1e3 * times[times.len() / 2], "least": 1e3 * least, "most": 1e3 * most}),
            );
        }
        println!("{}", serde_json::Value::Object(found));
    }
    world.end(Ok(ExitCode::SUCCESS))
}

/// Seconds until all processes have done it.
fn together(world: &World, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    world.sums([0])?;
    let start = Instant::now();
    work()?;
    world.sums([0])?;
    Ok(start.elapsed().as_secs_f64())
}

/// A model, and the batch that it learns from.
struct Side {
    state: TrainState,
    batch: MaskedBatch,
}

impl Side {
    /// A model that averages gradients with `group`, and learns from its part of a batch of `sharers`.
    fn new(config: &RunConfig, group: &Rc<World>, sharers: &World) -> Result<Self> {
        let (grid, seed) = (&config.grid, config.seed);
        let scenes =
            SyntheticDataset::new(IMAGES, grid.height(), grid.width(), grid.channels(), seed)?;
        let loader = data::loader(config, Arc::new(scenes), sharers)?;
        Ok(Self {
            state: TrainState::new(config, &Normalization::IMAGENET, group)?,
            batch: loader.epoch(0, 0).next().context("the epoch is empty")??,
        })
    }

    fn update(&mut self) -> Result<()> {
        self.state.update(std::slice::from_ref(&self.batch), 1e-4)?;
        Ok(())
    }

    /// Bytes of its gradients.
    fn bytes(&self) -> usize {
        let params = self.state.trainer.optimizer.params();
        params.iter().map(|param| 4 * param.numel()).sum()
    }
}

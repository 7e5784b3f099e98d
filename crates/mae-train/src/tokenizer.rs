//! Training of a tokenizer: what happens around the loop.
//!
//! The picture of an epoch shows images after they were nothing but tokens, and the epoch's line says how much of
//! the vocabulary they use: a tokenizer that fails uses a few tokens for everything.

pub mod config;

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result};
use mae_data::{Dataset, ImageBatch, ImageLoader, ImageLoaderConfig, Order, Transform};
use mae_model::Tokenizer;
use mae_model::tokenizer::gumbel_noise;
use mae_report::Record;
use tch::{Device, Kind, Tensor};

use crate::config::RunKeys;
use crate::data::batch::images_to_device;
use crate::data::prepare::{Prepared, prepare};
use crate::device;
use crate::distributed::World;
use crate::error::Error;
use crate::picture::display::Display;
use crate::picture::{Comparison, Pictures, Versions};
use crate::run::checkpoint::Saved;
use crate::run::folder::RunDir;
use crate::run::interrupt::Interrupt;
use crate::run::journal::Journal;
use crate::run::manifest;
use crate::run::progress::Progress;
use crate::train::optim::Optimizer;
use crate::train::trainer::Trainer;
use crate::train_loop::{Batches, Outcome, Task, is_due, train};
use config::TokenizerRun;

/// Images that each epoch is judged by.
const JUDGED: usize = 256;
/// Those of them in the picture.
const SHOWN: usize = 24;

/// Trains from the latest checkpoint in `run_dir`, or from the start if there is none.
///
/// Of several processes the first alone has a `run_dir`: see [`pretrain`](crate::pretrain::pretrain()).
///
/// # Errors
/// If the data or the run's files cannot be read or written, training diverges, or another process is gone or
/// has other images.
pub fn train_tokenizer(
    config: TokenizerRun,
    run_dir: Option<&RunDir>,
    world: &Rc<World>,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Outcome, Error> {
    Ok(run(config, run_dir, world, interrupt, progress)?)
}

fn run(
    mut config: TokenizerRun,
    run_dir: Option<&RunDir>,
    world: &Rc<World>,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Outcome> {
    device::prefer_speed(config.device)?;
    let Prepared {
        dataset,
        normalization,
        is_new,
    } = prepare(&mut config, run_dir, world, progress)?;
    let images = dataset.len();
    let judged = pick(&config, Arc::clone(&dataset))?;
    let loader = ImageLoader::new(
        Arc::clone(&dataset),
        ImageLoaderConfig {
            workers: world.workers(config.run.workers),
            prefetch: 2 * config.optim.accumulate,
            drop_last: config.data.drop_last,
            order: Order::Shuffled,
            seed: config.seed,
            max_broken_share: config.data.max_broken_share,
            shard: world.shard(),
            ..ImageLoaderConfig::new(config.transform(), config.optim.batch_size)
        },
    )?;
    if let Some(run_dir) = run_dir.filter(|run_dir| !run_dir.config().exists()) {
        run_dir.write_config("tokenizer", &config.to_toml())?;
    }
    if let Some(run_dir) = run_dir.filter(|_| is_new) {
        manifest::write(&run_dir.images(), dataset.as_ref())?;
    }

    let tokenizer = Tokenizer::new(
        &config.method.model,
        &normalization,
        config.device,
        config.seed,
    )?;
    let optim = &config.optim;
    let optimizer = Optimizer::new(&tokenizer.parameters(), optim.weight_decay, optim.betas);
    let updates = loader.batches_per_epoch().div_ceil(optim.accumulate) as u64 * optim.epochs;
    let mut task = Training {
        trainer: Trainer::new(
            optimizer,
            config.precision,
            optim.clip_grad,
            config.device,
            world,
        )?,
        transform: config.transform(),
        config: &config,
        tokenizer,
        judged,
        updates,
    };
    let batches = Batches {
        per_epoch: loader.batches_per_epoch(),
        images,
        epoch: &|epoch, first_batch| loader.epoch(epoch, first_batch),
        broken: &|| loader.broken().len(),
    };
    let run = config.run.for_loop();
    train(
        &mut task, &batches, optim, &run, run_dir, interrupt, progress,
    )
}

/// The same images for a whole run, uncropped by chance.
fn pick(config: &TokenizerRun, dataset: Arc<dyn Dataset>) -> Result<ImageBatch> {
    let transform = Transform::center_crop(config.grid.height(), config.grid.width());
    let images = JUDGED.min(dataset.len());
    let loader = ImageLoader::new(
        dataset,
        ImageLoaderConfig {
            workers: config.run.workers,
            prefetch: 1,
            order: Order::Shuffled,
            seed: config.seed,
            max_broken_share: 1.0,
            ..ImageLoaderConfig::new(transform, images)
        },
    )?;
    let first = loader.epoch(u64::MAX, 0).next();
    Ok(first.context("no image for the picture of reconstructions can be read")??)
}

struct Training<'a> {
    config: &'a TokenizerRun,
    tokenizer: Tokenizer,
    trainer: Trainer,
    /// What is done to a training image.
    transform: Transform,
    /// What each epoch is judged by.
    judged: ImageBatch,
    /// Updates of the whole run.
    updates: u64,
}

/// What images are after they were nothing but tokens.
struct Judgement {
    /// `[batch, height, width, channels]`, f32 on the CPU, in the units of mean and standard deviation.
    pixels: Tensor,
    /// Mean squared error of normalised pixels.
    mse: f64,
    /// Different tokens.
    used: u64,
    /// Exponential of the entropy of the tokens' frequencies.
    perplexity: f64,
}

impl Training<'_> {
    fn judge(&self) -> Result<Judgement> {
        let config = &self.config.method.model;
        let transform = Transform::center_crop(config.image_height, config.image_width);
        let pixels = images_to_device(&self.judged, &transform, self.config.device);
        let (mut decoded, mut counts) = (Vec::new(), Tensor::from(0i64));
        let mut squared_error = 0.0;
        for pixels in pixels.split(self.config.optim.batch_size as i64, 0) {
            let images = self.tokenizer.normalize(&pixels)?;
            let ids = self.tokenizer.encode(&images)?;
            let reconstruction = self.tokenizer.decode(&ids)?;
            let difference = &reconstruction - images;
            squared_error += difference.square().sum(Kind::Double).double_value(&[]);
            counts = ids
                .flatten(0, -1)
                .bincount::<Tensor>(None, config.vocabulary as i64)
                .to_device(Device::Cpu)
                + counts;
            decoded.push(
                self.tokenizer
                    .to_pixels(&reconstruction)
                    .to_device(Device::Cpu),
            );
        }
        let counts = counts.to_kind(Kind::Double);
        let frequencies = &counts / counts.sum(Kind::Double);
        let entropy = -frequencies.xlogy(&frequencies).sum(Kind::Double);
        Ok(Judgement {
            pixels: Tensor::cat(&decoded, 0),
            mse: squared_error / pixels.numel() as f64,
            used: counts.count_nonzero(None).int64_value(&[]) as u64,
            perplexity: entropy.exp().double_value(&[]),
        })
    }

    /// `original | from tokens` for the first images that are judged.
    fn draw(&self, pixels: &Tensor) -> Result<Pictures> {
        let grid = &self.config.grid;
        let image_len = grid.image_len();
        let display = Display::new(self.judged.pixels.kind(), self.tokenizer.normalization());
        let decoded = Vec::<f32>::try_from(pixels.flatten(0, -1))?;
        let images = self.judged.pixels.clone().into_f32();
        let pairs: Vec<_> = images
            .chunks_exact(image_len)
            .zip(decoded.chunks_exact(image_len))
            .take(SHOWN)
            .map(|(original, decoded)| Versions {
                tiles: vec![display.show(original), display.show(decoded)],
                name: None,
            })
            .collect();
        let whole = Comparison {
            notes: &Vec::from_iter(display.note()),
            groups: &[],
            titles: &["original", "from tokens"],
            columns: 4,
            height: grid.height() as u32,
            width: grid.width() as u32,
        }
        .draw(&pairs);
        Ok(Pictures { whole, small: None })
    }
}

impl Saved for Training<'_> {
    fn save_model(&self, path: &Path) -> mae_model::Result<()> {
        self.tokenizer.save(path)
    }

    fn load_model(&self, path: &Path) -> mae_model::Result<()> {
        self.tokenizer.load_weights(path)
    }

    fn weights(&self) -> Vec<Tensor> {
        self.tokenizer.parameters().into_values().collect()
    }

    fn trainer_tensors(&self) -> BTreeMap<String, Tensor> {
        self.trainer.tensors()
    }
}

impl Task for Training<'_> {
    type Batch = ImageBatch;

    fn update(&mut self, group: &[ImageBatch], lr: f64, step: u64) -> Result<usize> {
        let config = self.config;
        let relaxation = config
            .method
            .relaxation
            .at(step as f64 / self.updates as f64);
        let first_pass = step * config.optim.accumulate as u64;
        let world = Rc::clone(self.trainer.world());
        let (rank, size) = (world.rank() as u64, world.size() as u64);
        let images: Vec<usize> = group.iter().map(ImageBatch::len).collect();
        let (tokenizer, transform) = (&self.tokenizer, &self.transform);
        self.trainer.update(&images, lr, |batch| {
            let pixels = images_to_device(&group[batch], transform, config.device);
            let images = tokenizer.normalize(&pixels)?;
            let tokens = [
                images.size()[0],
                config.grid.patches() as i64,
                config.method.model.vocabulary as i64,
            ];
            // Noise of its own in each process.
            let pass = (first_pass + batch as u64) * size + rank;
            let noise = gumbel_noise(&tokens, config.seed, pass, config.device)?;
            Ok(tokenizer.forward(&images, &noise, relaxation)?.loss)
        })
    }

    fn trainer(&mut self) -> &mut Trainer {
        &mut self.trainer
    }

    fn flops_per_image(&self) -> Result<u64> {
        Ok(self.config.method.model.training_flops())
    }

    fn end_epoch(&mut self, epoch: u64, step: u64, journal: &mut Journal) -> Result<String> {
        let Judgement {
            pixels,
            mse,
            used,
            perplexity,
        } = self.judge()?;
        journal.record(&Record::Tokens {
            epoch,
            step,
            mse,
            used,
            perplexity,
        })?;
        let every = self.config.run.reconstruct_every;
        if is_due(every, epoch, self.config.optim.epochs) {
            journal.picture(|| self.draw(&pixels), epoch, step)?;
        }
        let vocabulary = self.config.method.model.vocabulary;
        Ok(format!(
            "  from tokens: mse {mse:.4}, {used} of {vocabulary} used, perplexity {perplexity:.0}"
        ))
    }
}

//! Pre-training: what happens around the loop.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use mae_data::MaskedBatch;
use tch::{Device, Tensor};

use crate::checkpoint::Saved;
use crate::config::RunConfig;
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::progress::Progress;
use crate::run_dir::RunDir;
use crate::state::{TrainState, Trainer};
use crate::train_loop::{Batches, Outcome, Task, is_due, train};
use crate::{data, reconstruct};

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

    let mut task = Pretraining {
        state: TrainState::new(&config, &normalization)?,
        samples,
        config: &config,
    };
    let batches = Batches {
        per_epoch: loader.batches_per_epoch(),
        images: dataset.len(),
        epoch: &|epoch, first_batch| loader.epoch(epoch, first_batch),
        broken: &|| loader.broken().len(),
    };
    train(
        &mut task,
        &batches,
        &config.optim,
        &config.run,
        run_dir,
        interrupt,
        progress,
    )
}

struct Pretraining<'a> {
    config: &'a RunConfig,
    state: TrainState,
    /// What the pictures show.
    samples: MaskedBatch,
}

impl Saved for Pretraining<'_> {
    fn save_model(&self, path: &Path) -> mae_model::Result<()> {
        self.state.model.save(path)
    }

    fn load_model(&self, path: &Path) -> mae_model::Result<()> {
        self.state.model.load_weights(path)
    }

    fn trainer_tensors(&self) -> BTreeMap<String, Tensor> {
        self.state.trainer.tensors()
    }
}

impl Task for Pretraining<'_> {
    type Batch = MaskedBatch;

    fn update(&mut self, group: &[MaskedBatch], lr: f64, _step: u64) -> Result<()> {
        self.state.update(group, lr)
    }

    fn trainer(&mut self) -> &mut Trainer {
        &mut self.state.trainer
    }

    fn end_epoch(&mut self, epoch: u64, step: u64, journal: &mut Journal) -> Result<String> {
        let every = self.config.run.reconstruct_every;
        if is_due(every, epoch, self.config.optim.epochs) {
            let picture = reconstruct::draw(&self.state.model, &self.samples)?;
            journal.picture(&picture, epoch, step)?;
        }
        Ok(String::new())
    }
}

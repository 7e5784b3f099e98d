//! What pre-training changes.

use std::rc::Rc;

use anyhow::Result;
use mae_data::MaskedBatch;
use mae_model::{MaskedAutoencoderViT, Normalization};

use crate::config::RunConfig;
use crate::data::batch::masked_to_device;
use crate::distributed::World;
use crate::train::optim::Optimizer;
use crate::train::trainer::Trainer;

/// Everything that a step of pre-training changes, all of it on the device.
#[derive(Debug)]
pub struct TrainState {
    /// The network.
    pub model: MaskedAutoencoderViT,
    /// What moves its weights.
    pub trainer: Trainer,
}

impl TrainState {
    /// The state before the first step, the same in all processes of `world`.
    ///
    /// # Errors
    /// If the model cannot be built.
    pub fn new(
        config: &RunConfig,
        normalization: &Normalization,
        world: &Rc<World>,
    ) -> Result<Self> {
        let mut model = MaskedAutoencoderViT::new(
            &config.method.model,
            normalization,
            config.device,
            config.seed,
        )?;
        model.set_kernels(config.run.kernels);
        let optimizer = Optimizer::new(
            &model.parameters(),
            config.optim.weight_decay,
            config.optim.betas,
        );
        let trainer = Trainer::new(
            optimizer,
            config.precision,
            config.optim.clip_grad,
            config.device,
            world,
        )?;
        Ok(Self { model, trainer })
    }

    /// One update from all images of `batches`: see [`Trainer::update`].
    ///
    /// # Errors
    /// If the batches do not fit the model, libtorch refuses, or another process is gone.
    pub fn update(&mut self, batches: &[MaskedBatch], lr: f64) -> Result<usize> {
        let images: Vec<usize> = batches.iter().map(MaskedBatch::len).collect();
        self.trainer.update(&images, lr, |batch| {
            let (visible, masked, ids_shuffle) =
                masked_to_device(&batches[batch], self.model.device());
            Ok(self.model.forward(&visible, &masked, &ids_shuffle)?)
        })
    }
}

//! The loss of images that a Masked Autoencoder is not trained on.

use std::sync::Arc;

use anyhow::{Result, ensure};
use mae_data::{Dataset, Loader, LoaderConfig, Order, Transform};
use mae_model::MaskedAutoencoderViT;
use tch::{Kind, Tensor, no_grad};

use crate::config::MaskSection;
use crate::data::batch::masked_to_device;
use crate::distributed::World;
use crate::train::precision::Precision;

/// An epoch that no training reaches: its masks were never trained on.
const EPOCH: u64 = u64::MAX;
/// Images at once; fixed, because another number may round differently.
const BATCH: usize = 128;

/// Images that are held out, always with the same patches hidden of the same centre crops.
pub struct HeldOut(Loader);

impl HeldOut {
    /// The images of `dataset` for `model`, or this process's part of them, hidden by `mask` and `seed`; `workers` load
    /// them, and `max_broken_share` of them may be broken.
    ///
    /// # Errors
    /// If the mask does not fit the model's patches.
    pub fn new(
        dataset: &Arc<dyn Dataset>,
        model: &MaskedAutoencoderViT,
        mask: &MaskSection,
        seed: u64,
        (workers, max_broken_share): (usize, f64),
        world: &World,
    ) -> Result<Self> {
        let grid = model.config().grid()?;
        let loader = Loader::new(
            Arc::clone(dataset),
            LoaderConfig {
                workers: world.workers(workers),
                drop_last: false,
                order: Order::Sequential,
                seed,
                max_broken_share,
                shard: world.shard(),
                mask_ratio: mask.ratio,
                sampler: mask.sampler,
                transform: Transform::center_crop(grid.height(), grid.width()),
                ..LoaderConfig::new(grid, BATCH * world.size())
            },
        )?;
        Ok(Self(loader))
    }

    /// The mean loss of the images, of all processes: what training minimises, of images that it does not see.
    ///
    /// # Errors
    /// If the images cannot be read or do not fit the model, or another process is gone.
    pub fn loss(
        &self,
        model: &MaskedAutoencoderViT,
        precision: Precision,
        world: &World,
    ) -> Result<f64> {
        let device = model.device();
        let (mut sum, mut images) = (0.0, 0);
        for batch in self.0.epoch(EPOCH, 0) {
            let batch = batch?;
            if batch.is_empty() {
                continue;
            }
            let (visible, masked, ids_shuffle) = masked_to_device(&batch, device);
            let forward = || model.forward(&visible, &masked, &ids_shuffle);
            let loss = no_grad(|| torch_ext::autocast(device, precision.kind(), forward))??;
            sum += loss.to_kind(Kind::Double).double_value(&[]) * batch.len() as f64;
            images += batch.len();
        }
        let totals = Tensor::from_slice(&[sum, images as f64]);
        world.sum(&totals)?;
        let images = totals.double_value(&[1]);
        ensure!(
            images > 0.0,
            "none of the images that are held out can be read"
        );
        Ok(totals.double_value(&[0]) / images)
    }
}

//! What a configuration amounts to, from its numbers alone.

use anyhow::Result;
use mae_model::{LossRegion, ParameterCount};
use serde::Serialize;

use crate::config::RunConfig;
use crate::train_loop::is_due;

/// The sizes of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Images of the data set.
    pub images: usize,
    /// Height of an image as the model sees it, pixels.
    pub image_height: usize,
    /// Width of an image as the model sees it, pixels.
    pub image_width: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Rows of patches.
    pub rows: usize,
    /// Columns of patches.
    pub columns: usize,
    /// Patches of an image that are visible.
    pub kept: usize,
    /// Patches of an image that are hidden.
    pub hidden: usize,
    /// Tokens that the encoder sees, the class token included.
    pub encoder_tokens: usize,
    /// Tokens that the decoder sees, the class token included.
    pub decoder_tokens: usize,
    /// Patches that the loss is over.
    pub predicted: usize,
    /// Numbers that the model consists of.
    pub parameters: ParameterCount,
    /// Floating-point operations of an image's forward pass; a multiply-add is two.
    pub forward_flops: u64,
    /// Floating-point operations of an image's forward and backward pass.
    pub training_flops: u64,
    /// Floating-point operations of the run.
    pub run_flops: f64,
    /// Images that go through the model at once.
    pub batch_size: usize,
    /// Batches of an update.
    pub accumulate: usize,
    /// Images of an update.
    pub effective_batch: usize,
    /// The largest learning rate.
    pub peak_lr: f64,
    /// Batches of an epoch.
    pub batches_per_epoch: usize,
    /// Images of an epoch: without those of a last batch that is left out.
    pub images_per_epoch: usize,
    /// Updates of an epoch.
    pub steps_per_epoch: u64,
    /// Passes over the images.
    pub epochs: u64,
    /// Updates of the run.
    pub steps: u64,
    /// Updates of the warm-up; may be a fraction.
    pub warmup_steps: f64,
    /// Pictures of reconstructions.
    pub pictures: u64,
    /// Measurements of what was learned, by `run.eval_every`.
    pub evaluations: u64,
    /// Checkpoints after epochs.
    pub checkpoints: u64,
}

impl Plan {
    /// What `config` makes of so many images.
    ///
    /// # Errors
    /// If the configuration describes no model or no mask.
    pub fn new(config: &RunConfig, images: usize) -> Result<Self> {
        let (method, optim, grid) = (&config.method, &config.optim, &config.grid);
        let (model, mask) = (&method.model, &method.mask);
        let patches = grid.patches();
        let kept = mask.sampler.kept(grid, mask.ratio)?;
        let flops = method.flops()?;
        let batches_per_epoch = match config.data.drop_last {
            true => images / optim.batch_size,
            false => images.div_ceil(optim.batch_size),
        };
        let images_per_epoch = images.min(batches_per_epoch * optim.batch_size);
        let steps_per_epoch = batches_per_epoch.div_ceil(optim.accumulate) as u64;
        let schedule = optim.schedule(steps_per_epoch);
        let times = |every: u64| {
            (1..=optim.epochs)
                .filter(|&epoch| is_due(every, epoch, optim.epochs))
                .count() as u64
        };
        Ok(Self {
            images,
            image_height: grid.height(),
            image_width: grid.width(),
            channels: grid.channels(),
            patch_size: model.patch_size,
            rows: grid.rows(),
            columns: grid.columns(),
            kept,
            hidden: patches - kept,
            encoder_tokens: 1 + if model.encoder_mask_tokens {
                patches
            } else {
                kept
            },
            decoder_tokens: 1 + patches,
            predicted: match model.loss_region {
                LossRegion::Masked => patches - kept,
                LossRegion::All => patches,
            },
            parameters: model.parameter_count()?,
            forward_flops: flops.forward(),
            training_flops: flops.training(),
            run_flops: flops.training() as f64 * images_per_epoch as f64 * optim.epochs as f64,
            batch_size: optim.batch_size,
            accumulate: optim.accumulate,
            effective_batch: optim.effective_batch(),
            peak_lr: schedule.peak_lr,
            batches_per_epoch,
            images_per_epoch,
            steps_per_epoch,
            epochs: optim.epochs,
            steps: steps_per_epoch * optim.epochs,
            warmup_steps: schedule.warmup_steps,
            pictures: times(config.run.reconstruct_every),
            evaluations: match config.run.eval_every {
                0 => 0,
                every => times(every),
            },
            checkpoints: times(config.run.checkpoint_every),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::config;

    #[test]
    fn the_quickstart_counted_by_hand() {
        let plan = Plan::new(&config(&[]), 8192).unwrap();
        assert_eq!((plan.rows, plan.columns, plan.patch_size), (8, 8, 8));
        assert_eq!((plan.kept, plan.hidden, plan.predicted), (16, 48, 48));
        assert_eq!((plan.encoder_tokens, plan.decoder_tokens), (17, 65));
        assert_eq!((plan.effective_batch, plan.peak_lr), (32, 1e-2 / 8.0));
        assert_eq!((plan.steps_per_epoch, plan.steps), (256, 3072));
        assert_eq!(plan.warmup_steps, 128.0);
        assert_eq!(plan.run_flops, (plan.training_flops * 8192 * 12) as f64);
        // Every second epoch; every fourth; never.
        let times = (plan.pictures, plan.checkpoints, plan.evaluations);
        assert_eq!(times, (6, 3, 0));
    }

    #[test]
    fn what_does_not_fill_a_batch_or_an_update() {
        let keys = ["optim.batch_size=10", "optim.accumulate=3"];
        let plan = Plan::new(&config(&keys), 45).unwrap();
        let sizes = (
            plan.batches_per_epoch,
            plan.images_per_epoch,
            plan.steps_per_epoch,
        );
        assert_eq!(sizes, (4, 40, 2));
        let keys = [&keys[..], &["data.drop_last=false"]].concat();
        let plan = Plan::new(&config(&keys), 45).unwrap();
        assert_eq!((plan.batches_per_epoch, plan.images_per_epoch), (5, 45));
        let plan = Plan::new(&config(&[]), 31).unwrap();
        assert_eq!((plan.images_per_epoch, plan.steps), (0, 0));
    }

    #[test]
    fn variants_change_who_sees_what() {
        let keys = ["model.encoder_mask_tokens=true", "model.loss_region=all"];
        let plan = Plan::new(&config(&keys), 64).unwrap();
        let tokens = (plan.encoder_tokens, plan.decoder_tokens, plan.predicted);
        assert_eq!(tokens, (65, 65, 64));
    }
}

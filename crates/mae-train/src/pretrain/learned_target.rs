//! What a target must have learned before training begins.

use std::sync::Arc;

use anyhow::{Context, Result};
use mae_data::{Dataset, Loader, LoaderConfig, Order};
use mae_model::pca::Moments;
use mae_model::{MaskedAutoencoderViT, Pca, Target, Tokenizer};

use crate::config::RunConfig;
use crate::data::batch::tensor_of;
use crate::run::checkpoint::find_model;
use crate::run::progress::Progress;

/// Images whose patches the principal components are found in, or all if there are fewer.
const PCA_SAMPLE: usize = 1024;
/// Of a fixed size, so that sums are rounded in the same way whatever training does.
const PCA_BATCH: usize = 64;

/// Gives a new `model` what its target must have learned. A model from a checkpoint has it already.
///
/// # Errors
/// If the images cannot be read.
pub fn prepare(
    config: &RunConfig,
    dataset: &Arc<dyn Dataset>,
    model: &MaskedAutoencoderViT,
    progress: &Progress,
) -> Result<()> {
    match config.method.model.target {
        Target::Pixels => {}
        Target::Pca => {
            let (pca, found) = fit_pca(config, dataset, model)
                .context("finding the principal components of patches")?;
            model.set_pca(&pca)?;
            progress.line(&format!(
                "{} principal components explain {:.2} % of the variance of {} patches of {} images",
                pca.components.size()[0],
                100.0 * found.explained,
                found.patches,
                found.images
            ));
        }
        Target::Tokens => {
            let path = config.data.tokenizer.as_deref();
            let load = || -> Result<()> {
                let file = find_model(path.context("is missing")?)?;
                model.set_tokenizer(&Tokenizer::load(&file, config.device)?)?;
                Ok(())
            };
            load().context("`data.tokenizer`")?;
        }
    }
    Ok(())
}

/// What principal components were found in, and how well they describe it.
struct Found {
    images: usize,
    patches: usize,
    explained: f64,
}

/// The principal components of the patches of some images, cropped and distorted as in training.
///
/// Which images and crops these are depends on the seed alone.
fn fit_pca(
    config: &RunConfig,
    dataset: &Arc<dyn Dataset>,
    model: &MaskedAutoencoderViT,
) -> Result<(Pca, Found)> {
    let images = PCA_SAMPLE.min(dataset.len());
    let loader = Loader::new(
        Arc::clone(dataset),
        LoaderConfig {
            workers: config.run.workers,
            drop_last: false,
            order: Order::Shuffled,
            seed: config.seed,
            max_broken_share: config.data.max_broken_share,
            mask_ratio: config.method.mask.ratio,
            sampler: config.method.mask.sampler,
            transform: config.transform(),
            ..LoaderConfig::new(config.grid, PCA_BATCH)
        },
    )?;
    let dim = config.grid.patch_dim();
    let channels = config.grid.channels() as i64;
    let mut moments = Moments::new(dim);
    let mut seen = 0;
    // An epoch that no training reaches, and no picture.
    for batch in loader
        .epoch(u64::MAX - 1, 0)
        .take(images.div_ceil(PCA_BATCH))
    {
        let batch = batch?;
        seen += batch.len();
        for patches in [&batch.visible, &batch.masked] {
            let pixels = tensor_of(patches).view([-1, channels]);
            let pixels = model.normalization().normalize(&pixels)?;
            moments.add(&pixels.view([-1, dim as i64]))?;
        }
    }
    let (pca, explained) = moments.principal_components(config.method.model.target_dim())?;
    let found = Found {
        images: seen,
        patches: moments.count(),
        explained: explained.iter().sum(),
    };
    Ok((pca, found))
}

//! Pictures of what a model makes of masked images.

use std::sync::Arc;

use anyhow::{Context, Result};
use mae_data::{
    Dataset, Loader, LoaderConfig, Mask, MaskedBatch, Order, PatchGrid, Transform, unpatchify,
    unshuffle,
};
use mae_model::{MaskedAutoencoderViT, Target};
use tch::{Tensor, no_grad};

use crate::config::RunConfig;
use crate::display::Display;
use crate::picture::Comparison;
pub use crate::picture::Picture;
use crate::state::to_device;

/// Images in a picture.
const IMAGES: usize = 8;

/// The same few images with the same masks for a whole run, uncropped by chance.
///
/// # Errors
/// If none of them can be read.
pub fn pick(config: &RunConfig, dataset: Arc<dyn Dataset>) -> Result<MaskedBatch> {
    let images = IMAGES.min(dataset.len());
    let loader = Loader::new(
        dataset,
        LoaderConfig {
            workers: 1,
            prefetch: 1,
            drop_last: false,
            order: Order::Shuffled,
            seed: config.seed,
            max_broken_share: 1.0,
            mask_ratio: config.mask.ratio,
            sampler: config.mask.sampler,
            transform: Transform::center_crop(config.grid.height(), config.grid.width()),
            ..LoaderConfig::new(config.grid, images)
        },
    )?;
    // An epoch that no training reaches: the masks are ones that were never trained on.
    loader
        .epoch(u64::MAX, 0)
        .next()
        .context("no image for the picture of reconstructions can be read")?
        .map_err(Into::into)
}

/// Draws `original | masked | prediction | prediction with visible patches` for each image of `batch`.
///
/// Under `norm_pix_loss` predictions are un-normalised with each true patch's statistics, and tokens are decoded beside
/// those of the visible patches; the picture says so.
///
/// # Errors
/// If the batch does not fit the model.
pub fn draw(model: &MaskedAutoencoderViT, batch: &MaskedBatch) -> Result<Picture> {
    let grid = model.config().grid()?;
    let predicted = predict(model, batch)?;
    let config = model.config();
    let note = match config.target {
        Target::Pixels if config.norm_pix_loss => Some(
            "predictions are normalised patches, shown with the mean and deviation of the true ones",
        ),
        Target::Tokens => {
            Some("predictions are tokens, decoded beside the tokens of the true visible patches")
        }
        Target::Pixels | Target::Pca => None,
    };
    let display = Display::new(batch.visible.kind(), model.normalization());
    let note: Vec<String> = (note.map(String::from).into_iter())
        .chain(display.note())
        .collect();
    let tiles: Vec<_> = (0..batch.len())
        .map(|i| Ok(tiles(&grid, batch, &predicted, i)?.map(|tile| display.show(&tile))))
        .collect::<Result<_>>()?;
    Ok(Comparison {
        titles: ["original", "masked", "prediction", "+ visible"],
        note: (!note.is_empty()).then(|| note.join("\n")),
        columns: 2,
        height: grid.height() as u32,
        width: grid.width() as u32,
    }
    .draw(&tiles))
}

/// Predicted pixels of every patch, in the units of mean and standard deviation, in shuffled order:
/// `[batch, patches, patch_dim]`.
fn predict(model: &MaskedAutoencoderViT, batch: &MaskedBatch) -> Result<Vec<f32>> {
    let (visible, masked, ids_shuffle) = to_device(batch, model.device());
    no_grad(|| {
        let latent = model.forward_encoder(&visible, &ids_shuffle)?;
        let pred = model.predict(&latent, &ids_shuffle)?;
        let patches = mae_model::unshuffle(&Tensor::cat(&[visible, masked], 1), &ids_shuffle);
        let ids_keep = ids_shuffle.narrow(1, 0, batch.kept as i64);
        let pixels = model.to_pixels(&pred, &patches, &ids_keep)?;
        let shuffled = ids_shuffle.unsqueeze(-1).expand_as(&pixels);
        let pixels = pixels.gather(1, &shuffled, false);
        let pixels = pixels.flatten(0, -1).to_device(tch::Device::Cpu);
        Ok(Vec::try_from(pixels)?)
    })
}

/// Original, masked, prediction, and prediction with visible patches of image `i`.
fn tiles(
    grid: &PatchGrid,
    batch: &MaskedBatch,
    predicted: &[f32],
    i: usize,
) -> Result<[Vec<f32>; 4]> {
    const HIDDEN: f32 = f32::NAN;
    let (patches, dim) = (grid.patches(), grid.patch_dim());
    let ids: Vec<u32> = batch.ids_shuffle[i * patches..][..patches]
        .iter()
        .map(|&id| id as u32)
        .collect();
    let mask = Mask::from_ids_shuffle(ids, batch.kept)?;
    let (kept, hidden) = (batch.kept * dim, (patches - batch.kept) * dim);
    let visible = &batch.visible.range_f32(i * kept..(i + 1) * kept);
    let masked = &batch.masked.range_f32(i * hidden..(i + 1) * hidden);
    let predicted = &predicted[i * patches * dim..][..patches * dim];
    let image = |visible: &[f32], masked: &[f32]| -> Result<Vec<f32>> {
        Ok(unpatchify(&unshuffle(visible, masked, dim, &mask)?, grid)?)
    };
    Ok([
        image(visible, masked)?,
        image(visible, &vec![HIDDEN; hidden])?,
        image(&predicted[..kept], &predicted[kept..])?,
        image(visible, &predicted[kept..])?,
    ])
}

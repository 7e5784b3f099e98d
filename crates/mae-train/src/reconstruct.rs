//! Pictures of what a model makes of masked images.

use std::sync::Arc;

use anyhow::{Context, Result};
use mae_data::{
    Dataset, Loader, LoaderConfig, Mask, MaskedBatch, Order, PatchGrid, Transform, unpatchify,
    unshuffle,
};
use mae_model::MaskedAutoencoderViT;
use tch::{Kind, Tensor, no_grad};

use crate::config::RunConfig;
use crate::picture::LINE;
pub use crate::picture::Picture;
use crate::state::to_device;

/// Images in a picture.
const IMAGES: usize = 8;
/// Images side by side.
const COLUMNS: usize = 2;
/// Tiles are enlarged by whole factors up to about this side, pixels.
const TILE: u32 = 128;
const GAP: u32 = 4;

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
/// Under `norm_pix_loss` predictions are un-normalised with each true patch's statistics; the picture says so.
///
/// # Errors
/// If the batch does not fit the model.
pub fn draw(model: &MaskedAutoencoderViT, batch: &MaskedBatch) -> Result<Picture> {
    let grid = model.config().grid()?;
    let predicted = predict(model, batch)?;
    let (height, width) = (grid.height() as u32, grid.width() as u32);
    let scale = (TILE / height.max(width)).max(1);
    let (tile_width, tile_height) = (width * scale + GAP, height * scale + GAP);

    let rows = batch.len().div_ceil(COLUMNS) as u32;
    let image_width = 4 * tile_width + 2 * GAP;
    let columns = batch.len().min(COLUMNS) as u32;
    let note = model.config().norm_pix_loss.then_some(
        "predictions are normalised patches, shown with the mean and deviation of the true ones",
    );
    let words_height = LINE * (1 + note.is_some() as u32);
    let mut picture = Picture::new(
        columns * image_width,
        words_height + rows * tile_height + GAP,
    );
    for column in 0..columns {
        let titles = ["original", "masked", "prediction", "+ visible"];
        for (i, title) in titles.iter().enumerate() {
            picture.words(
                title,
                (column * image_width + GAP + i as u32 * tile_width, 2),
            );
        }
    }
    if let Some(note) = note {
        picture.words(note, (GAP, 2 + LINE));
    }
    for i in 0..batch.len() {
        let tiles = tiles(&grid, batch, &predicted, i)?;
        let (column, row) = ((i % COLUMNS) as u32, (i / COLUMNS) as u32);
        for (j, tile) in tiles.iter().enumerate() {
            let x = column * image_width + GAP + j as u32 * tile_width;
            picture.tile(
                tile,
                (height, width),
                scale,
                (x, words_height + row * tile_height),
            );
        }
    }
    Ok(picture)
}

/// Predicted pixels of every patch, u8, in shuffled order: `[batch, patches, patch_dim]`.
fn predict(model: &MaskedAutoencoderViT, batch: &MaskedBatch) -> Result<Vec<u8>> {
    let (visible, masked, ids_shuffle) = to_device(batch, model.device());
    no_grad(|| {
        let latent = model.forward_encoder(&visible, &ids_shuffle)?;
        let pred = model.predict(&latent, &ids_shuffle)?;
        let pred = pred.gather(1, &ids_shuffle.unsqueeze(-1).expand_as(&pred), false);
        let pixels = model.to_pixels(&pred, &Tensor::cat(&[visible, masked], 1));
        let pixels = pixels
            .round()
            .clamp(0.0, 255.0)
            .to_kind(Kind::Uint8)
            .flatten(0, -1);
        Ok(Vec::try_from(pixels.to_device(tch::Device::Cpu))?)
    })
}

/// Original, masked, prediction, and prediction with visible patches of image `i`.
fn tiles(
    grid: &PatchGrid,
    batch: &MaskedBatch,
    predicted: &[u8],
    i: usize,
) -> Result<[Vec<u8>; 4]> {
    const HIDDEN: u8 = 127;
    let (patches, dim) = (grid.patches(), grid.patch_dim());
    let ids: Vec<u32> = batch.ids_shuffle[i * patches..][..patches]
        .iter()
        .map(|&id| id as u32)
        .collect();
    let mask = Mask::from_ids_shuffle(ids, batch.kept)?;
    let (kept, hidden) = (batch.kept * dim, (patches - batch.kept) * dim);
    let visible = &batch.visible[i * kept..][..kept];
    let masked = &batch.masked[i * hidden..][..hidden];
    let predicted = &predicted[i * patches * dim..][..patches * dim];
    let image = |visible: &[u8], masked: &[u8]| -> Result<Vec<u8>> {
        Ok(unpatchify(&unshuffle(visible, masked, dim, &mask)?, grid)?)
    };
    Ok([
        image(visible, masked)?,
        image(visible, &vec![HIDDEN; hidden])?,
        image(&predicted[..kept], &predicted[kept..])?,
        image(visible, &predicted[kept..])?,
    ])
}

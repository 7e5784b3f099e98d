//! A few images for a picture.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use mae_data::{Dataset, ImageLoader, ImageLoaderConfig, Order, Subset, Transform};
use mae_model::in_units;
use tch::{Device, Tensor};

use crate::data::batch::images_to_device;

/// An epoch that no training reaches.
const EPOCH: u64 = u64::MAX;

/// Images to show.
#[derive(Debug)]
pub struct Chosen {
    /// `[batch, height, width, channels]`, u8, or f32 in the files' own units.
    pub pixels: Tensor,
    /// Index of each image in its data set, in ascending order.
    pub indices: Vec<usize>,
}

/// The centres, of `[height, width]`, of up to `images` images of `dataset`, on `device`; which ones depends on `seed`.
/// Those that cannot be read are left out.
///
/// # Errors
/// If none of them can be read.
pub fn choose(
    dataset: &Arc<dyn Dataset>,
    images: usize,
    seed: u64,
    [height, width]: [usize; 2],
    device: Device,
) -> Result<Chosen> {
    ensure!(images > 0, "a picture of no images was asked for");
    let transform = Transform::center_crop(height, width);
    let config = ImageLoaderConfig {
        prefetch: 1,
        order: Order::Shuffled,
        seed,
        max_broken_share: 1.0,
        ..ImageLoaderConfig::new(transform.clone(), images.min(dataset.len()))
    };
    let loader = ImageLoader::new(Arc::clone(dataset), config)?;
    let batch = loader
        .epoch(EPOCH, 0)
        .next()
        .with_context(|| match &loader.broken()[..] {
            [(name, reason)] => format!("{name}: {reason}"),
            broken => format!("none of {} images can be read", broken.len()),
        })??;
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|&i| batch.indices[i]);
    let indices = order.iter().map(|&i| batch.indices[i]).collect();
    let order: Vec<i64> = order.into_iter().map(|i| i as i64).collect();
    let pixels = images_to_device(&batch, &transform, device)
        .index_select(0, &Tensor::from_slice(&order).to_device(device));
    Ok(Chosen { pixels, indices })
}

/// The images of `dataset` at `indices`, `[images, height, width, channels]` on the CPU in the units of mean and standard
/// deviation.
///
/// # Errors
/// If one cannot be read.
pub fn pixels_at(
    dataset: &Arc<dyn Dataset>,
    indices: &[usize],
    transform: &Transform,
) -> Result<Tensor> {
    let subset = Subset::new(Arc::clone(dataset), indices.to_vec())?;
    let config = ImageLoaderConfig {
        prefetch: 1,
        max_broken_share: 0.0,
        ..ImageLoaderConfig::new(transform.clone(), indices.len())
    };
    let loader = ImageLoader::new(Arc::new(subset), config)?;
    let batch = (loader.epoch(0, 0).next()).context("an image cannot be read any more")??;
    Ok(in_units(&images_to_device(&batch, transform, Device::Cpu)))
}

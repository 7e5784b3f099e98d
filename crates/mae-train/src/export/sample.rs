//! The image that an exported model is verified with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use mae_data::{
    DataError, Dataset, Image, ImageLoader, ImageLoaderConfig, SyntheticDataset, Transform,
};
use mae_model::{MaeConfig, in_units};
use tch::{Device, Tensor};

use super::Verified;
use crate::data::batch::images_to_device;
use crate::data::open_own;

/// The largest difference that is taken for rounding, as a share of the largest number.
const TOLERANCE: f64 = 1e-4;

/// One image, the same beside its mirror images, and what a model makes of both batches.
pub struct Sample {
    name: String,
    batches: [Tensor; 2],
    expected: [Tensor; 2],
}

impl Sample {
    /// The first image of `images` that can be read; `model` is given `[batch, height, width, channels]`.
    pub fn new(
        images: &Arc<dyn Dataset>,
        encoder: &MaeConfig,
        model: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let (name, pixels) = first_image(images, encoder)?;
        let batches = [
            pixels.shallow_clone(),
            Tensor::cat(&[&pixels, &pixels.flip([2]), &pixels.flip([1])], 0),
        ];
        let expected = [model(&batches[0])?, model(&batches[1])?];
        Ok(Self {
            name,
            batches,
            expected,
        })
    }

    /// Compares what another makes of the same images, `[batch, channels, height, width]` in f32, with what is expected.
    pub fn compare(&self, other: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Verified> {
        let (mut difference, mut largest, mut shape) = (0.0f64, 0.0f64, Vec::new());
        for (batch, expected) in self.batches.iter().zip(&self.expected) {
            let found = other(&in_units(&batch.permute([0, 3, 1, 2])))?;
            ensure!(
                found.size() == expected.size(),
                "the written model makes {:?} of {} images, this one {:?}",
                found.size(),
                batch.size()[0],
                expected.size()
            );
            let values = |tensor: &Tensor| tensor.abs().max().f_double_value(&[]);
            difference = difference.max(values(&(found - expected))?);
            largest = largest.max(values(expected)?);
            shape = expected.size()[1..].to_vec();
        }
        // Not the other way round: a number that is none compares with nothing.
        ensure!(
            difference <= TOLERANCE * largest,
            "the written model gives other numbers than this one: by up to {difference:.2e}, where {:.2e} is rounding; \
             this is a bug, please report it",
            TOLERANCE * largest
        );
        Ok(Verified {
            image: self.name.clone(),
            batches: self.batches.each_ref().map(|batch| batch.size()[0]),
            difference,
            largest,
            shape,
        })
    }
}

/// Images to verify with, and in words what they are.
pub fn images_for(
    file: Option<&Path>,
    weights: &Path,
    encoder: &MaeConfig,
) -> Result<(Arc<dyn Dataset>, &'static str)> {
    if let Some(path) = file {
        let image = OneImage::open(path, encoder.channels)?;
        return Ok((Arc::new(image), "the image that was given"));
    }
    let own = open_own(weights)
        .ok()
        .filter(|own| !own.is_empty() && own.channels() == encoder.channels);
    if let Some(own) = own {
        return Ok((own, "one of the run's own images"));
    }
    let scenes = SyntheticDataset::new(
        1,
        encoder.image_height,
        encoder.image_width,
        encoder.channels,
        0,
    );
    let scenes = scenes.context("no scene can be drawn for this encoder: give --image")?;
    let what = "a drawn scene, as the run's own images are not there";
    Ok((Arc::new(scenes), what))
}

/// The first image that can be read, `[1, height, width, channels]` on the CPU.
fn first_image(images: &Arc<dyn Dataset>, encoder: &MaeConfig) -> Result<(String, Tensor)> {
    let transform = Transform::center_crop(encoder.image_height, encoder.image_width);
    let config = ImageLoaderConfig {
        workers: 1,
        prefetch: 1,
        max_broken_share: 1.0,
        ..ImageLoaderConfig::new(transform.clone(), 1)
    };
    let loader = ImageLoader::new(Arc::clone(images), config)?;
    let batch = loader.epoch(0, 0).next().with_context(|| {
        let reasons: Vec<String> = (loader.broken().into_iter().take(3))
            .map(|(name, reason)| format!("{name}: {reason}"))
            .collect();
        format!(
            "no image to verify with can be read: {}",
            reasons.join("; ")
        )
    })??;
    let name = images.name(batch.indices[0]);
    Ok((name, images_to_device(&batch, &transform, Device::Cpu)))
}

/// A file as a data set.
struct OneImage {
    path: PathBuf,
    content: Vec<u8>,
    channels: usize,
}

impl OneImage {
    fn open(path: &Path, channels: usize) -> Result<Self> {
        let content = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self {
            path: path.into(),
            content,
            channels,
        })
    }
}

impl Dataset for OneImage {
    fn len(&self) -> usize {
        1
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        Image::decode(&self.content, self.channels, &self.name(index))
    }

    fn name(&self, _index: usize) -> String {
        self.path.display().to_string()
    }
}

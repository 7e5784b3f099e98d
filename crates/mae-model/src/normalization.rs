//! Channel mean and standard deviation of pixels.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::{ModelError, Result};

/// Mean and standard deviation of each channel, of pixels scaled to 0..1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// One mean a channel.
    pub mean: Channels,
    /// One standard deviation a channel, above 0.
    pub std: Channels,
}

type Channels = std::borrow::Cow<'static, [f32]>;

impl Normalization {
    /// The statistics of ImageNet's training images that most published models use.
    pub const IMAGENET: Self = Self {
        mean: Channels::Borrowed(&mae_data::IMAGENET_MEAN),
        std: Channels::Borrowed(&mae_data::IMAGENET_STD),
    };

    /// From one mean and one standard deviation a channel.
    pub fn new(mean: Vec<f32>, std: Vec<f32>) -> Self {
        Self {
            mean: mean.into(),
            std: std.into(),
        }
    }

    /// Normalises the pixels of whole images.
    ///
    /// # Shapes
    /// - `images`: `[.., channels]`, u8 pixels; f32 ones are taken as normalised already
    /// - returns the same shape, f32
    ///
    /// # Errors
    /// [`ModelError::Shape`] if the last dimension is not one number a channel.
    pub fn normalize(&self, images: &Tensor) -> Result<Tensor> {
        let channels = self.mean.len() as i64;
        if images.size().last() != Some(&channels) {
            return Err(ModelError::Shape {
                name: "images",
                found: images.size(),
                expected: format!("[.., {channels}]"),
            });
        }
        Ok(PixelScale::new(self, 1, images.device()).normalize(images))
    }

    /// Checks that a model of `channels` channels can be built with it.
    pub(crate) fn validate(&self, channels: usize) -> Result<()> {
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            let usable = |v: &f32| v.is_finite() && (key == "mean" || *v > 0.0);
            if values.len() != channels || !values.iter().all(usable) {
                let expected = format!("{channels} finite numbers, one a channel, std above 0");
                return Err(ModelError::Config {
                    key,
                    found: format!("{values:?}"),
                    expected,
                });
            }
        }
        Ok(())
    }
}

/// The same on a device, laid out along a patch row: `pixel * scale + shift` normalises a u8.
#[derive(Debug)]
pub(crate) struct PixelScale {
    scale: Tensor,
    shift: Tensor,
}

impl PixelScale {
    pub fn new(normalization: &Normalization, pixels_per_patch: usize, device: Device) -> Self {
        let row = |f: &dyn Fn(f64, f64) -> f64| {
            let channels: Vec<f32> = normalization
                .mean
                .iter()
                .zip(normalization.std.iter())
                .map(|(&mean, &std)| f(mean.into(), std.into()) as f32)
                .collect();
            Tensor::from_slice(&channels.repeat(pixels_per_patch)).to_device(device)
        };
        Self {
            scale: row(&|_, std| 1.0 / (255.0 * std)),
            shift: row(&|mean, std| -mean / std),
        }
    }

    /// u8 patches `[.., patch_dim]` to normalised f32; f32 patches are taken as normalised already.
    pub fn normalize(&self, patches: &Tensor) -> Tensor {
        if patches.kind() == Kind::Uint8 {
            self.shift
                .addcmul(&patches.to_kind(Kind::Float), &self.scale)
        } else {
            patches.shallow_clone()
        }
    }

    /// f32 patches `[.., patch_dim]` in the units of mean and standard deviation, 0..1 for images, to normalised ones:
    /// the same as their u8 pixels give.
    pub fn normalize_scaled(&self, patches: &Tensor) -> Tensor {
        self.shift.addcmul(&(patches * 255.0), &self.scale)
    }

    /// The factor and the summand of each number of a patch row, `[patch_dim]`; the tensors are shared.
    pub fn tensors(&self) -> [(&'static str, Tensor); 2] {
        [("scale", &self.scale), ("shift", &self.shift)]
            .map(|(name, tensor)| (name, tensor.shallow_clone()))
    }

    /// Normalised f32 patches `[.., patch_dim]` back to pixel values 0..255, not clamped.
    pub fn denormalize(&self, patches: &Tensor) -> Tensor {
        (patches - &self.shift) / &self.scale
    }
}

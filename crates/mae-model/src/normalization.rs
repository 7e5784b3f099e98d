//! Channel mean and standard deviation of pixels.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::{ModelError, Result};

/// Mean and standard deviation of each channel.
///
/// Pixels come as u8, which stand for 0..1, or as f32 in the *units* of mean and standard deviation: 0..1 for
/// images from files of integers, the file's own for others. Models take both, and normalise them.
/// A number that is missing, NaN, is normalised to 0: it becomes its channel's mean.
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

    /// Leaves values as they are: for a model whose inputs are normalised by others.
    pub fn identity(channels: usize) -> Self {
        Self::new(vec![0.0; channels], vec![1.0; channels])
    }

    /// Normalises the pixels of whole images.
    ///
    /// # Shapes
    /// - `images`: `[.., channels]`, u8, or f32 in the units of mean and standard deviation
    /// - returns the same shape, f32
    ///
    /// # Errors
    /// [`ModelError::Shape`] if the last dimension is not one number a channel.
    pub fn normalize(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.scale_of(images)?.normalize(images))
    }

    /// Brings normalised pixels back to the units of mean and standard deviation: the inverse of
    /// [`normalize`](Self::normalize).
    ///
    /// # Shapes
    /// - `images`: `[.., channels]`, normalised f32
    /// - returns the same shape, not clamped
    ///
    /// # Errors
    /// [`ModelError::Shape`] if the last dimension is not one number a channel.
    pub fn denormalize(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.scale_of(images)?.denormalize(images))
    }

    fn scale_of(&self, images: &Tensor) -> Result<PixelScale> {
        let channels = self.mean.len() as i64;
        if images.size().last() != Some(&channels) {
            return Err(ModelError::Shape {
                name: "images",
                found: images.size(),
                expected: format!("[.., {channels}]"),
            });
        }
        Ok(PixelScale::new(self, 1, images.device()))
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

/// Pixels as numbers in the units of mean and standard deviation: u8 become 0..1, f32 stay as they are.
///
/// # Shapes
/// - `pixels`: any shape, u8 or f32
/// - returns the same shape, f32
pub fn in_units(pixels: &Tensor) -> Tensor {
    match pixels.kind() {
        Kind::Uint8 => pixels.to_kind(Kind::Float) / 255.0,
        _ => pixels.shallow_clone(),
    }
}

/// The same on a device, laid out along a patch row: `pixel * scale + shift` normalises.
#[derive(Debug)]
pub(crate) struct PixelScale {
    /// Of f32 values, in the units of mean and standard deviation.
    scale: Tensor,
    /// Of u8 values, 255 of which are one unit.
    scale_u8: Tensor,
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
            scale: row(&|_, std| 1.0 / std),
            scale_u8: row(&|_, std| 1.0 / (255.0 * std)),
            shift: row(&|mean, std| -mean / std),
        }
    }

    /// Patches `[.., patch_dim]`, u8 or f32 in the units of mean and standard deviation, to normalised f32; what is
    /// missing becomes 0.
    pub fn normalize(&self, patches: &Tensor) -> Tensor {
        let normalized = self.normalize_known(patches);
        match patches.kind() {
            Kind::Uint8 => normalized,
            _ => fill(&normalized),
        }
    }

    /// The same, but that what is missing stays NaN.
    pub fn normalize_known(&self, patches: &Tensor) -> Tensor {
        match patches.kind() {
            Kind::Uint8 => (self.shift).addcmul(&patches.to_kind(Kind::Float), &self.scale_u8),
            // Not converted: a recording of it can be given another precision.
            _ => self.shift.addcmul(patches, &self.scale),
        }
    }

    /// What normalises f32 patches: the factor and the summand of each number of a patch row, `[patch_dim]`; the tensors
    /// are shared.
    pub fn tensors(&self) -> [(&'static str, Tensor); 2] {
        [("scale", &self.scale), ("shift", &self.shift)]
            .map(|(name, tensor)| (name, tensor.shallow_clone()))
    }

    /// Normalised f32 patches `[.., patch_dim]` back to the units of mean and standard deviation, not clamped.
    pub fn denormalize(&self, patches: &Tensor) -> Tensor {
        (patches - &self.shift) / &self.scale
    }
}

/// Normalised values with 0, the mean, for those that are missing.
pub(crate) fn fill(normalized: &Tensor) -> Tensor {
    normalized.nan_to_num(0.0, f64::INFINITY, f64::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_their_units_are_normalised_to_the_same() {
        let normalization = Normalization::new(vec![0.4, 0.1, 0.9], vec![0.2, 0.01, 1.5]);
        let bytes = Tensor::from_slice(&(0..=254).collect::<Vec<u8>>()).view([-1, 3]);
        let of_bytes = normalization.normalize(&bytes).unwrap();
        let of_units = normalization.normalize(&in_units(&bytes)).unwrap();
        let error = (&of_bytes - of_units).abs().max().double_value(&[]);
        assert!(error < 1e-5, "{error} of up to 90");
        let back = normalization.denormalize(&of_bytes).unwrap();
        let error = (back - in_units(&bytes)).abs().max().double_value(&[]);
        assert!(error < 1e-6, "{error}");
    }

    #[test]
    fn own_units_are_normalised_by_mean_and_deviation() {
        let hounsfield = Normalization::new(vec![-500.0], vec![400.0]);
        let values = Tensor::from_slice(&[-900.0_f32, -500.0, 3100.0]).view([3, 1]);
        let found = hounsfield.normalize(&values).unwrap();
        let expected = Tensor::from_slice(&[-1.0_f32, 0.0, 9.0]).view([3, 1]);
        assert!(found.allclose(&expected, 1e-6, 1e-6, false), "{found}");
        let back = hounsfield.denormalize(&found).unwrap();
        assert!(back.allclose(&values, 1e-6, 1e-6, false), "{back}");
        let partly = Tensor::from_slice(&[f32::NAN, -900.0, f32::INFINITY]).view([3, 1]);
        let found = hounsfield.normalize(&partly).unwrap().flatten(0, -1);
        let expected = Tensor::from_slice(&[0.0, -1.0, f32::INFINITY]);
        assert!(found.allclose(&expected, 1e-6, 1e-6, false), "{found}");
        let identity = Normalization::identity(1);
        assert_eq!(identity.normalize(&values).unwrap(), values);
        assert!(identity.normalize(&values.view([1, 3])).is_err());
    }
}

//! Random distortions of a training image: the RandAugment of fine-tuning.

mod warp;

use serde::{Deserialize, Serialize};

use self::warp::Affine;
use crate::error::DataError;
use crate::image::{Image, check_colours};
use crate::pixel;
use crate::rng::{Rng, SampleKey, Stream};

/// Applies `ops` operations to an image, each chosen at random and left out half of the time.
///
/// The operations are those that get stronger with the magnitude, as timm's
/// `rand-m9-mstd0.5-inc1`; one can be chosen more than once. Warps are bicubic, as in the MAE
/// authors' fine-tuning.
///
/// Source: Cubuk et al. 2020, "RandAugment" (arXiv 1909.13719), as timm does it; magnitude 9 and
/// standard deviation 0.5 in He et al. 2021, table 9.
#[derive(Serialize, Deserialize, Copy, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RandAugment {
    /// Mean strength of an operation, from 0 to 10. Default: 9.
    pub magnitude: f64,
    /// Standard deviation of the strength, which is drawn from a normal distribution and clamped
    /// to 0 to 10. Default: 0.5.
    pub magnitude_std: f64,
    /// Operations that are drawn for each image. Default: 2.
    pub ops: usize,
    /// The RGB colour of what a rotation, shear or shift moves into the image; luma images take
    /// its luma. Default: the mean of ImageNet, `[124, 116, 104]`, as timm.
    pub fill: [u8; 3],
}

impl Default for RandAugment {
    fn default() -> RandAugment {
        RandAugment {
            magnitude: 9.0,
            magnitude_std: 0.5,
            ops: 2,
            fill: [124, 116, 104],
        }
    }
}

impl RandAugment {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`DataError::Config`] if `magnitude` is not from 0 to 10, if `magnitude_std` is negative or
    /// not finite, or if `ops` is 0.
    pub fn validate(&self) -> Result<(), DataError> {
        let refuse = |key, expected: &str, found: String, remedy: &str| {
            Err(DataError::Config {
                key,
                expected: expected.to_owned(),
                found,
                remedy: remedy.to_owned(),
            })
        };
        if !(0.0..=MAX_LEVEL).contains(&self.magnitude) {
            return refuse(
                "magnitude",
                "a number from 0 to 10",
                self.magnitude.to_string(),
                "the default is 9",
            );
        }
        if !(self.magnitude_std >= 0.0 && self.magnitude_std.is_finite()) {
            return refuse(
                "magnitude_std",
                "a number of at least 0",
                self.magnitude_std.to_string(),
                "the default is 0.5",
            );
        }
        if self.ops == 0 {
            return refuse(
                "ops",
                "at least 1",
                "0".to_owned(),
                "the default is 2; leave rand_augment out for none",
            );
        }
        Ok(())
    }

    /// Distorts one image: a pure function of its arguments.
    ///
    /// # Shapes
    /// - returns `[image.height(), image.width(), image.channels()]`
    ///
    /// # Errors
    /// [`DataError::Config`] if the settings are not [valid](RandAugment::validate), or if the image is not of
    /// bytes in grey or RGB.
    pub fn apply(&self, image: Image, key: SampleKey) -> Result<Image, DataError> {
        self.validate()?;
        check_colours("rand_augment", image.channels(), image.kind())?;
        let mut rng = Rng::new(key, Stream::RandAugment);
        let mut image = image;
        for _ in 0..self.ops {
            let op = Op::ALL[rng.below(Op::ALL.len() as u64) as usize];
            if rng.below(2) == 0 {
                continue;
            }
            let strength = self.magnitude + self.magnitude_std * rng.normal();
            let sign = [1.0, -1.0][rng.below(2) as usize];
            let level = sign * strength.clamp(0.0, MAX_LEVEL);
            image = op.apply(image, level, self.fill);
        }
        Ok(image)
    }
}

/// The level at which an operation is as strong as it gets.
const MAX_LEVEL: f64 = 10.0;

/// What can happen to an image.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Op {
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    Solarize,
    SolarizeAdd,
    Color,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
}

impl Op {
    /// The order is part of what a seed means, so never change it.
    const ALL: [Op; 15] = [
        Op::AutoContrast,
        Op::Equalize,
        Op::Invert,
        Op::Rotate,
        Op::Posterize,
        Op::Solarize,
        Op::SolarizeAdd,
        Op::Color,
        Op::Contrast,
        Op::Brightness,
        Op::Sharpness,
        Op::ShearX,
        Op::ShearY,
        Op::TranslateX,
        Op::TranslateY,
    ];

    /// Applies the operation at a level from -10 to 10; what has no direction ignores its sign.
    fn apply(self, image: Image, level: f64, fill: [u8; 3]) -> Image {
        let signed = level / MAX_LEVEL;
        let share = signed.abs();
        // 1 leaves the image as it is; the further from it, the stronger.
        let factor = (1.0 + 0.9 * signed).max(0.1) as f32;
        let affine = match self {
            Op::AutoContrast => return pixel::auto_contrast(image),
            Op::Equalize => return pixel::equalize(image),
            Op::Invert => return pixel::invert(image),
            Op::Posterize => return pixel::posterize(image, 4 - (share * 4.0) as u32),
            Op::Solarize => return pixel::solarize(image, 256 - (share * 256.0) as u32),
            Op::SolarizeAdd => return pixel::solarize_add(image, (share * 110.0) as u8),
            Op::Color => return pixel::color(image, factor),
            Op::Contrast => return pixel::contrast(image, factor),
            Op::Brightness => return pixel::brightness(image, factor),
            Op::Sharpness => return pixel::sharpness(image, factor),
            Op::Rotate => Affine::rotation(30.0 * signed, image.height(), image.width()),
            Op::ShearX => Affine::shear_x(0.3 * signed),
            Op::ShearY => Affine::shear_y(0.3 * signed),
            Op::TranslateX => Affine::translation(0.0, 0.45 * signed * image.width() as f64),
            Op::TranslateY => Affine::translation(0.45 * signed * image.height() as f64, 0.0),
        };
        warp::warp(&image, &affine, fill)
    }
}

#[cfg(test)]
mod tests;

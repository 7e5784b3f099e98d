//! Random changes of an image's colours.

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::image::{Image, check_colours};
use crate::pixel;
use crate::rng::{Rng, SampleKey, Stream};

/// Changes brightness, contrast, saturation and hue at random, in random order.
///
/// As torchvision's `ColorJitter` of a PIL image. A strength of 0 leaves its property as it is.
/// Saturation and hue of luma images stay.
///
/// The default strengths are those that MoCo v2 (Chen et al. 2020, arXiv 2003.04297) trains with;
/// He et al. 2021, table 1e, which finds that colour jitter does not help an autoencoder, gives
/// none.
#[derive(Serialize, Deserialize, Copy, Clone, Debug, PartialEq)]
#[serde(
    deny_unknown_fields,
    default,
    expecting = "a table of strengths, as { brightness = 0.4 }"
)]
pub struct ColorJitter {
    /// Values are multiplied by a factor that is uniform within this of 1; from 0 to 1.
    /// Default: 0.4.
    pub brightness: f64,
    /// The distance of values from the image's mean luma is multiplied by a factor that is uniform
    /// within this of 1; from 0 to 1. Default: 0.4.
    pub contrast: f64,
    /// The distance of a pixel's values from its luma is multiplied by a factor that is uniform
    /// within this of 1; from 0 to 1. Default: 0.4.
    pub saturation: f64,
    /// The hue is turned by an angle that is uniform within this of 0, a share of the full circle
    /// from 0 to 0.5. Default: 0.1.
    pub hue: f64,
}

impl Default for ColorJitter {
    fn default() -> ColorJitter {
        ColorJitter {
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.4,
            hue: 0.1,
        }
    }
}

impl ColorJitter {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`DataError::Config`] if a strength is not from 0 to 1, or if `hue` is not from 0 to 0.5.
    pub fn validate(&self) -> Result<(), DataError> {
        let default = ColorJitter::default();
        for (key, found, most, default) in [
            ("brightness", self.brightness, 1.0, default.brightness),
            ("contrast", self.contrast, 1.0, default.contrast),
            ("saturation", self.saturation, 1.0, default.saturation),
            ("hue", self.hue, 0.5, default.hue),
        ] {
            if !(0.0..=most).contains(&found) {
                return Err(DataError::Config {
                    key,
                    expected: format!("a number from 0 to {most}"),
                    found: found.to_string(),
                    remedy: format!("the default is {default}, 0 changes nothing"),
                });
            }
        }
        Ok(())
    }

    /// Changes one image: a pure function of its arguments.
    ///
    /// # Shapes
    /// - returns `[image.height(), image.width(), image.channels()]`
    ///
    /// # Errors
    /// [`DataError::Config`] if the settings are not [valid](ColorJitter::validate), or if the image is not of
    /// bytes in grey or RGB.
    pub fn apply(&self, image: Image, key: SampleKey) -> Result<Image, DataError> {
        self.validate()?;
        check_colours("color_jitter", image.channels(), image.kind())?;
        let changes = self.draw(&mut Rng::new(key, Stream::ColorJitter));
        let changes = changes.into_iter().flatten();
        Ok(changes.fold(image, |image, change| change.apply(image)))
    }

    /// What happens to one image, in order; `None` where a strength is 0.
    ///
    /// Every number is drawn always, so that a strength has no effect on the other properties.
    fn draw(&self, rng: &mut Rng) -> [Option<Change>; 4] {
        let mut within = |strength: f64, centre: f64| {
            let value = rng.between(centre - strength, centre + strength);
            (strength > 0.0).then_some(value)
        };
        let factor = |value: f64| value as f32;
        let mut changes = [
            within(self.brightness, 1.0).map(|value| Change::Brightness(factor(value))),
            within(self.contrast, 1.0).map(|value| Change::Contrast(factor(value))),
            within(self.saturation, 1.0).map(|value| Change::Saturation(factor(value))),
            within(self.hue, 0.0).map(Change::Hue),
        ];
        rng.shuffle(&mut changes);
        changes
    }
}

/// One property's change: by a factor, or by a share of the circle.
#[derive(Copy, Clone, Debug, PartialEq)]
enum Change {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    Hue(f64),
}

impl Change {
    fn apply(self, image: Image) -> Image {
        match self {
            Change::Brightness(factor) => pixel::brightness(image, factor),
            Change::Contrast(factor) => pixel::contrast(image, factor),
            Change::Saturation(factor) => pixel::color(image, factor),
            Change::Hue(turn) => pixel::hue(image, turn),
        }
    }
}

#[cfg(test)]
mod tests;

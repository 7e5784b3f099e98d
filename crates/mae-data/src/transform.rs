//! From an image of any size to one of the size that the network expects.

mod crop;

use serde::{Deserialize, Serialize};

use crate::color_jitter::ColorJitter;
use crate::dataset::{Content, Dataset};
use crate::error::DataError;
use crate::image::jpeg::{self, View};
use crate::image::{CropBox, Image, Nodata, check_channels, check_colours, check_sides};
use crate::pixels::PixelKind;
use crate::rand_augment::RandAugment;
use crate::rng::{Rng, SampleKey, Stream};

/// Brings images to `height` times `width` pixels, with or without augmentation.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// Height of the result in pixels.
    pub height: usize,
    /// Width of the result in pixels.
    pub width: usize,
    /// What part of the image is taken. Default: the centre.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// Mirrors every second image on average. Default: false.
    #[serde(default)]
    pub hflip: bool,
    /// Changes the colours after crop and flip. Default: none.
    #[serde(default)]
    pub color_jitter: Option<ColorJitter>,
    /// Distorts the image after all else, for fine-tuning. Default: none.
    #[serde(default)]
    pub rand_augment: Option<RandAugment>,
}

/// What part of an image becomes the sample.
#[derive(Serialize, Deserialize, Copy, Clone, Debug, Default, PartialEq)]
#[serde(tag = "kind", rename_all = "kebab-case", from = "AugmentationFields")]
pub enum Augmentation {
    /// The largest centred part with the target's shape, the same in every epoch.
    ///
    /// As torchvision's `Resize` of the shorter side and `CenterCrop`; an image that already has
    /// the size is left as it is.
    #[default]
    None,
    /// A centred part, smaller than the largest one, the same in every epoch.
    ///
    /// As torchvision's `Resize` and `CenterCrop` when the shorter side is resized to more than
    /// the target: to 256 pixels for a target of 224 at the default.
    ///
    /// Source: the MAE authors' `util/datasets.py`, which evaluates fine-tuned models on it.
    CenterCrop {
        /// The target's share of the resized image's shorter side, from 0.01 to 1.
        /// Default: 0.875.
        crop_share: f64,
    },
    /// A part of the same size as that of `CenterCrop`, at a random place.
    ///
    /// As torchvision's `Resize` and `RandomCrop`: the "fixed size" crop of He et al. 2021,
    /// table 1e.
    RandomCrop {
        /// The target's share of the resized image's shorter side, from 0.01 to 1.
        /// Default: 0.875.
        crop_share: f64,
    },
    /// A part of random size and shape at a random place, as torchvision's `RandomResizedCrop`.
    ///
    /// Source: He et al. 2021, appendix A.1, whose only augmentations are this and the flip.
    RandomResizedCrop {
        /// Bounds of the part's share of the image's area. Default: `[0.2, 1.0]`.
        scale: [f64; 2],
        /// Bounds of the part's width over its height. Default: `[3/4, 4/3]`.
        ratio: [f64; 2],
    },
}

impl Augmentation {
    /// Default of `crop_share`. Source: the MAE authors' `util/datasets.py`.
    pub const CROP_SHARE: f64 = 0.875;
    /// Default of `scale`. Source: the MAE authors' `main_pretrain.py`.
    pub const SCALE: [f64; 2] = [0.2, 1.0];
    /// Default of `ratio`. Source: torchvision.
    pub const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];

    /// The random resized crop of the paper.
    pub fn random_resized_crop() -> Augmentation {
        Augmentation::RandomResizedCrop {
            scale: Augmentation::SCALE,
            ratio: Augmentation::RATIO,
        }
    }
}

/// [`Augmentation`] as it is read: serde lets unknown fields pass in a unit variant of a tagged
/// enum, but not in an empty struct variant.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum AugmentationFields {
    None {},
    CenterCrop {
        #[serde(default = "default_crop_share")]
        crop_share: f64,
    },
    RandomCrop {
        #[serde(default = "default_crop_share")]
        crop_share: f64,
    },
    RandomResizedCrop {
        #[serde(default = "default_scale")]
        scale: [f64; 2],
        #[serde(default = "default_ratio")]
        ratio: [f64; 2],
    },
}

fn default_crop_share() -> f64 {
    Augmentation::CROP_SHARE
}

fn default_scale() -> [f64; 2] {
    Augmentation::SCALE
}

fn default_ratio() -> [f64; 2] {
    Augmentation::RATIO
}

impl From<AugmentationFields> for Augmentation {
    fn from(fields: AugmentationFields) -> Augmentation {
        match fields {
            AugmentationFields::None {} => Augmentation::None,
            AugmentationFields::CenterCrop { crop_share } => {
                Augmentation::CenterCrop { crop_share }
            }
            AugmentationFields::RandomCrop { crop_share } => {
                Augmentation::RandomCrop { crop_share }
            }
            AugmentationFields::RandomResizedCrop { scale, ratio } => {
                Augmentation::RandomResizedCrop { scale, ratio }
            }
        }
    }
}

impl Transform {
    /// No augmentation: the centre of the image at `height` times `width` pixels.
    pub fn center_crop(height: usize, width: usize) -> Transform {
        Transform {
            height,
            width,
            augmentation: Augmentation::None,
            hflip: false,
            color_jitter: None,
            rand_augment: None,
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`DataError::Config`] if a side is 0, if bounds are not finite, not positive or not in
    /// order, if `scale` exceeds 1, if `crop_share` is not from 0.01 to 1, or if
    /// `color_jitter` or `rand_augment` is not valid.
    pub fn validate(&self) -> Result<(), DataError> {
        check_sides(self.height, self.width)?;
        match self.augmentation {
            Augmentation::None => {}
            Augmentation::CenterCrop { crop_share } | Augmentation::RandomCrop { crop_share } => {
                check_crop_share(crop_share)?;
            }
            Augmentation::RandomResizedCrop { scale, ratio } => {
                check_bounds("scale", scale, 1.0)?;
                check_bounds("ratio", ratio, f64::INFINITY)?;
            }
        }
        self.color_jitter
            .map_or(Ok(()), |jitter| jitter.validate())?;
        self.rand_augment
            .map_or(Ok(()), |augment| augment.validate())
    }

    /// Transforms one image: a pure function of its arguments.
    ///
    /// Crop and resize are one convolution.
    ///
    /// # Shapes
    /// - returns `[self.height, self.width, image.channels()]`
    ///
    /// # Errors
    /// [`DataError::Config`] if the settings are not [valid](Transform::validate).
    pub fn apply(&self, image: Image, key: SampleKey) -> Result<Image, DataError> {
        self.validate()?;
        let view = self.view(image.height(), image.width(), key);
        self.apply_view(image, view, key)
    }

    fn apply_view(&self, image: Image, view: View, key: SampleKey) -> Result<Image, DataError> {
        let mut image = if view.is_whole(image.height(), image.width()) {
            image
        } else {
            image.crop_resize(view.crop, view.height, view.width)?
        };
        if view.hflip {
            image.flip_horizontally();
        }
        self.distort(image, key)
    }

    /// Decodes the content of an image file and transforms the image.
    ///
    /// Of TIFF files and arrays, only the strips, tiles or rows that the crop needs are decoded, with the
    /// same result.
    /// Of a usual JPEG, only what the crop needs is decoded, which is several times as fast as
    /// [`Image::decode`] and then [`Transform::apply`]; the result is the same but for rounding,
    /// by less than one level of 255 on average.
    /// Rows below the crop are then not looked at, so most damage among them stays unseen; a file that
    /// has no end, or much less data for those rows than for others, is looked at as a whole.
    ///
    /// # Shapes
    /// - returns `[self.height, self.width, channels]`
    ///
    /// # Errors
    /// As [`Image::decode`] and [`Transform::apply`].
    pub fn apply_encoded(
        &self,
        content: &[u8],
        channels: usize,
        nodata: Nodata,
        name: &str,
        key: SampleKey,
    ) -> Result<Image, DataError> {
        self.validate()?;
        check_channels(channels)?;
        let choose = |height, width| self.view(height, width, key);
        let view = match channels {
            1 | 3 => jpeg::decode_view(content, channels, choose),
            _ => None,
        };
        match view {
            Some(image) => self.distort(image, key),
            None => self.apply_part(content, channels, nodata, name, key),
        }
    }

    /// Decodes no more of a file of bands or of an array than the crop needs, if that can be, and transforms it.
    fn apply_part(
        &self,
        content: &[u8],
        channels: usize,
        nodata: Nodata,
        name: &str,
        key: SampleKey,
    ) -> Result<Image, DataError> {
        let mut chosen = None;
        let image = Image::decode_part(content, channels, nodata, name, &mut |height, width| {
            let view = self.view(height, width, key);
            let part = match view.is_whole(height, width) {
                true => [0..height, 0..width],
                false => (view.crop).reach([view.height, view.width], [height, width]),
            };
            let crop = view.crop.within(part.clone());
            chosen = Some(View { crop, ..view });
            part
        })?;
        let view = chosen.unwrap_or_else(|| self.view(image.height(), image.width(), key));
        self.apply_view(image, view, key)
    }

    /// Checks the settings, and that they can be applied to images of `channels` values of `kind`.
    ///
    /// # Errors
    /// As [`Transform::validate`]; [`DataError::Config`], too, if colours are to be changed of what has
    /// none.
    pub fn validate_for(&self, channels: usize, kind: PixelKind) -> Result<(), DataError> {
        self.validate()?;
        let operations = [
            ("color_jitter", self.color_jitter.is_some()),
            ("rand_augment", self.rand_augment.is_some()),
        ];
        for (key, is_set) in operations {
            if is_set {
                check_colours(key, channels, kind)?;
            }
        }
        Ok(())
    }

    /// Transforms an image as a data set hands it over; the result is of the data set's kind.
    pub(crate) fn apply_content(
        &self,
        dataset: &dyn Dataset,
        index: usize,
        key: SampleKey,
    ) -> Result<Image, DataError> {
        let image = match dataset.content(index)? {
            Content::Pixels(image) => self.apply(image, key),
            Content::Encoded(content) => {
                let (channels, nodata) = (dataset.channels(), dataset.nodata());
                self.apply_encoded(&content, channels, nodata, &dataset.name(index), key)
            }
        }?;
        match image.kind() == dataset.kind() {
            true => Ok(image),
            false => image.into_kind(dataset.kind(), &dataset.name(index)),
        }
    }

    /// What is taken of an image of `height` times `width` pixels.
    fn view(&self, height: usize, width: usize, key: SampleKey) -> View {
        let (source, target) = ([height, width], [self.height, self.width]);
        let crop = match self.augmentation {
            Augmentation::None if source == target => CropBox {
                top: 0.0,
                left: 0.0,
                height: height as f64,
                width: width as f64,
            },
            Augmentation::None => crop::covering(target, source, 1.0, crop::centred),
            Augmentation::CenterCrop { crop_share } => {
                crop::covering(target, source, crop_share, crop::centred)
            }
            Augmentation::RandomCrop { crop_share } => {
                let mut rng = Rng::new(key, Stream::Crop);
                let place = |room: usize| rng.below(room as u64 + 1) as f64;
                crop::covering(target, source, crop_share, place)
            }
            Augmentation::RandomResizedCrop { scale, ratio } => {
                let mut rng = Rng::new(key, Stream::Crop);
                crop::random_resized(source, scale, ratio, &mut rng)
            }
        };
        View {
            crop,
            height: self.height,
            width: self.width,
            hflip: self.hflip && Rng::new(key, Stream::Flip).below(2) == 1,
        }
    }

    /// What happens to pixels after crop and flip.
    fn distort(&self, mut image: Image, key: SampleKey) -> Result<Image, DataError> {
        if let Some(color_jitter) = &self.color_jitter {
            image = color_jitter.apply(image, key)?;
        }
        match &self.rand_augment {
            Some(rand_augment) => rand_augment.apply(image, key),
            None => Ok(image),
        }
    }
}

fn check_crop_share(crop_share: f64) -> Result<(), DataError> {
    // So that the resized sides stay countable.
    const MIN: f64 = 0.01;
    if (MIN..=1.0).contains(&crop_share) {
        return Ok(());
    }
    Err(DataError::Config {
        key: "crop_share",
        expected: format!("a number from {MIN} to 1"),
        found: crop_share.to_string(),
        remedy: format!("the default is {}", Augmentation::CROP_SHARE),
    })
}

fn check_bounds(key: &'static str, [low, high]: [f64; 2], max: f64) -> Result<(), DataError> {
    if low > 0.0 && low <= high && high <= max && high.is_finite() {
        return Ok(());
    }
    Err(DataError::Config {
        key,
        expected: if max.is_finite() {
            format!("[low, high] with 0 < low <= high <= {max}")
        } else {
            "[low, high] with 0 < low <= high".to_owned()
        },
        found: format!("[{low}, {high}]"),
        remedy: format!(
            "the default is {:?}",
            match key {
                "scale" => Augmentation::SCALE,
                _ => Augmentation::RATIO,
            }
        ),
    })
}

#[cfg(test)]
mod tests;

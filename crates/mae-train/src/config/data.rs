//! `[data]`: where images come from, and what is done to them.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use mae_data::{Augmentation, Cifar, ColorJitter, Nodata, PixelKind, TarDataset, Transform};
use mae_model::Normalization;
use serde::{Deserialize, Serialize};

use super::number;

/// Where images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataSource {
    /// Drawn scenes; needs no files.
    Synthetic,
    /// A folder of jpg, png, webp, bmp, tiff, gif, npy and npz files, searched recursively.
    Folder,
    /// CIFAR-10's binary files.
    Cifar10,
    /// CIFAR-100's binary files.
    Cifar100,
    /// A file that `mae-train pack` wrote.
    Packed,
    /// Tar files in WebDataset's layout: one, a folder of them, or several for which `{000..012}`, `{a,b}` or `*` in the
    /// path stand.
    Tar,
}

impl DataSource {
    /// What a path leads to: tar files, as [`TarDataset::is_at`] finds; any other file is a packed one; a folder holds
    /// CIFAR's binary files if all of them are there, else images.
    pub fn of(path: &Path) -> Self {
        if TarDataset::is_at(path) {
            return Self::Tar;
        }
        if path.is_file() {
            return Self::Packed;
        }
        match Cifar::at(path) {
            Some(Cifar::Ten) => Self::Cifar10,
            Some(Cifar::Hundred) => Self::Cifar100,
            None => Self::Folder,
        }
    }
}

/// How crops are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AugmentationKind {
    /// The shorter side resized, the centre cropped.
    None,
    /// The shorter side resized, a random part cropped.
    RandomCrop,
    /// A random part of the image, of random size and shape, resized.
    RandomResizedCrop,
}

/// Which channel statistics pixels are normalised with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormalizationSource {
    /// Measured from a sample of the images.
    Auto,
    /// ImageNet's.
    Imagenet,
    /// `data.mean` and `data.std`.
    Given,
}

/// `[data]`: the images and what is done to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSection {
    /// Where images come from: `synthetic`, drawn scenes; `folder`, `cifar10`, `cifar100`, `packed` or `tar`, which
    /// `--data` finds out by itself. Default `synthetic`.
    pub source: DataSource,
    /// The folder of `folder`, `cifar10` and `cifar100`, the file of `packed`, the files of `tar`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// More images, as `path`, whose loss is measured after each epoch and which nothing is learned from: `val_loss`,
    /// always with the same patches hidden of the same centre crops. For pre-training. Absent by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val: Option<PathBuf>,
    /// The share of the images that is held out for `val_loss` in place of `val`, below 1. Default 0: none.
    pub val_share: f64,
    /// Images of an epoch of `synthetic`. Default 8192.
    pub samples: usize,
    /// What values are read as: `u8`, of which images with more than 8 bits are refused, or `f32`, which keeps all
    /// bits. Default: `f32` if any of some files that are looked at has more than 8 bits, else `u8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<PixelKind>,
    /// What stands for a value that was not measured, in TIFF, PNG and Netpbm files and arrays: `auto`, the default,
    /// for what the file says in GDAL's tag; a number, or `nan`, for all files; or `none`. Such values count in no
    /// statistics, and as their channel's mean in an image; the loss leaves them out.
    pub nodata: Nodata,
    /// How crops are taken: `none`, the default, `random-crop` or `random-resized-crop`.
    pub augmentation: AugmentationKind,
    /// Share of the resized image's shorter side that `random-crop` takes. Default 0.875 (224 of 256).
    pub crop_share: f64,
    /// Smallest and largest share of the image's area in a `random-resized-crop`. Default 0.2 to 1 (the paper's).
    pub crop_scale: [f64; 2],
    /// Smallest and largest width over height of a `random-resized-crop`. Default 3/4 to 4/3.
    pub crop_ratio: [f64; 2],
    /// Mirror every other image, at random. Default false.
    pub hflip: bool,
    /// Change colours at random, by at most `brightness`, `contrast`, `saturation` and `hue`. Default: not at all;
    /// `color_jitter = {}` for 0.4, 0.4, 0.4 and 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color_jitter: Option<ColorJitter>,
    /// Which statistics pixels are normalised with: `auto`, measured from a sample of the images; `imagenet`; or `given`,
    /// those of `mean` and `std`. Default `auto`.
    pub normalization: NormalizationSource,
    /// Channel means for `given`: of pixels in 0..1, or in the units of files of floating-point numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// Channel standard deviations for `given`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
    /// The tokenizer whose tokens `model.target = "tokens"` predicts: a run's folder of `mae-train tokenizer`, or its
    /// model.safetensors. `normalization = "auto"` then takes its statistics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Leave out an epoch's last batch if it is not full. Default true.
    pub drop_last: bool,
    /// Share of broken images to skip before giving up. Default 0.01.
    pub max_broken_share: f64,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            source: DataSource::Synthetic,
            path: None,
            val: None,
            val_share: 0.0,
            samples: 8192,
            values: None,
            nodata: Nodata::Auto,
            augmentation: AugmentationKind::None,
            crop_share: Augmentation::CROP_SHARE,
            crop_scale: Augmentation::SCALE,
            crop_ratio: Augmentation::RATIO,
            hflip: false,
            color_jitter: None,
            normalization: NormalizationSource::Auto,
            mean: None,
            std: None,
            tokenizer: None,
            drop_last: true,
            max_broken_share: 0.01,
        }
    }
}

impl DataSection {
    /// What is done to an image before it is cut into patches, to make it `height` times `width` pixels.
    pub(crate) fn transform(&self, height: usize, width: usize) -> Transform {
        let augmentation = match self.augmentation {
            AugmentationKind::None => Augmentation::None,
            AugmentationKind::RandomCrop => Augmentation::RandomCrop {
                crop_share: self.crop_share,
            },
            AugmentationKind::RandomResizedCrop => Augmentation::RandomResizedCrop {
                scale: self.crop_scale,
                ratio: self.crop_ratio,
            },
        };
        Transform {
            augmentation,
            hflip: self.hflip,
            color_jitter: self.color_jitter,
            ..Transform::center_crop(height, width)
        }
    }

    /// The channel statistics, unless they must be measured first.
    pub fn normalization(&self) -> Option<Normalization> {
        match self.normalization {
            NormalizationSource::Auto => None,
            NormalizationSource::Imagenet => Some(Normalization::IMAGENET),
            NormalizationSource::Given => {
                Some(Normalization::new(self.mean.clone()?, self.std.clone()?))
            }
        }
    }

    /// Refuses to change the colours of what has none.
    pub(crate) fn check_colours(&self, channels: usize, values: PixelKind) -> Result<()> {
        ensure!(
            self.color_jitter.is_none() || (matches!(channels, 1 | 3) && values == PixelKind::U8),
            "`data.color_jitter` changes the colours of 8-bit images in RGB or grey, but these have {channels} channels \
             of {} values; leave it out",
            values.name()
        );
        Ok(())
    }

    pub(crate) fn check(&self, channels: usize) -> Result<()> {
        match (self.source, &self.path) {
            (DataSource::Synthetic, Some(path)) => bail!(
                "`data.path` is {}, but `data.source` is \"synthetic\", which reads no files; \
                 set data.source=folder, or use --data",
                path.display()
            ),
            (DataSource::Synthetic, None) => ensure!(
                self.samples >= 1,
                "`data.samples` is 0, expected the number of synthetic images in an epoch"
            ),
            (_, None) => bail!("`data.path` is missing: give the images with --data PATH"),
            (_, Some(_)) => {}
        }
        ensure!(
            self.source != DataSource::Synthetic || matches!(channels, 1 | 3),
            "`model.channels` is {channels}, but drawn scenes have 3 or 1; give images with --data PATH"
        );
        let is_cifar = matches!(self.source, DataSource::Cifar10 | DataSource::Cifar100);
        ensure!(
            !is_cifar || channels == 3,
            "`model.channels` is {channels}, but CIFAR images have 3"
        );
        ensure!(
            self.values != Some(PixelKind::F32)
                || !(is_cifar || self.source == DataSource::Synthetic),
            "`data.values` is \"f32\", but the images have 8 bits; leave it out"
        );
        self.check_colours(channels, self.values.unwrap_or_default())?;
        match (self.normalization, &self.mean, &self.std) {
            (NormalizationSource::Given, Some(mean), Some(std)) => {
                for (key, values) in [("mean", mean), ("std", std)] {
                    let usable = values
                        .iter()
                        .all(|v| v.is_finite() && (key == "mean" || *v > 0.0));
                    ensure!(
                        values.len() == channels && usable,
                        "`data.{key}` is {values:?}, expected {channels} finite numbers, one a channel, std above 0"
                    );
                }
            }
            (NormalizationSource::Given, ..) => {
                bail!(
                    "`data.normalization` is \"given\": give `data.mean` and `data.std`, one number a channel"
                )
            }
            (NormalizationSource::Imagenet, ..) if channels != 3 => {
                bail!(
                    "`data.normalization` is \"imagenet\", which has 3 channels, but `model.channels` is {channels}"
                )
            }
            (_, None, None) => {}
            _ => bail!("`data.mean` and `data.std` have no effect unless data.normalization=given"),
        }
        ensure!(
            self.val.is_none() || self.val_share == 0.0,
            "`data.val` and `data.val_share` are two ways to the same: give one of them"
        );
        number("data.val_share", self.val_share, 0.0..=0.999)?;
        number("data.max_broken_share", self.max_broken_share, 0.0..=1.0)
    }
}

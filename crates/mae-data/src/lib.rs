#![doc = include_str!("../README.md")]
//!
//! # The steps
//!
//! The steps stand alone, too: [`Image`] decodes, [`Transform`] crops, [`patchify`] cuts,
//! [`MaskSampler`] chooses, [`shuffle()`] splits, and [`unshuffle`] and [`unpatchify`] lead back.
//!
//! # Randomness
//! There is no global random state: every random choice is a function of a [`SampleKey`], the
//! seed, the epoch and the index of the image.
//! The same config therefore gives the same batches with any number of workers and after any
//! resume.

mod color_jitter;
mod dataset;
mod error;
mod extensions;
mod image;
mod loader;
mod mask;
mod patch;
mod pixel;
mod pixels;
mod rand_augment;
mod rng;
mod shuffle;
mod stats;
mod survey;
mod transform;

pub use crate::color_jitter::ColorJitter;
pub use crate::dataset::{
    Cifar, CifarDataset, Content, Dataset, Differences, Fingerprint, FolderDataset, LeftOut,
    PackConfig, PackEncoding, PackProgress, PackSummary, PackedDataset, Split, Subset,
    SyntheticDataset, TarDataset, fingerprints, hold_out, label_by_name, list_classes, pack,
    shared_classes,
};
pub use crate::error::DataError;
pub use crate::extensions::SUPPORTED_EXTENSIONS;
pub use crate::image::{CropBox, Image, Nodata};
pub use crate::loader::{
    Epoch, ImageBatch, ImageLoader, ImageLoaderConfig, Loader, LoaderConfig, MaskedBatch, Order,
    Shard,
};
pub use crate::mask::{Mask, MaskSampler, kept_patches};
pub use crate::patch::{PatchGrid, patchify, patchify_into, unpatchify, unpatchify_into};
pub use crate::pixels::{PixelKind, Pixels};
pub use crate::rand_augment::RandAugment;
pub use crate::rng::SampleKey;
pub use crate::shuffle::{patchify_shuffled_into, shuffle, unshuffle};
pub use crate::stats::{ChannelStats, IMAGENET_MEAN, IMAGENET_STD, channel_mean_std};
pub use crate::survey::{Survey, Suspect, survey};
pub use crate::transform::{Augmentation, Transform};

//! Where images come from.

mod cifar;
mod classes;
mod content;
mod ending;
mod fingerprint;
mod folder;
mod kind;
mod left_out;
mod mapped;
mod packed;
mod service;
mod subset;
mod synthetic;
mod tar;

pub use cifar::{Cifar, CifarDataset, Split};
pub use classes::{label_by_name, list_classes, shared_classes};
pub(crate) use ending::is_promise;
pub use fingerprint::{Differences, Fingerprint, fingerprints};
pub use folder::FolderDataset;
pub use left_out::LeftOut;
pub use packed::{PackConfig, PackEncoding, PackProgress, PackSummary, PackedDataset, pack};
pub use subset::{Subset, hold_out};
pub use synthetic::SyntheticDataset;
pub use tar::TarDataset;

use std::borrow::Cow;
use std::hash::Hasher;

use crate::error::DataError;
use crate::image::{Image, Nodata};
use crate::pixels::PixelKind;

/// One image as a [`Dataset`] stores it.
#[derive(Clone, Debug, PartialEq)]
pub enum Content<'a> {
    /// Pixels, of the data set's number of channels.
    Pixels(Image),
    /// The content of an image file, as [`Image::decode`] reads it.
    Encoded(Cow<'a, [u8]>),
}

/// Images by index, read from several threads at once.
///
/// To add a source, implement this: the loader needs nothing else.
pub trait Dataset: Send + Sync {
    /// The number of images.
    fn len(&self) -> usize;

    /// Whether there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values per pixel of every image: 1 (luma), 3 (RGB), or another number.
    fn channels(&self) -> usize;

    /// What the values of the pixels are; bytes by default.
    ///
    /// Where it is numbers, single images may be of bytes: a loader widens them.
    fn kind(&self) -> PixelKind {
        PixelKind::U8
    }

    /// Which values of its files mean that nothing was measured there; see [`Image::decode_with`].
    fn nodata(&self) -> Nodata {
        Nodata::Auto
    }

    /// Reads one image, of any size.
    ///
    /// # Errors
    /// [`DataError::Image`] or [`DataError::Io`] if this image cannot be read: the loader counts
    /// it as broken and goes on; any other error ends the epoch.
    fn image(&self, index: usize) -> Result<Image, DataError>;

    /// One image as it is stored, so that a loader decodes no more of it than it needs.
    ///
    /// By default the pixels of [`Dataset::image`].
    /// A source of image files gives their bytes, borrowed if it has them in memory.
    ///
    /// # Errors
    /// As [`Dataset::image`], but that what is encoded is not checked.
    fn content(&self, index: usize) -> Result<Content<'_>, DataError> {
        self.image(index).map(Content::Pixels)
    }

    /// The class of one image: an index into [`Dataset::classes`].
    fn label(&self, index: usize) -> Option<u32> {
        let _ = index;
        None
    }

    /// Names of the classes, in label order; empty if the images have no labels.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// Whether every image has a label that can be read, if there are classes: what learns from labels asks this
    /// first, and what does not need them does not.
    ///
    /// # Errors
    /// [`DataError::Dataset`] or [`DataError::Config`], which say where a label is missing or what is there instead.
    fn check_labels(&self) -> Result<(), DataError> {
        let is_unlabelled = |index: &usize| self.label(*index).is_none();
        if self.classes().is_empty() {
            return Ok(());
        }
        let Some(first) = (0..self.len()).find(is_unlabelled) else {
            return Ok(());
        };
        Err(DataError::Config {
            key: "labels",
            expected: "one for every image".to_owned(),
            found: format!(
                "{} of {} images without one, the first {}",
                (first..self.len()).filter(is_unlabelled).count(),
                self.len(),
                self.name(first)
            ),
            remedy: "leave them out, or give them labels".to_owned(),
        })
    }

    /// What messages call an image: its path, or its file and record.
    fn name(&self, index: usize) -> String;

    /// What lies beside its images and is none of them.
    fn left_out(&self) -> &[LeftOut] {
        &[]
    }

    /// What to know of how the images are read, in words, a line each.
    fn notes(&self) -> Vec<&str> {
        Vec::new()
    }

    /// What to know of the labels, in words: for what learns from them.
    fn label_note(&self) -> Option<&str> {
        None
    }

    /// What tells one image from others without its being decoded, so that a run can know whether it goes on with
    /// the same.
    ///
    /// By default its name and label: a source whose names say where it lies, or whose images can change under the
    /// same name, gives the name below its place, and the size or what else is cheap.
    fn fingerprint(&self, index: usize) -> Fingerprint {
        Fingerprint {
            name: self.name(index),
            label: self.label(index),
            ..Fingerprint::default()
        }
    }

    /// Gives `hasher` all that tells these images from others, so that what was computed from them can be
    /// kept: by default each name and label.
    ///
    /// A source whose images can change under the same name adds what shows it.
    fn identify(&self, hasher: &mut dyn Hasher) {
        for index in 0..self.len() {
            hasher.write(self.name(index).as_bytes());
            hasher.write(&[0]);
            hasher.write(&self.label(index).map_or(u64::MAX, u64::from).to_le_bytes());
        }
    }
}

fn check_index(index: usize, len: usize) -> Result<(), DataError> {
    if index < len {
        return Ok(());
    }
    Err(DataError::Index { index, len })
}

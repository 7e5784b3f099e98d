mod list;
mod walk;

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::hash::Hasher;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{Content, Dataset, LeftOut, check_index, cifar, kind};
use crate::dataset::Fingerprint;
use crate::error::DataError;
use crate::image::{Image, Nodata, check_channels};
use crate::pixels::PixelKind;

/// All images under a folder.
///
/// A file is an image if its name ends in one of [`SUPPORTED_EXTENSIONS`](crate::SUPPORTED_EXTENSIONS), or if it begins
/// like one and its name ends in something that is not known, in a picture format that is not read, or in nothing.
/// Sub-folders are searched to any depth, links included, each once; hidden files and folders, whose names begin with
/// a dot, and those that file servers, systems and programs keep for themselves, as `@eaDir` and `__MACOSX`, are not.
/// [`left_out`](Dataset::left_out) tells what is none of its images.
/// If every image is in a sub-folder, the names of the first-level sub-folders are the classes;
/// otherwise the images have no labels.
/// The order is that of the paths, component by component, byte by byte, on every platform.
pub struct FolderDataset {
    root: PathBuf,
    /// Relative to `root`, sorted.
    images: Vec<PathBuf>,
    labels: Vec<u32>,
    classes: Vec<String>,
    channels: usize,
    found: kind::Found,
    nodata: Nodata,
    left_out: Vec<LeftOut>,
    label_note: Option<String>,
}

impl FolderDataset {
    /// Lists the images under `path`; `channels` is 1 to read them as luma, 3 as RGB, or their own
    /// number: see [`Image::decode`].
    ///
    /// [`kind`](Dataset::kind) is found from extensions and the headers of a few files that are spread
    /// over the data set; [`read_as`](FolderDataset::read_as) sets it.
    ///
    /// # Errors
    /// [`DataError::Io`] if `path` or a folder in it cannot be read, [`DataError::Dataset`] if it
    /// is no folder, or if it holds no images but files that say why: those of other formats, or some of
    /// CIFAR's; [`DataError::NoImages`] if it holds none, [`DataError::Config`] for other channel counts.
    pub fn open(path: impl AsRef<Path>, channels: usize) -> Result<FolderDataset, DataError> {
        let root = path.as_ref();
        check_channels(channels)?;
        check_folder(root)?;
        let list::Listing {
            images,
            folders,
            left_out,
            ..
        } = list::list(root)?;
        if images.is_empty() {
            return Err(cifar::incomplete(root).unwrap_or_else(|| list::no_images(root, left_out)));
        }
        let (classes, labels) = label_by_sub_folder(&images);
        let label_note = empty_classes(&classes, folders);
        let dataset = FolderDataset {
            root: root.to_owned(),
            images,
            labels,
            classes,
            channels,
            found: kind::Found::default(),
            nodata: Nodata::Auto,
            left_out: left_out.into_list(),
            label_note,
        };
        Ok(dataset.with_nodata(Nodata::Auto))
    }

    /// The same images as values of `kind`.
    ///
    /// As bytes, images of more than 8 bits a value are broken ones; as numbers, bytes are widened.
    pub fn read_as(self, kind: PixelKind) -> FolderDataset {
        FolderDataset {
            found: self.found.read_as(kind),
            ..self
        }
    }

    /// The same images, where values that `nodata` names are missing; [`kind`](Dataset::kind) is found anew, so
    /// this comes before [`read_as`](FolderDataset::read_as).
    pub fn with_nodata(self, nodata: Nodata) -> FolderDataset {
        let open = |index| Some(BufReader::new(File::open(self.path(index)).ok()?));
        let found = kind::find(
            nodata,
            &kind::Files {
                len: self.images.len(),
                name: &|index| self.name(index),
                extension: &|index| Some(self.images[index].extension()?.to_str()?.to_owned()),
                open: &open,
                is_whole: &|index| self.decode(index, nodata).is_ok(),
            },
        );
        FolderDataset {
            found,
            nodata,
            ..self
        }
    }

    /// The image at `path` alone, whatever its name, without a label; it is read when it is asked for.
    ///
    /// # Errors
    /// [`DataError::Config`] for impossible channel counts.
    pub fn of_one(path: impl AsRef<Path>, channels: usize) -> Result<FolderDataset, DataError> {
        let path = path.as_ref();
        check_channels(channels)?;
        let dataset = FolderDataset {
            root: PathBuf::new(),
            images: vec![path.to_owned()],
            labels: Vec::new(),
            classes: Vec::new(),
            channels,
            found: kind::Found::default(),
            nodata: Nodata::Auto,
            left_out: Vec::new(),
            label_note: None,
        };
        Ok(dataset.with_nodata(Nodata::Auto))
    }

    fn read(&self, index: usize) -> Result<Vec<u8>, DataError> {
        check_index(index, self.len())?;
        std::fs::read(self.path(index)).map_err(|error| DataError::Image {
            name: self.name(index),
            reason: error.to_string(),
        })
    }

    fn decode(&self, index: usize, nodata: Nodata) -> Result<Image, DataError> {
        Image::decode_with(&self.read(index)?, self.channels, nodata, &self.name(index))
    }

    fn path(&self, index: usize) -> PathBuf {
        self.images
            .get(index)
            .map_or_else(|| self.root.clone(), |image| self.root.join(image))
    }
}

impl Dataset for FolderDataset {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn kind(&self) -> PixelKind {
        self.found.kind
    }

    fn nodata(&self) -> Nodata {
        self.nodata
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        (self.decode(index, self.nodata)?).into_kind(self.found.kind, &self.name(index))
    }

    fn content(&self, index: usize) -> Result<Content<'_>, DataError> {
        Ok(Content::Encoded(Cow::Owned(self.read(index)?)))
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Names the image that lies beside sub-folders of others, which are no classes for it.
    fn check_labels(&self) -> Result<(), DataError> {
        let is_beside = |image: &&PathBuf| image.components().count() == 1;
        let beside = self.images.iter().filter(is_beside).count();
        match self.images.iter().find(is_beside) {
            Some(first) if beside < self.len() => Err(DataError::Dataset {
                path: self.root.clone(),
                expected: "every image in a sub-folder that is named after its class".to_owned(),
                found: format!(
                    "{beside} of {} beside the sub-folders, the first {}",
                    self.len(),
                    first.display()
                ),
                remedy: "move it into one, or remove it".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn name(&self, index: usize) -> String {
        self.path(index).display().to_string()
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn notes(&self) -> Vec<&str> {
        self.found.notes()
    }

    fn label_note(&self) -> Option<&str> {
        self.label_note.as_deref()
    }

    /// The size, and no date, which copies change.
    fn fingerprint(&self, index: usize) -> Fingerprint {
        let name = self.images.get(index).map(|image| image.to_string_lossy());
        Fingerprint {
            // The same on every platform.
            name: name.unwrap_or_default().replace('\\', "/"),
            label: self.label(index),
            bytes: std::fs::metadata(self.path(index))
                .ok()
                .map(|file| file.len()),
            crc32c: None,
        }
    }

    /// Path below the root, label, size and date of each file.
    fn identify(&self, hasher: &mut dyn Hasher) {
        hasher.write(&self.channels.to_le_bytes());
        kind::identify(self.found.kind, self.nodata, hasher);
        for (index, image) in self.images.iter().enumerate() {
            hasher.write(image.as_os_str().as_encoded_bytes());
            let metadata = std::fs::metadata(self.path(index)).ok();
            let date = metadata.as_ref().and_then(|file| file.modified().ok());
            let since_1970 = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
            let words = [
                self.label(index).map_or(u64::MAX, u64::from),
                metadata.map_or(u64::MAX, |file| file.len()),
                since_1970.map_or(u64::MAX, |time| time.as_nanos() as u64),
            ];
            for word in words {
                hasher.write(&word.to_le_bytes());
            }
        }
    }
}

fn check_folder(path: &Path) -> Result<(), DataError> {
    let metadata = std::fs::metadata(path).map_err(|source| DataError::Io {
        path: path.to_owned(),
        source,
    })?;
    if metadata.is_dir() {
        return Ok(());
    }
    Err(DataError::Dataset {
        path: path.to_owned(),
        expected: "a folder of images".to_owned(),
        found: "a file".to_owned(),
        remedy: "give the folder that holds it, or unpack it first".to_owned(),
    })
}

/// What to say of `folders` that would be classes if they had images.
fn empty_classes(classes: &[String], folders: Vec<String>) -> Option<String> {
    const SHOWN: usize = 5;
    let is_empty = |folder: &String| !classes.contains(folder);
    let empty: Vec<String> = folders.into_iter().filter(is_empty).collect();
    let shown = empty[..empty.len().min(SHOWN)].join(", ");
    match (classes.len(), empty.len()) {
        (0, _) | (_, 0) => None,
        (_, 1) => Some(format!(
            "the sub-folder {shown} has no images and is no class"
        )),
        (_, count) => Some(format!(
            "{count} sub-folders have no images and are no classes: {shown}{}",
            if count > SHOWN { ", ..." } else { "" }
        )),
    }
}

/// Classes, and a label for each image; both empty if an image lies beside the sub-folders.
fn label_by_sub_folder(images: &[PathBuf]) -> (Vec<String>, Vec<u32>) {
    let mut classes: Vec<&OsStr> = Vec::new();
    let mut labels = Vec::with_capacity(images.len());
    for image in images {
        let mut components = image.iter();
        let (Some(folder), Some(_)) = (components.next(), components.next()) else {
            return (Vec::new(), Vec::new());
        };
        // Sorted paths bring the images of one sub-folder together.
        if classes.last() != Some(&folder) {
            classes.push(folder);
        }
        labels.push(classes.len() as u32 - 1);
    }
    let names = classes
        .iter()
        .map(|class| class.to_string_lossy().into_owned())
        .collect();
    (names, labels)
}

#[cfg(test)]
mod tests;

//! Images in tar files, in WebDataset's layout.

mod braces;
mod index;

use std::borrow::Cow;
use std::hash::Hasher;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;

use self::braces::expand;
use self::index::{Label, Member, list_members};
use super::mapped::MappedFile;
use super::{Content, Dataset, check_index, kind};
use crate::error::DataError;
use crate::fingerprint::Fingerprint;
use crate::image::{Image, Nodata, check_channels};
use crate::pixels::PixelKind;

/// Images in tar files, as WebDataset and its writers lay them out.
///
/// An image is a file whose name ends in one of [`SUPPORTED_EXTENSIONS`](crate::SUPPORTED_EXTENSIONS);
/// what comes before the first dot of its name is its key.
/// Its label is in the file with the same key in the same shard that ends in `.cls`, a class number
/// in text, or in `.json`, an object whose `label` or `cls` is a class number or name.
/// Class numbers are the labels, and the classes are then called `0`, `1`, ...; class names are
/// sorted.
/// Other files are ignored, as are hidden ones; the order is that of the shards and of the files in
/// them.
///
/// Opening reads the headers alone; the images are then read from wherever they are, in any order.
/// Do not change the files meanwhile.
///
/// Source: <https://github.com/webdataset/webdataset>.
pub struct TarDataset {
    shards: Vec<Shard>,
    images: Vec<Member>,
    labels: Vec<u32>,
    classes: Vec<String>,
    channels: usize,
    kind: PixelKind,
    nodata: Nodata,
}

struct Shard {
    path: PathBuf,
    file: MappedFile,
    modified: Option<SystemTime>,
}

impl TarDataset {
    /// Lists the images in the shards that `paths` name; `channels` is 1 to read them as luma, 3 as
    /// RGB, or their own number: see [`Image::decode`].
    ///
    /// [`kind`](Dataset::kind) is found as by [`FolderDataset::open`](crate::FolderDataset::open).
    ///
    /// A path may hold `{000..012}` or `{a,b}`, as in a shell: it then stands for several.
    ///
    /// # Errors
    /// [`DataError::Io`] if a shard cannot be read; [`DataError::Dataset`] if it is compressed, ends
    /// early or is otherwise no tar file, or if some images have labels and others have none;
    /// [`DataError::NoImages`] if there are none; [`DataError::Config`] for braces that stand for
    /// nothing, and for other channel counts.
    pub fn open<P: AsRef<Path>>(paths: &[P], channels: usize) -> Result<TarDataset, DataError> {
        check_channels(channels)?;
        let mut shard_paths = Vec::new();
        for path in paths {
            shard_paths.extend(expand(path.as_ref())?);
        }
        let listed = shard_paths
            .par_iter()
            .map(|path| {
                let shard = Shard::open(path)?;
                let content = list_members(&shard.path, &shard.file)?;
                Ok((shard, content))
            })
            .collect::<Result<Vec<_>, DataError>>()?;

        let mut files = 0;
        let (mut shards, mut images, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (shard, content)) in listed.into_iter().enumerate() {
            files += content.files;
            for (member, label) in content.images {
                images.push(Member {
                    shard: number,
                    ..member
                });
                labels.push(label);
            }
            shards.push(shard);
        }
        if images.is_empty() {
            return Err(DataError::NoImages {
                path: shard_paths.into_iter().next().unwrap_or_default(),
                found: format!("0 images among {files} files in {} shards", shards.len()),
            });
        }
        let mut dataset = TarDataset {
            shards,
            images,
            labels: Vec::new(),
            classes: Vec::new(),
            channels,
            kind: PixelKind::U8,
            nodata: Nodata::Auto,
        };
        (dataset.classes, dataset.labels) = dataset.number(labels)?;
        Ok(dataset.with_nodata(Nodata::Auto))
    }

    /// The same images, where values that `nodata` names are missing: see
    /// [`FolderDataset::with_nodata`](crate::FolderDataset::with_nodata).
    pub fn with_nodata(self, nodata: Nodata) -> TarDataset {
        let kind = kind::find(
            self.len(),
            nodata,
            |index| {
                let (_, extension) = self.images[index].name.rsplit_once('.')?;
                Some(extension.to_owned())
            },
            |index| self.encoded(index).ok().map(Cursor::new),
        );
        TarDataset {
            kind,
            nodata,
            ..self
        }
    }

    /// The same images as values of `kind`: see
    /// [`FolderDataset::read_as`](crate::FolderDataset::read_as).
    pub fn read_as(self, kind: PixelKind) -> TarDataset {
        TarDataset { kind, ..self }
    }

    /// Names of the classes, and the label of each image; both empty if no image has a label.
    fn number(&self, labels: Vec<Option<Label>>) -> Result<(Vec<String>, Vec<u32>), DataError> {
        let refuse =
            |index: usize, expected: &str, found: String, remedy: &str| DataError::Dataset {
                path: self.shards[self.images[index].shard].path.clone(),
                expected: expected.to_owned(),
                found: format!("{found}, the first {}", self.images[index].name),
                remedy: remedy.to_owned(),
            };
        let count = labels.len();
        let Some(unlabelled) = labels.iter().position(Option::is_none) else {
            let labels: Vec<Label> = labels.into_iter().flatten().collect();
            return index::number(&labels).map_err(|named| {
                refuse(
                    named,
                    "class numbers or class names",
                    "both".to_owned(),
                    "write all labels in the same way",
                )
            });
        };
        match labels.iter().flatten().count() {
            0 => Ok((Vec::new(), Vec::new())),
            labelled => Err(refuse(
                unlabelled,
                "a label for every image, or for none",
                format!("{} of {count} images without one", count - labelled),
                "give every image a .cls or .json file of the same name, in the same shard",
            )),
        }
    }

    /// The content of an image file.
    fn encoded(&self, index: usize) -> Result<&[u8], DataError> {
        check_index(index, self.len())?;
        let image = &self.images[index];
        (self.shards[image.shard].file.range(image.content.clone())).ok_or_else(|| {
            DataError::Image {
                name: self.name(index),
                reason: "it is past the end of the file".to_owned(),
            }
        })
    }
}

impl Dataset for TarDataset {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn kind(&self) -> PixelKind {
        self.kind
    }

    fn nodata(&self) -> Nodata {
        self.nodata
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let name = self.name(index);
        Image::decode_with(self.encoded(index)?, self.channels, self.nodata, &name)?
            .into_kind(self.kind, &name)
    }

    fn content(&self, index: usize) -> Result<Content<'_>, DataError> {
        let content = self.encoded(index)?;
        Ok(Content::Encoded(Cow::Borrowed(content)))
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The path of the shard and, in it, of the image.
    fn name(&self, index: usize) -> String {
        match self.images.get(index) {
            Some(image) => {
                let shard = self.shards[image.shard].path.display();
                format!("{shard}:{}", image.name)
            }
            None => format!("image {index} of {} in tar files", self.len()),
        }
    }

    /// The name of the shard and, in it, of the image.
    fn fingerprint(&self, index: usize) -> Fingerprint {
        let Some(image) = self.images.get(index) else {
            return Fingerprint::default();
        };
        let shard = self.shards[image.shard].path.file_name();
        let shard = shard.unwrap_or_default().to_string_lossy();
        Fingerprint {
            name: format!("{shard}:{}", image.name),
            label: self.label(index),
            bytes: Some(image.content.end - image.content.start),
            crc32c: None,
        }
    }

    /// Size and date of each shard; name, place and label of each image.
    fn identify(&self, hasher: &mut dyn Hasher) {
        hasher.write(&self.channels.to_le_bytes());
        kind::identify(self.kind, self.nodata, hasher);
        for shard in &self.shards {
            let since_1970 = (shard.modified)
                .and_then(|date| date.duration_since(SystemTime::UNIX_EPOCH).ok())
                .map_or(u64::MAX, |time| time.as_nanos() as u64);
            for word in [shard.file.len() as u64, since_1970] {
                hasher.write(&word.to_le_bytes());
            }
        }
        for (index, image) in self.images.iter().enumerate() {
            hasher.write(image.name.as_bytes());
            hasher.write(&[0]);
            let label = self.label(index).map_or(u64::MAX, u64::from);
            let words = [
                image.shard as u64,
                image.content.start,
                image.content.end,
                label,
            ];
            for word in words {
                hasher.write(&word.to_le_bytes());
            }
        }
    }
}

impl Shard {
    fn open(path: &Path) -> Result<Shard, DataError> {
        Ok(Shard {
            path: path.to_owned(),
            file: MappedFile::open(path, "a tar file")?,
            modified: std::fs::metadata(path)
                .and_then(|file| file.modified())
                .ok(),
        })
    }
}

#[cfg(test)]
mod tests;

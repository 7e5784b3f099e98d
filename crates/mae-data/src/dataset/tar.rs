//! Images in tar files, in WebDataset's layout.

mod braces;
mod index;
mod labels;
mod passed;
mod samples;
mod shards;

use std::borrow::Cow;
use std::hash::Hasher;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;

use self::index::{Member, list_members};
use self::labels::{BadLabel, Conflicts, Label};
use super::mapped::MappedFile;
use super::{Content, Dataset, LeftOut, check_index, kind};
use crate::dataset::Fingerprint;
use crate::error::DataError;
use crate::image::{Image, Nodata, check_channels};
use crate::pixels::PixelKind;

/// Images in tar files, as WebDataset and its writers lay them out.
///
/// What comes before the first dot of a file's name is its key, with the folders before it; what follows is its
/// ending: `a.b/0001.seg.png` has the key `a.b/0001` and the ending `seg.png`.
/// An image is a file whose ending is one of [`SUPPORTED_EXTENSIONS`](crate::SUPPORTED_EXTENSIONS), in any case, or
/// an unusual one without dots, or none, if its content is that of an image.
/// A key stands for one image: of several, that whose ending comes first in the list; masks and other views have
/// endings with dots and are no images.
/// [`left_out`](Dataset::left_out) counts what is passed over, by ending.
///
/// A label is in the file with the key of the image, in the same shard, that ends in `.cls`, a class number or name
/// in text, or in `.json`, an object whose `label` or `cls` is one; `.cls` goes first, and
/// [`label_note`](Dataset::label_note) counts where the two differ.
/// `3`, `3.0` and `"3"` are the same class, and -1 and NaN are none.
/// The classes are those that occur: first numbers, as they are written and in their order, then names.
/// Images without a label, or with one that cannot be read, have none;
/// [`check_labels`](Dataset::check_labels) refuses them.
///
/// A shard may be several tar files put after each other, as by `cat`; all are read.
/// A name that comes again in a shard is another image.
/// The order is that of the shards and of the files in them.
///
/// Opening reads headers and labels; the images are then read from wherever they are, in any order.
/// Do not change the files meanwhile.
///
/// Source: <https://github.com/webdataset/webdataset>.
pub struct TarDataset {
    shards: Vec<Shard>,
    images: Vec<Member>,
    labels: Vec<Option<u32>>,
    classes: Vec<String>,
    /// The first label that cannot be read, and its shard.
    bad_label: Option<(usize, BadLabel)>,
    /// The first image whose label is a name, where others are numbers, or the other way round.
    mixed: Option<usize>,
    left_out: Vec<LeftOut>,
    label_note: Option<String>,
    channels: usize,
    found: kind::Found,
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
    /// A path may hold `{000..012}` or `{a,b}`, and `*`, `?`, `[0-9]` or `**`, as in a shell, and then stands for
    /// several; of a folder, all files under it that end in `.tar` are shards.
    ///
    /// # Errors
    /// [`DataError::Io`] if a shard cannot be read; [`DataError::Dataset`] if it is compressed, ends
    /// early or is otherwise no tar file, or if a folder or a pattern has none;
    /// [`DataError::NoImages`] if there are none; [`DataError::Config`] for braces and patterns that stand for
    /// nothing, and for other channel counts.
    pub fn open<P: AsRef<Path>>(paths: &[P], channels: usize) -> Result<TarDataset, DataError> {
        check_channels(channels)?;
        let (shard_paths, beside) = shards::find(paths)?;
        let listed = shard_paths
            .par_iter()
            .map(|path| {
                let shard = Shard::open(path)?;
                let content = list_members(&shard.path, &shard.file)?;
                Ok((shard, content))
            })
            .collect::<Result<Vec<_>, DataError>>()?;

        let (mut files, mut passed, mut bad_label) = (0, beside, None);
        let mut conflicts = Conflicts::default();
        let (mut shards, mut images, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (shard, content)) in listed.into_iter().enumerate() {
            files += content.files;
            passed.append(content.passed);
            conflicts.append(content.conflicts);
            bad_label = bad_label.or(content.bad_label.map(|bad| (number, bad)));
            for (member, label) in content.images {
                images.push(Member {
                    shard: number,
                    ..member
                });
                labels.push(label);
            }
            shards.push(shard);
        }
        let left_out = passed.left_out();
        if images.is_empty() {
            let mut found = format!("0 images among {files} files in {} shards", shards.len());
            for left_out in &left_out {
                found += &format!("; {left_out}");
            }
            return Err(DataError::NoImages {
                path: shard_paths.into_iter().next().unwrap_or_default(),
                found,
            });
        }
        let is_number = |label: &Label| matches!(label, Label::Number(_));
        let first = labels.iter().flatten().next().map(is_number);
        let mixed = (labels.iter()).position(|label| {
            label
                .as_ref()
                .is_some_and(|label| Some(is_number(label)) != first)
        });
        let (classes, labels) = labels::number(&labels);
        let dataset = TarDataset {
            shards,
            images,
            labels,
            classes,
            bad_label,
            mixed,
            left_out,
            label_note: conflicts.note(),
            channels,
            found: kind::Found::default(),
            nodata: Nodata::Auto,
        };
        Ok(dataset.with_nodata(Nodata::Auto))
    }

    /// The same images, where values that `nodata` names are missing: see
    /// [`FolderDataset::with_nodata`](crate::FolderDataset::with_nodata).
    pub fn with_nodata(self, nodata: Nodata) -> TarDataset {
        let found = kind::find(
            nodata,
            &kind::Files {
                len: self.len(),
                name: &|index| self.name(index),
                extension: &|index| self.extension(index),
                open: &|index| self.encoded(index).ok().map(Cursor::new),
                is_whole: &|index| self.decode(index, nodata).is_ok(),
            },
        );
        TarDataset {
            found,
            nodata,
            ..self
        }
    }

    /// Whether `path` leads to tar files: a tar file, by its name or its content, compressed ones included, which are
    /// then refused; braces or a pattern; or a folder under which there are tar files and no images.
    pub fn is_at(path: &Path) -> bool {
        shards::are_at(path)
    }

    /// The same images as values of `kind`: see
    /// [`FolderDataset::read_as`](crate::FolderDataset::read_as).
    pub fn read_as(self, kind: PixelKind) -> TarDataset {
        TarDataset {
            found: self.found.read_as(kind),
            ..self
        }
    }

    fn extension(&self, index: usize) -> Option<String> {
        let extension = Path::new(&self.images[index].name).extension()?;
        Some(extension.to_str()?.to_owned())
    }

    fn decode(&self, index: usize, nodata: Nodata) -> Result<Image, DataError> {
        let content = self.encoded(index)?;
        Image::decode_with(content, self.channels, nodata, &self.name(index))
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
        self.found.kind
    }

    fn nodata(&self) -> Nodata {
        self.nodata
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        (self.decode(index, self.nodata)?).into_kind(self.found.kind, &self.name(index))
    }

    fn content(&self, index: usize) -> Result<Content<'_>, DataError> {
        let content = self.encoded(index)?;
        Ok(Content::Encoded(Cow::Borrowed(content)))
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied().flatten()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn check_labels(&self) -> Result<(), DataError> {
        let refuse = |shard: usize, expected: String, found: String, remedy: &str| {
            Err(DataError::Dataset {
                path: self.shards[shard].path.clone(),
                expected,
                found,
                remedy: remedy.to_owned(),
            })
        };
        let unlabelled = match self.classes.is_empty() {
            true => self.len(),
            false => self.labels.iter().filter(|label| label.is_none()).count(),
        };
        let of_all = format!("{unlabelled} of {} images", self.len());
        if let Some((shard, BadLabel { member, found })) = &self.bad_label {
            return refuse(
                *shard,
                format!("a class number or name in {member}"),
                format!("{found}; {of_all} have no label"),
                "write it again, or leave the images without a label out of the shards",
            );
        }
        if let Some(index) = self.mixed {
            let image = &self.images[index];
            let name = |index| Some(&self.classes[self.label(index)? as usize]);
            let first = (0..self.len()).find_map(name);
            return refuse(
                image.shard,
                "class numbers or class names".to_owned(),
                format!(
                    "both, {:?} and, the first of the other kind, {:?} of {}",
                    first.map_or("", String::as_str),
                    name(index).map_or("", String::as_str),
                    image.name
                ),
                "write all labels in the same way",
            );
        }
        match (self.labels.iter()).position(Option::is_none) {
            Some(index) => refuse(
                self.images[index].shard,
                "a label for every image".to_owned(),
                format!(
                    "{of_all} without one, the first {}",
                    self.images[index].name
                ),
                "give every image a .cls or .json file of the same name, in the same shard",
            ),
            None => Ok(()),
        }
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
        kind::identify(self.found.kind, self.nodata, hasher);
        for shard in &self.shards {
            let since_1970 = (shard.modified)
                .and_then(|date| date.duration_since(SystemTime::UNIX_EPOCH).ok())
                .map_or(u64::MAX, |time| time.as_nanos() as u64);
            for word in [shard.file.len() as u64, since_1970] {
                hasher.write(&word.to_le_bytes());
            }
        }
        for class in &self.classes {
            hasher.write(class.as_bytes());
            hasher.write(&[0]);
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

//! One file that holds a whole data set, images at the size that training needs.

mod format;
mod write;

use std::borrow::Cow;
use std::fs::File;
use std::hash::Hasher;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use self::format::{BadHeader, ENTRY_LEN, Encoding, Entry, HEADER_LEN, Header, MAGIC, NO_LABEL};
pub use self::write::{PackConfig, PackEncoding, PackProgress, PackSummary, pack};
use super::mapped::MappedFile;
use super::{Content, Dataset, check_index, ending, kind};
use crate::dataset::Fingerprint;
use crate::error::DataError;
use crate::image::{Image, MAX_CHANNELS, Nodata, check_channels};
use crate::pixels::{PixelKind, Pixels, recolour};

const EXPECTED: &str = "a data set packed by mae-train";
const PACK_AGAIN: &str = "copy it again, or pack the images again with mae-train pack";

/// A data set in one file, made by [`pack`].
///
/// The file is mapped into memory: opening it takes milliseconds, and what is read often stays in
/// the system's cache.
/// Header and index are verified when it is opened, each record when it is read: a damaged one is
/// a broken image.
///
/// Replace a packed file that may be in use, as [`pack`]'s callers do by a rename; do not change
/// it in place.
///
/// # The file
/// All numbers are little-endian and unsigned.
///
/// | at | bytes | what |
/// |---|---|---|
/// | 0 | 8 | `mae-pack` |
/// | 8 | 4 | version: 1, or 2 where 1 has not what is used |
/// | 12 | 4 | encoding of the records: 0 for pixels `[height, width, channels]` of bytes, 1 for image files (JPEG); since version 2, 2 for pixels of 32-bit floating-point numbers |
/// | 16 | 4 | channels: 1 (luma) or 3 (RGB); since version 2, 1 to 1024 |
/// | 20 | 4 | classes; 0 if the images have no labels |
/// | 24 | 8 | images |
/// | 32 | 8 | where the index begins |
/// | 40 | 8 | bytes of the index, which ends the file |
/// | 48 | 4 | CRC-32C of the index |
/// | 52 | 4 | CRC-32C of the bytes before |
/// | 56 | | the records, one after the other, in the order of the data set |
///
/// The index is one entry an image, the names of all images end to end, and the names of the
/// classes, each with its length before it in 4 bytes.
/// Names are in UTF-8.
/// An entry is:
///
/// | at | bytes | what |
/// |---|---|---|
/// | 0 | 8 | where the record begins, from the start of the file |
/// | 8 | 8 | where the name ends, from the start of the names; it begins where the one before ends |
/// | 16 | 4 | bytes of the record |
/// | 20 | 4 | height |
/// | 24 | 4 | width |
/// | 28 | 4 | label: a class, from 0; 0xffffffff for none |
/// | 32 | 4 | CRC-32C of the record |
/// | 36 | 4 | 0 |
///
/// In Python, the first image of a file of pixels of bytes is:
///
/// ```python
/// import numpy as np
/// file = np.memmap("photos.mae", np.uint8, "r")
/// channels = int(file[16:20].view("<u4")[0])
/// images, at = (int(value) for value in file[24:40].view("<u8"))
/// entry = np.dtype([("at", "<u8"), ("name_end", "<u8"), ("len", "<u4"), ("height", "<u4"),
///                   ("width", "<u4"), ("label", "<u4"), ("crc32c", "<u4"), ("zero", "<u4")])
/// index = np.frombuffer(file[at:at + images * entry.itemsize], entry)
/// first = index[0]
/// pixels = file[first["at"]:first["at"] + first["len"]].reshape(first["height"], first["width"], channels)
/// ```
pub struct PackedDataset {
    path: PathBuf,
    file: MappedFile,
    header: Header,
    classes: Vec<String>,
    channels: usize,
    kind: PixelKind,
}

impl PackedDataset {
    /// Opens a packed file; `channels` is 1 to read the images as luma, 3 as RGB, or the file's own
    /// number.
    ///
    /// # Errors
    /// [`DataError::Io`] if the file cannot be read; [`DataError::Dataset`] if it is another kind
    /// of file, of another version, incomplete or damaged, or has other channels;
    /// [`DataError::Config`] for channel counts that no image has.
    pub fn open(path: impl AsRef<Path>, channels: usize) -> Result<PackedDataset, DataError> {
        let path = path.as_ref();
        check_channels(channels)?;
        let file = MappedFile::open(path, EXPECTED)?;
        let header = read_header(path, &file)?;
        let class_names = check_index_of(&file, &header).map_err(|found| DataError::Dataset {
            path: path.to_owned(),
            expected: EXPECTED.to_owned(),
            found,
            remedy: PACK_AGAIN.to_owned(),
        })?;
        let own = header.channels as usize;
        if own != channels && !(matches!(own, 1 | 3) && matches!(channels, 1 | 3)) {
            return Err(DataError::Dataset {
                path: path.to_owned(),
                expected: format!("images of {channels} channels"),
                found: format!("{own}"),
                remedy: format!(
                    "set model.channels={own} to train, give --channels {own} to inspect, or pack the images again \
                     with --channels {channels}"
                ),
            });
        }
        Ok(PackedDataset {
            path: path.to_owned(),
            file,
            header,
            classes: class_names,
            channels,
            kind: header.encoding.kind(),
        })
    }

    /// The same images as values of `kind`: bytes may be widened.
    ///
    /// # Errors
    /// [`DataError::Dataset`] if the file holds numbers and `kind` is bytes.
    pub fn read_as(self, kind: PixelKind) -> Result<PackedDataset, DataError> {
        let own = self.header.encoding.kind();
        if own != kind && kind == PixelKind::U8 {
            return Err(DataError::Dataset {
                path: self.path,
                expected: "pixels of 8 bits".to_owned(),
                found: "floating-point numbers".to_owned(),
                remedy: "set data.values=\"f32\"".to_owned(),
            });
        }
        Ok(PackedDataset { kind, ..self })
    }

    /// How many channels the images of a packed file have.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn own_channels(path: &Path) -> Result<usize, DataError> {
        let file = MappedFile::open(path, EXPECTED)?;
        Ok(read_header(path, &file)?.channels as usize)
    }

    /// Whether a file begins as packed files do, whole or not.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn is_packed(path: &Path) -> std::io::Result<bool> {
        let mut start = Vec::new();
        File::open(path)?
            .take(MAGIC.len() as u64)
            .read_to_end(&mut start)?;
        Ok(start == MAGIC)
    }

    fn entry(&self, index: usize) -> Option<Entry> {
        let entries = entries(&self.file, &self.header)?;
        let bytes = entries.get(index.checked_mul(ENTRY_LEN)?..)?;
        Some(Entry::read(bytes.get(..ENTRY_LEN)?))
    }

    /// What the file holds of an image, verified.
    fn record(&self, index: usize) -> Result<(Entry, &[u8]), DataError> {
        check_index(index, self.len())?;
        let entry = self.entry(index);
        let found = entry.and_then(|entry| Some((entry, self.file.range(entry.record()?)?)));
        match found {
            Some((entry, record)) if crc32c::crc32c(record) == entry.checksum => {
                Ok((entry, record))
            }
            _ => Err(DataError::Image {
                name: self.name(index),
                reason: format!(
                    "its record in {} is damaged: its checksum differs; {PACK_AGAIN}",
                    self.path.display()
                ),
            }),
        }
    }
}

impl Dataset for PackedDataset {
    fn len(&self) -> usize {
        self.header.images as usize
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn kind(&self) -> PixelKind {
        self.kind
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let (entry, record) = self.record(index)?;
        let pixels = match self.header.encoding {
            Encoding::File => {
                let name = self.name(index);
                return Image::decode(record, self.channels, &name)?.into_kind(self.kind, &name);
            }
            Encoding::Raw => Pixels::U8(record.to_vec()),
            Encoding::RawF32 => Pixels::F32(
                (record.as_chunks().0.iter())
                    .map(|&bytes| f32::from_le_bytes(bytes))
                    .collect(),
            ),
        };
        let pixels = recolour(pixels, self.header.channels as usize, self.channels);
        let (height, width) = (entry.height as usize, entry.width as usize);
        let image = Image::new(height, width, self.channels, pixels)?;
        match image.kind() == self.kind {
            true => Ok(image),
            false => image.into_kind(self.kind, &self.name(index)),
        }
    }

    fn content(&self, index: usize) -> Result<Content<'_>, DataError> {
        match self.header.encoding {
            Encoding::File => {
                let (_, record) = self.record(index)?;
                Ok(Content::Encoded(Cow::Borrowed(record)))
            }
            Encoding::Raw | Encoding::RawF32 => self.image(index).map(Content::Pixels),
        }
    }

    fn label(&self, index: usize) -> Option<u32> {
        let label = self.entry(index)?.label;
        (label != NO_LABEL).then_some(label)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The name that the image had in the data set that was packed.
    fn name(&self, index: usize) -> String {
        let start = match index.checked_sub(1) {
            None => Some(0),
            Some(before) => self.entry(before).map(|entry| entry.name_end),
        };
        let end = self.entry(index).map(|entry| entry.name_end);
        let names = self.header.names_at();
        (start.zip(end))
            .and_then(|(start, end)| self.file.range(names + start..names + end))
            .map_or_else(
                || format!("{}:{index}", self.path.display()),
                |name| String::from_utf8_lossy(name).into_owned(),
            )
    }

    /// Size and checksum of the record; the name without the folder that all were packed from.
    fn fingerprint(&self, index: usize) -> Fingerprint {
        let Some(entry) = self.entry(index) else {
            return Fingerprint::default();
        };
        let name = self.name(index);
        let folder = common_folder(&self.name(0), &self.name(self.len() - 1)).len();
        Fingerprint {
            // Of images in any order, some can be outside the folder of the first and the last.
            name: name.get(folder..).unwrap_or(&name).to_owned(),
            label: self.label(index),
            bytes: Some(entry.len.into()),
            crc32c: Some(entry.checksum),
        }
    }

    /// The index, in which each image has its checksum: a copy elsewhere is the same data set.
    fn identify(&self, hasher: &mut dyn Hasher) {
        hasher.write(&self.channels.to_le_bytes());
        kind::identify(self.kind, Nodata::Auto, hasher);
        hasher.write(self.file.range(self.header.index()).unwrap_or_default());
    }
}

impl Header {
    fn index(&self) -> Range<u64> {
        self.index_at..self.index_at.saturating_add(self.index_len)
    }

    fn names_at(&self) -> u64 {
        self.index_at + self.images * ENTRY_LEN as u64
    }
}

impl Entry {
    fn record(&self) -> Option<Range<u64>> {
        Some(self.at..self.at.checked_add(u64::from(self.len))?)
    }
}

/// The folders that two paths share, the last slash included.
fn common_folder<'a>(first: &'a str, last: &str) -> &'a str {
    let same = (first.bytes().zip(last.bytes())).take_while(|(first, last)| first == last);
    let same = &first.as_bytes()[..same.count()];
    let end = same.iter().rposition(|&byte| byte == b'/' || byte == b'\\');
    end.map_or("", |end| &first[..=end])
}

fn entries<'a>(file: &'a MappedFile, header: &Header) -> Option<&'a [u8]> {
    let len = header.images.checked_mul(ENTRY_LEN as u64)?;
    file.range(header.index_at..header.index_at.checked_add(len)?)
}

fn read_header(path: &Path, file: &[u8]) -> Result<Header, DataError> {
    let refuse = |found: String, remedy: &str| {
        Err(DataError::Dataset {
            path: path.to_owned(),
            expected: EXPECTED.to_owned(),
            found,
            remedy: remedy.to_owned(),
        })
    };
    match Header::read(file) {
        Ok(header) if header.index().end == file.len() as u64 => Ok(header),
        Ok(header) => refuse(
            format!(
                "{} bytes of the {} that its header tells of",
                file.len(),
                header.index().end
            ),
            PACK_AGAIN,
        ),
        Err(BadHeader::Foreign) => refuse(
            match file {
                [] => "an empty file".to_owned(),
                _ => format!(
                    "a file that begins with {:?}",
                    String::from_utf8_lossy(&file[..file.len().min(MAGIC.len())])
                ),
            },
            &match ending::advice(path) {
                Some(advice) => format!("{advice}, and give their folder"),
                None => "give a folder of images, tar shards, or a file that mae-train pack wrote"
                    .to_owned(),
            },
        ),
        Err(BadHeader::Version(version)) => refuse(
            format!(
                "version {version} of the format; this program reads versions 1 to {}",
                format::VERSION
            ),
            "pack the images again with this program, or use the one that packed them",
        ),
        Err(BadHeader::Damaged) => refuse("a damaged header".to_owned(), PACK_AGAIN),
    }
}

/// Verifies the index, whose checksum proves that it is what was written, and that all it refers
/// to is in the file. Returns the names of the classes, or else what is wrong.
fn check_index_of(file: &MappedFile, header: &Header) -> Result<Vec<String>, String> {
    let damaged = || "a damaged index".to_owned();
    let index = file.range(header.index()).ok_or_else(damaged)?;
    if crc32c::crc32c(index) != header.index_checksum {
        return Err("a damaged index: its checksum differs".to_owned());
    }
    if !(1..=MAX_CHANNELS).contains(&(header.channels as usize)) {
        return Err(format!("{} channels", header.channels));
    }
    let entries = entries(file, header).ok_or_else(damaged)?;
    let names = index.get(entries.len()..).ok_or_else(damaged)?;
    let mut name_end = 0;
    for (at, bytes) in entries.chunks_exact(ENTRY_LEN).enumerate() {
        let entry = Entry::read(bytes);
        let pixels = u64::from(entry.height) * u64::from(entry.width);
        let values = pixels.checked_mul(header.channels.into());
        let has_len = |size: u64| {
            pixels > 0 && values.and_then(|len| len.checked_mul(size)) == Some(entry.len.into())
        };
        let is_whole = match header.encoding {
            Encoding::Raw => has_len(1),
            Encoding::RawF32 => has_len(4),
            Encoding::File => true,
        };
        let is_inside = entry.at >= HEADER_LEN as u64
            && entry
                .record()
                .is_some_and(|record| record.end <= header.index_at);
        let has_label = entry.label == NO_LABEL || entry.label < header.classes;
        let has_name = entry.name_end >= name_end && entry.name_end <= names.len() as u64;
        if !(is_whole && is_inside && has_label && has_name) {
            return Err(format!("an impossible entry for image {at}: {entry:?}"));
        }
        name_end = entry.name_end;
    }
    let mut rest = &names[name_end as usize..];
    let mut classes = Vec::new();
    for _ in 0..header.classes {
        let (len, after) = rest.split_first_chunk().ok_or_else(damaged)?;
        let len = u32::from_le_bytes(*len) as usize;
        let (name, after) = after.split_at_checked(len).ok_or_else(damaged)?;
        classes.push(String::from_utf8_lossy(name).into_owned());
        rest = after;
    }
    match rest {
        [] => Ok(classes),
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests;

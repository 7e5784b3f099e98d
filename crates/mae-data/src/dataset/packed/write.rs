use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::Path;

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;

use super::format::{Encoding, Entry, HEADER_LEN, Header, NO_LABEL};
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::image::Image;
use crate::pixels::{PixelKind, Pixels};

/// How [`pack`] stores images.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct PackConfig {
    /// Pixels that the shorter side is reduced to; images with a smaller one stay as they are.
    pub size: usize,
    /// What is stored of an image.
    pub encoding: PackEncoding,
    /// The share of the images that may be broken, from 0 to 1, before packing fails.
    pub max_broken_share: f64,
}

/// What [`pack`] stores of an image.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PackEncoding {
    /// Its pixels: nothing is left to decode.
    Raw,
    /// A JPEG of this quality, 1 to 100, with all colours at full resolution.
    Jpeg(u8),
}

/// How far [`pack`] is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PackProgress {
    /// Images that are behind, broken ones included.
    pub images: usize,
    /// Bytes written.
    pub bytes: u64,
}

/// What [`pack`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackSummary {
    /// Images in the file.
    pub images: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// Name and reason of every image that is not in the file because it is broken, in data set
    /// order.
    pub broken: Vec<(String, String)>,
}

/// Writes `dataset` to a new file at `path`, for [`PackedDataset`](super::PackedDataset).
///
/// Images are read, reduced with [`Image::resize`]'s antialiased bicubic and encoded on all
/// threads of the current rayon pool, and written in the order of the data set, so the same images
/// give the same bytes.
/// Numbers of 32 bits are stored as they are, but for the reduction.
/// Only a few images a thread are in memory at a time, and 40 bytes and the name of each.
/// Broken images are warned of and left out.
///
/// `on_progress` is called every few images; once it breaks, packing stops and returns `None`.
/// The file is then incomplete, as after an error, and is refused when it is opened: write it under
/// a temporary name, and rename it when this returns a summary.
///
/// # Errors
/// [`DataError::Config`] if a setting is out of range, if no image is whole, or if JPEGs are asked for
/// and cannot hold the images: those of other than 8 bits, or of other than 1 or 3 channels;
/// [`DataError::TooManyBroken`] if more than `max_broken_share` are broken; [`DataError::Write`] if
/// the file cannot be written; the data set's own errors.
pub fn pack(
    dataset: &dyn Dataset,
    config: &PackConfig,
    path: &Path,
    mut on_progress: impl FnMut(PackProgress) -> ControlFlow<()>,
) -> Result<Option<PackSummary>, DataError> {
    config.validate(dataset)?;
    let mut writer = Writer::create(path, dataset, config)?;
    let mut broken = Vec::new();
    // Enough that threads seldom wait for the last of a group.
    let group = 16 * rayon::current_num_threads();
    for start in (0..dataset.len()).step_by(group) {
        let end = dataset.len().min(start + group);
        let records: Vec<Result<Record, DataError>> = (start..end)
            .into_par_iter()
            .with_max_len(1)
            .map(|index| config.record(dataset, index))
            .collect();
        for (index, record) in (start..end).zip(records) {
            let (name, reason) = match record {
                Ok(record) => {
                    writer.append(dataset, index, &record)?;
                    continue;
                }
                Err(DataError::Image { name, reason }) => (name, reason),
                Err(DataError::Io { path, source }) => {
                    (path.display().to_string(), source.to_string())
                }
                Err(error) => return Err(error),
            };
            log::warn!("left out a broken image: {name}: {reason}");
            broken.push((name, reason));
        }
        config.check_broken(&broken, dataset.len())?;
        let progress = PackProgress {
            images: end,
            bytes: writer.at,
        };
        if on_progress(progress).is_break() {
            return Ok(None);
        }
    }
    writer.finish(dataset, broken).map(Some)
}

impl PackConfig {
    fn validate(&self, dataset: &dyn Dataset) -> Result<(), DataError> {
        let refuse = |key, expected: &str, found: String, remedy: &str| {
            Err(DataError::Config {
                key,
                expected: expected.to_owned(),
                found,
                remedy: remedy.to_owned(),
            })
        };
        if self.size == 0 {
            return refuse(
                "size",
                "at least 1 pixel",
                "0".to_owned(),
                "256 is usual for crops of 224",
            );
        }
        match self.encoding {
            PackEncoding::Jpeg(quality) if !(1..=100).contains(&quality) => {
                return refuse("quality", "1 to 100", quality.to_string(), "95 is good");
            }
            PackEncoding::Jpeg(_) if dataset.kind() != PixelKind::U8 => {
                return refuse(
                    "quality",
                    "none, for a JPEG holds 8 bits a value",
                    format!("images of {} values", dataset.kind().name()),
                    "leave it out to store pixels, which loses nothing",
                );
            }
            PackEncoding::Jpeg(_) if !matches!(dataset.channels(), 1 | 3) => {
                return refuse(
                    "quality",
                    "none, for a JPEG holds 1 or 3 channels",
                    format!("images of {} channels", dataset.channels()),
                    "leave it out to store pixels, which loses nothing",
                );
            }
            _ => {}
        }
        if !(0.0..=1.0).contains(&self.max_broken_share) {
            return refuse(
                "max_broken_share",
                "a number from 0 to 1",
                self.max_broken_share.to_string(),
                "0.01 accepts one broken image in a hundred",
            );
        }
        Ok(())
    }

    fn check_broken(&self, broken: &[(String, String)], len: usize) -> Result<(), DataError> {
        const SHOWN: usize = 10;
        if broken.len() as f64 <= self.max_broken_share * len as f64 {
            return Ok(());
        }
        Err(DataError::TooManyBroken {
            broken: broken.len(),
            len,
            max_broken_share: self.max_broken_share,
            first: broken.iter().take(SHOWN).cloned().collect(),
        })
    }

    /// What is stored of one image.
    fn record(&self, dataset: &dyn Dataset, index: usize) -> Result<Record, DataError> {
        let image = dataset.image(index)?;
        let (height, width) = self.reduced(image.height(), image.width());
        let image = match (height, width) == (image.height(), image.width()) {
            true => image,
            false => image.resize(height, width)?,
        };
        let broken = |reason: String| DataError::Image {
            name: dataset.name(index),
            reason,
        };
        if image.channels() != dataset.channels() {
            return Err(broken(format!("it has {} channels", image.channels())));
        }
        let image = match image.kind() == dataset.kind() {
            true => image,
            false => image.into_kind(dataset.kind(), &dataset.name(index))?,
        };
        let content = match self.encoding {
            PackEncoding::Raw => match image.into_pixels() {
                Pixels::U8(values) => values,
                Pixels::F32(values) => values.into_iter().flat_map(f32::to_le_bytes).collect(),
            },
            PackEncoding::Jpeg(quality) => to_jpeg(&image, quality).map_err(broken)?,
        };
        let word = |value: usize| {
            u32::try_from(value).map_err(|_| broken("it takes 4 GiB or more".to_owned()))
        };
        Ok(Record {
            len: word(content.len())?,
            height: word(height)?,
            width: word(width)?,
            checksum: crc32c::crc32c(&content),
            content,
        })
    }

    /// Height and width with the shorter side reduced to `size`, as torchvision's `Resize`.
    fn reduced(&self, height: usize, width: usize) -> (usize, usize) {
        let shorter = height.min(width);
        if shorter <= self.size {
            return (height, width);
        }
        let scaled = |side: usize| (side as u128 * self.size as u128 / shorter as u128) as usize;
        (scaled(height), scaled(width))
    }
}

struct Record {
    content: Vec<u8>,
    len: u32,
    height: u32,
    width: u32,
    checksum: u32,
}

fn to_jpeg(image: &Image, quality: u8) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let colour = match image.channels() {
        1 => ExtendedColorType::L8,
        _ => ExtendedColorType::Rgb8,
    };
    let (width, height) = (image.width() as u32, image.height() as u32);
    JpegEncoder::new_with_quality(&mut content, quality)
        .encode(image.bytes(), width, height, colour)
        .map_err(|error| format!("no JPEG can hold it: {error}"))?;
    Ok(content)
}

/// Appends records, and the index and header in the end.
struct Writer<'a> {
    path: &'a Path,
    file: BufWriter<File>,
    header: Header,
    /// Where the next record begins.
    at: u64,
    entries: Vec<u8>,
    names: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn create(
        path: &'a Path,
        dataset: &dyn Dataset,
        config: &PackConfig,
    ) -> Result<Self, DataError> {
        let header = Header {
            encoding: match config.encoding {
                PackEncoding::Raw => match dataset.kind() {
                    PixelKind::U8 => Encoding::Raw,
                    PixelKind::F32 => Encoding::RawF32,
                },
                PackEncoding::Jpeg(_) => Encoding::File,
            },
            channels: dataset.channels() as u32,
            classes: dataset.classes().len() as u32,
            images: 0,
            index_at: 0,
            index_len: 0,
            index_checksum: 0,
        };
        let file = File::create(path).map_err(|source| write_error(path, source))?;
        let mut writer = Writer {
            path,
            file: BufWriter::with_capacity(1 << 20, file),
            header,
            at: 0,
            entries: Vec::new(),
            names: Vec::new(),
        };
        // No header until the file is complete.
        writer.write(&[0; HEADER_LEN])?;
        Ok(writer)
    }

    fn append(
        &mut self,
        dataset: &dyn Dataset,
        index: usize,
        record: &Record,
    ) -> Result<(), DataError> {
        self.names.extend(dataset.name(index).as_bytes());
        let entry = Entry {
            at: self.at,
            name_end: self.names.len() as u64,
            len: record.len,
            height: record.height,
            width: record.width,
            label: dataset.label(index).unwrap_or(NO_LABEL),
            checksum: record.checksum,
        };
        self.entries.extend(entry.to_bytes());
        self.header.images += 1;
        self.write(&record.content)
    }

    fn finish(
        mut self,
        dataset: &dyn Dataset,
        broken: Vec<(String, String)>,
    ) -> Result<PackSummary, DataError> {
        if self.header.images == 0 {
            return Err(DataError::Config {
                key: "images",
                expected: "at least 1 that is whole".to_owned(),
                found: format!("0 of {}", dataset.len()),
                remedy: "give other images".to_owned(),
            });
        }
        let mut index = std::mem::take(&mut self.entries);
        index.append(&mut self.names);
        for class in dataset.classes() {
            index.extend((class.len() as u32).to_le_bytes());
            index.extend(class.as_bytes());
        }
        self.header.index_at = self.at;
        self.header.index_len = index.len() as u64;
        self.header.index_checksum = crc32c::crc32c(&index);
        self.write(&index)?;
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&self.header.to_bytes()))
            .and_then(|()| self.file.flush())
            .map_err(|source| write_error(self.path, source))?;
        Ok(PackSummary {
            images: self.header.images as usize,
            bytes: self.at,
            broken,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.at += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .map_err(|source| write_error(self.path, source))
    }
}

fn write_error(path: &Path, source: std::io::Error) -> DataError {
    DataError::Write {
        path: path.to_owned(),
        source,
    }
}

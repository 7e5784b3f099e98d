use std::hash::Hasher;
use std::path::{Path, PathBuf};

use super::{Dataset, check_index};
use crate::error::DataError;
use crate::fingerprint::Fingerprint;
use crate::image::Image;

const SIDE: usize = 32;
const CHANNELS: usize = 3;
const PLANE: usize = SIDE * SIDE;

/// Which of the two CIFAR data sets.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Cifar {
    /// CIFAR-10: 10 classes.
    Ten,
    /// CIFAR-100: 100 fine classes.
    Hundred,
}

/// Which part of a data set.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Split {
    /// The 50,000 training images.
    Train,
    /// The 10,000 test images.
    Test,
}

/// CIFAR-10 or CIFAR-100 in the binary version: 32 x 32 RGB, held in memory.
///
/// Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images";
/// <https://www.cs.toronto.edu/~kriz/cifar.html> describes the files.
pub struct CifarDataset {
    format: Format,
    files: Vec<BatchFile>,
    classes: Vec<String>,
}

struct BatchFile {
    path: PathBuf,
    content: Vec<u8>,
}

/// What differs between the two data sets on disk.
#[derive(Copy, Clone)]
struct Format {
    folder: &'static str,
    python_folder: &'static str,
    archive: &'static str,
    class_names: &'static str,
    classes: usize,
    /// Bytes before the pixels; the last of them is the label. CIFAR-100 has a coarse one first.
    label_bytes: usize,
    train: &'static [&'static str],
    test: &'static [&'static str],
    train_records_per_file: usize,
}

const TEST_RECORDS: usize = 10_000;

const CIFAR_10: Format = Format {
    folder: "cifar-10-batches-bin",
    python_folder: "cifar-10-batches-py",
    archive: "cifar-10-binary.tar.gz",
    class_names: "batches.meta.txt",
    classes: 10,
    label_bytes: 1,
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: &["test_batch.bin"],
    train_records_per_file: 10_000,
};

const CIFAR_100: Format = Format {
    folder: "cifar-100-binary",
    python_folder: "cifar-100-python",
    archive: "cifar-100-binary.tar.gz",
    class_names: "fine_label_names.txt",
    classes: 100,
    label_bytes: 2,
    train: &["train.bin"],
    test: &["test.bin"],
    train_records_per_file: 50_000,
};

impl Format {
    fn record_len(&self) -> usize {
        self.label_bytes + CHANNELS * PLANE
    }
}

impl CifarDataset {
    /// Reads a split from the unpacked archive or from the folder that holds it.
    ///
    /// # Errors
    /// [`DataError::Dataset`] if files are missing, have another size, hold labels out of range or
    /// are those of the Python version; [`DataError::Io`] if a file cannot be read.
    pub fn open(
        path: impl AsRef<Path>,
        cifar: Cifar,
        split: Split,
    ) -> Result<CifarDataset, DataError> {
        let format = match cifar {
            Cifar::Ten => CIFAR_10,
            Cifar::Hundred => CIFAR_100,
        };
        let (names, records) = match split {
            Split::Train => (format.train, format.train_records_per_file),
            Split::Test => (format.test, TEST_RECORDS),
        };
        let folder = find_folder(path.as_ref(), &format);
        check_present(&folder, &format, names)?;
        let files = names
            .iter()
            .map(|name| read_batch(folder.join(name), &format, records))
            .collect::<Result<_, _>>()?;
        let classes = read_class_names(&folder.join(format.class_names), &format)?;
        Ok(CifarDataset {
            format,
            files,
            classes,
        })
    }

    /// The record of an image, and where it is.
    fn record(&self, index: usize) -> Option<(&BatchFile, usize, &[u8])> {
        let record_len = self.format.record_len();
        // All files of a split have the same number of records.
        let per_file = self.files.first()?.content.len() / record_len;
        let file = self.files.get(index / per_file)?;
        let place = index % per_file;
        Some((
            file,
            place,
            &file.content[place * record_len..][..record_len],
        ))
    }
}

impl Dataset for CifarDataset {
    fn len(&self) -> usize {
        let bytes: usize = self.files.iter().map(|file| file.content.len()).sum();
        bytes / self.format.record_len()
    }

    fn channels(&self) -> usize {
        CHANNELS
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        check_index(index, self.len())?;
        let planes = self
            .record(index)
            .map_or(&[][..], |(_, _, record)| &record[self.format.label_bytes..]);
        // The file holds a plane for each colour, an image the colours of each pixel.
        let pixels: Vec<u8> = (0..planes.len())
            .map(|at| planes[at % CHANNELS * PLANE + at / CHANNELS])
            .collect();
        Image::new(SIDE, SIDE, CHANNELS, pixels)
    }

    fn label(&self, index: usize) -> Option<u32> {
        let (_, _, record) = self.record(index)?;
        Some(u32::from(record[self.format.label_bytes - 1]))
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self, index: usize) -> String {
        match self.record(index) {
            Some((file, place, _)) => format!("{}:{place}", file.path.display()),
            None => format!("{}:{index}", self.format.folder),
        }
    }

    fn fingerprint(&self, index: usize) -> Fingerprint {
        let Some((file, place, record)) = self.record(index) else {
            return Fingerprint::default();
        };
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        Fingerprint {
            name: format!("{name}:{place}"),
            label: self.label(index),
            bytes: Some(record.len() as u64),
            crc32c: Some(crc32c::crc32c(record)),
        }
    }

    fn identify(&self, hasher: &mut dyn Hasher) {
        for file in &self.files {
            hasher.write(&file.content);
        }
    }
}

/// `path`, or the folder of the unpacked archive in it.
fn find_folder(path: &Path, format: &Format) -> PathBuf {
    let inner = path.join(format.folder);
    if inner.is_dir() {
        inner
    } else {
        path.to_owned()
    }
}

fn check_present(folder: &Path, format: &Format, names: &[&str]) -> Result<(), DataError> {
    let missing: Vec<&str> = names
        .iter()
        .chain([&format.class_names])
        .filter(|name| !folder.join(name).is_file())
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    // The files of the Python version have the same names without an extension.
    let is_python = names
        .iter()
        .filter_map(|name| name.strip_suffix(".bin"))
        .any(|name| folder.join(name).is_file())
        || folder.join(format.python_folder).is_dir();
    let found = if !folder.is_dir() {
        "no such folder".to_owned()
    } else if is_python {
        "the Python version, whose pickle files are not read".to_owned()
    } else {
        format!("no {}", missing.join(", "))
    };
    Err(DataError::Dataset {
        path: folder.to_owned(),
        expected: format!("the {} files of the binary version", names.len() + 1),
        found,
        remedy: format!("unpack {} there", format.archive),
    })
}

fn read_batch(path: PathBuf, format: &Format, records: usize) -> Result<BatchFile, DataError> {
    let content = read(&path)?;
    let expected = records * format.record_len();
    if content.len() != expected {
        return Err(DataError::Dataset {
            expected: format!("{expected} bytes ({records} images)"),
            found: format!("{} bytes", content.len()),
            remedy: format!("unpack {} again", format.archive),
            path,
        });
    }
    let bad = content
        .chunks_exact(format.record_len())
        .map(|record| usize::from(record[format.label_bytes - 1]))
        .enumerate()
        .find(|&(_, label)| label >= format.classes);
    if let Some((record, label)) = bad {
        return Err(DataError::Dataset {
            path,
            expected: format!("labels below {}", format.classes),
            found: format!("label {label} at record {record}"),
            remedy: format!("unpack {} again", format.archive),
        });
    }
    Ok(BatchFile { path, content })
}

fn read_class_names(path: &Path, format: &Format) -> Result<Vec<String>, DataError> {
    let content = read(path)?;
    let names: Vec<String> = String::from_utf8_lossy(&content)
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    if names.len() == format.classes {
        return Ok(names);
    }
    Err(DataError::Dataset {
        path: path.to_owned(),
        expected: format!("{} class names", format.classes),
        found: names.len().to_string(),
        remedy: format!("unpack {} again", format.archive),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(path).map_err(|source| DataError::Io {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;

use std::hash::Hasher;
use std::path::{Path, PathBuf};

use super::left_out::{Tally, Weight};
use super::{Dataset, LeftOut, check_index, ending, service};
use crate::dataset::Fingerprint;
use crate::error::DataError;
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

impl Cifar {
    /// Which of them lies at `path`, unpacked from the archive of its binary version, or in the folder of that archive
    /// there; `None` unless all files of a split and the names of the classes are there.
    pub fn at(path: impl AsRef<Path>) -> Option<Cifar> {
        let path = path.as_ref();
        let is_at = |cifar: &Cifar| {
            let format = cifar.format();
            let folder = find_folder(path, &format);
            let holds = |names: &[&str]| names.iter().all(|name| folder.join(name).is_file());
            holds(&[format.class_names]) && (holds(format.train) || holds(format.test))
        };
        [Cifar::Ten, Cifar::Hundred].into_iter().find(is_at)
    }

    /// Refuses the archive of one of them, which must be unpacked.
    ///
    /// # Errors
    /// [`DataError::Dataset`] with the command, if `path` has the name of such an archive.
    pub fn check_unpacked(path: impl AsRef<Path>) -> Result<(), DataError> {
        let path = path.as_ref();
        let is_of = |format: &Format| {
            let archives = [format.archive, format.python_archive];
            (archives.into_iter()).any(|archive| is_archive(path, archive))
        };
        match [CIFAR_10, CIFAR_100].iter().find(|format| is_of(format)) {
            Some(format) => Err(format.refuse_archive(path)),
            None => Ok(()),
        }
    }

    fn format(self) -> Format {
        match self {
            Cifar::Ten => CIFAR_10,
            Cifar::Hundred => CIFAR_100,
        }
    }
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
    left_out: Vec<LeftOut>,
}

struct BatchFile {
    path: PathBuf,
    content: Vec<u8>,
}

/// What differs between the two data sets on disk.
#[derive(Copy, Clone)]
struct Format {
    name: &'static str,
    folder: &'static str,
    archive: &'static str,
    python_folder: &'static str,
    python_archive: &'static str,
    python_class_names: &'static str,
    class_names: &'static str,
    /// Other files of the archive.
    others: &'static [&'static str],
    classes: usize,
    /// Bytes before the pixels; the last of them is the label. CIFAR-100 has a coarse one first.
    label_bytes: usize,
    train: &'static [&'static str],
    test: &'static [&'static str],
    train_records_per_file: usize,
}

const TEST_RECORDS: usize = 10_000;
/// Where the archives are.
const SITE: &str = "https://www.cs.toronto.edu/~kriz/cifar.html";

const CIFAR_10: Format = Format {
    name: "CIFAR-10",
    folder: "cifar-10-batches-bin",
    archive: "cifar-10-binary.tar.gz",
    python_folder: "cifar-10-batches-py",
    python_archive: "cifar-10-python.tar.gz",
    python_class_names: "batches.meta",
    class_names: "batches.meta.txt",
    others: &["readme.html"],
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
    name: "CIFAR-100",
    folder: "cifar-100-binary",
    archive: "cifar-100-binary.tar.gz",
    python_folder: "cifar-100-python",
    python_archive: "cifar-100-python.tar.gz",
    python_class_names: "meta",
    class_names: "fine_label_names.txt",
    others: &["coarse_label_names.txt", "file.txt~"],
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

    fn refuse(&self, folder: &Path, files: usize, found: String) -> DataError {
        DataError::Dataset {
            path: folder.to_owned(),
            expected: format!("the {files} files of {}'s binary version", self.name),
            found,
            remedy: format!("unpack {} there, from {SITE}", self.archive),
        }
    }

    fn refuse_archive(&self, archive: &Path) -> DataError {
        let parent = archive
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or_else(|| ".".as_ref());
        let is_python = is_archive(archive, self.python_archive);
        let binary = match is_python {
            true => archive.with_file_name(self.archive),
            false => archive.to_owned(),
        };
        let unpack = format!(
            "unpack it with `tar -xf {} -C {}` and give {}",
            binary.display(),
            parent.display(),
            parent.join(self.folder).display()
        );
        let (found, remedy) = match is_python {
            true => (
                "the archive of the Python version, whose pickle files are not read",
                format!("take {} from {SITE}, {unpack}", self.archive),
            ),
            false => ("its archive", unpack),
        };
        DataError::Dataset {
            path: archive.to_owned(),
            expected: format!("the unpacked files of {}'s binary version", self.name),
            found: found.to_owned(),
            remedy,
        }
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
        let format = cifar.format();
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
            left_out: beside(path.as_ref(), &folder, &format),
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

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
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
    let found = if !folder.is_dir() {
        "no such folder".to_owned()
    } else if is_python(folder, format) {
        "the Python version, whose pickle files are not read".to_owned()
    } else {
        format!("no {}", missing.join(", "))
    };
    Err(format.refuse(folder, names.len() + 1, found))
}

/// What is wrong with a folder that holds something of CIFAR's and no image; `None` if it holds nothing of it.
pub(super) fn incomplete(path: &Path) -> Option<DataError> {
    [CIFAR_10, CIFAR_100].iter().find_map(|format| {
        let archives = [format.archive, format.python_archive];
        let archive = archives
            .into_iter()
            .map(|name| path.join(name))
            .find(|archive| archive.is_file());
        if let Some(archive) = archive {
            return Some(format.refuse_archive(&archive));
        }
        let folder = find_folder(path, format);
        if !is_begun(&folder, format) {
            return None;
        }
        let all = [format.train, format.test].concat();
        check_present(&folder, format, &all).err()
    })
}

/// Whether a folder holds what only CIFAR has; other programs have a `train.bin`, too.
fn is_begun(folder: &Path, format: &Format) -> bool {
    let holds = |name: &str| folder.join(name).is_file();
    let is_of_size = |name: &&str, records: usize| {
        let metadata = folder.join(name).metadata();
        metadata.is_ok_and(|file| file.len() == (records * format.record_len()) as u64)
    };
    let [binary, python] = [format.folder, format.python_folder];
    (folder.is_dir() && (folder.ends_with(binary) || folder.ends_with(python)))
        || folder.join(python).is_dir()
        || holds(format.class_names)
        || (holds(format.python_class_names) && is_python(folder, format))
        || (format.train.iter()).any(|name| is_of_size(name, format.train_records_per_file))
        || format
            .test
            .iter()
            .any(|name| is_of_size(name, TEST_RECORDS))
}

/// Whether a folder holds files of the Python version, which have the same names without an extension.
fn is_python(folder: &Path, format: &Format) -> bool {
    folder.join(format.python_folder).is_dir()
        || [format.train, format.test]
            .concat()
            .iter()
            .filter_map(|name| name.strip_suffix(".bin"))
            .any(|name| folder.join(name).is_file())
}

/// Whether a file is a copy of this archive, gunzipped or not.
fn is_archive(path: &Path, archive: &str) -> bool {
    let stem = archive.trim_end_matches(".tar.gz");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let rest = name.strip_prefix(stem);
    path.is_file() && rest.is_some_and(|rest| [".tar.gz", ".tgz", ".tar"].contains(&rest))
}

/// What lies beside the files of CIFAR and is therefore not read.
fn beside(path: &Path, folder: &Path, format: &Format) -> Vec<LeftOut> {
    let mut left_out = Tally::default();
    let own = |name: &str| {
        [
            format.folder,
            format.archive,
            format.python_folder,
            format.python_archive,
            format.class_names,
        ]
        .contains(&name)
            || [format.train, format.test, format.others]
                .concat()
                .contains(&name)
    };
    let places = match path == folder {
        true => vec![folder],
        false => vec![path, folder],
    };
    for entry in places
        .into_iter()
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if is_hidden || service::keeps(&name).is_some() || name.to_str().is_some_and(own) {
            continue;
        }
        let relative = entry.path();
        let relative = relative.strip_prefix(path).unwrap_or(&relative);
        let is_folder = entry.path().is_dir();
        let what = match is_folder {
            true => "folders".to_owned(),
            false => ending::name(relative),
        };
        let weight = match ending::of(relative) {
            ending::Ending::Other(kind) if !is_folder => kind.weight,
            _ => Weight::Missed,
        };
        let reason = format!(
            "they lie beside the files of {}; give them as a data set of their own",
            format.name
        );
        left_out.add(weight, &what, &reason, relative);
    }
    left_out.into_list()
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

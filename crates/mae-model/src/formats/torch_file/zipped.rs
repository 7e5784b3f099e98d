//! The format since PyTorch 1.6: a zip archive of a pickle and of numbers, one file a storage.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};

use super::{MAX_PICKLE, damaged, parse};
use crate::Result;
use crate::formats::foreign;
use crate::formats::pickle::{Pickle, Storage};

/// Nothing comes before the archive; looking for its start finds the wrong place in some small files.
const FROM_THE_START: Config = Config {
    archive_offset: ArchiveOffset::Known(0),
};

pub struct Zipped {
    archive: ZipArchive<BufReader<File>>,
    /// The folder in the archive that all is in.
    folder: String,
    pub is_big_endian: bool,
}

impl Zipped {
    pub fn open(path: &Path, file: File) -> Result<(Pickle, Self)> {
        let mut archive = ZipArchive::with_config(FROM_THE_START, BufReader::new(file))
            .map_err(|error| damaged(path, &error))?;
        let names: Vec<String> = (archive.file_names())
            .filter_map(|name| Some(name.ok()?.to_string()))
            .collect();
        let mut folders = names.iter().filter_map(|name| {
            let folder = name.strip_suffix("data.pkl")?;
            (folder.is_empty() || folder.ends_with('/')).then_some(folder)
        });
        // The outermost; a program may carry files of its own.
        let first = folders.next();
        let Some(folder) = folders.fold(first, |a, b| {
            a.map(|a| if b.len() < a.len() { b } else { a })
        }) else {
            return Err(foreign(path, other_archive(&names)));
        };
        let mut read = |name: &str| -> Result<Vec<u8>> {
            let entry = (archive.by_name(name)).map_err(|error| damaged(path, &error))?;
            let mut bytes = Vec::new();
            (entry.take(MAX_PICKLE + 1).read_to_end(&mut bytes))
                .map_err(|error| damaged(path, &error))?;
            Ok(bytes)
        };
        let byteorder = format!("{folder}byteorder");
        let is_big_endian = names.contains(&byteorder) && read(&byteorder)? == b"big";
        let bytes = read(&format!("{folder}data.pkl"))?;
        if bytes.len() as u64 > MAX_PICKLE {
            return Err(foreign(
                path,
                format!("its pickle is above {MAX_PICKLE} bytes, which is no checkpoint's"),
            ));
        }
        let (pickle, _) = parse(path, &bytes)?;
        let folder = folder.to_string();
        Ok((
            pickle,
            Self {
                archive,
                folder,
                is_big_endian,
            },
        ))
    }

    /// The bytes of a storage's numbers.
    pub fn read(&mut self, path: &Path, key: &str, storage: &Storage) -> Result<Vec<u8>> {
        let name = format!("{}data/{key}", self.folder);
        let entry = (self.archive.by_name(&name)).map_err(|error| damaged(path, &error))?;
        let expected = storage.bytes();
        let (size, stored) = (entry.size(), entry.compressed_size());
        if size != expected || size != stored {
            return Err(foreign(
                path,
                format!(
                    "{name} is {size} bytes, stored as {stored}, expected {expected}; the file is damaged"
                ),
            ));
        }
        // Not reserved beforehand: the sizes in a damaged archive may be any.
        let mut bytes = Vec::new();
        (entry.take(expected + 1).read_to_end(&mut bytes))
            .map_err(|error| damaged(path, &error))?;
        if bytes.len() as u64 != expected {
            return Err(foreign(
                path,
                format!("{name} ends early; the file is cut short"),
            ));
        }
        Ok(bytes)
    }
}

/// What a zip archive without a pickle is.
fn other_archive(names: &[String]) -> String {
    let ends_in = |endings: &[&str]| {
        (names.iter()).find(|name| endings.iter().any(|ending| name.ends_with(ending)))
    };
    if ends_in(&[".npy"]).is_some() {
        return "an archive of NumPy's arrays (.npz), as JAX's Vision Transformers are published; \
                expected a file of torch.save: load it with timm, and save that model's state_dict()"
            .into();
    }
    if let Some(name) = ends_in(&[".pth", ".pt", ".bin", ".ckpt", ".safetensors"]) {
        return format!("a zip archive around {name}: unpack it, and give that file");
    }
    let some: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    format!(
        "a zip archive without the data.pkl that torch.save writes; in it are {} files: {}",
        names.len(),
        some.join(", ")
    )
}

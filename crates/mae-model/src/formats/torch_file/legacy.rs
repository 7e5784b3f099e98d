//! The format before PyTorch 1.6, which `_use_new_zipfile_serialization=False` still writes: pickles one after the
//! other, and then the numbers.
//!
//! The pickles are a number, the format's version, the machine's kind, the value, and the storages' names in the order
//! in which their numbers follow; these are each the number of elements, 64 bits, and the elements.
//!
//! Source: `torch/serialization.py`, `_legacy_save` and `_legacy_load`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::{MAX_PICKLE, damaged, parse};
use crate::Result;
use crate::formats::foreign;
use crate::formats::pickle::{Node, Pickle, Storage};

pub struct Legacy {
    file: File,
    /// Where each storage's elements begin.
    places: BTreeMap<String, u64>,
    pub is_big_endian: bool,
}

impl Legacy {
    pub fn open(path: &Path, mut file: File) -> Result<(Pickle, Self)> {
        let mut bytes = Vec::new();
        (&mut file)
            .take(MAX_PICKLE)
            .read_to_end(&mut bytes)
            .map_err(|error| damaged(path, &error))?;
        let mut at = 0;
        let mut next = || -> Result<Pickle> {
            let (pickle, length) = parse(path, &bytes[at..])?;
            at += length;
            Ok(pickle)
        };
        let (_, version, machine) = (next()?, next()?, next()?);
        if *version.root() != Node::Int(1001) {
            return Err(foreign(
                path,
                "of no version of PyTorch's older format that there was; the file is damaged"
                    .into(),
            ));
        }
        let (value, names) = (next()?, next()?);
        let is_big_endian =
            machine.get(machine.root(), "little_endian") == Some(&Node::Bool(false));

        let storages: BTreeMap<&str, &Storage> = (value.nodes().iter())
            .filter_map(|node| match node {
                Node::Storage(storage) => match value.node(storage.key) {
                    Node::Text(key) => Some((key.as_str(), storage)),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        let Node::Sequence(order) = names.root() else {
            return Err(foreign(
                path,
                "does not list the numbers of its tensors; the file is damaged".into(),
            ));
        };
        let mut at = at as u64;
        let mut places = BTreeMap::new();
        for &name in order {
            let Node::Text(name) = names.node(name) else {
                continue;
            };
            let Some(storage) = storages.get(name.as_str()) else {
                return Err(foreign(
                    path,
                    "lists numbers that are of none of its tensors; the file is damaged".into(),
                ));
            };
            let mut numel = [0; 8];
            (file.seek(SeekFrom::Start(at)))
                .and_then(|_| file.read_exact(&mut numel))
                .map_err(|error| damaged(path, &error))?;
            if i64::from_le_bytes(numel) != storage.numel {
                return Err(foreign(
                    path,
                    format!(
                        "{} numbers where {} are expected, at byte {at}; the file is damaged",
                        i64::from_le_bytes(numel),
                        storage.numel
                    ),
                ));
            }
            places.insert(name.clone(), at + 8);
            at = at.saturating_add(8).saturating_add(storage.bytes());
        }
        drop(storages);
        Ok((
            value,
            Self {
                file,
                places,
                is_big_endian,
            },
        ))
    }

    /// The bytes of a storage's numbers.
    pub fn read(&mut self, path: &Path, key: &str, storage: &Storage) -> Result<Vec<u8>> {
        let Some(&place) = self.places.get(key) else {
            return Err(foreign(
                path,
                format!("does not have the numbers named {key:?}; the file is damaged"),
            ));
        };
        let expected = storage.bytes();
        // Not reserved beforehand: the numbers in a damaged file may be any.
        let mut bytes = Vec::new();
        (self.file.seek(SeekFrom::Start(place)))
            .and_then(|_| (&mut self.file).take(expected).read_to_end(&mut bytes))
            .map_err(|error| damaged(path, &error))?;
        if bytes.len() as u64 != expected {
            return Err(foreign(
                path,
                format!(
                    "not a complete file of torch.save: it ends {} bytes early, and was cut short",
                    expected - bytes.len() as u64
                ),
            ));
        }
        Ok(bytes)
    }
}

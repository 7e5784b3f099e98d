//! Files of `torch.save`: a zip archive of a pickle and of the numbers behind its tensors, one file a storage.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use tch::Tensor;
use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};

use super::pickle::{Id, Node, Pickle, Storage};
use crate::{ModelError, Result};

/// No checkpoint's pickle comes near it; a hostile one may.
const MAX_PICKLE: u64 = 16 << 20;

/// Nothing comes before the archive; looking for its start finds the wrong place in some small files.
const FROM_THE_START: Config = Config {
    archive_offset: ArchiveOffset::Known(0),
};

/// A file of `torch.save`, of which no tensor has been read yet.
pub struct TorchFile {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
    /// The folder in the archive that all is in.
    folder: String,
    pickle: Pickle,
}

/// A value of an `argparse.Namespace`.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Text(String),
}

/// Whether a file is of `torch.save`, from its first bytes: of this format, or of the one before PyTorch 1.6.
pub fn is_torch_file(first: &[u8]) -> bool {
    first.starts_with(b"PK") || is_old(first)
}

/// Before 1.6 a file began with a pickle, of the number 0x1950a86a20f9469cfc6c.
fn is_old(first: &[u8]) -> bool {
    first.starts_with(&[0x80, 2, 0x8a, 10])
}

impl TorchFile {
    /// Opens a file and reads its pickle.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::Foreign`] with what is wrong with the file.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| ModelError::Io {
            path: path.into(),
            source,
        };
        let wrong = |problem: String| foreign(path, problem);
        let mut file = File::open(path).map_err(io)?;
        let mut first = Vec::new();
        (&mut file).take(4).read_to_end(&mut first).map_err(io)?;
        if is_old(&first) {
            return Err(wrong(format!(
                "in the format that PyTorch had before 1.6; write it anew with: \
                 python -c 'import torch; torch.save(torch.load(\"{}\", map_location=\"cpu\", weights_only=False), \"new.pth\")', \
                 if you trust the file, for that runs what is in it",
                path.display()
            )));
        }
        let file = File::open(path).map_err(io)?;
        let mut archive = ZipArchive::with_config(FROM_THE_START, BufReader::new(file))
            .map_err(|error| damaged(path, &error))?;
        let pickles: Vec<String> = archive
            .file_names()
            .filter_map(|name| Some(name.ok()?.strip_suffix("data.pkl")?.to_string()))
            .collect();
        let [folder] = &pickles[..] else {
            return Err(wrong(format!(
                "{} files named data.pkl in the archive, expected one, as torch.save writes",
                pickles.len()
            )));
        };
        let folder = folder.clone();
        if archive
            .index_for_name(&format!("{folder}constants.pkl"))
            .is_some()
        {
            return Err(wrong(
                "a TorchScript program; give the state dictionary that torch.save wrote".into(),
            ));
        }
        let mut bytes = Vec::new();
        let read = |mut entry: zip::read::ZipFile<'_, _>, bytes: &mut Vec<u8>| {
            (&mut entry).take(MAX_PICKLE + 1).read_to_end(bytes)
        };
        let name = format!("{folder}byteorder");
        if archive.index_for_name(&name).is_some() {
            let entry = archive
                .by_name(&name)
                .map_err(|error| damaged(path, &error))?;
            read(entry, &mut bytes).map_err(|error| damaged(path, &error))?;
            if bytes != b"little" {
                return Err(wrong(
                    "written on a big-endian machine, which is not supported".into(),
                ));
            }
            bytes.clear();
        }
        let entry = archive
            .by_name(&format!("{folder}data.pkl"))
            .map_err(|error| damaged(path, &error))?;
        read(entry, &mut bytes).map_err(|error| damaged(path, &error))?;
        if bytes.len() as u64 > MAX_PICKLE {
            return Err(wrong(format!(
                "its pickle is above {MAX_PICKLE} bytes, which is no checkpoint's"
            )));
        }
        let pickle = Pickle::parse(&bytes).map_err(|problem| {
            wrong(format!(
                "{problem}; a checkpoint holds tensors, and is read without running what is in it"
            ))
        })?;
        Ok(Self {
            path: path.into(),
            archive,
            folder,
            pickle,
        })
    }

    /// The hyperparameters beside the weights: `args`, if it is an `argparse.Namespace`.
    pub fn arguments(&self) -> BTreeMap<String, Scalar> {
        let pickle = &self.pickle;
        let Some(Node::Namespace(Some(attributes))) = pickle.get(pickle.root(), "args") else {
            return BTreeMap::new();
        };
        (pickle.entries(pickle.node(*attributes)))
            .filter_map(|(key, value)| {
                let value = match value {
                    Node::Bool(value) => Scalar::Bool(*value),
                    Node::Int(value) => Scalar::Int(*value),
                    Node::Text(value) => Scalar::Text(value.clone()),
                    _ => return None,
                };
                Some((key.to_string(), value))
            })
            .collect()
    }

    /// Reads the weights: the dictionary under `model`, or the whole, and nothing else of the file.
    ///
    /// # Errors
    /// [`ModelError::Foreign`] if there are none, or one of them is not whole.
    pub fn weights(&mut self) -> Result<BTreeMap<String, Tensor>> {
        let root = self.pickle.root();
        let dict = match self.pickle.get(root, "model") {
            Some(model @ Node::Dict(_)) => model,
            _ => root,
        };
        let Node::Dict(entries) = dict else {
            return Err(foreign(
                &self.path,
                "no dictionary of tensors, nor one with `model`".into(),
            ));
        };
        // Weights may share numbers, but a file is not to unfold into a multiple of itself.
        let mut left = 2 * std::fs::metadata(&self.path).map_or(u64::MAX / 2, |file| file.len());
        // By storage, so that each is read once and none is kept.
        let mut views: BTreeMap<Id, Vec<(String, View)>> = BTreeMap::new();
        for &(key, value) in entries {
            let problem = |what: &str| {
                foreign(
                    &self.path,
                    format!("{what} in the dictionary of its weights"),
                )
            };
            let Node::Text(key) = self.pickle.node(key) else {
                return Err(problem("a key that is no text"));
            };
            let Node::Tensor {
                storage,
                offset,
                size,
                stride,
            } = self.pickle.node(value)
            else {
                return Err(problem(&format!("`{key}`, which is no tensor,")));
            };
            let Node::Storage(numbers) = self.pickle.node(*storage) else {
                unreachable!("a tensor is only made of a storage");
            };
            let view = View::new(numbers, *offset, size, stride)
                .map_err(|problem| foreign(&self.path, format!("`{key}` {problem}")))?;
            let bytes = view.bytes(numbers);
            left = left.checked_sub(bytes).ok_or_else(|| {
                foreign(
                    &self.path,
                    "its tensors have more numbers than the file".into(),
                )
            })?;
            views.entry(*storage).or_default().push((key.clone(), view));
        }
        let mut weights = BTreeMap::new();
        for (storage, views) in views {
            let Node::Storage(storage) = self.pickle.node(storage).clone() else {
                unreachable!("collected above");
            };
            let bytes = self.read(&storage)?;
            for (key, view) in views {
                weights.insert(key, view.tensor(&storage, &bytes)?);
            }
        }
        Ok(weights)
    }

    fn read(&mut self, storage: &Storage) -> Result<Vec<u8>> {
        let path = &self.path;
        let Node::Text(key) = self.pickle.node(storage.key) else {
            unreachable!("a storage's key is a text");
        };
        let name = format!("{}data/{key}", self.folder);
        let mut entry = (self.archive.by_name(&name)).map_err(|error| damaged(path, &error))?;
        let expected = storage.numel as u64 * storage.kind.elt_size_in_bytes() as u64;
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
        (entry.read_to_end(&mut bytes)).map_err(|error| damaged(path, &error))?;
        if bytes.len() as u64 != expected {
            return Err(foreign(
                path,
                format!("{name} ends early; the file is cut short"),
            ));
        }
        Ok(bytes)
    }
}

/// What a tensor sees of its storage; all of it is there.
struct View {
    offset: usize,
    size: Vec<i64>,
    stride: Vec<i64>,
    /// From the first element to the last.
    span: usize,
}

impl View {
    fn new(
        storage: &Storage,
        offset: i64,
        size: &[i64],
        stride: &[i64],
    ) -> std::result::Result<Self, String> {
        let outside = || {
            format!(
                "reaches outside its {} numbers: offset {offset}, size {size:?}, stride {stride:?}; the file is damaged",
                storage.numel
            )
        };
        let negative = size
            .iter()
            .chain(stride)
            .chain([&offset, &storage.numel])
            .any(|&n| n < 0);
        if size.len() != stride.len() || negative {
            return Err(outside());
        }
        let numel = (size.iter()).try_fold(1i64, |product, &n| product.checked_mul(n));
        let last = (size.iter().zip(stride)).try_fold(0i64, |last, (&n, &stride)| {
            last.checked_add((n - 1).max(0).checked_mul(stride)?)
        });
        let (Some(numel), Some(last)) = (numel, last) else {
            return Err(outside());
        };
        let span = if numel == 0 { 0 } else { last + 1 };
        let end = offset.checked_add(span);
        // More elements than numbers would repeat some, as no weights do.
        if end.is_none_or(|end| end > storage.numel) || numel > span {
            return Err(outside());
        }
        Ok(Self {
            offset: offset as usize,
            size: size.to_vec(),
            stride: stride.to_vec(),
            span: span as usize,
        })
    }

    fn bytes(&self, storage: &Storage) -> u64 {
        self.span as u64 * storage.kind.elt_size_in_bytes() as u64
    }

    fn tensor(&self, storage: &Storage, bytes: &[u8]) -> Result<Tensor> {
        let width = storage.kind.elt_size_in_bytes();
        let seen = &bytes[self.offset * width..(self.offset + self.span) * width];
        let flat = Tensor::f_from_data_size(seen, &[self.span as i64], storage.kind)?;
        Ok(flat
            .f_as_strided(&self.size, &self.stride, 0)?
            .f_contiguous()?)
    }
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> ModelError {
    foreign(
        path,
        format!(
            "not a complete file of torch.save ({error}); it may be cut short or of another format"
        ),
    )
}

fn foreign(path: &Path, problem: String) -> ModelError {
    ModelError::Foreign {
        path: path.into(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn view(
        numel: i64,
        offset: i64,
        size: &[i64],
        stride: &[i64],
    ) -> std::result::Result<View, String> {
        let storage = Storage {
            kind: Kind::Int16,
            key: 0,
            numel,
        };
        View::new(&storage, offset, size, stride)
    }

    #[test]
    fn views_inside_their_storage_are_read() {
        let storage = Storage {
            kind: Kind::Int16,
            key: 0,
            numel: 8,
        };
        let bytes: Vec<u8> = (0..8i16).flat_map(i16::to_le_bytes).collect();
        let check = |offset, size: &[i64], stride: &[i64], expected: &[i64]| {
            let view = View::new(&storage, offset, size, stride).unwrap();
            let tensor = view.tensor(&storage, &bytes).unwrap();
            assert_eq!(tensor.size(), size);
            assert!(tensor.is_contiguous());
            let flat = tensor.to_kind(Kind::Int64).view([-1]);
            assert_eq!(Vec::<i64>::try_from(flat).unwrap(), expected);
        };
        check(0, &[8], &[1], &[0, 1, 2, 3, 4, 5, 6, 7]);
        check(2, &[2, 3], &[3, 1], &[2, 3, 4, 5, 6, 7]);
        check(0, &[2, 4], &[1, 2], &[0, 2, 4, 6, 1, 3, 5, 7]);
        check(1, &[2, 2], &[4, 1], &[1, 2, 5, 6]);
        check(7, &[], &[], &[7]);
        check(8, &[0, 3], &[3, 1], &[]);
    }

    #[test]
    fn views_outside_their_storage_are_refused() {
        for (numel, offset, size, stride) in [
            (8, 0, &[9][..], &[1][..]),
            (8, 1, &[8], &[1]),
            (8, -1, &[2], &[1]),
            (8, 0, &[2], &[-1]),
            (8, 0, &[-2], &[1]),
            (-8, 0, &[0], &[1]),
            (8, 0, &[2, 2], &[7, 2]),
            (8, 0, &[2, 2], &[1]),
            (8, i64::MAX, &[2], &[1]),
            (8, 0, &[i64::MAX, i64::MAX], &[1, 1]),
            (8, 0, &[2, 2], &[i64::MAX, i64::MAX]),
            // Eight numbers as a million: no weights are.
            (8, 0, &[1000, 1000], &[0, 0]),
        ] {
            let message = view(numel, offset, size, stride).err();
            assert!(
                message.is_some_and(|message| message.contains("reaches outside")),
                "{size:?} {stride:?}"
            );
        }
    }
}

//! Files of `torch.save` and `torch.jit.save`: a pickle, and the numbers behind its tensors.

mod legacy;
mod view;
mod zipped;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use tch::Tensor;

use super::pickle::{Id, Node, Pickle, Storage};
use super::{foreign, names};
use crate::content::Content;
use crate::{ModelError, Result};
use legacy::Legacy;
use view::View;
use zipped::Zipped;

/// Arrays of NumPy are part of the pickle, so a training's curves may make it large; a hostile file may make it any.
const MAX_PICKLE: u64 = 256 << 20;

/// A file of `torch.save`, of which no tensor has been read yet.
pub struct TorchFile {
    path: PathBuf,
    /// The size of the file.
    bytes: u64,
    storages: Storages,
    pickle: Pickle,
}

/// Where the numbers are.
enum Storages {
    Zipped(Zipped),
    Legacy(Legacy),
}

/// The tensors of one model in a file.
pub struct Weights {
    /// By their names without what is in front of them.
    pub tensors: BTreeMap<String, Tensor>,
    /// What is in front of their names: `model.`, or nothing.
    pub prefix: String,
    /// What was chosen of what, if there was a choice.
    pub note: Option<String>,
}

/// A value of the hyperparameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Text(String),
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
        let content = Content::at(path)?;
        let file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let (pickle, storages) = match content {
            Content::Zip => {
                let (pickle, zipped) = Zipped::open(path, file)?;
                (pickle, Storages::Zipped(zipped))
            }
            Content::LegacyTorch => {
                let (pickle, legacy) = Legacy::open(path, file)?;
                (pickle, Storages::Legacy(legacy))
            }
            other => return Err(other.refuse(path, "a file of torch.save")),
        };
        Ok(Self {
            path: path.into(),
            bytes,
            storages,
            pickle,
        })
    }

    /// The whole names of its tensors.
    ///
    /// # Errors
    /// [`ModelError::Foreign`] if there are more than any checkpoint has.
    pub fn names(&self) -> Result<Vec<String>> {
        let found = (self.pickle.tensors()).map_err(|problem| foreign(&self.path, problem))?;
        Ok(found.into_keys().collect())
    }

    /// The hyperparameters beside the weights: `args`, be it a dictionary or an object with attributes.
    pub fn arguments(&self) -> BTreeMap<String, Scalar> {
        let pickle = &self.pickle;
        let Some(arguments) = pickle.get(pickle.root(), "args") else {
            return BTreeMap::new();
        };
        (pickle.entries(pickle.attributes(arguments).unwrap_or(arguments)))
            .filter_map(|(key, value)| {
                let value = match pickle.node(value) {
                    Node::Bool(value) => Scalar::Bool(*value),
                    Node::Int(value) => Scalar::Int(*value),
                    Node::Text(value) => Scalar::Text(value.clone()),
                    _ => return None,
                };
                Some((key.to_string(), value))
            })
            .collect()
    }

    /// The tensors of its model, of several the one under `key`; see [`names::choose`].
    ///
    /// # Errors
    /// [`ModelError::Foreign`] if there are none, or one of them is not whole.
    pub fn weights(&mut self, key: Option<&str>) -> Result<Weights> {
        let found = (self.pickle.tensors()).map_err(|problem| foreign(&self.path, problem))?;
        if found.is_empty() {
            return Err(foreign(&self.path, self.nothing()));
        }
        let chosen = names::choose(&self.path, found, key)?;
        let note = chosen.note();
        Ok(Weights {
            tensors: self.read(chosen.tensors)?,
            prefix: chosen.prefix,
            note,
        })
    }

    /// A whole number that a module knows of itself, if modules were saved whole: `blocks.0.attn.num_heads`.
    pub fn module_number(&self, name: &str) -> Option<i64> {
        match self.pickle.attribute(name)? {
            Node::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// All its tensors, by their whole names.
    ///
    /// # Errors
    /// As [`weights`](Self::weights).
    pub fn all(&mut self) -> Result<BTreeMap<String, Tensor>> {
        let found = (self.pickle.tensors()).map_err(|problem| foreign(&self.path, problem))?;
        match found.is_empty() {
            true => Err(foreign(&self.path, self.nothing())),
            false => self.read(found),
        }
    }

    /// What is there where no tensor is.
    fn nothing(&self) -> String {
        const SHOWN: usize = 5;
        let unknown = self.pickle.unknown();
        let mut words =
            "no tensors in it: expected a state_dict, or one under a key of text".to_string();
        if !unknown.is_empty() {
            let shown = &unknown[..unknown.len().min(SHOWN)];
            words += &format!("; it names {}", shown.join(", "));
        }
        words + "; save model.state_dict()"
    }

    /// Reads tensors, and nothing else of the file.
    ///
    /// # Errors
    /// [`ModelError::Foreign`] if one of them is not whole.
    fn read(&mut self, wanted: BTreeMap<String, Id>) -> Result<BTreeMap<String, Tensor>> {
        // Weights may share numbers, but a file is not to unfold into a multiple of itself.
        let mut left = self.bytes.saturating_mul(2);
        let mut spend = |path: &Path, bytes: u64| match left.checked_sub(bytes) {
            Some(rest) => {
                left = rest;
                Ok(())
            }
            None => Err(foreign(
                path,
                "its tensors have more numbers than the file".into(),
            )),
        };
        // By the name of their numbers, so that each is read once and none is kept.
        let mut views: BTreeMap<String, Vec<(String, View, Storage)>> = BTreeMap::new();
        for (name, id) in wanted {
            let Node::Tensor {
                storage,
                offset,
                size,
                stride,
            } = self.pickle.node(id)
            else {
                unreachable!("only tensors are listed");
            };
            let Node::Storage(numbers) = self.pickle.node(*storage) else {
                unreachable!("a tensor is only made of a storage");
            };
            let Node::Text(key) = self.pickle.node(numbers.key) else {
                unreachable!("a storage's key is a text");
            };
            let offset = offset.checked_add(numbers.offset).unwrap_or(-1);
            let view = View::new(numbers, offset, size, stride)
                .map_err(|problem| foreign(&self.path, format!("`{name}` {problem}")))?;
            spend(&self.path, view.bytes(numbers))?;
            let of_key = views.entry(key.clone()).or_default();
            of_key.push((name, view, numbers.clone()));
        }
        let mut tensors = BTreeMap::new();
        let mut left = self.bytes;
        for (key, views) in views {
            let expected = views[0].2.bytes();
            let (Some(rest), true) = (
                left.checked_sub(expected),
                views
                    .iter()
                    .all(|(_, _, storage)| storage.bytes() == expected),
            ) else {
                return Err(foreign(
                    &self.path,
                    format!(
                        "its tensors disagree on the numbers named {key:?}; the file is damaged"
                    ),
                ));
            };
            left = rest;
            let bytes = match &mut self.storages {
                Storages::Zipped(zipped) => zipped.read(&self.path, &key, &views[0].2)?,
                Storages::Legacy(legacy) => legacy.read(&self.path, &key, &views[0].2)?,
            };
            for (name, view, storage) in views {
                let bytes = match self.storages.is_big_endian() {
                    true => &swapped(&bytes, storage.kind.elt_size_in_bytes()),
                    false => &bytes,
                };
                tensors.insert(name, view.tensor(&storage, bytes)?);
            }
        }
        Ok(tensors)
    }
}

impl Storages {
    fn is_big_endian(&self) -> bool {
        match self {
            Self::Zipped(zipped) => zipped.is_big_endian,
            Self::Legacy(legacy) => legacy.is_big_endian,
        }
    }
}

/// Numbers of `width` bytes in the other order.
fn swapped(bytes: &[u8], width: usize) -> Vec<u8> {
    let mut swapped = bytes.to_vec();
    swapped.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    swapped
}

impl Storage {
    /// Bytes of its numbers; of a negative number of them more than any file has.
    fn bytes(&self) -> u64 {
        let numel = u64::try_from(self.numel).unwrap_or(u64::MAX);
        numel.saturating_mul(self.kind.elt_size_in_bytes() as u64)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<(Pickle, usize)> {
    Pickle::parse_first(bytes).map_err(|problem| {
        foreign(
            path,
            format!("{problem}; the file is damaged, cut short or no checkpoint of PyTorch"),
        )
    })
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> ModelError {
    foreign(
        path,
        format!(
            "not a complete file of torch.save ({error}); it may be cut short or of another format"
        ),
    )
}

//! What is in a file of weights.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mae_model::formats::contents;
use mae_model::formats::guess;
use mae_model::tensor_file::read_tensors;
use mae_model::{CHECKSUMS, FileKind, Normalization};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Tensor;

use super::lines::{Lines, count, numbers, size};
use super::model::{Embeddings, Model};
use super::tensors::{Group, dtype, group, is_zero, not_finite};

/// What is in a file of weights.
#[derive(Clone, Debug, Serialize)]
pub struct Weights {
    /// The file.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The model that they are of.
    pub model: Model,
    /// Where in a file of other programs models are, by what is in front of their tensors' names: `model_ema`.
    pub models: Vec<String>,
    /// What the model normalises pixels with; none of a foreign file.
    pub normalization: Option<Normalization>,
    /// Whether it has checksums, with which its content was compared.
    pub has_checksums: bool,
    /// What else the file says of itself.
    pub metadata: BTreeMap<String, String>,
    /// Numbers in its tensors.
    pub parameters: Parameters,
    /// How many tensors are of which type.
    pub dtypes: BTreeMap<&'static str, usize>,
    /// All tensors, those of alike blocks together.
    pub tensors: Vec<Group>,
    /// Values that are not finite, by tensor: signs of damage, or of a training that diverged.
    pub not_finite: BTreeMap<String, u64>,
    /// Tensors of nothing but zeros: as usual for biases of fresh weights, a sign of damage after training.
    pub all_zero: Vec<String>,
}

/// Numbers in tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// Of the encoder, positions included.
    pub encoder: u64,
    /// Of the decoder, positions included.
    pub decoder: u64,
    /// Of a classifier's head.
    pub head: u64,
    /// Of what the target learned beforehand, which does not train.
    pub target: u64,
    /// Of all.
    pub total: u64,
}

impl Weights {
    /// Reads a file of weights.
    ///
    /// # Errors
    /// If it cannot be read, is no whole file, or describes a model that this program does not know.
    pub fn read(file: &Path) -> Result<Self> {
        if is_pickle(&start(file)?) {
            return Self::of_others(file);
        }
        let bytes = size_of(file)?;
        let (tensors, metadata) = read_tensors(file)?;
        let kind = FileKind::of(&metadata);
        let normalization = match kind {
            FileKind::Foreign => None,
            _ => Some(parse(file, &metadata, "normalization")?),
        };
        let model = match kind {
            FileKind::MaskedAutoencoder => {
                Model::MaskedAutoencoder(Box::new(parse(file, &metadata, "config")?))
            }
            FileKind::Encoder => Model::Encoder(Box::new(parse(file, &metadata, "config")?)),
            FileKind::Classifier => {
                Model::Classifier(Box::new(parse(file, &metadata, "classifier")?))
            }
            FileKind::Tokenizer => Model::Tokenizer(parse(file, &metadata, "tokenizer")?),
            FileKind::Embeddings => Model::Embeddings(Embeddings {
                shape: tensors
                    .get("features")
                    .with_context(|| format!("{}: no tensor `features`", file.display()))?
                    .size(),
                tokens: metadata.get("tokens").cloned().unwrap_or_default(),
                classes: parse(file, &metadata, "classes")?,
            }),
            FileKind::Foreign => Model::Foreign(guess(&tensors)),
        };
        let known = [
            "config",
            "normalization",
            "classifier",
            "tokenizer",
            "tokens",
            "classes",
        ];
        let mut weights = Self {
            normalization,
            has_checksums: metadata.contains_key(CHECKSUMS),
            metadata: (metadata.into_iter())
                .filter(|(key, _)| {
                    key != CHECKSUMS
                        && (kind == FileKind::Foreign || !known.contains(&key.as_str()))
                })
                .collect(),
            tensors: group(&tensors),
            ..Self::foreign(file, bytes, String::new())
        };
        weights.model = model;
        for (key, tensor) in &tensors {
            weights.count(kind, key, tensor);
        }
        Ok(weights)
    }

    /// Reads weights of other programs: a file, or a folder with their names in it.
    ///
    /// # Errors
    /// If it cannot be read, or is not whole.
    pub fn of_others(path: &Path) -> Result<Self> {
        let (tensors, models) = contents(path)?;
        let seems = guess(&tensors);
        let mut weights = Self {
            tensors: group(&tensors),
            models,
            ..Self::foreign(path, size_of(path)?, seems)
        };
        for (key, tensor) in &tensors {
            weights.count(FileKind::Foreign, key, tensor);
        }
        Ok(weights)
    }

    fn foreign(file: &Path, bytes: u64, seems: String) -> Self {
        Self {
            file: file.into(),
            bytes,
            model: Model::Foreign(seems),
            normalization: None,
            has_checksums: false,
            metadata: BTreeMap::new(),
            models: Vec::new(),
            parameters: Parameters::default(),
            dtypes: BTreeMap::new(),
            tensors: Vec::new(),
            not_finite: BTreeMap::new(),
            all_zero: Vec::new(),
        }
    }

    fn count(&mut self, kind: FileKind, key: &str, tensor: &Tensor) {
        let numbers = tensor.numel() as u64;
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| key.starts_with(prefix));
        let parameters = &mut self.parameters;
        parameters.total += numbers;
        let part = match kind {
            FileKind::Foreign | FileKind::Embeddings => None,
            FileKind::Tokenizer if starts(&["decoder.", "codebook"]) => {
                Some(&mut parameters.decoder)
            }
            FileKind::Tokenizer => Some(&mut parameters.encoder),
            _ if starts(&["decoder_", "mask_token"]) => Some(&mut parameters.decoder),
            _ if starts(&["target."]) => Some(&mut parameters.target),
            _ if starts(&["head."]) => Some(&mut parameters.head),
            _ => Some(&mut parameters.encoder),
        };
        if let Some(part) = part {
            *part += numbers;
        }
        *self.dtypes.entry(dtype(tensor.kind())).or_default() += 1;
        match not_finite(tensor) {
            0 => {}
            values => drop(self.not_finite.insert(key.into(), values)),
        }
        if is_zero(tensor) {
            self.all_zero.push(key.into());
        }
    }

    /// The facts as lines to read.
    pub fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.line(&format!(
            "{}: {}, {}",
            self.file.display(),
            self.model.name(),
            size(self.bytes)
        ));
        self.model.describe(&self.parameters, &mut lines);
        self.describe_models(&mut lines);
        if let Some(normalization) = &self.normalization {
            let values = |values: &[f32]| {
                let values: Vec<f64> = values.iter().map(|&value| value.into()).collect();
                numbers(&values)
            };
            lines.fact(
                "normalisation",
                format!(
                    "mean {}, std {}",
                    values(&normalization.mean),
                    values(&normalization.std)
                ),
            );
        }
        for (key, value) in &self.metadata {
            lines.fact("metadata", format!("{key} = {value}"));
        }
        if !self.tensors.is_empty() {
            self.describe_tensors(&mut lines);
        }
        lines.into_text()
    }

    /// Of several models in a file, those that there are.
    fn describe_models(&self, lines: &mut Lines) {
        let named = |model: &String| match model.is_empty() {
            true => "no name".into(),
            false => model.clone(),
        };
        match &self.models[..] {
            [] => {}
            [model] if model.is_empty() => {}
            [first, others @ ..] => {
                let mut words = format!("under {}", named(first));
                if !others.is_empty() {
                    let others: Vec<String> = others.iter().map(named).collect();
                    words += &format!(
                        ", which convert takes; with --weights-key also {}",
                        others.join(", ")
                    );
                }
                lines.fact("weights", words);
            }
        }
    }

    fn describe_tensors(&self, lines: &mut Lines) {
        let dtypes: Vec<String> = (self.dtypes.iter())
            .map(|(dtype, tensors)| format!("{tensors} {dtype}"))
            .collect();
        lines.fact(
            "total",
            format!(
                "{} {}; tensors: {}",
                millions(self.parameters.total),
                match self.model {
                    Model::Embeddings(_) => "numbers",
                    _ => "parameters",
                },
                dtypes.join(", ")
            ),
        );
        match self.not_finite.len() {
            0 => lines.fact(
                "damage",
                match self.has_checksums {
                    true => "none: every value is as it was written, and finite",
                    false => "none: every value is finite; there are no checksums",
                },
            ),
            tensors => lines.fact(
                "damage",
                format!(
                    "{} values of {} are NaN or infinite",
                    self.not_finite.values().sum::<u64>(),
                    count(tensors, "tensor")
                ),
            ),
        };
        let damaged: Vec<_> = self.not_finite.iter().collect();
        lines.items(&damaged, 20, |(key, values)| format!("{key}: {values}"));
        if !self.all_zero.is_empty() {
            lines.fact(
                "all zero",
                format!(
                    "{}, as biases are before training",
                    count(self.all_zero.len(), "tensor")
                ),
            );
            lines.items(&self.all_zero, 5, String::clone);
        }
        lines.line("tensors");
        let width = (self.tensors.iter())
            .map(|group| group.keys.len())
            .max()
            .unwrap_or(0);
        for group in &self.tensors {
            lines.line(&format!(
                "  {:width$}  {:?} {}",
                group.keys, group.shape, group.dtype
            ));
        }
    }
}

/// "86.42 M", and small numbers as they are.
pub fn millions(parameters: u64) -> String {
    match parameters {
        0..100_000 => parameters.to_string(),
        _ => format!("{:.2} M", parameters as f64 / 1e6),
    }
}

fn parse<T: DeserializeOwned>(
    file: &Path,
    metadata: &HashMap<String, String>,
    key: &str,
) -> Result<T> {
    let text = metadata
        .get(key)
        .with_context(|| format!("{}: metadata key `{key}` is missing", file.display()))?;
    serde_json::from_str(text).with_context(|| {
        format!(
            "{}: metadata key `{key}` is of another version of this program, or damaged",
            file.display()
        )
    })
}

/// How much of a file PyTorch's own format is recognised by.
const START: u64 = 16;

/// Bytes of a file, or of all files in a folder.
fn size_of(path: &Path) -> Result<u64> {
    let reading = || format!("reading {}", path.display());
    let metadata = std::fs::metadata(path).with_context(reading)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let entries = std::fs::read_dir(path).with_context(reading)?;
    Ok((entries.flatten())
        .filter_map(|entry| entry.metadata().ok())
        .filter(|metadata| metadata.is_file())
        .map(|metadata| metadata.len())
        .sum())
}

fn start(file: &Path) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    let opened = File::open(file).with_context(|| format!("reading {}", file.display()))?;
    opened
        .take(START)
        .read_to_end(&mut start)
        .with_context(|| format!("reading {}", file.display()))?;
    ensure!(!start.is_empty(), "{}: the file is empty", file.display());
    Ok(start)
}

/// Whether a file begins as those of `torch.save`: as a zip archive, or before PyTorch 1.6 as a pickle.
pub fn is_pickle(start: &[u8]) -> bool {
    // Protocol 0 is text: the number that begins the older format.
    start.starts_with(b"PK\x03\x04")
        || start.starts_with(b"L119547")
        || matches!(start, [0x80, 2..=5, ..])
}

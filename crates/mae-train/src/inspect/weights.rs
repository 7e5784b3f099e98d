//! What is in a file of weights.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mae_model::checkpoint::read_tensors;
use mae_model::classifier::{ClassifierConfig, Pooling};
use mae_model::{
    CHECKSUMS, FileKind, LossRegion, MaeConfig, Normalization, Target, TokenizerConfig, guess,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Tensor;

use super::lines::{Lines, count, numbers, size};
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

/// A model, by what its file says.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "what", content = "config", rename_all = "kebab-case")]
pub enum Model {
    /// A whole Masked Autoencoder.
    MaskedAutoencoder(Box<MaeConfig>),
    /// The encoder of one; the decoder's dimensions mean nothing.
    Encoder(Box<MaeConfig>),
    /// An encoder with a head of classes.
    Classifier(Box<ClassifierConfig>),
    /// A discrete autoencoder.
    Tokenizer(TokenizerConfig),
    /// What an encoder made of images, and no weights.
    Embeddings(Embeddings),
    /// Something else; what it seems to be.
    Foreign(String),
}

/// What `mae-train embed` wrote.
#[derive(Clone, Debug, Serialize)]
pub struct Embeddings {
    /// `[images, embed_dim]`, or `[images, patches, embed_dim]`.
    pub shape: Vec<i64>,
    /// What was taken of an image's tokens: `cls`, `mean` or `patches`.
    pub tokens: String,
    /// The classes of the labels; none if the images have no labels.
    pub classes: Vec<String>,
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
    /// Reads a file of weights; of PyTorch's own format only what it seems to be.
    ///
    /// # Errors
    /// If it cannot be read, is no whole file, or describes a model that this program does not know.
    pub fn read(file: &Path) -> Result<Self> {
        let bytes = std::fs::metadata(file)
            .with_context(|| format!("reading {}", file.display()))?
            .len();
        let start = start(file)?;
        if is_pickle(&start) {
            return Ok(Self::foreign(
                file,
                bytes,
                guess(&|key| contains(&start, key)),
            ));
        }
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
            FileKind::Foreign => Model::Foreign(guess(&|key| {
                tensors.keys().any(|found| found.contains(key))
            })),
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

    fn foreign(file: &Path, bytes: u64, seems: String) -> Self {
        Self {
            file: file.into(),
            bytes,
            model: Model::Foreign(seems),
            normalization: None,
            has_checksums: false,
            metadata: BTreeMap::new(),
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

impl Model {
    fn name(&self) -> String {
        match self {
            Self::MaskedAutoencoder(_) => "a Masked Autoencoder".into(),
            Self::Encoder(_) => "the encoder of a Masked Autoencoder (part = encoder)".into(),
            Self::Classifier(_) => "a classifier".into(),
            Self::Tokenizer(_) => "a tokenizer".into(),
            Self::Embeddings(_) => "embeddings of images (mae-train embed), no weights".into(),
            Self::Foreign(seems) => format!("no file of this project; it seems to be {seems}"),
        }
    }

    fn describe(&self, parameters: &Parameters, lines: &mut Lines) {
        match self {
            Self::MaskedAutoencoder(config) => {
                describe_encoder(config, parameters.encoder, lines);
                lines.fact(
                    "decoder",
                    shape(
                        config.decoder_depth,
                        config.decoder_embed_dim,
                        config.decoder_num_heads,
                        parameters.decoder,
                    ),
                );
                lines.fact("target", target(config, parameters));
            }
            Self::Encoder(config) => {
                describe_encoder(config, parameters.encoder, lines);
                lines.fact(
                    "decoder",
                    "none: eval, embed and export take it, reconstruct does not",
                );
            }
            Self::Classifier(config) => {
                describe_encoder(&config.encoder, parameters.encoder, lines);
                let pooling = match config.pooling {
                    Pooling::MeanThenNorm => "the mean of the patches, then a norm",
                    Pooling::NormThenMean => "a norm, then the mean of the patches",
                    Pooling::ClassToken => "the class token",
                };
                let head = millions(parameters.head);
                lines.fact(
                    "head",
                    format!(
                        "{} classes, of {pooling}; {head} parameters",
                        config.classes
                    ),
                );
            }
            Self::Tokenizer(config) => {
                let (rows, columns) = (
                    config.image_height / config.patch_size,
                    config.image_width / config.patch_size,
                );
                lines.fact(
                    "image",
                    image(
                        (config.image_height, config.image_width, config.channels),
                        (rows, columns, config.patch_size),
                    ),
                );
                lines.fact(
                    "vocabulary",
                    format!("{} tokens, one a patch", config.vocabulary),
                );
                lines.fact(
                    "network",
                    format!(
                        "{} wide, {} a size; parameters: encoder {}, decoder {}",
                        config.width,
                        count(config.blocks, "residual block"),
                        millions(parameters.encoder),
                        millions(parameters.decoder)
                    ),
                );
            }
            Self::Embeddings(embeddings) => {
                let sides: Vec<String> = embeddings.shape.iter().map(i64::to_string).collect();
                lines.fact(
                    "features",
                    format!(
                        "[{}], of each image {}",
                        sides.join(", "),
                        match embeddings.tokens.as_str() {
                            "cls" => "the class token",
                            "mean" => "the mean of its patch tokens",
                            _ => "its patch tokens",
                        }
                    ),
                );
                lines.fact(
                    "labels",
                    match embeddings.classes.len() {
                        0 => "none".into(),
                        1 => "of 1 class".into(),
                        classes => format!("of {classes} classes"),
                    },
                );
            }
            Self::Foreign(_) => {
                lines.fact(
                    "import",
                    "mae-train convert, if it is a ViT or a Masked Autoencoder",
                );
            }
        }
    }
}

fn describe_encoder(config: &MaeConfig, parameters: u64, lines: &mut Lines) {
    let patch = config.patch_size;
    lines.fact(
        "image",
        image(
            (config.image_height, config.image_width, config.channels),
            (
                config.image_height / patch,
                config.image_width / patch,
                patch,
            ),
        ),
    );
    let shape = shape(config.depth, config.embed_dim, config.num_heads, parameters);
    let name = ["tiny", "small", "base", "large", "huge"]
        .into_iter()
        .find(|name| {
            let preset = MaeConfig::preset(name, 224).expect("these are presets");
            let dimensions = |config: &MaeConfig| {
                (
                    config.embed_dim,
                    config.depth,
                    config.num_heads,
                    config.mlp_ratio,
                )
            };
            dimensions(&preset) == dimensions(config)
        });
    let name = name.map_or(String::new(), |name| format!("ViT {name}: "));
    let mask_tokens = match config.encoder_mask_tokens {
        true => "; it sees mask tokens",
        false => "",
    };
    lines.fact("encoder", format!("{name}{shape}{mask_tokens}"));
}

fn image(
    (height, width, channels): (usize, usize, usize),
    (rows, columns, patch): (usize, usize, usize),
) -> String {
    format!(
        "{height} x {width} pixels of {channels} channels, in {rows} x {columns} patches of {patch} x {patch}"
    )
}

fn shape(depth: usize, width: usize, heads: usize, parameters: u64) -> String {
    format!(
        "{}, {width} wide, {}, {} parameters",
        count(depth, "block"),
        count(heads, "head"),
        millions(parameters)
    )
}

fn target(config: &MaeConfig, parameters: &Parameters) -> String {
    let target = match (config.target, &config.tokenizer) {
        (Target::Pixels, _) if config.norm_pix_loss => {
            "pixels, each patch normalised by its own mean and deviation (norm_pix_loss)".into()
        }
        (Target::Pixels, _) => {
            "pixels, not normalised by their patch (norm_pix_loss = false)".into()
        }
        (Target::Pca, _) => format!("{} principal components of patches", config.target_dim()),
        (Target::Tokens, _) => format!(
            "tokens, of a vocabulary of {}, by a tokenizer of {} parameters",
            config.target_dim(),
            millions(parameters.target)
        ),
    };
    let region = match config.loss_region {
        LossRegion::Masked => "hidden",
        LossRegion::All => "all",
    };
    format!("{target}; loss on {region} patches")
}

/// "86.42 M", and small numbers as they are.
fn millions(parameters: u64) -> String {
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

/// How much of a file PyTorch's own format is recognised by: keys come before the numbers.
const START: u64 = 4 << 20;

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
    start.starts_with(b"PK\x03\x04") || matches!(start, [0x80, 2..=5, ..])
}

fn contains(bytes: &[u8], key: &str) -> bool {
    bytes
        .windows(key.len())
        .any(|window| window == key.as_bytes())
}

//! Weights of other programs in, and weights for other programs out.
//!
//! [`read`] takes what the MAE authors' code, Hugging Face's transformers, timm and this project write, recognised by
//! content, and gives [`Weights`]: tensors under the native keys and all that a model is built from.
//! What a file cannot say is asked for, never guessed in silence; what was decided is in [`Weights::notes`].
//!
//! ```no_run
//! use mae_model::formats::{Format, ReadOptions, read};
//!
//! let weights = read("mae_pretrain_vit_base_full.pth".as_ref(), &ReadOptions {
//!     num_heads: Some(12),
//!     decoder_num_heads: Some(16),
//!     norm_pix_loss: Some(true),
//!     normalization: Some(mae_model::Normalization::IMAGENET),
//!     ..ReadOptions::default()
//! })?;
//! weights.write("vit-mae-base".as_ref(), Format::HuggingFace)?;
//! # Ok::<(), mae_model::ModelError>(())
//! ```

mod authors;
mod channels;
mod dimensions;
mod families;
mod fold;
mod folder;
mod huggingface;
mod keys;
mod layouts;
mod names;
mod native;
mod parts;
mod pickle;
mod timm;
mod torch_file;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::Tensor;

use crate::content::Content;
use crate::tensor_file::{check_finite, read_tensors};
use crate::{FileKind, MaeConfig, ModelError, Normalization, Result, VitClassifier};

use crate::metadata::Part;
pub use channels::Adapt;
pub use families::guess;
pub use folder::{has_weights, is_of_others};
use torch_file::TorchFile;

/// A layout of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// This project's: one safetensors file that says what model it is of.
    Native,
    /// The MAE authors': a file of `torch.save`. Read only.
    Authors,
    /// Hugging Face's `ViTMAEForPreTraining`, or of an encoder `ViTMAEModel`: a folder.
    HuggingFace,
    /// timm's Vision Transformer: an encoder, in a folder or a file.
    Timm,
}

/// What is said beside a file.
///
/// What the file says itself must agree; but for the statistics, which replace the file's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadOptions {
    /// Attention heads of an encoder block.
    pub num_heads: Option<usize>,
    /// Attention heads of a decoder block.
    pub decoder_num_heads: Option<usize>,
    /// Whether the target is each patch normalised by its own mean and variance.
    pub norm_pix_loss: Option<bool>,
    /// Height and width of an image, pixels.
    pub image_size: Option<(usize, usize)>,
    /// Channel statistics; of the new channels, if these are adapted.
    pub normalization: Option<Normalization>,
    /// How much of the model is wanted, where not all that is there: of a decoder that is not, nothing is asked.
    pub part: Option<Part>,
    /// Of several models in a file, the name of the one to take: `model_ema`.
    pub weights_key: Option<String>,
    /// Channels that the model should have, and how it gets them.
    pub channels: Option<(usize, Adapt)>,
}

/// A model's weights under the native keys, and what it is built from.
#[derive(Debug)]
pub struct Weights {
    /// Where they were read.
    pub path: PathBuf,
    /// The layout they were read from.
    pub format: Format,
    /// The dimensions; of an encoder alone those of its decoder mean nothing.
    pub config: MaeConfig,
    /// The channel statistics that pixels are normalised with.
    pub normalization: Normalization,
    /// How much of the model is there.
    pub part: Part,
    /// The tensors, on the CPU and of the file's precision.
    pub tensors: BTreeMap<String, Tensor>,
    /// What was decided or left out, a sentence each.
    pub notes: Vec<String>,
}

/// Reads weights of any layout: a file, or the folder of a model.
///
/// # Errors
/// [`ModelError::Unsaid`] with everything that must be said beside the file;
/// [`ModelError::Foreign`] or [`ModelError::Keys`] if it is of another kind of model;
/// [`ModelError::Config`] if it contradicts `options`; [`ModelError::NotFinite`] if a value is NaN or infinite; or if it is not whole.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Weights> {
    let mut weights = match Source::recognise(path, options.weights_key.as_deref())? {
        Source::Native(tensors, metadata) => native::read(path, tensors, &metadata, options)?,
        Source::Other(found) => dimensions::settle(*found, options)?,
    };
    dimensions::check_layout(&weights)?;
    check_finite(path, &weights.tensors)?;
    if options.part == Some(Part::Encoder) {
        weights = weights.into_encoder();
    }
    match (options.channels, options.normalization.clone()) {
        (Some((channels, adapt)), said) if channels != weights.config.channels => {
            weights = weights.with_channels(channels, adapt, said)?;
        }
        (_, Some(said)) => weights.normalization = said,
        (_, None) => {}
    }
    weights.normalization.validate(weights.config.channels)?;
    Ok(weights)
}

/// All tensors of a file or folder of other programs, by their whole names, and where the models among them are:
/// `model`, `model_ema`, or an empty text where nothing is in front of the names.
///
/// # Errors
/// [`ModelError::Foreign`] or [`ModelError::Io`] if it cannot be read.
pub fn contents(path: &Path) -> Result<(BTreeMap<String, Tensor>, Vec<String>)> {
    let tensors = folder::read_any(path)?;
    let places = names::places(&tensors);
    Ok((tensors, places))
}

impl Weights {
    /// The encoder alone.
    pub fn into_encoder(mut self) -> Self {
        let encoder = keys::layout(&self.config, Part::Encoder);
        self.tensors.retain(|key, _| encoder.contains_key(key));
        self.part = Part::Encoder;
        self
    }

    /// Numbers in all tensors.
    pub fn parameters(&self) -> usize {
        self.tensors.values().map(Tensor::numel).sum()
    }

    /// Writes them in a layout: a file if it is the native one, else a folder, there whole or not at all.
    ///
    /// Returns what a reader should know of the difference between the model and what was written.
    ///
    /// # Errors
    /// [`ModelError::Foreign`] with what the layout cannot hold, or if it cannot be written.
    pub fn write(&self, path: &Path, format: Format) -> Result<Vec<String>> {
        match format {
            Format::Native => native::write(self, path),
            Format::HuggingFace => huggingface::write(self, path),
            Format::Timm => timm::write(self, path),
            Format::Authors => Err(foreign(
                path,
                "the authors' layout is read only: their code reads timm's".into(),
            )),
        }
    }
}

/// Writes a classifier in another program's layout: a folder, there whole or not at all.
///
/// Returns what a reader should know of the difference between the model and what was written.
///
/// # Errors
/// [`ModelError::Foreign`] with what the layout cannot hold, or if it cannot be written.
pub fn write_classifier(model: &VitClassifier, path: &Path, format: Format) -> Result<Vec<String>> {
    match format {
        Format::HuggingFace => huggingface::write_classifier(model, path),
        Format::Timm => timm::write_classifier(model, path),
        Format::Native | Format::Authors => Err(foreign(
            path,
            "a classifier is written for Hugging Face or timm; its file is this project's already"
                .into(),
        )),
    }
}

/// A file of another program, under the native keys, and what it says of its model.
struct Found {
    path: PathBuf,
    format: Format,
    tensors: BTreeMap<String, Tensor>,
    facts: Facts,
    notes: Vec<String>,
}

/// What is written beside weights; some of it the weights show as well.
#[derive(Debug, Default)]
struct Facts {
    /// What says it.
    said_by: &'static str,
    embed_dim: Option<usize>,
    depth: Option<usize>,
    num_heads: Option<usize>,
    decoder_embed_dim: Option<usize>,
    decoder_depth: Option<usize>,
    decoder_num_heads: Option<usize>,
    patch_size: Option<usize>,
    channels: Option<usize>,
    image_size: Option<(usize, usize)>,
    norm_pix_loss: Option<bool>,
    layer_norm_eps: Option<f64>,
    normalization: Option<Normalization>,
}

enum Source {
    Native(BTreeMap<String, Tensor>, HashMap<String, String>),
    Other(Box<Found>),
}

impl Source {
    fn other(found: Found) -> Self {
        Self::Other(Box::new(found))
    }

    fn recognise(path: &Path, key: Option<&str>) -> Result<Self> {
        if path.is_dir() {
            return Self::in_folder(path, key);
        }
        let folder = folder::of(path);
        if let Some(shards) = folder::shards_of(path)? {
            let config = config_in(folder)?;
            return Self::described(path, folder, shards.read()?, config.as_ref(), key);
        }
        if Content::at(path)?.is_torch() {
            return Self::in_torch_file(path, key);
        }
        let (tensors, metadata) = read_tensors(path)?;
        if FileKind::of(&metadata) != FileKind::Foreign {
            return Ok(Self::Native(tensors, metadata));
        }
        let config = config_in(folder)?;
        Self::described(path, folder, tensors, config.as_ref(), key)
    }

    /// A file of `torch.save`; one that Hugging Face or timm wrote has a config.json beside it.
    fn in_torch_file(path: &Path, key: Option<&str>) -> Result<Self> {
        let mut file = TorchFile::open(path)?;
        let folder = folder::of(path);
        let is_hugging_faces = huggingface::has_its_name(file.names()?.iter());
        let config = match is_hugging_faces || path.extension().is_some_and(|end| end == "bin") {
            true => config_in(folder)?,
            false => None,
        };
        if is_hugging_faces || config.is_some() {
            return Self::described(path, folder, file.all()?, config.as_ref(), key);
        }
        Ok(Self::other(authors::found(path, file, key)?))
    }

    fn in_folder(folder: &Path, key: Option<&str>) -> Result<Self> {
        let config = config_in(folder)?;
        let file = folder.join("model.safetensors");
        let is_described = config.as_ref().is_some_and(|config| {
            config.get("model_type").is_some() || config.get("architecture").is_some()
        });
        match config {
            Some(_) if !is_described => Err(foreign(
                folder,
                "config.json has neither `model_type`, as Hugging Face's has, nor `architecture`, as timm's".into(),
            )),
            None if file.exists() => Self::recognise(&file, key),
            None if !folder::has_weights(folder) => Err(foreign(
                folder,
                "no config.json and no model.safetensors in it: expected a folder of Hugging Face's ViTMAE or of timm, or a file".into(),
            )),
            config => {
                let tensors = folder::read_weights(folder)?;
                Self::described(folder, folder, tensors, config.as_ref(), key)
            }
        }
    }

    /// The weights of a file or folder, with what a config.json says of them.
    fn described(
        path: &Path,
        folder: &Path,
        tensors: BTreeMap<String, Tensor>,
        config: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Self> {
        let chosen = names::choose(path, tensors, key)?;
        let note = chosen.note();
        let tensors = chosen.tensors;
        let mut found = if huggingface::is_it(&tensors) {
            let config = config.filter(|config| config.get("model_type").is_some());
            let config = config.ok_or_else(|| {
                let problem = "weights of Hugging Face's layout without their config.json: put it beside them, or save them with save_pretrained()";
                foreign(path, problem.into())
            })?;
            huggingface::found(path, folder, tensors, config)?
        } else {
            let config = config.filter(|config| config.get("architecture").is_some());
            timm::found(path, layouts::to_native(path, tensors)?, config)?
        };
        found.notes.extend(note);
        Ok(Self::other(found))
    }
}

impl ReadOptions {
    /// Checks that nothing said contradicts the file.
    fn check(&self, path: &Path, config: &MaeConfig, part: Part) -> Result<()> {
        let whole = part == Part::Whole;
        let size = |(height, width): (usize, usize)| format!("{height}x{width}");
        let text = |value: Option<usize>| value.map(|value| value.to_string());
        let checks = [
            (
                "num_heads",
                text(self.num_heads),
                config.num_heads.to_string(),
                true,
            ),
            (
                "decoder_num_heads",
                text(self.decoder_num_heads),
                config.decoder_num_heads.to_string(),
                whole,
            ),
            (
                "norm_pix_loss",
                self.norm_pix_loss.map(|value| value.to_string()),
                config.norm_pix_loss.to_string(),
                whole,
            ),
            (
                "image_size",
                self.image_size.map(size),
                size((config.image_height, config.image_width)),
                true,
            ),
        ];
        for (key, said, found, is_there) in checks {
            let expected = match is_there {
                true => format!("{found}, as {} says", path.display()),
                false => format!("nothing: {} has no decoder", path.display()),
            };
            if let Some(said) = said.filter(|said| !is_there || *said != found) {
                return Err(crate::error::invalid(key, said, expected));
            }
        }
        Ok(())
    }
}

/// The description beside weights, if there is one.
fn config_in(folder: &Path) -> Result<Option<Value>> {
    match read_json(&folder.join("config.json")) {
        Ok(config) => Ok(Some(config)),
        Err(ModelError::Io { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|source| ModelError::Io {
        path: path.into(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|error| foreign(path, format!("not valid JSON: {error}")))
}

fn foreign(path: &Path, problem: String) -> ModelError {
    ModelError::Foreign {
        path: path.into(),
        problem,
    }
}

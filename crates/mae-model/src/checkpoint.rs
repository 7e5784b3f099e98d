//! Weights and other tensors in safetensors files.
//!
//! The native keys are those of the public MAE checkpoints; a file's metadata says what model it is.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use safetensors::{Dtype, SafeTensorError, SafeTensors, View};
use tch::{Device, Kind, Tensor, no_grad};

use crate::{MaeConfig, MaskedAutoencoderViT, ModelError, Normalization, Result};

pub(crate) const CONFIG: &str = "config";
pub(crate) const NORMALIZATION: &str = "normalization";
pub(crate) const PART: &str = "part";
/// The only value of [`PART`].
pub(crate) const ENCODER: &str = "encoder";

/// How much of a Masked Autoencoder a file holds: its metadata key `part`, which whole models lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Encoder and decoder.
    Whole,
    /// The encoder; what the configuration says of a decoder means nothing.
    Encoder,
}

impl MaskedAutoencoderViT {
    /// Writes the weights under their native keys, with the configuration as metadata.
    ///
    /// The file appears whole or not at all.
    ///
    /// # Errors
    /// [`ModelError::Io`] or [`ModelError::Format`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let metadata = HashMap::from([
            (CONFIG.to_string(), json(self.config())),
            (NORMALIZATION.to_string(), json(self.normalization())),
        ]);
        write_tensors(path, &self.parameters(), metadata)
    }

    /// Reads a model that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`ModelError::EncoderOnly`] if it has no decoder;
    /// or if the file is not whole, lacks its metadata, or its tensors do not fit the model they describe.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        let (tensors, metadata) = read_tensors(path)?;
        if part_of(path, &metadata)? == Part::Encoder {
            return Err(ModelError::EncoderOnly { path: path.into() });
        }
        let config: MaeConfig = from_metadata(path, &metadata, CONFIG)?;
        let normalization: Normalization = from_metadata(path, &metadata, NORMALIZATION)?;
        let model = Self::new(&config, &normalization, device, 0)?;
        copy_into(path, model.parameters(), &tensors)?;
        model.note_loaded();
        Ok(model)
    }

    /// Replaces the weights by those of a file with the same keys and shapes.
    ///
    /// # Errors
    /// [`ModelError::Keys`] with every key that is missing, extra or of another shape; then nothing changed.
    pub fn load_weights(&self, path: &Path) -> Result<()> {
        copy_into(path, self.parameters(), &read_tensors(path)?.0)?;
        self.note_loaded();
        Ok(())
    }
}

/// What a Masked Autoencoder's file says of the model, without its weights' values being looked at.
///
/// # Errors
/// If the file is not whole or lacks its metadata.
pub fn read_config(path: &Path) -> Result<(MaeConfig, Normalization)> {
    let (_, metadata) = read_tensors(path)?;
    Ok((
        from_metadata(path, &metadata, CONFIG)?,
        from_metadata(path, &metadata, NORMALIZATION)?,
    ))
}

/// How much of a model a file with this metadata holds.
pub(crate) fn part_of(path: &Path, metadata: &HashMap<String, String>) -> Result<Part> {
    match metadata.get(PART).map(String::as_str) {
        None => Ok(Part::Whole),
        Some(ENCODER) => Ok(Part::Encoder),
        Some(other) => Err(ModelError::Metadata {
            path: path.into(),
            key: PART,
            problem: format!("is {other:?}, expected {ENCODER:?} or none"),
        }),
    }
}

/// Copies a file's tensors into `parameters`, all or none.
///
/// # Errors
/// [`ModelError::Keys`] with every key that is missing, extra or of another shape.
pub(crate) fn copy_into(
    path: &Path,
    parameters: BTreeMap<String, Tensor>,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<()> {
    check_keys(path, &parameters, tensors)?;
    no_grad(|| {
        for (key, mut parameter) in parameters {
            parameter.f_copy_(&tensors[&key])?;
        }
        Ok(())
    })
}

/// Compares the keys and shapes of a file's tensors with those it should have.
///
/// # Errors
/// [`ModelError::Keys`] with every difference.
pub fn check_keys(
    path: &Path,
    expected: &BTreeMap<String, Tensor>,
    found: &BTreeMap<String, Tensor>,
) -> Result<()> {
    let absent =
        |from: &BTreeMap<String, Tensor>, other: &BTreeMap<String, Tensor>| -> Vec<String> {
            from.keys()
                .filter(|key| !other.contains_key(*key))
                .cloned()
                .collect()
        };
    let (missing, extra) = (absent(expected, found), absent(found, expected));
    let misshaped: Vec<String> = expected
        .iter()
        .filter_map(|(key, tensor)| {
            let (wanted, size) = (tensor.size(), found.get(key)?.size());
            (wanted != size).then(|| format!("{key} (found {size:?}, expected {wanted:?})"))
        })
        .collect();
    if missing.is_empty() && extra.is_empty() && misshaped.is_empty() {
        return Ok(());
    }
    Err(ModelError::Keys {
        path: path.into(),
        missing,
        extra,
        misshaped,
    })
}

/// Writes tensors and metadata beside `path`, then renames: a reader sees the old file or the new one.
///
/// # Errors
/// [`ModelError::Io`] or [`ModelError::Format`] with the path.
pub fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let io = |source| ModelError::Io {
        path: path.into(),
        source,
    };
    let partial = path.with_extension("safetensors.partial");
    let views = tensors
        .iter()
        .map(|(key, tensor)| Ok((key, HostView::new(tensor)?)));
    let views: Vec<_> = views.collect::<Result<_>>()?;
    let written = safetensors::serialize_to_file(views, Some(metadata), &partial)
        .map_err(|source| ModelError::Format {
            path: path.into(),
            source,
        })
        .and_then(|()| {
            File::open(&partial)
                .and_then(|file| file.sync_all())
                .map_err(io)
        })
        .and_then(|()| std::fs::rename(&partial, path).map_err(io));
    if written.is_err() {
        // What went wrong is reported; a left-over file would only confuse.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

/// Reads all tensors of a safetensors file to the CPU, and its metadata.
///
/// # Errors
/// [`ModelError::Io`] or [`ModelError::Format`] with the path.
pub fn read_tensors(path: &Path) -> Result<(BTreeMap<String, Tensor>, HashMap<String, String>)> {
    let format = |source| ModelError::Format {
        path: path.into(),
        source,
    };
    let bytes = std::fs::read(path).map_err(|source| ModelError::Io {
        path: path.into(),
        source,
    })?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(format)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let mut tensors = BTreeMap::new();
    for (key, view) in SafeTensors::deserialize(&bytes).map_err(format)?.tensors() {
        let Some((kind, _)) = DTYPES.iter().find(|(_, dtype)| *dtype == view.dtype()) else {
            let shape = view.shape().to_vec();
            return Err(format(SafeTensorError::InvalidTensorView(
                view.dtype(),
                shape,
                view.data().len(),
            )));
        };
        let size: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        tensors.insert(key, Tensor::f_from_data_size(view.data(), &size, *kind)?);
    }
    Ok((tensors, metadata))
}

const DTYPES: [(Kind, Dtype); 10] = [
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int64, Dtype::I64),
    (Kind::Int, Dtype::I32),
    (Kind::Uint8, Dtype::U8),
    (Kind::Int8, Dtype::I8),
    (Kind::Int16, Dtype::I16),
    (Kind::Bool, Dtype::BOOL),
];

/// A tensor that is copied to host memory when its turn to be written comes.
struct HostView {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl HostView {
    fn new(tensor: &Tensor) -> Result<Self> {
        let kind = tensor.kind();
        let Some((_, dtype)) = DTYPES.iter().find(|(known, _)| *known == kind) else {
            return Err(tch::TchError::Kind(format!(
                "tensors of {kind:?} have no place in a checkpoint"
            ))
            .into());
        };
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        Ok(Self {
            tensor: tensor.shallow_clone(),
            dtype: *dtype,
            shape,
        })
    }
}

impl View for HostView {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let host = self.tensor.detach().to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0; self.data_len()];
        host.copy_data_u8(&mut bytes, host.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

pub(crate) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain numbers and booleans")
}

pub(crate) fn from_metadata<T: serde::de::DeserializeOwned>(
    path: &Path,
    metadata: &HashMap<String, String>,
    key: &'static str,
) -> Result<T> {
    let wrong = |problem: String| ModelError::Metadata {
        path: path.into(),
        key,
        problem,
    };
    let text = metadata
        .get(key)
        .ok_or_else(|| wrong("is missing".into()))?;
    serde_json::from_str(text).map_err(|error| wrong(format!("is not valid ({error})")))
}

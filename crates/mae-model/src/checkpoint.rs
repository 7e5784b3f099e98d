//! A Masked Autoencoder's own files.
//!
//! The native keys are those of the public MAE checkpoints; a file's metadata says what model it is.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use tch::{Device, Tensor};

use crate::file_kind;
use crate::formats::guess;
pub use crate::metadata::Part;
use crate::metadata::{CONFIG, NORMALIZATION, from_metadata, json, part_of};
use crate::tensor_file::{conversion, copy_into, read_tensors, write_tensors};
use crate::{MaeConfig, MaskedAutoencoderViT, ModelError, Normalization, Result};

impl MaskedAutoencoderViT {
    /// Writes the weights under their native keys, with the configuration as metadata.
    ///
    /// The file appears whole or not at all.
    ///
    /// # Errors
    /// [`ModelError::Write`] if it cannot be written.
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
        let config = config_of(path, &tensors, &metadata)?;
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
    let (tensors, metadata) = read_tensors(path)?;
    Ok((
        config_of(path, &tensors, &metadata)?,
        from_metadata(path, &metadata, NORMALIZATION)?,
    ))
}

/// The configuration of the Masked Autoencoder, or of its encoder, that a file holds.
///
/// # Errors
/// [`ModelError::Foreign`](crate::ModelError::Foreign) with what the file holds instead, and what to do with that.
pub(crate) fn config_of(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &HashMap<String, String>,
) -> Result<MaeConfig> {
    file_kind::config_of(path, metadata, || {
        format!(
            "metadata key `{CONFIG}` is missing, so it is not in this program's format; it seems to be {}; \
             bring it in, if it is a ViT, with: {}",
            guess(tensors),
            conversion(path)
        )
    })
}

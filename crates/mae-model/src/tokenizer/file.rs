//! A tokenizer in a safetensors file.

use std::collections::HashMap;
use std::path::Path;

use tch::Device;

use super::{Tokenizer, TokenizerConfig};
use crate::metadata::{NORMALIZATION, TOKENIZER, from_metadata, json};
use crate::tensor_file::{copy_into, read_tensors, write_tensors};
use crate::{Normalization, Result};

impl Tokenizer {
    /// Writes the weights under their native keys, with the configuration as metadata.
    ///
    /// The file appears whole or not at all.
    ///
    /// # Errors
    /// [`ModelError::Write`](crate::ModelError::Write) if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let metadata = HashMap::from([
            (TOKENIZER.to_string(), json(self.config())),
            (NORMALIZATION.to_string(), json(self.normalization())),
        ]);
        write_tensors(path, &self.parameters(), metadata)
    }

    /// Reads a tokenizer that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// If the file is not whole, lacks its metadata, or its tensors do not fit the tokenizer they describe.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        let (tensors, metadata) = read_tensors(path)?;
        let config: TokenizerConfig = from_metadata(path, &metadata, TOKENIZER)?;
        let normalization: Normalization = from_metadata(path, &metadata, NORMALIZATION)?;
        let tokenizer = Self::new(&config, &normalization, device, 0)?;
        copy_into(path, tokenizer.parameters(), &tensors)?;
        Ok(tokenizer)
    }

    /// Replaces the weights by those of a file with the same keys and shapes.
    ///
    /// # Errors
    /// [`ModelError::Keys`](crate::ModelError::Keys) with every key that is missing, extra or of another shape;
    /// then nothing changed.
    pub fn load_weights(&self, path: &Path) -> Result<()> {
        copy_into(path, self.parameters(), &read_tensors(path)?.0)
    }
}

/// What a tokenizer's file says of it, without its weights' values being looked at.
///
/// # Errors
/// If the file is not whole or lacks its metadata.
pub fn read_config(path: &Path) -> Result<(TokenizerConfig, Normalization)> {
    let (_, metadata) = read_tensors(path)?;
    Ok((
        from_metadata(path, &metadata, TOKENIZER)?,
        from_metadata(path, &metadata, NORMALIZATION)?,
    ))
}

//! The metadata of weights: which keys say what.

use std::collections::HashMap;
use std::path::Path;

use crate::{ModelError, Result};

/// The configuration of a Masked Autoencoder, or of its encoder.
pub(crate) const CONFIG: &str = "config";
/// The channel statistics of the images that a model was trained on.
pub(crate) const NORMALIZATION: &str = "normalization";
/// How much of a Masked Autoencoder there is: see [`Part`].
pub(crate) const PART: &str = "part";
/// The only value of [`PART`].
pub(crate) const ENCODER: &str = "encoder";
/// What a classifier's file has in place of [`CONFIG`].
pub(crate) const CLASSIFIER: &str = "classifier";
/// What a tokenizer's file has in place of [`CONFIG`].
pub(crate) const TOKENIZER: &str = "tokenizer";

/// How much of a Masked Autoencoder a file holds: its metadata key `part`, which whole models lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Encoder and decoder.
    Whole,
    /// The encoder; what the configuration says of a decoder means nothing.
    Encoder,
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

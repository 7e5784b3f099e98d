//! What is in a file of weights.

use std::collections::HashMap;

use crate::checkpoint::{CONFIG, ENCODER, PART};
use crate::classifier::CLASSIFIER;
use crate::tokenizer::TOKENIZER;

/// What is in a safetensors file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A whole [`MaskedAutoencoderViT`](crate::MaskedAutoencoderViT).
    MaskedAutoencoder,
    /// The encoder of one; the decoder's dimensions in its configuration mean nothing.
    Encoder,
    /// A [`VitClassifier`](crate::VitClassifier).
    Classifier,
    /// A [`Tokenizer`](crate::Tokenizer).
    Tokenizer,
    /// Nothing that this project wrote.
    Foreign,
}

impl FileKind {
    /// By a file's metadata, as [`read_tensors`](crate::checkpoint::read_tensors) gives them.
    pub fn of(metadata: &HashMap<String, String>) -> Self {
        let has = |key: &str| metadata.contains_key(key);
        match metadata.get(PART).map(String::as_str) {
            Some(ENCODER) if has(CONFIG) => Self::Encoder,
            _ if has(CONFIG) => Self::MaskedAutoencoder,
            _ if has(CLASSIFIER) => Self::Classifier,
            _ if has(TOKENIZER) => Self::Tokenizer,
            _ => Self::Foreign,
        }
    }
}

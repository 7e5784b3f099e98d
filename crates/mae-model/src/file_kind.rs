//! What is in a file of weights.

use std::collections::HashMap;
use std::path::Path;

use crate::classifier::ClassifierConfig;
use crate::metadata::{CLASSIFIER, CONFIG, ENCODER, PART, TOKENIZER, from_metadata};
use crate::{MaeConfig, ModelError, Result};

/// The metadata key that only embeddings have: the digest of the file that made them.
pub const EMBEDDINGS: &str = "model_sha256";

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
    /// What an encoder made of images, and no weights.
    Embeddings,
    /// Nothing that this project wrote.
    Foreign,
}

impl FileKind {
    /// By a file's metadata, as [`read_tensors`](crate::tensor_file::read_tensors) gives them.
    pub fn of(metadata: &HashMap<String, String>) -> Self {
        let has = |key: &str| metadata.contains_key(key);
        match metadata.get(PART).map(String::as_str) {
            // They say the encoder's configuration, too.
            _ if has(EMBEDDINGS) => Self::Embeddings,
            Some(ENCODER) if has(CONFIG) => Self::Encoder,
            _ if has(CONFIG) => Self::MaskedAutoencoder,
            _ if has(CLASSIFIER) => Self::Classifier,
            _ if has(TOKENIZER) => Self::Tokenizer,
            _ => Self::Foreign,
        }
    }
}

/// The configuration of the Masked Autoencoder, or of its encoder, that a file of this project holds.
///
/// # Errors
/// [`ModelError::Foreign`] with what the file holds instead; in the words of `seems` if it is none of this project's.
pub(crate) fn config_of(
    path: &Path,
    metadata: &HashMap<String, String>,
    seems: impl FnOnce() -> String,
) -> Result<MaeConfig> {
    const GIVE: &str = "give the checkpoint of a pre-training run";
    let problem = match FileKind::of(metadata) {
        FileKind::MaskedAutoencoder | FileKind::Encoder => {
            return from_metadata(path, metadata, CONFIG);
        }
        FileKind::Embeddings => {
            format!("embeddings that mae-train embed wrote, no weights; {GIVE}")
        }
        FileKind::Classifier => format!("a classifier's weights, no Masked Autoencoder's; {GIVE}"),
        FileKind::Tokenizer => format!("a tokenizer's weights, no Masked Autoencoder's; {GIVE}"),
        FileKind::Foreign => seems(),
    };
    Err(ModelError::Foreign {
        path: path.into(),
        problem,
    })
}

/// The configuration of the classifier that a file holds.
///
/// # Errors
/// [`ModelError::Foreign`] with what the file holds instead, and what to do with that.
pub(crate) fn classifier_of(
    path: &Path,
    metadata: &HashMap<String, String>,
) -> Result<ClassifierConfig> {
    let problem = match FileKind::of(metadata) {
        FileKind::Classifier => return from_metadata(path, metadata, CLASSIFIER),
        FileKind::MaskedAutoencoder | FileKind::Encoder => format!(
            "a pre-trained encoder, which knows no classes; teach it some with: mae-train eval --from {} --data \
             LABELLED-IMAGES --protocols finetune",
            path.display()
        ),
        FileKind::Embeddings => "embeddings that mae-train embed wrote, no weights".into(),
        FileKind::Tokenizer => "a tokenizer's weights, no classifier's".into(),
        FileKind::Foreign => "no classifier that mae-train eval wrote".into(),
    };
    Err(ModelError::Foreign {
        path: path.into(),
        problem,
    })
}

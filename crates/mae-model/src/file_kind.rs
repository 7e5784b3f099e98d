//! What is in a file of weights.

use std::collections::{BTreeMap, HashMap};

use tch::Tensor;

use crate::checkpoint::{CONFIG, ENCODER, PART};
use crate::classifier::CLASSIFIER;
use crate::formats::family;
use crate::tokenizer::TOKENIZER;

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
    /// By a file's metadata, as [`read_tensors`](crate::checkpoint::read_tensors) gives them.
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

/// What a foreign file seems to be, by its tensors: of what can be converted the end is `layout`.
pub fn guess(tensors: &BTreeMap<String, Tensor>) -> String {
    if let Some(family) = family(tensors) {
        return family;
    }
    let has = |part: &str| tensors.keys().any(|key| key.contains(part));
    let hugging_face = has("embeddings.patch_embeddings");
    let (encoder, decoder) = (
        hugging_face || has("patch_embed.proj.weight"),
        has("decoder_blocks.") || has("decoder.decoder_"),
    );
    let layout = match (hugging_face, decoder) {
        (true, _) => "Hugging Face's layout",
        (false, true) => "the MAE authors' layout",
        (false, false) => "timm's layout",
    };
    match (encoder, decoder) {
        (true, true) => format!("a Masked Autoencoder in {layout}"),
        (true, false) if has("head.weight") || has("classifier.weight") => {
            format!("a ViT with a head of classes in {layout}")
        }
        (true, false) => format!("the encoder of a ViT in {layout}"),
        (false, _) => "neither a ViT nor a Masked Autoencoder".into(),
    }
}

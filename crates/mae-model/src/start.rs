//! Pre-training from weights that are there already.

use std::path::Path;

use crate::checkpoint::{
    CONFIG, NORMALIZATION, Part, copy_into, from_metadata, part_of, read_tensors,
};
use crate::classifier::resize_positions;
use crate::config::invalid;
use crate::{MaeConfig, MaskedAutoencoderViT, Normalization, Result};

/// What a model started from.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// How much of the model the file had; the rest is as it was.
    pub part: Part,
    /// The channel statistics that its weights were trained with.
    pub normalization: Normalization,
}

impl MaskedAutoencoderViT {
    /// Replaces the weights by those of a file of another run, of a whole model or of an encoder alone.
    ///
    /// What the target learned beforehand stays.
    /// If the file's grid of patches is another, sine-cosine positions are computed for the grid here, and learned ones
    /// are interpolated.
    ///
    /// # Errors
    /// [`ModelError::Keys`](crate::ModelError::Keys) with every key that is missing, extra or of another shape;
    /// [`ModelError::Config`](crate::ModelError::Config) if attention heads or the epsilon of norms are others, which
    /// no shape shows; or if the file is not whole or lacks its metadata. Then nothing changed.
    pub fn start_from(&self, path: &Path) -> Result<Start> {
        let (mut found, metadata) = read_tensors(path)?;
        let from: MaeConfig = from_metadata(path, &metadata, CONFIG)?;
        let normalization = from_metadata(path, &metadata, NORMALIZATION)?;
        let part = part_of(path, &metadata)?;
        let config = self.config();
        let whole = part == Part::Whole;
        let checks = [
            (
                "num_heads",
                config.num_heads as f64,
                from.num_heads as f64,
                true,
            ),
            (
                "decoder_num_heads",
                config.decoder_num_heads as f64,
                from.decoder_num_heads as f64,
                whole,
            ),
            (
                "layer_norm_eps",
                config.layer_norm_eps,
                from.layer_norm_eps,
                true,
            ),
        ];
        for (key, ours, theirs, is_there) in checks {
            if is_there && ours != theirs {
                return Err(invalid(
                    key,
                    ours,
                    format!("{theirs} as in {}", path.display()),
                ));
            }
        }

        let is_target = |key: &String| key.starts_with("target.");
        let mut parameters = self.parameters();
        parameters.retain(|key, _| !is_target(key));
        found.retain(|key, _| !is_target(key));
        if !whole {
            // A mask token is the decoder's, even where the encoder sees it.
            parameters
                .retain(|key, _| !key.starts_with("decoder_") && !key.ends_with("mask_token"));
        }
        let positions = [
            ("pos_embed", config.embed_dim),
            ("decoder_pos_embed", config.decoder_embed_dim),
        ];
        for (key, dim) in positions {
            if let Some(pos_embed) = found.remove(key) {
                let resized = resize_positions(pos_embed, &from, config, dim)?;
                found.insert(key.into(), resized);
            }
        }
        copy_into(path, parameters, &found)?;
        Ok(Start {
            part,
            normalization,
        })
    }
}

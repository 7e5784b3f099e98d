//! Pre-training from weights that are there already.

use std::path::Path;

use crate::checkpoint::config_of;
use crate::classifier::resize_positions;
use crate::metadata::{NORMALIZATION, Part, from_metadata, part_of};
use crate::tensor_file::{copy_into, read_tensors};
use crate::{MaeConfig, MaskedAutoencoderViT, ModelError, Normalization, Result};

/// What a model started from.
#[derive(Clone, Debug, PartialEq)]
pub struct StartedFrom {
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
    /// [`ModelError::Keys`] with every key that is missing, extra or of another shape;
    /// [`ModelError::Architecture`] with every dimension that is another, be it one that no shape shows;
    /// or if the file is not whole, not finite or lacks its metadata. Then nothing changed.
    pub fn start_from(&self, path: &Path) -> Result<StartedFrom> {
        let (mut found, metadata) = read_tensors(path)?;
        let from = config_of(path, &found, &metadata)?;
        let normalization = from_metadata(path, &metadata, NORMALIZATION)?;
        let part = part_of(path, &metadata)?;
        let config = self.config();
        let differences = differences(config, &from, part);
        if !differences.is_empty() {
            return Err(ModelError::Architecture {
                path: path.into(),
                differences,
            });
        }

        let is_target = |key: &String| key.starts_with("target.");
        let mut parameters = self.parameters();
        parameters.retain(|key, _| !is_target(key));
        found.retain(|key, _| !is_target(key));
        if part == Part::Encoder {
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
        Ok(StartedFrom {
            part,
            normalization,
        })
    }
}

/// What differs between the model of a run and that of a file, with the remedy.
fn differences(run: &MaeConfig, file: &MaeConfig, part: Part) -> Vec<String> {
    let encoder = |config: &MaeConfig| {
        [
            ("patch_size", config.patch_size as f64),
            ("embed_dim", config.embed_dim as f64),
            ("depth", config.depth as f64),
            ("num_heads", config.num_heads as f64),
            ("mlp_ratio", config.mlp_ratio),
            ("layer_norm_eps", config.layer_norm_eps),
        ]
    };
    let decoder = |config: &MaeConfig| {
        [
            ("decoder_embed_dim", config.decoder_embed_dim as f64),
            ("decoder_depth", config.decoder_depth as f64),
            ("decoder_num_heads", config.decoder_num_heads as f64),
        ]
    };
    let mut pairs: Vec<_> = encoder(run).into_iter().zip(encoder(file)).collect();
    if part == Part::Whole {
        pairs.extend(decoder(run).into_iter().zip(decoder(file)));
    }
    let mut differences: Vec<String> = (pairs.into_iter())
        .filter(|((_, ours), (_, theirs))| ours != theirs)
        .map(|((key, ours), (_, theirs))| {
            format!("`{key}` is {ours}, expected {theirs} as in the file: set model.{key}={theirs}")
        })
        .collect();
    let (ours, theirs) = (run.channels, file.channels);
    if ours != theirs {
        differences.push(format!(
            "the run's images have {ours} channels, the file's {theirs}: \
             mae-train convert FILE NEW.safetensors --channels {ours} --adapt mean makes weights for {ours}"
        ));
    }
    differences
}

//! A classifier's own files, and its encoder from a Masked Autoencoder's.

use std::collections::HashMap;
use std::path::Path;

use tch::{Device, Kind, Tensor, no_grad};

use super::{ClassifierConfig, Pooling, VitClassifier, rows_and_columns};
use crate::checkpoint::{config_of, read_config};
use crate::error::{invalid, shape};
use crate::file_kind::classifier_of;
use crate::metadata::{CLASSIFIER, NORMALIZATION, from_metadata, json};
use crate::pos_embed::{interpolate, sincos_2d};
use crate::tensor_file::{copy_into, read_tensors, write_tensors};
use crate::{FileKind, MaeConfig, Result};

impl VitClassifier {
    /// Writes the weights under their native keys, with the configuration as metadata.
    ///
    /// The file appears whole or not at all.
    ///
    /// # Errors
    /// [`ModelError::Write`](crate::ModelError::Write) if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let metadata = HashMap::from([
            (CLASSIFIER.to_string(), json(self.config())),
            (NORMALIZATION.to_string(), json(self.normalization())),
        ]);
        write_tensors(path, &self.parameters(), metadata)
    }

    /// Reads a classifier that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`ModelError::Foreign`](crate::ModelError::Foreign) if the file holds something else;
    /// or if it is not whole, or its tensors do not fit the classifier that it describes.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        let (tensors, metadata) = read_tensors(path)?;
        let config = classifier_of(path, &metadata)?;
        let normalization = from_metadata(path, &metadata, NORMALIZATION)?;
        let model = Self::new(&config, &normalization, device, 0)?;
        copy_into(path, model.parameters(), &tensors)?;
        Ok(model)
    }

    /// The classifier that a file holds, or else the encoder of a Masked Autoencoder's with `pooling`; and which it is.
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`open_encoder`](Self::open_encoder).
    pub fn open(path: &Path, pooling: Pooling, device: Device) -> Result<(Self, FileKind)> {
        let kind = FileKind::of(&read_tensors(path)?.1);
        let model = match kind {
            FileKind::Classifier => Self::load(path, device)?,
            _ => Self::open_encoder(path, pooling, device)?,
        };
        Ok((model, kind))
    }

    /// The encoder of a Masked Autoencoder's file, for what it makes of whole images:
    /// [`features`](Self::features) and [`tokens`](Self::tokens).
    ///
    /// The images are of the size that it was trained on. There is a head, of one class, and it means nothing.
    /// The file may hold no decoder.
    ///
    /// # Errors
    /// As [`load_encoder`](Self::load_encoder), or if the model that the file describes cannot be built.
    pub fn open_encoder(path: &Path, pooling: Pooling, device: Device) -> Result<Self> {
        let (encoder, normalization) = read_config(path)?;
        let config = ClassifierConfig {
            pooling,
            ..ClassifierConfig::linear_probe(encoder.without_target(), 1)
        };
        let model = Self::new(&config, &normalization, device, 0)?;
        model.load_encoder(path)?;
        Ok(model)
    }

    /// Replaces all weights by those of a file with the same keys and shapes.
    ///
    /// # Errors
    /// [`ModelError::Keys`](crate::ModelError::Keys) with every key that is missing, extra or of another shape;
    /// then nothing changed.
    pub fn load_weights(&self, path: &Path) -> Result<()> {
        copy_into(path, self.parameters(), &read_tensors(path)?.0)
    }

    /// Replaces the head: `[classes, embed_dim]` and `[classes]`.
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if they are of other sizes; then nothing changed.
    pub fn set_head(&self, weight: &Tensor, bias: &Tensor) -> Result<()> {
        let mut parameters = self.parameters();
        let pairs = [("head.weight", weight), ("head.bias", bias)];
        for (key, tensor) in pairs {
            let expected = parameters[key].size();
            if tensor.size() != expected {
                return Err(shape(key, tensor, format!("{expected:?}")));
            }
        }
        no_grad(|| {
            for (key, tensor) in pairs {
                let mut parameter = parameters.remove(key).expect("every classifier has a head");
                parameter.f_copy_(tensor)?;
            }
            Ok(())
        })
    }

    /// Replaces the encoder's weights by those of a Masked Autoencoder's checkpoint.
    ///
    /// The decoder's, the target's and the mask token are skipped, and the encoder's `norm` where the pooling has one
    /// of its own; the head stays.
    /// If the checkpoint's grid of patches is another, sine-cosine positions are computed for the grid here,
    /// and learned ones are interpolated.
    ///
    /// # Errors
    /// [`ModelError::Keys`](crate::ModelError::Keys) with every key that is missing, extra or of another shape;
    /// [`ModelError::Config`](crate::ModelError::Config) if the number of attention heads is another,
    /// which no shape shows;
    /// or if the file is not whole or lacks its metadata. Then nothing changed.
    pub fn load_encoder(&self, path: &Path) -> Result<()> {
        let (mut found, metadata) = read_tensors(path)?;
        let pretrained = config_of(path, &found, &metadata)?;
        let num_heads = self.config.encoder.num_heads;
        if pretrained.num_heads != num_heads {
            let expected = format!("{} as in {}", pretrained.num_heads, path.display());
            return Err(invalid("num_heads", num_heads, expected));
        }
        let mut expected = self.parameters();
        expected.retain(|key, _| !key.starts_with("head.") && !key.starts_with("fc_norm."));
        found.retain(|key, _| {
            let unused_norm = key.starts_with("norm.") && !expected.contains_key(key);
            let is_mask_token = matches!(key.as_str(), "mask_token" | "encoder_mask_token");
            let is_pretraining = key.starts_with("decoder_") || key.starts_with("target.");
            !(is_pretraining || is_mask_token || unused_norm)
        });
        if let Some(pos_embed) = found.remove("pos_embed") {
            let dim = self.config.encoder.embed_dim;
            let resized = resize_positions(pos_embed, &pretrained, &self.config.encoder, dim)?;
            found.insert("pos_embed".into(), resized);
        }
        copy_into(path, expected, &found)
    }
}

/// Fixed positions differ from computed ones by rounding, in a file of f16 by up to 5e-4.
const SAME_POSITION: f64 = 1e-3;

/// Positions `dim` wide of a checkpoint for the grid of `config`; those that do not fit their own grid are left to be reported.
pub(crate) fn resize_positions(
    pos_embed: Tensor,
    from: &MaeConfig,
    config: &MaeConfig,
    dim: usize,
) -> Result<Tensor> {
    let (source, target) = (rows_and_columns(from), rows_and_columns(config));
    let fits = pos_embed.size() == [1, (1 + source.0 * source.1) as i64, dim as i64];
    if source == target || !fits {
        return Ok(pos_embed);
    }
    let pos_embed = pos_embed.to_kind(Kind::Float);
    let distance = (&pos_embed - sincos_2d(source.0, source.1, dim))
        .abs()
        .max()
        .f_double_value(&[])?;
    Ok(if distance < SAME_POSITION {
        sincos_2d(target.0, target.1, dim)
    } else {
        interpolate(&pos_embed, source, target)
    })
}

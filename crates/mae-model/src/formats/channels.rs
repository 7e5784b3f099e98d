//! Weights for images of another number of channels.

use tch::{Kind, Tensor};

use super::{Part, Weights};
use crate::error::invalid;
use crate::{Normalization, Result, Target};

/// How weights for some channels become weights for others.
///
/// A patch is embedded as the sum over its channels, so new channels are scaled by old over new channels: where they
/// show alike values, tokens keep their size.
/// The decoder predicts each channel on its own, so there nothing is scaled.
///
/// Source: Wightman, timm, `adapt_input_conv`: sums for one channel, else repeats with this scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapt {
    /// Every new channel is the mean of the old ones.
    Mean,
    /// The new channels are the old ones in turn, again and again.
    Repeat,
}

impl Adapt {
    /// A tensor with `channels` in place of those along dimension 1.
    fn apply(self, tensor: &Tensor, channels: i64) -> Tensor {
        let old = tensor.size()[1];
        match self {
            Self::Mean => {
                let mut size = tensor.size();
                size[1] = channels;
                tensor.mean_dim(1i64, true, Kind::Float).expand(size, false)
            }
            Self::Repeat => {
                let ids: Vec<i64> = (0..channels).map(|channel| channel % old).collect();
                let ids = Tensor::from_slice(&ids);
                tensor.to_kind(Kind::Float).index_select(1, &ids)
            }
        }
    }

    fn statistics(self, values: &[f32], channels: usize) -> Vec<f32> {
        let tensor = Tensor::from_slice(values).view([1, -1]);
        let adapted = self.apply(&tensor, channels as i64).contiguous();
        Vec::try_from(adapted.view([-1])).expect("one number a channel")
    }
}

impl Normalization {
    fn with_channels(&self, channels: usize, adapt: Adapt) -> Self {
        Self::new(
            adapt.statistics(&self.mean, channels),
            adapt.statistics(&self.std, channels),
        )
    }
}

impl Weights {
    /// The same model for images of `channels` channels, whose statistics are `normalization` or else adapted in the same
    /// way, unscaled.
    ///
    /// # Errors
    /// [`ModelError::Config`](crate::ModelError::Config) if there are no channels, or the decoder predicts what is not
    /// the channels of pixels.
    pub(super) fn with_channels(
        mut self,
        channels: usize,
        adapt: Adapt,
        normalization: Option<Normalization>,
    ) -> Result<Self> {
        let old = self.config.channels;
        if channels == 0 {
            return Err(invalid("channels", 0, "at least 1".into()));
        }
        if self.part == Part::Whole && self.config.target != Target::Pixels {
            let expected = "that of the file: its decoder does not predict the channels of pixels; its encoder alone can be adapted";
            return Err(invalid("channels", channels, expected.into()));
        }
        let scale = old as f64 / channels as f64;
        self.replace("patch_embed.proj.weight", |weight| {
            adapt.apply(weight, channels as i64) * scale
        });
        if self.part == Part::Whole {
            // Rows are (row, column, channel).
            for key in ["decoder_pred.weight", "decoder_pred.bias"] {
                self.replace(key, |rows| {
                    let pixels = rows.view([-1, old as i64, rows.numel() as i64 / rows.size()[0]]);
                    let mut size = rows.size();
                    size[0] = size[0] / old as i64 * channels as i64;
                    adapt.apply(&pixels, channels as i64).reshape(size)
                });
            }
        }
        self.normalization =
            normalization.unwrap_or_else(|| self.normalization.with_channels(channels, adapt));
        self.config.channels = channels;
        let how = match adapt {
            Adapt::Mean => "every new channel is the mean of the old ones",
            Adapt::Repeat => "the old channels follow each other again and again",
        };
        self.notes.push(format!(
            "{old} channels to {channels}: {how}, in the patch embedding times {old}/{channels}"
        ));
        Ok(self)
    }

    fn replace(&mut self, key: &str, change: impl FnOnce(&Tensor) -> Tensor) {
        let tensor = &self.tensors[key];
        let changed = change(tensor).to_kind(tensor.kind()).contiguous();
        self.tensors.insert(key.into(), changed);
    }
}

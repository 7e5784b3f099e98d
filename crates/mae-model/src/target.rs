//! What the decoder predicts of a patch, how far off it is, and how that becomes pixels again.

use std::collections::BTreeMap;

use tch::{Device, Kind, Reduction, Tensor};

use crate::error::invalid;
use crate::normalization::fill;
use crate::pca::{self, Pca};
use crate::statistics::{Gaps, PatchStatistics, interpolate, mean_and_std};
use crate::{LossRegion, MaeConfig, Normalization, Result, Target, Tokenizer};

/// The token of a patch of which nothing is known.
const NO_TOKEN: i64 = -100;

/// A target and what it needs to know. Patches here are normalised f32, with NaN for values that are missing.
#[derive(Debug)]
pub(crate) enum Objective {
    /// Pixels, under `norm_pix_loss` normalised by their patch.
    Pixels { norm_pix_loss: bool },
    /// Coefficients of principal components.
    Pca(Pca),
    /// Tokens of a vocabulary.
    Tokens(Box<Tokenizer>),
}

impl Objective {
    /// The target of a valid `config`; what a target learned beforehand is still to be filled in.
    pub fn new(config: &MaeConfig, normalization: &Normalization, device: Device) -> Result<Self> {
        Ok(match (config.target, &config.tokenizer) {
            (Target::Pixels, _) => Self::Pixels {
                norm_pix_loss: config.norm_pix_loss,
            },
            (Target::Pca, _) => {
                let (k, dim) = (config.target_dim() as i64, config.patch_dim() as i64);
                let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, device));
                Self::Pca(Pca {
                    mean: zeros(&[dim]),
                    components: zeros(&[k, dim]),
                })
            }
            (Target::Tokens, Some(tokenizer)) => {
                let mut tokenizer = Tokenizer::new(tokenizer, normalization, device, 0)?;
                tokenizer.freeze();
                Self::Tokens(Box::new(tokenizer))
            }
            (Target::Tokens, None) => unreachable!("a valid configuration has a tokenizer"),
        })
    }

    /// What a target learned beforehand, by the keys of a checkpoint. The tensors are shared, and do not train.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let tensors: Vec<(String, Tensor)> = match self {
            Self::Pixels { .. } => Vec::new(),
            Self::Pca(Pca { mean, components }) => vec![
                ("mean".into(), mean.shallow_clone()),
                ("components".into(), components.shallow_clone()),
            ],
            Self::Tokens(tokenizer) => tokenizer.parameters().into_iter().collect(),
        };
        (tensors.into_iter())
            .map(|(key, tensor)| (format!("target.{key}"), tensor))
            .collect()
    }

    /// Fills in the principal components.
    pub fn set_pca(&self, config: &MaeConfig, found: &Pca) -> Result<()> {
        let Self::Pca(own) = self else {
            let expected = "\"pca\" for principal components to be set".into();
            return Err(invalid("target", name(config.target), expected));
        };
        pca::check(found, config.target_dim(), config.patch_dim())?;
        own.mean.shallow_clone().copy_(&found.mean);
        own.components.shallow_clone().copy_(&found.components);
        Ok(())
    }

    /// Fills in the tokenizer's weights.
    pub fn set_tokenizer(&self, config: &MaeConfig, found: &Tokenizer) -> Result<()> {
        let Self::Tokens(own) = self else {
            let expected = "\"tokens\" for a tokenizer to be set".into();
            return Err(invalid("target", name(config.target), expected));
        };
        if found.config() != own.config() {
            let expected = format!("{:?}, as the model's", own.config());
            return Err(invalid(
                "tokenizer",
                format!("{:?}", found.config()),
                expected,
            ));
        }
        if found.normalization() != own.normalization() {
            let found = format!("{:?}", found.normalization());
            let expected = format!("{:?}, as the model's", own.normalization());
            return Err(invalid("tokenizer's normalization", found, expected));
        }
        let weights = found.parameters();
        tch::no_grad(|| {
            for (key, mut weight) in own.parameters() {
                weight.copy_(&weights[&key]);
            }
        });
        Ok(())
    }

    /// What should be predicted of the patches of `region`, in shuffled order.
    ///
    /// Where values may be missing, the target has NaN for each missing pixel; NaN for the coefficients, or -100 for the
    /// token, of a patch that has no value at all. Of a patch that has some, coefficients and tokens are those of the
    /// patch with the channels' means in the gaps.
    ///
    /// # Shapes
    /// - `visible`: `[batch, kept, patch_dim]`, `masked`: `[batch, patches - kept, patch_dim]`
    /// - `ids_shuffle`: `[batch, patches]`
    /// - returns `[batch, n, width]` in f32, or token ids `[batch, n]`; `n` is `patches - kept` or `patches`
    pub fn target(
        &self,
        visible: &Tensor,
        masked: &Tensor,
        ids_shuffle: &Tensor,
        region: LossRegion,
        gaps: Gaps,
    ) -> Result<Tensor> {
        let all = || Tensor::cat(&[visible, masked], 1);
        let patches = match region {
            LossRegion::Masked => masked.shallow_clone(),
            LossRegion::All => all(),
        };
        let filled = |patches: Tensor| match gaps {
            Gaps::None => patches,
            Gaps::Nan => fill(&patches),
        };
        let empty = (gaps == Gaps::Nan).then(|| patches.isnan().all_dim(-1, true));
        match self {
            Self::Pixels {
                norm_pix_loss: true,
            } => {
                let (mean, std) = mean_and_std(&patches, gaps);
                Ok((patches - mean) / std)
            }
            Self::Pixels {
                norm_pix_loss: false,
            } => Ok(patches),
            Self::Pca(pca) => {
                let coefficients = pca.project(&filled(patches))?;
                Ok(match empty {
                    None => coefficients,
                    Some(empty) => coefficients.masked_fill(&empty, f64::NAN),
                })
            }
            Self::Tokens(tokenizer) => {
                // A tokenizer sees whole images.
                let images = unshuffle(&filled(all()), ids_shuffle);
                let tokens = tokenizer.encode_normalized_patches(&images)?;
                let ids = match region {
                    LossRegion::Masked => {
                        ids_shuffle.narrow(1, visible.size()[1], masked.size()[1])
                    }
                    LossRegion::All => ids_shuffle.shallow_clone(),
                };
                let tokens = tokens.gather(1, &ids, false);
                Ok(match empty {
                    None => tokens,
                    Some(empty) => tokens.masked_fill(&empty.squeeze_dim(-1), NO_TOKEN),
                })
            }
        }
    }

    /// The mean squared error, or for tokens the cross-entropy; in f32 whatever autocast does.
    ///
    /// Where values may be missing, it is the mean over the images of each image's mean over what its target has, so
    /// that an image counts the same whatever share of it is missing; one whose target has nothing counts as 0.
    /// If nothing is missing, that is the mean over all.
    pub fn loss(&self, pred: &Tensor, target: &Tensor, gaps: Gaps) -> Tensor {
        let pred = pred.to_kind(Kind::Float);
        let errors = match self {
            Self::Pixels { .. } | Self::Pca(_) if gaps == Gaps::None => (pred - target).square(),
            Self::Pixels { .. } | Self::Pca(_) => {
                // In the gaps the target is the prediction: an error of NaN would make the gradient of 0 times NaN.
                let known = pred.where_self(&target.isnan(), target);
                (pred - known).square()
            }
            Self::Tokens(_) => pred
                .flatten(0, 1)
                .cross_entropy_loss::<&Tensor>(
                    &target.flatten(0, 1),
                    None,
                    Reduction::None,
                    NO_TOKEN,
                    0.0,
                )
                .view_as(target),
        };
        if gaps == Gaps::None {
            return errors.mean(Kind::Float);
        }
        let known = match self {
            Self::Pixels { .. } | Self::Pca(_) => target.isnan().logical_not(),
            Self::Tokens(_) => target.ne(NO_TOKEN),
        };
        let counts = known
            .flatten(1, -1)
            .sum_dim_intlist(1i64, false, Kind::Float);
        let sums = errors
            .flatten(1, -1)
            .sum_dim_intlist(1i64, false, Kind::Float);
        (sums / counts.clamp_min(1.0)).mean(Kind::Float)
    }

    /// Predictions as normalised pixels.
    ///
    /// # Shapes
    /// - `pred`: `[batch, patches, width]`, in the order of an image with `columns` patches a row; `patches`:
    ///   `[batch, patches, patch_dim]`, likewise
    /// - `ids_keep`: `[batch, kept]`
    /// - returns the shape of `patches`
    pub fn to_pixels(
        &self,
        pred: &Tensor,
        patches: &Tensor,
        ids_keep: &Tensor,
        columns: i64,
        statistics: PatchStatistics,
        gaps: Gaps,
    ) -> Result<Tensor> {
        let pred = pred.to_kind(Kind::Float);
        match self {
            Self::Pixels { .. } => Ok(match statistics {
                PatchStatistics::Raw => pred,
                PatchStatistics::Oracle => {
                    let (mean, std) = mean_and_std(patches, gaps);
                    pred * std + mean
                }
                PatchStatistics::Visible => {
                    let (mean, std) = mean_and_std(patches, gaps);
                    pred * interpolate(&std, ids_keep, columns)
                        + interpolate(&mean, ids_keep, columns)
                }
            }),
            Self::Pca(pca) => pca.restore(&pred),
            Self::Tokens(tokenizer) => {
                let patches = match gaps {
                    Gaps::None => patches.shallow_clone(),
                    Gaps::Nan => fill(patches),
                };
                let seen = tokenizer
                    .encode_normalized_patches(&patches)?
                    .gather(1, ids_keep, false);
                let ids = pred.argmax(-1, false).scatter(1, ids_keep, &seen);
                tokenizer.patches_of(&tokenizer.decode(&ids)?)
            }
        }
    }
}

/// Patches from shuffled order back into the image's.
///
/// # Shapes
/// - `patches`: `[batch, patches, n]`; `ids_shuffle`: `[batch, patches]`, i64
/// - returns the shape of `patches`
pub fn unshuffle(patches: &Tensor, ids_shuffle: &Tensor) -> Tensor {
    let ids_restore = ids_shuffle.argsort(1, false).unsqueeze(-1);
    patches.gather(1, &ids_restore.expand_as(patches), false)
}

fn name(target: Target) -> &'static str {
    match target {
        Target::Pixels => "\"pixels\"",
        Target::Pca => "\"pca\"",
        Target::Tokens => "\"tokens\"",
    }
}

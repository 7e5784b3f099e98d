//! The model's dimensions, and the published presets.

#[cfg(doc)]
use crate::ModelError;
use crate::error::invalid;
use crate::{Result, TokenizerConfig};
use mae_data::PatchGrid;
use serde::{Deserialize, Serialize};

/// Every dimension of a Masked Autoencoder.
///
/// Presets are functions; change a field with struct update syntax:
///
/// ```
/// use mae_model::MaeConfig;
/// let config = MaeConfig { decoder_depth: 4, ..MaeConfig::base(224) };
/// assert_eq!(config.embed_dim, 768);
/// config.validate()?;
/// # Ok::<(), mae_model::ModelError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaeConfig {
    /// Image height in pixels.
    pub image_height: usize,
    /// Image width in pixels.
    pub image_width: usize,
    /// Side of a square patch in pixels; divides height and width.
    pub patch_size: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Width of the encoder's tokens; a multiple of 4 and of `num_heads`.
    pub embed_dim: usize,
    /// Blocks of the encoder.
    pub depth: usize,
    /// Attention heads of an encoder block.
    pub num_heads: usize,
    /// Width of the decoder's tokens; a multiple of 4 and of `decoder_num_heads`.
    pub decoder_embed_dim: usize,
    /// Blocks of the decoder.
    pub decoder_depth: usize,
    /// Attention heads of a decoder block.
    pub decoder_num_heads: usize,
    /// Hidden width of a block's MLP over its token width.
    pub mlp_ratio: f64,
    /// Added to the variance in layer norms; 1e-6 in the published models.
    pub layer_norm_eps: f64,
    /// Whether the target is each patch normalised by its own mean and variance.
    pub norm_pix_loss: bool,
    /// What the decoder predicts of a patch.
    #[serde(default)]
    pub target: Target,
    /// Which patches the loss is the mean over.
    #[serde(default)]
    pub loss_region: LossRegion,
    /// Whether the encoder sees a mask token in place of each hidden patch, and the decoder adds none of its own.
    ///
    /// Source: He et al. 2021, table 1c, "encoder w/ \[M\]".
    #[serde(default)]
    pub encoder_mask_tokens: bool,
    /// Principal components whose coefficients [`Target::Pca`] predicts, at most the numbers of a patch;
    /// absent under other targets. 96 in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pca_components: Option<usize>,
    /// The tokenizer whose tokens [`Target::Tokens`] predicts, of the same images in the same patches;
    /// absent under other targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerConfig>,
}

/// What the decoder predicts of a patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Its pixels, normalised by the channels' statistics and under `norm_pix_loss` by its own.
    #[default]
    Pixels,
    /// Its coefficients of the first principal components of patches.
    ///
    /// Source: He et al. 2021, table 1d, "PCA".
    Pca,
    /// Its token, one of a [`Tokenizer`](crate::Tokenizer)'s vocabulary.
    ///
    /// Source: He et al. 2021, table 1d, "dVAE token".
    Tokens,
}

/// Which patches the loss is the mean over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossRegion {
    /// The hidden ones, as the paper does.
    #[default]
    Masked,
    /// All, as a denoising autoencoder does.
    ///
    /// Source: He et al. 2021, section 3, "Reconstruction target", footnote 1.
    All,
}

impl MaeConfig {
    /// ViT-Tiny (192 x 12) in patches of 16, with a 96 x 2 decoder.
    ///
    /// Encoder: Touvron et al. 2021, "DeiT", table 1. The decoder is this project's choice.
    pub fn tiny(image_size: usize) -> Self {
        Self {
            decoder_embed_dim: 96,
            decoder_depth: 2,
            decoder_num_heads: 3,
            ..Self::vit(image_size, 192, 12, 3)
        }
    }

    /// ViT-Small (384 x 12) in patches of 16, with a 192 x 4 decoder.
    ///
    /// Encoder: Touvron et al. 2021, "DeiT", table 1. The decoder is this project's choice.
    pub fn small(image_size: usize) -> Self {
        Self {
            decoder_embed_dim: 192,
            decoder_depth: 4,
            decoder_num_heads: 6,
            ..Self::vit(image_size, 384, 12, 6)
        }
    }

    /// ViT-Base (768 x 12) in patches of 16, with the paper's 512 x 8 decoder.
    ///
    /// Source: He et al. 2021, section 4 and appendix A.1.
    pub fn base(image_size: usize) -> Self {
        Self::vit(image_size, 768, 12, 12)
    }

    /// ViT-Large (1024 x 24) in patches of 16, with the paper's 512 x 8 decoder.
    ///
    /// Source: He et al. 2021, section 4 and appendix A.1.
    pub fn large(image_size: usize) -> Self {
        Self::vit(image_size, 1024, 24, 16)
    }

    /// ViT-Huge (1280 x 32) in patches of 14, with the paper's 512 x 8 decoder.
    ///
    /// Source: He et al. 2021, section 4 and appendix A.1.
    pub fn huge(image_size: usize) -> Self {
        Self {
            patch_size: 14,
            ..Self::vit(image_size, 1280, 32, 16)
        }
    }

    /// The preset of that name: `tiny`, `small`, `base`, `large` or `huge`.
    pub fn preset(name: &str, image_size: usize) -> Option<Self> {
        let make = match name {
            "tiny" => Self::tiny,
            "small" => Self::small,
            "base" => Self::base,
            "large" => Self::large,
            "huge" => Self::huge,
            _ => return None,
        };
        Some(make(image_size))
    }

    fn vit(image_size: usize, embed_dim: usize, depth: usize, num_heads: usize) -> Self {
        Self {
            image_height: image_size,
            image_width: image_size,
            patch_size: 16,
            channels: 3,
            embed_dim,
            depth,
            num_heads,
            decoder_embed_dim: 512,
            decoder_depth: 8,
            decoder_num_heads: 16,
            mlp_ratio: 4.0,
            layer_norm_eps: 1e-6,
            norm_pix_loss: true,
            target: Target::Pixels,
            loss_region: LossRegion::Masked,
            encoder_mask_tokens: false,
            pca_components: None,
            tokenizer: None,
        }
    }

    /// The grid of patches that an image is cut into.
    ///
    /// # Errors
    /// If the patch size does not divide height and width, or any of them is 0.
    pub fn grid(&self) -> Result<PatchGrid> {
        Ok(PatchGrid::new(
            self.image_height,
            self.image_width,
            self.patch_size,
            self.channels,
        )?)
    }

    /// The numbers of a patch.
    pub fn patch_dim(&self) -> usize {
        self.patch_size * self.patch_size * self.channels
    }

    /// What the decoder predicts of a patch: that many numbers, or the logits of that many tokens.
    ///
    /// The configuration must be valid.
    pub fn target_dim(&self) -> usize {
        match (self.target, self.pca_components, &self.tokenizer) {
            (Target::Pca, Some(components), _) => components,
            (Target::Tokens, _, Some(tokenizer)) => tokenizer.vocabulary,
            _ => self.patch_dim(),
        }
    }

    /// The same network with pixels as its target: for those who need the encoder alone, and for images of another
    /// size than a tokenizer's.
    pub fn without_target(self) -> Self {
        Self {
            target: Target::Pixels,
            pca_components: None,
            tokenizer: None,
            ..self
        }
    }

    /// Checks that a model of these dimensions can be built.
    ///
    /// # Errors
    /// [`ModelError::Config`] or [`ModelError::Grid`] with the first key that does not fit.
    pub fn validate(&self) -> Result<()> {
        self.grid()?;
        let positive = [
            ("depth", self.depth),
            ("num_heads", self.num_heads),
            ("decoder_depth", self.decoder_depth),
            ("decoder_num_heads", self.decoder_num_heads),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(invalid(key, value, "at least 1".into()));
            }
        }
        let widths = [
            ("embed_dim", self.embed_dim, self.num_heads),
            (
                "decoder_embed_dim",
                self.decoder_embed_dim,
                self.decoder_num_heads,
            ),
        ];
        for (key, width, heads) in widths {
            if width == 0 || width % 4 != 0 || width % heads != 0 {
                let expected = format!(
                    "a multiple of 4 (sine-cosine positions in two directions) and of the {heads} attention heads"
                );
                return Err(invalid(key, width, expected));
            }
            let hidden = width as f64 * self.mlp_ratio;
            if !(hidden >= 1.0 && hidden.fract() == 0.0 && hidden < 1e9) {
                let expected =
                    format!("a ratio that makes a whole hidden width of `{key}` = {width}");
                return Err(invalid("mlp_ratio", self.mlp_ratio, expected));
            }
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            return Err(invalid(
                "layer_norm_eps",
                self.layer_norm_eps,
                "between 0 and 1, for example 1e-6".into(),
            ));
        }
        self.validate_target()
    }

    fn validate_target(&self) -> Result<()> {
        if self.target != Target::Pixels && self.norm_pix_loss {
            let expected =
                "false: only pixels are normalised by their patch, and `target` is another";
            return Err(invalid("norm_pix_loss", true, expected.into()));
        }
        match (self.target, self.pca_components) {
            (Target::Pca, Some(components)) if (1..=self.patch_dim()).contains(&components) => {}
            (Target::Pca, found) => {
                let found = found.map_or("missing".into(), |components| components.to_string());
                let expected = format!("1 to {}, the numbers of a patch", self.patch_dim());
                return Err(invalid("pca_components", found, expected));
            }
            (_, None) => {}
            (_, Some(components)) => {
                let expected = "none, unless `target` is \"pca\"".into();
                return Err(invalid("pca_components", components, expected));
            }
        }
        match (self.target, &self.tokenizer) {
            (Target::Tokens, Some(tokenizer)) => self.validate_tokenizer(tokenizer),
            (Target::Tokens, None) => {
                let expected = "that of the tokens to predict".into();
                Err(invalid("tokenizer", "missing", expected))
            }
            (_, None) => Ok(()),
            (_, Some(_)) => {
                let expected = "no tokenizer, unless `target` is \"tokens\"".into();
                Err(invalid("tokenizer", "given", expected))
            }
        }
    }

    fn validate_tokenizer(&self, tokenizer: &TokenizerConfig) -> Result<()> {
        tokenizer.validate()?;
        for (key, found, own) in [
            (
                "tokenizer.image_height",
                tokenizer.image_height,
                self.image_height,
            ),
            (
                "tokenizer.image_width",
                tokenizer.image_width,
                self.image_width,
            ),
            (
                "tokenizer.patch_size",
                tokenizer.patch_size,
                self.patch_size,
            ),
            ("tokenizer.channels", tokenizer.channels, self.channels),
        ] {
            if found != own {
                return Err(invalid(key, found, format!("{own}, as the model has")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid() {
        for name in ["tiny", "small", "base", "large", "huge"] {
            MaeConfig::preset(name, 224).unwrap().validate().unwrap();
        }
        assert_eq!(MaeConfig::preset("giant", 224), None);
    }

    #[test]
    fn invalid_dimensions_name_the_key() {
        let check = |config: MaeConfig, expected: &str| {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        let tiny = MaeConfig::tiny(32);
        check(
            MaeConfig {
                depth: 0,
                ..tiny.clone()
            },
            "`depth` is 0",
        );
        check(
            MaeConfig {
                embed_dim: 190,
                ..tiny.clone()
            },
            "`embed_dim` is 190",
        );
        check(
            MaeConfig {
                decoder_num_heads: 5,
                ..tiny.clone()
            },
            "`decoder_embed_dim` is 96",
        );
        check(
            MaeConfig {
                mlp_ratio: 0.013,
                ..tiny.clone()
            },
            "`mlp_ratio` is 0.013",
        );
        check(
            MaeConfig {
                patch_size: 5,
                ..tiny.clone()
            },
            "5",
        );
        let pixels = MaeConfig {
            norm_pix_loss: false,
            ..tiny.clone()
        };
        let pca = |pca_components| MaeConfig {
            target: Target::Pca,
            pca_components,
            ..pixels.clone()
        };
        pca(Some(768)).validate().unwrap();
        check(pca(Some(769)), "`pca_components` is 769, expected 1 to 768");
        check(pca(Some(0)), "`pca_components` is 0");
        check(pca(None), "`pca_components` is missing");
        check(
            MaeConfig {
                norm_pix_loss: true,
                ..pca(Some(96))
            },
            "`norm_pix_loss` is true, expected false",
        );
        check(
            MaeConfig {
                pca_components: Some(96),
                ..tiny
            },
            "`pca_components` is 96, expected none",
        );

        let tokenizer = TokenizerConfig {
            image_height: 32,
            image_width: 32,
            patch_size: 16,
            channels: 3,
            vocabulary: 16,
            width: 8,
            blocks: 1,
        };
        let tokens = |tokenizer| MaeConfig {
            target: Target::Tokens,
            tokenizer,
            ..pixels.clone()
        };
        tokens(Some(tokenizer.clone())).validate().unwrap();
        check(tokens(None), "`tokenizer` is missing");
        check(
            tokens(Some(TokenizerConfig {
                patch_size: 8,
                ..tokenizer.clone()
            })),
            "`tokenizer.patch_size` is 8, expected 16",
        );
        check(
            tokens(Some(TokenizerConfig {
                channels: 1,
                ..tokenizer.clone()
            })),
            "`tokenizer.channels` is 1, expected 3",
        );
        check(
            MaeConfig {
                tokenizer: Some(tokenizer),
                ..pixels.clone()
            },
            "unless `target` is \"tokens\"",
        );
    }
}

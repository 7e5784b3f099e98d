//! How many operations the model needs, for a reader who knows how many the machine can do.

use mae_data::kept_patches;

use crate::classifier::ClassifierConfig;
use crate::{LossRegion, MaeConfig, Result, Target};

/// Floating-point operations of one image's forward pass; a multiply-add is two.
///
/// Counted are the matrix products, attention's own included, for the tokens whose results are needed:
/// the encoder sees visible patches only, unless it has mask tokens, and after the keys and values of its last block
/// the decoder computes only the patches that the loss is over.
/// What makes a target of the pixels is counted, too: a tokenizer's encoder, a projection on principal components.
/// Norms, activations, sums and the loss are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flops {
    /// Patch embedding and blocks.
    pub encoder: u64,
    /// Embedding of the latents, blocks and head.
    pub decoder: u64,
    /// What makes the target, forward only; 0 for pixels.
    pub target: u64,
}

impl Flops {
    /// The whole forward pass.
    pub fn forward(&self) -> u64 {
        self.encoder + self.decoder + self.target
    }

    /// Forward and backward: three times the forward pass, as each product has a gradient by either factor; the
    /// target has none.
    ///
    /// Source: Chowdhery et al. 2022, arXiv 2204.02311, appendix B, "model FLOPs utilization".
    pub fn training(&self) -> u64 {
        3 * (self.encoder + self.decoder) + self.target
    }
}

impl MaeConfig {
    /// Floating-point operations of one image's forward pass with `mask_ratio` of its patches hidden.
    ///
    /// With `n` tokens in, `q` tokens out, width `d` and hidden width `h`, a block has
    ///
    /// ```text
    /// 2 (q d d + 2 n d d)     queries; keys and values
    /// 2 (2 q n d)             scores, weighted values
    /// 2 (q d d)               projection
    /// 2 (2 q d h)             MLP
    /// ```
    ///
    /// where `q = n` in all blocks but the decoder's last.
    ///
    /// # Errors
    /// If the model cannot be built, or `mask_ratio` hides nothing or everything.
    pub fn flops(&self, mask_ratio: f64) -> Result<Flops> {
        self.validate()?;
        let grid = self.grid()?;
        let patch_dim = grid.patch_dim() as u64;
        let patches = grid.patches() as u64;
        let kept = kept_patches(grid.patches(), mask_ratio)? as u64;
        let predicted = match self.loss_region {
            LossRegion::Masked => patches - kept,
            LossRegion::All => patches,
        };
        let (dim, decoder_dim) = (self.embed_dim as u64, self.decoder_embed_dim as u64);
        // The class token is one more.
        let all = 1 + patches;
        let encoded = match self.encoder_mask_tokens {
            true => all,
            false => 1 + kept,
        };

        let embedding = 2 * kept * patch_dim * dim;
        let encoder = embedding + self.depth as u64 * self.block(encoded, encoded, dim);

        let embedding = 2 * encoded * dim * decoder_dim;
        let blocks = (self.decoder_depth as u64 - 1) * self.block(all, all, decoder_dim)
            + self.block(all, predicted, decoder_dim);
        let target_dim = self.target_dim() as u64;
        let head = 2 * predicted * decoder_dim * target_dim;
        let target = match (self.target, &self.tokenizer) {
            (Target::Pca, _) => 2 * predicted * patch_dim * target_dim,
            (Target::Tokens, Some(tokenizer)) => tokenizer.encoder_flops(),
            _ => 0,
        };
        Ok(Flops {
            encoder,
            decoder: embedding + blocks + head,
            target,
        })
    }

    /// A block of width `d` that takes `n` tokens and gives `q`.
    fn block(&self, n: u64, q: u64, d: u64) -> u64 {
        let hidden = (d as f64 * self.mlp_ratio) as u64;
        2 * (q * d * d + 2 * n * d * d + 2 * q * n * d + q * d * d + 2 * q * d * hidden)
    }
}

impl ClassifierConfig {
    /// Floating-point operations of one image's forward and backward pass when the last `trained_blocks` are trained.
    ///
    /// Without gradients for the blocks before them, if they are not all. The configuration must be valid.
    pub fn training_flops(&self, trained_blocks: usize) -> u64 {
        let encoder = &self.encoder;
        let side = encoder.patch_size as u64;
        let patches = encoder.image_height as u64 / side * (encoder.image_width as u64 / side);
        let dim = encoder.embed_dim as u64;
        let embedding = 2 * patches * side * side * encoder.channels as u64 * dim;
        let block = encoder.block(1 + patches, 1 + patches, dim);
        let head = 2 * dim * self.classes as u64;
        let trained = trained_blocks.min(encoder.depth) as u64;
        let forward = embedding + encoder.depth as u64 * block + head;
        let trained_embedding = if trained == encoder.depth as u64 {
            embedding
        } else {
            0
        };
        forward + 2 * (trained_embedding + trained * block + head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenizerConfig;

    #[test]
    fn a_small_model_counted_by_hand() {
        // 4 patches of 2 x 2 grey pixels, 2 of them visible.
        let config = MaeConfig {
            image_height: 4,
            image_width: 4,
            patch_size: 2,
            channels: 1,
            embed_dim: 8,
            depth: 1,
            num_heads: 2,
            decoder_embed_dim: 4,
            decoder_depth: 2,
            decoder_num_heads: 1,
            mlp_ratio: 2.0,
            ..MaeConfig::tiny(4)
        };
        let flops = config.flops(0.5).unwrap();
        // Products of rows x inner x columns, before the factor of 2.
        let embed = 2 * 4 * 8;
        let block = 3 * 8 * 24 + 3 * 8 * 3 + 3 * 3 * 8 + 3 * 8 * 8 + 3 * 8 * 16 + 3 * 16 * 8;
        assert_eq!(flops.encoder, 2 * (embed + block));

        let embed = 3 * 8 * 4;
        let block = 5 * 4 * 12 + 5 * 4 * 5 + 5 * 5 * 4 + 5 * 4 * 4 + 5 * 4 * 8 + 5 * 8 * 4;
        let queries = 2 * 4 * 4;
        let last = queries + 5 * 4 * 8 + 2 * 4 * 5 + 2 * 5 * 4 + 2 * 4 * 4 + 2 * 4 * 8 + 2 * 8 * 4;
        let head = 2 * 4 * 4;
        assert_eq!(flops.decoder, 2 * (embed + block + last + head));
        assert_eq!(flops.training(), 3 * (flops.encoder + flops.decoder));

        // The loss on all four patches: the last block and the head compute two more.
        let all = MaeConfig {
            loss_region: LossRegion::All,
            ..config.clone()
        };
        let last = 4 * 4 * 4 + 5 * 4 * 8 + 4 * 4 * 5 + 4 * 5 * 4 + 4 * 4 * 4 + 2 * 4 * 4 * 8;
        let head = 4 * 4 * 4;
        let expected = Flops {
            decoder: 2 * (embed + block + last + head),
            ..flops
        };
        assert_eq!(all.flops(0.5).unwrap(), expected);

        // Mask tokens in the encoder: two patches embedded still, but five tokens in its block and to the decoder.
        let with_tokens = MaeConfig {
            encoder_mask_tokens: true,
            ..config.clone()
        };
        let more = with_tokens.flops(0.5).unwrap();
        let block = 5 * 8 * 24 + 2 * 5 * 8 * 5 + 5 * 8 * 8 + 2 * 5 * 8 * 16;
        assert_eq!(more.encoder, 2 * (2 * 4 * 8 + block));
        assert_eq!(more.decoder, flops.decoder + 2 * (2 * 8 * 4));

        // Three components in place of four pixels, of the two masked patches.
        let pca = MaeConfig {
            target: Target::Pca,
            pca_components: Some(3),
            norm_pix_loss: false,
            ..config.clone()
        };
        let found = pca.flops(0.5).unwrap();
        assert_eq!(found.decoder, flops.decoder - 2 * (2 * 4));
        assert_eq!(found.target, 2 * (2 * 4 * 3));
        assert_eq!(
            found.training(),
            3 * (found.encoder + found.decoder) + found.target
        );

        // A vocabulary of 16; the tokenizer sees all four patches.
        let tokens = MaeConfig {
            target: Target::Tokens,
            tokenizer: Some(TokenizerConfig {
                image_height: 4,
                image_width: 4,
                patch_size: 2,
                channels: 1,
                vocabulary: 16,
                width: 8,
                blocks: 1,
            }),
            norm_pix_loss: false,
            ..config
        };
        let found = tokens.flops(0.5).unwrap();
        assert_eq!(found.decoder, flops.decoder + 2 * (2 * 4 * 12));
        let (down, block, logits) = (4 * 4 * 8, 2 * 4 * 9 * 8 * 8, 4 * 8 * 16);
        assert_eq!(found.target, 2 * (down + block + logits));
    }

    /// He et al. 2021, section 4.1, "Mask token": leaving them out saves a factor of 3.3 for ViT-L.
    #[test]
    fn mask_tokens_in_the_encoder_cost_what_the_paper_says() {
        let training = |encoder_mask_tokens| {
            let config = MaeConfig {
                encoder_mask_tokens,
                ..MaeConfig::large(224)
            };
            config.flops(0.75).unwrap().training() as f64
        };
        let ratio = training(true) / training(false);
        assert!((3.2..3.4).contains(&ratio), "{ratio}");
    }

    /// The numbers of PyTorch's `FlopCounterMode`: see `tests/fixtures/count_flops.py`.
    #[test]
    fn pytorch_counts_the_same() {
        let config = MaeConfig {
            patch_size: 4,
            ..MaeConfig::tiny(32)
        };
        let expected = Flops {
            encoder: 183_444_480,
            decoder: 29_510_016,
            target: 0,
        };
        assert_eq!(config.flops(0.75).unwrap(), expected);
        let all = MaeConfig {
            loss_region: LossRegion::All,
            ..config.clone()
        };
        let decoder = 33_005_952;
        assert_eq!(
            all.flops(0.75).unwrap(),
            Flops {
                decoder,
                ..expected
            }
        );
        let with_tokens = MaeConfig {
            encoder_mask_tokens: true,
            ..config
        };
        let expected = Flops {
            encoder: 729_326_592,
            decoder: 31_279_488,
            target: 0,
        };
        assert_eq!(with_tokens.flops(0.75).unwrap(), expected);
    }

    #[test]
    fn a_classifier_sees_all_patches_and_trains_what_it_is_told() {
        let encoder = MaeConfig {
            patch_size: 4,
            ..MaeConfig::tiny(32)
        };
        let (depth, classes) = (encoder.depth, 10);
        let config = ClassifierConfig::fine_tune(encoder.clone(), classes);
        // 64 patches of 48 values, 192 wide, a block of 65 tokens.
        let embedding = 2 * 64 * 48 * 192;
        let block = 2 * 65 * 192 * (12 * 192 + 2 * 65);
        let head = 2 * 192 * 10;
        let forward = embedding + depth as u64 * block + head;
        assert_eq!(config.training_flops(depth), 3 * forward);
        assert_eq!(
            config.training_flops(1),
            forward + 2 * (block + head),
            "one block and the head"
        );
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        let config = MaeConfig::tiny(224);
        assert!(config.flops(1.0).is_err());
        let config = MaeConfig { depth: 0, ..config };
        assert!(config.flops(0.75).is_err());
    }
}

//! What a tokenizer is built from, and how many operations it needs.

use mae_data::PatchGrid;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::invalid;

/// Every dimension of a tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// Image height in pixels.
    pub image_height: usize,
    /// Image width in pixels.
    pub image_width: usize,
    /// Side of the square patch that a token stands for, in pixels, at least 2; divides height and width.
    pub patch_size: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Number of different tokens, at least 2.
    pub vocabulary: usize,
    /// Channels of the feature maps with one position a patch; each finer map has half of the next coarser one's,
    /// but no fewer than 8.
    pub width: usize,
    /// Residual blocks at each size of feature maps.
    pub blocks: usize,
}

/// Channels that no feature map has fewer of.
const MIN_WIDTH: usize = 8;

/// What happens between two sizes of feature maps: the encoder goes from `outer` to `inner` channels while each
/// side shrinks by `factor`, and the decoder back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    pub factor: usize,
    pub outer: usize,
    pub inner: usize,
}

impl TokenizerConfig {
    /// The grid of patches, each with a token.
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

    /// Checks that a tokenizer of these dimensions can be built.
    ///
    /// # Errors
    /// [`ModelError::Config`](crate::ModelError::Config) or [`ModelError::Grid`](crate::ModelError::Grid) with
    /// the first key that does not fit.
    pub fn validate(&self) -> Result<()> {
        self.grid()?;
        for (key, value, least, why) in [
            (
                "patch_size",
                self.patch_size,
                2,
                "a token stands for several pixels",
            ),
            (
                "vocabulary",
                self.vocabulary,
                2,
                "one token alone says nothing",
            ),
            ("width", self.width, MIN_WIDTH, "for example 64"),
            ("blocks", self.blocks, 1, "for example 1"),
        ] {
            if value < least {
                return Err(invalid(key, value, format!("at least {least}: {why}")));
            }
        }
        Ok(())
    }

    /// Floating-point operations of one image's forward and backward pass, three times the forward pass.
    ///
    /// Counted are convolutions and matrix products, a multiply-add as two. The configuration must be valid.
    pub fn training_flops(&self) -> u64 {
        // The decoder has the encoder's products in reverse.
        3 * 2 * self.encoder_flops()
    }

    /// Floating-point operations of encoding one image, counted likewise.
    pub fn encoder_flops(&self) -> u64 {
        let patches = self.image_height / self.patch_size * (self.image_width / self.patch_size);
        let mut positions = self.image_height * self.image_width;
        let mut multiply_adds = patches * self.width * self.vocabulary;
        for Stage {
            factor,
            outer,
            inner,
        } in self.stages()
        {
            // One product of a patch of `factor * factor` positions with a matrix.
            multiply_adds += positions * outer * inner;
            positions /= factor * factor;
            multiply_adds += self.blocks * 2 * positions * 9 * inner * inner;
        }
        2 * multiply_adds as u64
    }

    /// From pixels to patches: one stage for each prime factor of the patch size, the largest first, for the
    /// feature maps of the first are the largest.
    pub(super) fn stages(&self) -> Vec<Stage> {
        let factors = prime_factors(self.patch_size);
        let mut outer = self.channels;
        let coarser = (0..factors.len()).rev();
        factors
            .into_iter()
            .rev()
            .zip(coarser)
            .map(|(factor, coarser)| {
                let inner = (self.width >> coarser.min(63)).max(MIN_WIDTH);
                let stage = Stage {
                    factor,
                    outer,
                    inner,
                };
                outer = inner;
                stage
            })
            .collect()
    }
}

/// In ascending order, each as often as it divides.
fn prime_factors(mut number: usize) -> Vec<usize> {
    let mut factors = Vec::new();
    let mut factor = 2;
    while factor * factor <= number {
        while number.is_multiple_of(factor) {
            factors.push(factor);
            number /= factor;
        }
        factor += 1;
    }
    if number > 1 {
        factors.push(number);
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(patch_size: usize, width: usize) -> TokenizerConfig {
        TokenizerConfig {
            image_height: patch_size,
            image_width: 2 * patch_size,
            patch_size,
            channels: 3,
            vocabulary: 16,
            width,
            blocks: 1,
        }
    }

    #[test]
    fn stages_multiply_to_the_patch_and_end_at_the_width() {
        let of = |patch_size, width| -> Vec<[usize; 3]> {
            let stages = config(patch_size, width).stages();
            stages
                .iter()
                .map(|s| [s.factor, s.outer, s.inner])
                .collect()
        };
        assert_eq!(of(4, 64), [[2, 3, 32], [2, 32, 64]]);
        assert_eq!(of(14, 64), [[7, 3, 32], [2, 32, 64]]);
        assert_eq!(of(7, 20), [[7, 3, 20]]);
        assert_eq!(
            of(16, 32),
            [[2, 3, 8], [2, 8, 8], [2, 8, 16], [2, 16, 32]],
            "never below 8"
        );
    }

    #[test]
    fn what_cannot_be_built_names_its_key() {
        let check = |config: TokenizerConfig, expected: &str| {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        let good = config(4, 8);
        good.validate().unwrap();
        let change = |change: fn(&mut TokenizerConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config
        };
        check(config(1, 8), "`patch_size` is 1, expected at least 2");
        check(change(|c| c.vocabulary = 1), "`vocabulary` is 1");
        check(change(|c| c.width = 7), "`width` is 7");
        check(change(|c| c.blocks = 0), "`blocks` is 0");
        check(change(|c| c.image_height = 5), "5");
    }
}

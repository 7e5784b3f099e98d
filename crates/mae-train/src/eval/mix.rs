//! Mixup and CutMix of a batch with itself in reverse order, and the soft targets that go with them.
//!
//! Source: Zhang et al. 2018, "mixup", arXiv 1710.09412; Yun et al. 2019, "CutMix", arXiv 1905.04899.

use std::ops::Range;

use tch::{Kind, Tensor};

use crate::eval::random::{Random, Stream};

/// From which distribution a [`Mix`] is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixConfig {
    /// Mixup's weight is Beta(`mixup_alpha`, `mixup_alpha`); above 0.
    pub mixup_alpha: f64,
    /// CutMix's kept area is Beta(`cutmix_alpha`, `cutmix_alpha`); above 0.
    pub cutmix_alpha: f64,
    /// Probability of CutMix; else Mixup.
    pub switch_prob: f64,
}

impl Default for MixConfig {
    /// As published: Mixup 0.8 and CutMix 1.0 with equal probability.
    ///
    /// Source: He et al. 2021, appendix A.1, table 9.
    fn default() -> Self {
        Self {
            mixup_alpha: 0.8,
            cutmix_alpha: 1.0,
            switch_prob: 0.5,
        }
    }
}

impl MixConfig {
    /// The mix of one batch of images of `height` times `width` pixels.
    pub fn sample(&self, height: i64, width: i64, seed: u64, step: u64) -> Mix {
        let mut random = Random::new(Stream::Mix, [seed, step, 0]);
        if random.unit() < self.switch_prob {
            let lam = random.beta(self.cutmix_alpha);
            let center = (random.below(height), random.below(width));
            Mix::cutmix(height, width, lam, center)
        } else {
            let lam = random.beta(self.mixup_alpha);
            Mix::Mixup { lam }
        }
    }
}

/// How image `i` of a batch is mixed with image `batch - 1 - i`; `lam` is the share of image `i`.
#[derive(Clone, Debug, PartialEq)]
pub enum Mix {
    /// A weighted mean of the two images.
    Mixup {
        /// Weight of the image itself.
        lam: f64,
    },
    /// A box of the other image.
    Cutmix {
        /// Rows of the box.
        rows: Range<i64>,
        /// Columns of the box.
        columns: Range<i64>,
        /// Share of the area outside the box.
        lam: f64,
    },
}

impl Mix {
    /// A box of `1 - lam` of the area around `center` (row, column), clipped at the image's sides.
    ///
    /// The box's `lam` is that of the clipped box.
    pub fn cutmix(height: i64, width: i64, lam: f64, center: (i64, i64)) -> Self {
        let side = (1.0 - lam).sqrt();
        let range = |length: i64, center: i64| {
            let cut = (length as f64 * side) as i64;
            let start = center - cut / 2;
            start.clamp(0, length)..(start + cut).clamp(0, length)
        };
        let (rows, columns) = (range(height, center.0), range(width, center.1));
        let area = (rows.end - rows.start) * (columns.end - columns.start);
        Self::Cutmix {
            rows,
            columns,
            lam: 1.0 - area as f64 / (height * width) as f64,
        }
    }

    /// The mixed batch.
    ///
    /// # Shapes
    /// - `images`: `[batch, height, width, channels]`, normalised f32, of the size that `self` was made for
    /// - returns the same shape
    pub fn images(&self, images: &Tensor) -> Tensor {
        match self {
            Self::Mixup { lam } => weighted(images, *lam),
            Self::Cutmix { rows, columns, .. } => {
                let cut = |tensor: &Tensor| {
                    tensor.narrow(1, rows.start, rows.end - rows.start).narrow(
                        2,
                        columns.start,
                        columns.end - columns.start,
                    )
                };
                let mixed = images.copy();
                cut(&mixed).copy_(&cut(images).flip([0]));
                mixed
            }
        }
    }

    /// The targets of the mixed batch.
    ///
    /// # Shapes
    /// - `targets`: `[batch, classes]`, f32, each row of sum 1
    /// - returns the same shape
    pub fn targets(&self, targets: &Tensor) -> Tensor {
        match self {
            Self::Mixup { lam } | Self::Cutmix { lam, .. } => weighted(targets, *lam),
        }
    }
}

fn weighted(batch: &Tensor, lam: f64) -> Tensor {
    batch * lam + batch.flip([0]) * (1.0 - lam)
}

/// One-hot targets of which `smoothing` is spread over all classes.
///
/// # Shapes
/// - `labels`: `[batch]`, i64, each below `classes`
/// - returns `[batch, classes]`, f32, each row of sum 1
///
/// Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
pub fn smooth_one_hot(labels: &Tensor, classes: usize, smoothing: f64) -> Tensor {
    labels.one_hot(classes as i64).to_kind(Kind::Float) * (1.0 - smoothing)
        + smoothing / classes as f64
}

/// Mean cross-entropy of logits and the probabilities they should give, in f32 whatever autocast does.
///
/// # Shapes
/// - `logits`: `[batch, classes]`
/// - `targets`: `[batch, classes]`, f32, each row of sum 1
/// - returns a scalar, f32
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    let log_probabilities = logits.log_softmax(-1, Kind::Float);
    -(targets * log_probabilities)
        .sum_dim_intlist(-1i64, false, Kind::Float)
        .mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lam(mix: &Mix) -> f64 {
        match mix {
            Mix::Mixup { lam } | Mix::Cutmix { lam, .. } => *lam,
        }
    }

    #[test]
    fn seed_and_step_name_the_mix() {
        let sample = |seed, step| MixConfig::default().sample(32, 48, seed, step);
        assert_eq!(sample(1, 2), sample(1, 2));
        assert_ne!(sample(1, 2), sample(1, 3));
        assert_ne!(sample(1, 2), sample(2, 2));
    }

    #[test]
    fn both_kinds_come_at_their_rate_and_are_valid() {
        let config = MixConfig {
            switch_prob: 0.25,
            ..MixConfig::default()
        };
        let mixes: Vec<Mix> = (0..4000).map(|i| config.sample(7, 12, 3, i)).collect();
        let cutmix = mixes.iter().filter(|m| matches!(m, Mix::Cutmix { .. }));
        // Binomial(4000, 1/4) has a standard deviation of 27: allow five of them.
        assert!(cutmix.count().abs_diff(1000) < 137);
        for mix in &mixes {
            assert!((0.0..=1.0).contains(&lam(mix)), "{mix:?}");
            if let Mix::Cutmix { rows, columns, .. } = mix {
                assert!(rows.start <= rows.end && rows.end <= 7, "{mix:?}");
                assert!(columns.start <= columns.end && columns.end <= 12, "{mix:?}");
            }
        }
    }

    #[test]
    fn an_empty_box_changes_nothing() {
        let mix = Mix::cutmix(4, 4, 1.0, (2, 2));
        let images = Tensor::from_slice(&(0..64).map(|i| i as f32).collect::<Vec<_>>());
        let images = images.view([2, 4, 4, 2]);
        assert_eq!(lam(&mix), 1.0);
        assert_eq!(mix.images(&images), images);
    }

    #[test]
    fn the_loss_gradient_is_softmax_minus_target() {
        let logits = Tensor::from_slice(&[0.5f32, -1.0, 2.0, 0.0, 1.0, -2.0])
            .view([2, 3])
            .set_requires_grad(true);
        let targets = Tensor::from_slice(&[0.2f32, 0.3, 0.5, 1.0, 0.0, 0.0]).view([2, 3]);
        soft_cross_entropy(&logits, &targets).backward();
        let expected = (logits.softmax(-1, Kind::Float) - targets) / 2.0;
        let error = (logits.grad() - expected).abs().max().double_value(&[]);
        assert!(error < 1e-6, "{error}");
    }
}

//! The crate's only source of randomness.
//!
//! A value depends on (seed, epoch, index, stream) and on nothing else, so it is the same for any
//! number of workers and after any resume.
//! ChaCha8 is specified to the bit, and the mapping from its words to integers and floats is
//! written out here, so that no release of a dependency can change a mask.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

/// Names one sample of one epoch of one run: all that its randomness may depend on.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct SampleKey {
    /// The seed of the run.
    pub seed: u64,
    /// The pass over the data set, from 0.
    pub epoch: u64,
    /// The index of the image in the data set.
    pub index: u64,
}

/// What a random number is for: two streams of the same key are independent.
///
/// The numbers are part of the values, so never change or reuse one.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Stream {
    Mask = 1,
    Crop = 2,
    Flip = 3,
    Order = 4,
    Scene = 5,
    Statistics = 6,
    HoldOut = 7,
    RandAugment = 8,
    ColorJitter = 9,
}

/// Random numbers of one [`Stream`] of one [`SampleKey`].
#[derive(Clone, Debug)]
pub(crate) struct Rng(ChaCha8Rng);

impl Rng {
    pub(crate) fn new(key: SampleKey, stream: Stream) -> Rng {
        let mut seed = [0; 32];
        let words = [key.seed, key.epoch, key.index, stream as u64];
        for (bytes, word) in seed.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Rng(ChaCha8Rng::from_seed(seed))
    }

    /// A uniform integer in `0..bound`; `bound` must not be 0.
    ///
    /// Source: Lemire 2019, "Fast random integer generation in an interval", algorithm 5.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        debug_assert!(bound > 0);
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(bound);
            let low = product as u64;
            // The second test costs a division, the first one almost always spares it.
            if low >= bound || low >= bound.wrapping_neg() % bound {
                return (product >> 64) as u64;
            }
        }
    }

    /// A uniform float in `[0, 1)` with 53 random bits.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A uniform float in `[low, high)`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A normal float with mean 0 and standard deviation 1.
    ///
    /// Source: Box and Muller 1958, "A note on the generation of random normal deviates".
    pub(crate) fn normal(&mut self) -> f64 {
        // 1 - unit() is never 0, so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Brings `values` into a uniformly random order (Fisher-Yates, from the end).
    pub(crate) fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SampleKey = SampleKey {
        seed: 7,
        epoch: 1,
        index: 2,
    };

    /// The values come from `tests/fixtures/masks.py`.
    #[test]
    fn values_are_pinned() {
        let mut rng = Rng::new(KEY, Stream::Mask);
        let below: Vec<_> = (0..6).map(|_| rng.below(1000)).collect();
        assert_eq!(below, [552, 537, 573, 881, 245, 515]);
        assert_eq!(rng.unit(), 0.323_422_353_566_427_35);
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let first = |key, stream| Rng::new(key, stream).below(u64::MAX);
        let base = first(KEY, Stream::Mask);
        assert_eq!(base, first(KEY, Stream::Mask));
        assert_ne!(base, first(KEY, Stream::Crop));
        assert_ne!(base, first(SampleKey { seed: 8, ..KEY }, Stream::Mask));
        assert_ne!(base, first(SampleKey { epoch: 0, ..KEY }, Stream::Mask));
        assert_ne!(base, first(SampleKey { index: 3, ..KEY }, Stream::Mask));
    }

    #[test]
    fn below_is_uniform_and_in_range() {
        let mut rng = Rng::new(KEY, Stream::Order);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7) as usize] += 1;
        }
        // Binomial(70000, 1/7) has a standard deviation of 93: allow five of them.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 465));
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn unit_fills_its_interval() {
        let mut rng = Rng::new(KEY, Stream::Crop);
        let values: Vec<_> = (0..10_000).map(|_| rng.unit()).collect();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        let mean = values.iter().sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.015, "mean {mean}");
    }

    #[test]
    fn normal_has_mean_0_and_variance_1() {
        let mut rng = Rng::new(KEY, Stream::RandAugment);
        let values: Vec<_> = (0..10_000).map(|_| rng.normal()).collect();
        let mean = values.iter().sum::<f64>() / 10_000.0;
        let variance = values.iter().map(|value| value * value).sum::<f64>() / 10_000.0;
        // Standard deviations of 0.01 and 0.014: allow five of them.
        assert!(mean.abs() < 0.05, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.07, "variance {variance}");
    }
}

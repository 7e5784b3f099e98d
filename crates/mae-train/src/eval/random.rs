//! Random numbers that depend on their names alone, the same on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What the numbers are for: two streams of the same words are independent.
///
/// The numbers are part of the values, so never change or reuse one.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    Mix = 1,
    Erase = 2,
    ProbeOrder = 3,
    ProbeHead = 4,
}

/// A generator named by a stream and three words, as seed, epoch and index.
#[derive(Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(stream: Stream, words: [u64; 3]) -> Self {
        let mut seed = [0; 32];
        let words = words.into_iter().chain([stream as u64]);
        for (bytes, word) in seed.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(seed))
    }

    /// Uniform in `[0, 1)`, with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `[low, high)`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A uniform integer in `0..bound`; the bias is below `bound / 2^53`.
    pub fn below(&mut self, bound: i64) -> i64 {
        (self.unit() * bound as f64) as i64
    }

    /// One standard normal by the Box-Muller transform.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Beta(`alpha`, `alpha`), for an `alpha` of about 1: the wait grows as 4^`alpha`.
    ///
    /// Source: Jöhnk 1964, "Erzeugung von betaverteilten und gammaverteilten Zufallszahlen".
    pub fn beta(&mut self, alpha: f64) -> f64 {
        loop {
            let x = self.unit().powf(1.0 / alpha);
            let y = self.unit().powf(1.0 / alpha);
            if x + y > 0.0 && x + y <= 1.0 {
                return x / (x + y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_and_variance(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let values: Vec<f64> = (0..100_000).map(|_| draw()).collect();
        let mean = values.iter().sum::<f64>() / 1e5;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 1e5;
        (mean, variance)
    }

    #[test]
    fn moments_are_the_distributions() {
        let mut random = Random::new(Stream::Mix, [1, 2, 3]);
        // Five standard deviations of the mean and, generously, of the variance.
        let mut check =
            |name, draw: &mut dyn FnMut(&mut Random) -> f64, mean: f64, variance: f64| {
                let found = mean_and_variance(|| draw(&mut random));
                let limit = 5.0 * (variance / 1e5).sqrt();
                assert!((found.0 - mean).abs() < limit, "{name}: mean {}", found.0);
                assert!(
                    (found.1 / variance - 1.0).abs() < 0.025,
                    "{name}: variance {}",
                    found.1
                );
            };
        check("unit", &mut Random::unit, 0.5, 1.0 / 12.0);
        check("normal", &mut Random::normal, 0.0, 1.0);
        // The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
        for alpha in [0.4, 0.8, 1.0, 2.0] {
            let variance = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            check("beta", &mut |r| r.beta(alpha), 0.5, variance);
        }
        check("below", &mut |r| r.below(5) as f64, 2.0, 2.0);
    }

    #[test]
    fn every_word_and_the_stream_name_the_numbers() {
        let first = |stream, words| Random::new(stream, words).unit();
        let base = first(Stream::Mix, [1, 2, 3]);
        assert_eq!(base, first(Stream::Mix, [1, 2, 3]));
        for other in [
            first(Stream::Erase, [1, 2, 3]),
            first(Stream::Mix, [0, 2, 3]),
            first(Stream::Mix, [1, 0, 3]),
            first(Stream::Mix, [1, 2, 0]),
        ] {
            assert_ne!(base, other);
        }
    }
}

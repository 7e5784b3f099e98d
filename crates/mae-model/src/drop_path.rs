//! Drop path (stochastic depth): in training, an image skips a residual branch now and then.
//!
//! The random numbers are drawn on the host from (seed, step), so they are the same on every device.
//!
//! Source: Huang et al. 2016, "Deep Networks with Stochastic Depth", arXiv 1603.09382.

use tch::{Device, Tensor};

use crate::init::{generator, uniform};

/// The rate of each block: linear from 0 at the first to `drop_path` at the last.
pub fn drop_path_rates(depth: usize, drop_path: f64) -> Vec<f64> {
    let last = depth.saturating_sub(1).max(1) as f64;
    (0..depth).map(|i| drop_path * i as f64 / last).collect()
}

/// What one training pass keeps: a factor of 0 or `1 / (1 - rate)` for each block, branch and image.
#[derive(Debug)]
pub(crate) struct DropPath {
    scales: Vec<Option<[Tensor; 2]>>,
}

impl DropPath {
    /// Draws the factors for `batch` images; `rates` are the blocks', each in `[0, 1)`.
    pub fn sample(rates: &[f64], batch: i64, seed: u64, step: u64, device: Device) -> Self {
        let mut random = generator("drop_path", seed, step);
        let mut values = Vec::with_capacity(rates.len() * 2 * batch as usize);
        for rate in rates {
            let keep = (1.0 / (1.0 - rate)) as f32;
            let mut draw = || {
                if uniform(&mut random) < *rate {
                    0.0
                } else {
                    keep
                }
            };
            values.extend((0..2 * batch).map(|_| draw()));
        }
        let scales = Tensor::from_slice(&values)
            .view([rates.len() as i64, 2, batch, 1, 1])
            .to_device(device);
        let scales = rates
            .iter()
            .zip(scales.unbind(0))
            .map(|(&rate, scales)| (rate > 0.0).then(|| [scales.get(0), scales.get(1)]));
        Self {
            scales: scales.collect(),
        }
    }

    /// The factors of block `i`'s attention and MLP, `[batch, 1, 1]` each; none where nothing is ever dropped.
    pub fn scales(&self, i: usize) -> Option<&[Tensor; 2]> {
        self.scales[i].as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(drop_path: &DropPath, block: usize, branch: usize) -> Vec<f32> {
        let [attn, mlp] = drop_path.scales(block).unwrap();
        Vec::try_from([attn, mlp][branch].flatten(0, -1)).unwrap()
    }

    #[test]
    fn rates_grow_from_zero() {
        assert_eq!(drop_path_rates(5, 0.5), [0.0, 0.125, 0.25, 0.375, 0.5]);
        assert_eq!(drop_path_rates(1, 0.5), [0.0]);
    }

    #[test]
    fn factors_are_zero_or_one_over_keep_at_the_rate() {
        let drop_path = DropPath::sample(&[0.0, 0.2], 20_000, 1, 2, Device::Cpu);
        assert!(drop_path.scales(0).is_none());
        for branch in 0..2 {
            let factors = values(&drop_path, 1, branch);
            assert!(factors.iter().all(|&f| f == 0.0 || f == 1.25));
            let dropped = factors.iter().filter(|&&f| f == 0.0).count() as f64 / 20_000.0;
            // Binomial(20000, 0.2) / 20000 has a standard deviation of 0.0028: allow five of them.
            assert!((dropped - 0.2).abs() < 0.014, "{dropped}");
        }
        assert_ne!(values(&drop_path, 1, 0), values(&drop_path, 1, 1));
    }

    #[test]
    fn seed_and_step_name_the_factors() {
        let draw =
            |seed, step| values(&DropPath::sample(&[0.5], 64, seed, step, Device::Cpu), 0, 0);
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }
}

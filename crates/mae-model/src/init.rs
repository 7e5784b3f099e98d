//! Initial weights, as published; the same for a seed on every machine and device.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tch::{Tensor, no_grad};

/// Fills one trainable parameter by what its key and shape say it is.
///
/// Linear weights and the flattened patch projection are Xavier uniform (q, k and v counted as one
/// `D` to `3 D` matrix), tokens are N(0, 0.02), norms start at one, biases at zero.
/// Each parameter has a generator of its own, so that adding one changes no other.
///
/// Source: He et al. 2021, appendix A.1.
pub fn initialize(key: &str, parameter: &mut Tensor, seed: u64) {
    let size = parameter.size();
    let numel = parameter.numel();
    let mut random = generator(key, seed, 0);
    let values: Vec<f32> = if key.ends_with("_token") {
        (0..numel)
            .map(|_| (0.02 * normal(&mut random)) as f32)
            .collect()
    } else if size.len() >= 2 {
        let fan_out = size[0] as f64;
        let fan_in = numel as f64 / fan_out;
        let bound = (6.0 / (fan_in + fan_out)).sqrt();
        (0..numel)
            .map(|_| (bound * (2.0 * uniform(&mut random) - 1.0)) as f32)
            .collect()
    } else {
        vec![if key.ends_with(".bias") { 0.0 } else { 1.0 }; numel]
    };
    no_grad(|| parameter.copy_(&Tensor::from_slice(&values).view(size.as_slice())));
}

/// Fills a classification head's weight with N(0, `std`).
///
/// The published draw is truncated at -2 and 2, a hundred deviations and more away, where nothing is drawn.
pub fn initialize_head(key: &str, weight: &mut Tensor, std: f64, seed: u64) {
    let mut random = generator(key, seed, 0);
    let values: Vec<f32> = (0..weight.numel())
        .map(|_| (std * normal(&mut random)) as f32)
        .collect();
    no_grad(|| weight.copy_(&Tensor::from_slice(&values).view(weight.size().as_slice())));
}

/// The random numbers of one `key` at one `step`; what is drawn once has step 0.
pub fn generator(key: &str, seed: u64, step: u64) -> ChaCha8Rng {
    // FNV-1a: the standard library's hashes may change between releases.
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&hash.to_le_bytes());
    bytes[16..24].copy_from_slice(&step.to_le_bytes());
    ChaCha8Rng::from_seed(bytes)
}

/// In [0, 1), a multiple of 2^-32.
pub fn uniform(random: &mut ChaCha8Rng) -> f64 {
    f64::from(random.next_u32()) / 4_294_967_296.0
}

/// One standard normal by the Box-Muller transform.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(random)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(random)).cos()
}

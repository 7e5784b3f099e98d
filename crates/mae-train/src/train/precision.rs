//! Mixed precision: what matrix products are computed in, and the loss scaling that fp16 needs.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// The precision of matrix products; weights, norms, sums and the loss stay in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 throughout (TF32 products on CUDA hardware that has them).
    Fp32,
    /// bfloat16 products: the range of f32, 8 bits of mantissa.
    Bf16,
    /// float16 products with a dynamic loss scale.
    Fp16,
}

impl Precision {
    /// f32 on the CPU; on CUDA bfloat16 where the hardware has it, else float16.
    ///
    /// # Errors
    /// If the CUDA device does not answer.
    pub fn default_for(device: Device) -> Result<Self> {
        Ok(match device {
            Device::Cuda(index) if torch_ext::cuda_compute_capability(index)?.0 >= 8 => Self::Bf16,
            Device::Cuda(_) => Self::Fp16,
            _ => Self::Fp32,
        })
    }

    /// The name that a configuration has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
        }
    }

    /// The dtype to give [`torch_ext::autocast`].
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::Fp16 => Kind::Half,
        }
    }
}

/// Dynamic loss scaling: halves the scale when a gradient overflows, doubles it after 2,000 steps that don't.
///
/// All of it stays on the device.
///
/// Source: Micikevicius et al. 2018, "Mixed Precision Training", section 3.2; the constants are PyTorch's.
#[derive(Debug)]
pub struct GradScaler {
    scale: Tensor,
    growth_tracker: Tensor,
}

const INITIAL_SCALE: f32 = 65536.0;
const GROWTH: f64 = 2.0;
const BACKOFF: f64 = 0.5;
const GROWTH_INTERVAL: i64 = 2000;

impl GradScaler {
    /// A scaler at its initial scale of 2^16.
    pub fn new(device: Device) -> Self {
        Self {
            scale: Tensor::from(INITIAL_SCALE).to_device(device),
            growth_tracker: Tensor::from(0i32).to_device(device),
        }
    }

    /// The loss to differentiate.
    pub fn scale(&self, loss: &Tensor) -> Tensor {
        loss * &self.scale
    }

    /// Takes the scale out of the gradients; returns 1 on the device if any is not finite, else 0.
    ///
    /// # Errors
    /// If the gradients are not all on the scaler's device.
    pub fn unscale(&self, grads: &[Tensor]) -> Result<Tensor> {
        let mut found_inf = self.scale.zeros_like();
        torch_ext::unscale(grads, &mut found_inf, &self.scale.reciprocal())?;
        Ok(found_inf)
    }

    /// Adapts the scale to what [`unscale`](Self::unscale) found.
    pub fn adapt(&mut self, found_inf: &Tensor) {
        let _ = self.scale.internal_amp_update_scale_(
            &self.growth_tracker,
            found_inf,
            GROWTH,
            BACKOFF,
            GROWTH_INTERVAL,
        );
    }

    /// The current scale, read from the device.
    pub fn current(&self) -> f64 {
        self.scale.double_value(&[])
    }

    /// What a checkpoint must keep; the tensors are shared.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        BTreeMap::from([
            ("scaler.scale".into(), self.scale.shallow_clone()),
            (
                "scaler.growth_tracker".into(),
                self.growth_tracker.shallow_clone(),
            ),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaler_backs_off_on_overflow_and_grows_after_2000_good_steps() {
        let mut scaler = GradScaler::new(Device::Cpu);
        let overflow = scaler
            .unscale(&[Tensor::from_slice(&[f32::INFINITY])])
            .unwrap();
        assert_eq!(overflow.double_value(&[]), 1.0);
        scaler.adapt(&overflow);
        assert_eq!(scaler.current(), 32768.0);

        let grads = [Tensor::from_slice(&[32768f32])];
        let fine = scaler.unscale(&grads).unwrap();
        assert_eq!(
            (fine.double_value(&[]), grads[0].double_value(&[0])),
            (0.0, 1.0)
        );
        for _ in 0..1999 {
            scaler.adapt(&fine);
        }
        assert_eq!(scaler.current(), 32768.0);
        scaler.adapt(&fine);
        assert_eq!(scaler.current(), 65536.0);
    }

    #[test]
    fn scaled_and_unscaled_gradients_are_the_plain_ones() {
        let weight = Tensor::from_slice(&[0.5f32, -3.0]).set_requires_grad(true);
        let scaler = GradScaler::new(Device::Cpu);
        scaler.scale(&weight.square().sum(Kind::Float)).backward();
        let grads = [weight.grad()];
        assert_eq!(scaler.unscale(&grads).unwrap().double_value(&[]), 0.0);
        assert_eq!(Vec::<f32>::try_from(&grads[0]).unwrap(), [1.0, -6.0]);
    }
}

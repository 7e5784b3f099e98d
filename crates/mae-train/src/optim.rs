//! AdamW with the published parameter groups.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tch::Tensor;
use torch_ext::{AdamW, AdamWState, clear_grads, fused_adamw};

/// AdamW over a model's parameters: decay on those of two or more dimensions, none on biases and norms.
///
/// The class and mask tokens have three dimensions, so they decay, as published.
///
/// Source: He et al. 2021, appendix A.1, table 8.
#[derive(Debug)]
pub struct Optimizer {
    // Parameters that decay come first; all lists share the order.
    keys: Vec<String>,
    params: Vec<Tensor>,
    decayed: Group,
    undecayed: Group,
    betas: [f64; 2],
}

#[derive(Debug)]
struct Group {
    state: AdamWState,
    weight_decay: f64,
}

const EPS: f64 = 1e-8;

impl Optimizer {
    /// An optimizer of the trainable ones among `parameters`.
    ///
    /// `weight_decay` is AdamW's decoupled decay, `betas` the decays of its two moments.
    pub fn new(parameters: &BTreeMap<String, Tensor>, weight_decay: f64, betas: [f64; 2]) -> Self {
        let trainable = || {
            parameters
                .iter()
                .filter(|(_, tensor)| tensor.requires_grad())
        };
        let (mut keys, mut params) = (Vec::new(), Vec::new());
        let mut group = |decays: bool, weight_decay: f64| {
            let start = params.len();
            for (key, tensor) in trainable().filter(|(_, tensor)| (tensor.dim() >= 2) == decays) {
                keys.push(key.clone());
                params.push(tensor.shallow_clone());
            }
            Group {
                state: AdamWState::zeros_like(&params[start..]),
                weight_decay,
            }
        };
        let (decayed, undecayed) = (group(true, weight_decay), group(false, 0.0));
        Self {
            keys,
            params,
            decayed,
            undecayed,
            betas,
        }
    }

    /// The gradients of the last backward pass, in the order that [`step`](Self::step) takes.
    ///
    /// # Errors
    /// If a parameter has none, by its key.
    pub fn grads(&self) -> Result<Vec<Tensor>> {
        let grads: Vec<Tensor> = self.params.iter().map(Tensor::grad).collect();
        for (key, grad) in self.keys.iter().zip(&grads) {
            ensure!(
                grad.defined(),
                "parameter `{key}` took no part in the loss: it has no gradient"
            );
        }
        Ok(grads)
    }

    /// One update with `grads` from [`grads`](Self::grads), which are forgotten afterwards.
    ///
    /// Every gradient is divided by `divisor`, if given; nothing changes where `found_inf` is 1.
    /// Both are one f32 on the device.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn step(
        &mut self,
        grads: Vec<Tensor>,
        lr: f64,
        divisor: Option<&Tensor>,
        found_inf: &Tensor,
    ) -> Result<()> {
        let split = self.decayed.state.steps.len();
        let [beta1, beta2] = self.betas;
        let (decayed_params, undecayed_params) = self.params.split_at(split);
        let (decayed_grads, undecayed_grads) = grads.split_at(split);
        for (params, grads, group) in [
            (decayed_params, decayed_grads, &mut self.decayed),
            (undecayed_params, undecayed_grads, &mut self.undecayed),
        ] {
            let hyper = AdamW {
                lr,
                beta1,
                beta2,
                eps: EPS,
                weight_decay: group.weight_decay,
            };
            fused_adamw(
                params,
                grads,
                &mut group.state,
                &hyper,
                divisor,
                Some(found_inf),
            )?;
        }
        clear_grads(&self.params)?;
        Ok(())
    }

    /// What a checkpoint must keep: `exp_avg.KEY`, `exp_avg_sq.KEY` and `step.KEY`; the tensors are shared.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let groups = [&self.decayed.state, &self.undecayed.state];
        let mut state = BTreeMap::new();
        let rows = groups
            .iter()
            .flat_map(|g| g.exp_avgs.iter().zip(&g.exp_avg_sqs).zip(&g.steps));
        for (key, ((exp_avg, exp_avg_sq), step)) in self.keys.iter().zip(rows) {
            state.insert(format!("exp_avg.{key}"), exp_avg.shallow_clone());
            state.insert(format!("exp_avg_sq.{key}"), exp_avg_sq.shallow_clone());
            state.insert(format!("step.{key}"), step.shallow_clone());
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn matrices_and_tokens_decay_and_the_rest_does_not() {
        let ones =
            |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let fixed = Tensor::ones([1, 4, 8], (Kind::Float, Device::Cpu));
        let parameters = BTreeMap::from([
            ("norm.weight".to_string(), ones(&[8])),
            ("cls_token".to_string(), ones(&[1, 1, 8])),
            ("fc.weight".to_string(), ones(&[8, 8])),
            ("fc.bias".to_string(), ones(&[8])),
            ("pos_embed".to_string(), fixed),
        ]);
        let mut optimizer = Optimizer::new(&parameters, 0.5, [0.9, 0.95]);
        // With zero gradients only the decay moves a parameter: by lr * weight_decay of itself.
        let grads = optimizer.params.iter().map(Tensor::zeros_like).collect();
        let found_inf = Tensor::zeros([], (Kind::Float, Device::Cpu));
        optimizer.step(grads, 0.1, None, &found_inf).unwrap();
        let value = |key: &str| parameters[key].flatten(0, -1).double_value(&[0]);
        for (key, expected) in [
            ("norm.weight", 1.0),
            ("cls_token", 0.95),
            ("fc.weight", 0.95),
            ("fc.bias", 1.0),
            ("pos_embed", 1.0),
        ] {
            assert!(
                (value(key) - expected).abs() < 1e-6,
                "{key} is {}",
                value(key)
            );
        }
    }

    #[test]
    fn a_parameter_without_gradient_is_named() {
        let unused = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let optimizer = Optimizer::new(
            &BTreeMap::from([("unused".into(), unused)]),
            0.0,
            [0.9, 0.95],
        );
        assert!(
            optimizer
                .grads()
                .unwrap_err()
                .to_string()
                .contains("`unused`")
        );
    }
}

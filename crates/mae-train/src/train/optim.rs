//! AdamW with the published parameter groups.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tch::Tensor;
use torch_ext::{AdamW, AdamWState, clear_grads, fused_adamw};

/// AdamW over groups of a model's parameters.
#[derive(Debug)]
pub struct Optimizer {
    // One group's parameters follow the other's; all lists share the order.
    keys: Vec<String>,
    params: Vec<Tensor>,
    groups: Vec<Group>,
    betas: [f64; 2],
}

/// What one group of parameters has of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParamGroup {
    /// Multiplies the learning rate of every step.
    pub lr_scale: f64,
    /// AdamW's decoupled decay.
    pub weight_decay: f64,
}

#[derive(Debug)]
struct Group {
    state: AdamWState,
    hyper: ParamGroup,
}

const EPS: f64 = 1e-8;

impl Optimizer {
    /// An optimizer of the trainable ones among `parameters`, with the published groups:
    /// decay on those of two or more dimensions, none on biases and norms.
    ///
    /// `weight_decay` is AdamW's decoupled decay, `betas` the decays of its two moments.
    /// The class and mask tokens have three dimensions, so they decay, as published.
    ///
    /// Source: He et al. 2021, appendix A.1, table 8.
    pub fn new(parameters: &BTreeMap<String, Tensor>, weight_decay: f64, betas: [f64; 2]) -> Self {
        let members = |decays: bool| {
            trainable(parameters)
                .filter(|(_, tensor)| (tensor.dim() >= 2) == decays)
                .collect()
        };
        let group = |weight_decay| ParamGroup {
            lr_scale: 1.0,
            weight_decay,
        };
        Self::from_groups(
            vec![
                (group(weight_decay), members(true)),
                (group(0.0), members(false)),
            ],
            betas,
        )
    }

    /// An optimizer of the trainable ones among `parameters`, each in the group that `group_of` says.
    pub fn with_groups(
        parameters: &BTreeMap<String, Tensor>,
        group_of: impl Fn(&str, &Tensor) -> ParamGroup,
        betas: [f64; 2],
    ) -> Self {
        let mut groups: Vec<(ParamGroup, Members)> = Vec::new();
        for (key, tensor) in trainable(parameters) {
            let hyper = group_of(key, tensor);
            match groups.iter_mut().find(|(known, _)| *known == hyper) {
                Some((_, members)) => members.push((key, tensor)),
                None => groups.push((hyper, vec![(key, tensor)])),
            }
        }
        Self::from_groups(groups, betas)
    }

    fn from_groups(groups: Vec<(ParamGroup, Members)>, betas: [f64; 2]) -> Self {
        let (mut keys, mut params) = (Vec::new(), Vec::new());
        let mut group = |(hyper, members): (ParamGroup, Members)| {
            let start = params.len();
            for (key, tensor) in members {
                keys.push(key.clone());
                params.push(tensor.shallow_clone());
            }
            Group {
                state: AdamWState::zeros_like(&params[start..]),
                hyper,
            }
        };
        let groups = groups.into_iter().map(&mut group).collect();
        Self {
            keys,
            params,
            groups,
            betas,
        }
    }

    /// The parameters that it moves.
    pub fn params(&self) -> &[Tensor] {
        &self.params
    }

    /// The gradients of the last backward pass, in the order that [`step`](Self::step) takes.
    ///
    /// # Errors
    /// If a parameter has none, by its key.
    pub fn grads(&self) -> Result<Vec<Tensor>> {
        gradients(&self.keys, &self.params)
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
        let [beta1, beta2] = self.betas;
        let (mut params, mut grads) = (&self.params[..], &grads[..]);
        for group in &mut self.groups {
            let hyper = AdamW {
                lr: lr * group.hyper.lr_scale,
                beta1,
                beta2,
                eps: EPS,
                weight_decay: group.hyper.weight_decay,
            };
            let count = group.state.steps.len();
            let (group_params, later_params) = params.split_at(count);
            let (group_grads, later_grads) = grads.split_at(count);
            fused_adamw(
                group_params,
                group_grads,
                &mut group.state,
                &hyper,
                divisor,
                Some(found_inf),
            )?;
            (params, grads) = (later_params, later_grads);
        }
        clear_grads(&self.params)?;
        Ok(())
    }

    /// What a checkpoint must keep: `exp_avg.KEY`, `exp_avg_sq.KEY` and `step.KEY`; the tensors are shared.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        let rows = self.groups.iter().flat_map(|group| {
            let state = &group.state;
            state
                .exp_avgs
                .iter()
                .zip(&state.exp_avg_sqs)
                .zip(&state.steps)
        });
        for (key, ((exp_avg, exp_avg_sq), step)) in self.keys.iter().zip(rows) {
            state.insert(format!("exp_avg.{key}"), exp_avg.shallow_clone());
            state.insert(format!("exp_avg_sq.{key}"), exp_avg_sq.shallow_clone());
            state.insert(format!("step.{key}"), step.shallow_clone());
        }
        state
    }
}

type Members<'a> = Vec<(&'a String, &'a Tensor)>;

/// The parameters that an optimizer is for, in the keys' order.
pub(crate) fn trainable(
    parameters: &BTreeMap<String, Tensor>,
) -> impl Iterator<Item = (&String, &Tensor)> {
    parameters
        .iter()
        .filter(|(_, tensor)| tensor.requires_grad())
}

/// The gradients of `params`, or the key of one that has none.
pub(crate) fn gradients(keys: &[String], params: &[Tensor]) -> Result<Vec<Tensor>> {
    let grads: Vec<Tensor> = params.iter().map(Tensor::grad).collect();
    for (key, grad) in keys.iter().zip(&grads) {
        ensure!(
            grad.defined(),
            "parameter `{key}` took no part in the loss: it has no gradient"
        );
    }
    Ok(grads)
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
    fn each_group_has_its_rate_and_decay() {
        let keys = ["a", "b", "c", "d"];
        let parameters: BTreeMap<String, Tensor> = keys
            .iter()
            .map(|key| {
                let one = Tensor::ones([1], (Kind::Float, Device::Cpu));
                (key.to_string(), one.set_requires_grad(true))
            })
            .collect();
        // `a` and `d` are one group with others between them.
        let group_of = |key: &str, _: &Tensor| match key {
            "b" => ParamGroup {
                lr_scale: 0.5,
                weight_decay: 0.4,
            },
            "c" => ParamGroup {
                lr_scale: 0.25,
                weight_decay: 0.0,
            },
            _ => ParamGroup {
                lr_scale: 1.0,
                weight_decay: 0.0,
            },
        };
        let mut optimizer = Optimizer::with_groups(&parameters, group_of, [0.9, 0.999]);
        let loss = parameters
            .iter()
            .map(|(key, p)| p * f64::from(key.as_bytes()[0]))
            .fold(Tensor::from(0f32), |sum, term| sum + term);
        loss.sum(Kind::Float).backward();
        let grads = optimizer.grads().unwrap();
        let found_inf = Tensor::zeros([], (Kind::Float, Device::Cpu));
        optimizer.step(grads, 0.1, None, &found_inf).unwrap();
        // AdamW's first step is the learning rate, whatever the gradient, after 1 - lr * decay.
        for (key, expected) in [("a", 0.9), ("b", 0.98 - 0.05), ("c", 0.975), ("d", 0.9)] {
            let value = parameters[key].double_value(&[0]);
            assert!((value - expected).abs() < 1e-6, "{key} is {value}");
        }
        assert_eq!(optimizer.state().len(), 3 * keys.len());
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

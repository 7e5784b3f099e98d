//! LARS: momentum whose step is a fixed part of each matrix's norm.
//!
//! Source: You et al. 2017, "Large Batch Training of Convolutional Networks", arXiv 1708.03888, algorithm 1;
//! with weight decay the norm is that of gradient and decay together, as in the MAE authors' linear probing.

use std::collections::BTreeMap;

use anyhow::Result;
use tch::{Tensor, no_grad};
use torch_ext::clear_grads;

use crate::train::optim::{gradients, trainable};

const MOMENTUM: f64 = 0.9;
const TRUST_COEFFICIENT: f64 = 0.001;

/// LARS with the published settings of linear probing: momentum 0.9, trust coefficient 0.001.
///
/// Parameters of one dimension neither adapt nor decay: plain momentum.
///
/// Source: He et al. 2021, appendix A.1, table 10.
#[derive(Debug)]
pub struct Lars {
    keys: Vec<String>,
    params: Vec<Tensor>,
    velocities: Vec<Tensor>,
    weight_decay: f64,
}

impl Lars {
    /// An optimizer of the trainable ones among `parameters`.
    ///
    /// `weight_decay` is added to the gradient before its norm is taken; 0 as published.
    pub fn new(parameters: &BTreeMap<String, Tensor>, weight_decay: f64) -> Self {
        let (keys, params): (Vec<String>, Vec<Tensor>) = trainable(parameters)
            .map(|(key, tensor)| (key.clone(), tensor.shallow_clone()))
            .unzip();
        let velocities = no_grad(|| params.iter().map(Tensor::zeros_like).collect());
        Self {
            keys,
            params,
            velocities,
            weight_decay,
        }
    }

    /// The gradients of the last backward pass, in the order that [`step`](Self::step) takes.
    ///
    /// # Errors
    /// If a parameter has none, by its key.
    pub fn grads(&self) -> Result<Vec<Tensor>> {
        gradients(&self.keys, &self.params)
    }

    /// One update with `grads` from [`grads`](Self::grads), which are forgotten afterwards. Reads nothing back.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn step(&mut self, grads: Vec<Tensor>, lr: f64) -> Result<()> {
        no_grad(|| {
            let rows = self.params.iter_mut().zip(&mut self.velocities).zip(&grads);
            for ((param, velocity), grad) in rows {
                let update = if param.dim() > 1 {
                    adapt(&(grad + &*param * self.weight_decay), param)
                } else {
                    grad.shallow_clone()
                };
                *velocity *= MOMENTUM;
                *velocity += update;
                *param -= &*velocity * lr;
            }
        });
        clear_grads(&self.params)?;
        Ok(())
    }

    /// What a checkpoint must keep: `velocity.KEY`; the tensors are shared.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let rows = self.keys.iter().zip(&self.velocities);
        rows.map(|(key, velocity)| (format!("velocity.{key}"), velocity.shallow_clone()))
            .collect()
    }
}

/// The update at [`TRUST_COEFFICIENT`] of the parameter's norm; as it is where either norm is 0.
fn adapt(update: &Tensor, param: &Tensor) -> Tensor {
    let (param_norm, update_norm) = (param.norm(), update.norm());
    let trust = &param_norm * TRUST_COEFFICIENT / &update_norm;
    let either_is_zero = (param_norm * update_norm).eq(0.0);
    update * trust.masked_fill(&either_is_zero, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.flatten(0, -1)).unwrap()
    }

    #[test]
    fn a_matrix_moves_by_a_part_of_its_norm_and_a_vector_by_its_gradient() {
        let matrix = Tensor::from_slice(&[3f32, 4.0])
            .view([1, 2])
            .set_requires_grad(true);
        let vector = Tensor::from_slice(&[1f32]).set_requires_grad(true);
        let parameters = BTreeMap::from([
            ("matrix".to_string(), matrix.shallow_clone()),
            ("vector".to_string(), vector.shallow_clone()),
        ]);
        let mut optimizer = Lars::new(&parameters, 0.0);
        let mut step = || {
            let slope = Tensor::from_slice(&[100f32, 0.0]);
            ((&matrix * slope).sum(Kind::Float) + (&vector * 2.0).sum(Kind::Float)).backward();
            let grads = optimizer.grads().unwrap();
            optimizer.step(grads, 0.5).unwrap();
        };
        // Norm 5, trust 0.001: an update of 0.005 whatever the gradient's size; half of it is the step.
        step();
        assert!((values(&matrix)[0] - 2.9975).abs() < 1e-6);
        assert_eq!((values(&matrix)[1], values(&vector)[0]), (4.0, 0.0));
        // The velocity of the vector: 0.9 * 2 + 2.
        step();
        assert!((values(&vector)[0] + 1.9).abs() < 1e-6);
        assert_eq!(
            optimizer.state().into_keys().collect::<Vec<_>>(),
            ["velocity.matrix", "velocity.vector"]
        );
        assert!(!matrix.grad().defined(), "gradients are forgotten");
    }
}

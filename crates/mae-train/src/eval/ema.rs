//! A running average of the weights, which often classifies better than the weights.

use std::collections::BTreeMap;

use tch::{Tensor, no_grad};

/// The exponential moving average of a model's parameters.
#[derive(Debug)]
pub struct Ema {
    averages: BTreeMap<String, Tensor>,
    decay: f64,
}

impl Ema {
    /// The average that is the `parameters` as they are; `decay` is the share that an update keeps of it.
    pub fn new(parameters: &BTreeMap<String, Tensor>, decay: f64) -> Self {
        let copy = |(key, tensor): (&String, &Tensor)| (key.clone(), tensor.detach().copy());
        Self {
            averages: parameters.iter().map(copy).collect(),
            decay,
        }
    }

    /// Moves the average to the `parameters`, the same as at first, by `1 - decay` of the way.
    pub fn follow(&mut self, parameters: &BTreeMap<String, Tensor>) {
        no_grad(|| {
            for (key, average) in &mut self.averages {
                let _ = average.lerp_(&parameters[key], 1.0 - self.decay);
            }
        });
    }

    /// The averages by their keys: what is evaluated and what a checkpoint must keep. The tensors are shared.
    pub fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.averages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_a_part_of_the_way_and_leaves_the_weights() {
        let mut weight = Tensor::from_slice(&[1f32, 2.0]).set_requires_grad(true);
        let parameters = BTreeMap::from([("weight".to_string(), weight.shallow_clone())]);
        let mut ema = Ema::new(&parameters, 0.75);
        let _ = no_grad(|| weight.fill_(5.0));
        ema.follow(&parameters);
        let value = |tensor: &Tensor| Vec::<f32>::try_from(tensor.detach()).unwrap();
        assert_eq!(value(&ema.parameters()["weight"]), [2.0, 2.75]);
        assert_eq!(value(&weight), [5.0, 5.0]);
        assert!(!ema.parameters()["weight"].requires_grad());
    }
}

//! Linear probing: a linear head on frozen features.

use anyhow::Result;
use mae_report::Record;
use tch::{Kind, Tensor, no_grad};

use super::config::{LinearOptimizer, LinearSection};
use super::lars::Lars;
use super::probe::{Head, Norm, Probe, drawn, named};
use super::random::{Random, Stream};
use super::score::Score;
use crate::run::interrupt::Interrupt;
use crate::train::optim::Optimizer;

/// Trains a linear head on features of `dim` numbers and scores it after the last epoch; returns the score, and the head.
///
/// The head is batch norm without scale and shift, then a linear layer that starts at N(0, 0.01).
/// `record` gets the loss and accuracy of each epoch.
///
/// # Errors
/// If a batch cannot be made, libtorch refuses, the loss is not finite, or, as
/// [`Stopped`](crate::error::Stopped), after a signal.
///
/// Source: He et al. 2021, appendix A.1, table 10.
pub fn linear_probe(
    probe: &Probe,
    dim: usize,
    settings: &LinearSection,
    interrupt: &Interrupt,
    record: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<(Score, Linear)> {
    let mut head = LinearHead::new(probe, dim as i64, settings);
    let LinearSection {
        epochs,
        warmup_epochs,
        base_lr,
        ..
    } = *settings;
    let schedule = probe.schedule(epochs, warmup_epochs, base_lr);
    let score = probe.train(&mut head, epochs, &schedule, interrupt, record)?;
    Ok((score, head.without_norm()))
}

/// A linear layer.
#[derive(Debug)]
pub struct Linear {
    /// `[classes, embed_dim]`
    pub weight: Tensor,
    /// `[classes]`
    pub bias: Tensor,
}

struct LinearHead {
    norm: Norm,
    weight: Tensor,
    bias: Tensor,
    optimizer: HeadOptimizer,
}

enum HeadOptimizer {
    Lars(Lars),
    AdamW { optimizer: Optimizer, fine: Tensor },
}

impl LinearHead {
    fn new(probe: &Probe, dim: i64, settings: &LinearSection) -> Self {
        let (classes, device) = (probe.classes as i64, probe.device);
        let mut random = Random::new(Stream::ProbeHead, [probe.seed, 0, 0]);
        let weight = drawn(&[classes, dim], 0.01, &mut random, device);
        let bias = Tensor::zeros([classes], (Kind::Float, device)).set_requires_grad(true);
        let parameters = named([("weight", &weight), ("bias", &bias)]);
        let optimizer = match settings.optimizer {
            LinearOptimizer::Lars => {
                HeadOptimizer::Lars(Lars::new(&parameters, settings.weight_decay))
            }
            LinearOptimizer::AdamW => HeadOptimizer::AdamW {
                optimizer: Optimizer::new(&parameters, settings.weight_decay, [0.9, 0.999]),
                fine: Tensor::zeros([], (Kind::Float, device)),
            },
        };
        Self {
            norm: Norm::new(dim, device),
            weight,
            bias,
            optimizer,
        }
    }

    /// The same of features that are not normalised first.
    fn without_norm(&self) -> Linear {
        no_grad(|| {
            let (scale, shift) = self.norm.scale_and_shift();
            Linear {
                weight: &self.weight * scale,
                bias: &self.bias - self.weight.mv(&shift),
            }
        })
    }
}

impl Head for LinearHead {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn forward(&self, features: &Tensor, train: bool) -> Tensor {
        (self.norm.forward(features, train)).linear(&self.weight, Some(&self.bias))
    }

    fn step(&mut self, lr: f64) -> Result<()> {
        match &mut self.optimizer {
            HeadOptimizer::Lars(lars) => lars.step(lars.grads()?, lr),
            HeadOptimizer::AdamW { optimizer, fine } => {
                optimizer.step(optimizer.grads()?, lr, None, fine)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::features::Features;
    use crate::eval::probe::{in_order, shuffled};
    use crate::eval::score::Tally;
    use tch::Device;

    /// Two classes on either side of a plane, and dimensions that say nothing.
    fn separable(count: i64, seed: u64) -> Features {
        let mut random = Random::new(Stream::ProbeHead, [seed, 9, 9]);
        let mut values = Vec::new();
        let labels: Vec<i64> = (0..count).map(|i| i % 2).collect();
        for &label in &labels {
            values.push((5.0 + 2.0 * label as f64 + 0.3 * random.normal()) as f32);
            values.extend((0..7).map(|_| (10.0 * random.normal()) as f32));
        }
        Features {
            values: Tensor::from_slice(&values).view([count, 8]),
            labels: Tensor::from_slice(&labels),
            indices: Tensor::arange(count, (Kind::Int64, Device::Cpu)),
        }
    }

    #[test]
    fn both_optimizers_find_a_plane() {
        let (train, val) = (separable(512, 1), separable(200, 2));
        // LARS moves the weights by a share of their norm: 320 updates need a high rate.
        for (optimizer, base_lr) in [
            (LinearOptimizer::Lars, 20.0),
            (LinearOptimizer::AdamW, 0.05),
        ] {
            let settings = LinearSection {
                optimizer,
                base_lr,
                epochs: 40,
                warmup_epochs: 2.0,
                ..LinearSection::default()
            };
            let probe = Probe {
                epoch: &|epoch| Box::new(shuffled(&train, 64, 0, epoch)),
                steps_per_epoch: 8,
                batch: 64,
                val: &|| Box::new(in_order(&val, 64)),
                classes: 2,
                seed: 0,
                device: Device::Cpu,
            };
            let mut losses = Vec::new();
            let (score, head) =
                linear_probe(&probe, 8, &settings, &Interrupt::default(), &mut |record| {
                    if let Record::Epoch { loss, .. } = record {
                        losses.push(loss);
                    }
                    Ok(())
                })
                .unwrap();
            assert!(score.top1 > 0.97, "{optimizer:?}: {}", score.top1);
            let mut tally = Tally::default();
            tally.add(
                &val.values.linear(&head.weight, Some(&head.bias)),
                &val.labels,
            );
            assert_eq!(tally.score(), score, "{optimizer:?}");
            assert_eq!(losses.len(), 40);
            assert!(losses[39] < 0.3 * losses[0], "{losses:?}");
        }
    }
}

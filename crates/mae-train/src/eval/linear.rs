//! Linear probing: a linear head on frozen features.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use mae_report::Record;
use tch::{Device, Kind, Tensor, no_grad};

use super::config::{LinearOptimizer, LinearSection};
use super::features::Features;
use super::lars::Lars;
use super::random::{Random, Stream};
use super::score::{Score, Tally, rows_at_once};
use crate::error::Diverged;
use crate::run::interrupt::Interrupt;
use crate::train::optim::Optimizer;
use crate::train::schedule::Schedule;

/// Features `[batch, embed_dim]` and labels `[batch]` of one batch, on the device.
pub type LabelledBatch = (Tensor, Tensor);

/// The training batches of an epoch.
pub type EpochOfBatches<'a> = Box<dyn Iterator<Item = Result<LabelledBatch>> + 'a>;

/// Where the probe learns from and what it is judged on.
pub struct Probe<'a> {
    /// The batches of an epoch, counted from 0.
    pub epoch: &'a dyn Fn(u64) -> EpochOfBatches<'a>,
    /// Batches of an epoch.
    pub steps_per_epoch: u64,
    /// Images of a batch.
    pub batch: usize,
    /// Features of the images to judge by, on the device.
    pub val: &'a Features,
    /// The number of classes.
    pub classes: usize,
    /// Seed of the head's weights.
    pub seed: u64,
}

/// Trains a linear head and scores it on `probe.val` after the last epoch; returns the score, and the head.
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
    settings: &LinearSection,
    interrupt: &Interrupt,
    record: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<(Score, Linear)> {
    let device = probe.val.values.device();
    let dim = probe.val.values.size()[1];
    let head = Head::new(dim, probe.classes as i64, probe.seed, device);
    let mut optimizer = HeadOptimizer::new(&head, settings);
    let schedule = Schedule {
        peak_lr: settings.base_lr * probe.batch as f64 / 256.0,
        min_lr: 0.0,
        warmup_steps: settings.warmup_epochs * probe.steps_per_epoch as f64,
        total_steps: (settings.epochs * probe.steps_per_epoch) as f64,
    };
    let mut score = None;
    let mut step = 0;
    for epoch in 1..=settings.epochs {
        let started = std::time::Instant::now();
        let mut loss_sum = Tensor::zeros([], (Kind::Float, device));
        for batch in (probe.epoch)(epoch - 1) {
            let (features, labels) = batch?;
            let loss = head
                .forward(&features, true)
                .cross_entropy_for_logits(&labels);
            loss.backward();
            optimizer.step(schedule.lr(step))?;
            loss_sum += loss.detach();
            step += 1;
        }
        let loss = loss_sum.double_value(&[]) / probe.steps_per_epoch as f64;
        if !loss.is_finite() {
            let base_lr = settings.base_lr;
            return Err(Diverged(format!(
                "the linear probe's loss is not finite in epoch {epoch}; lower linear.base_lr (now {base_lr:e})"
            ))
            .into());
        }
        interrupt.check()?;
        record(Record::Epoch {
            epoch,
            step,
            loss,
            seconds: started.elapsed().as_secs_f64(),
            broken_images: 0,
            flops_per_image: None,
        })?;
        let now = head.score(probe.val, probe.classes);
        record(Record::Accuracy {
            epoch,
            step,
            protocol: "linear".into(),
            top1: now.top1,
            top5: now.top5,
        })?;
        score = Some(now);
    }
    let score = score.context("`linear.epochs` is 0")?;
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

/// Batches of cached features in an order of each epoch's own; the last images that fill no batch are left out.
pub fn batches_of(
    features: &Features,
    batch: usize,
    seed: u64,
    epoch: u64,
) -> impl Iterator<Item = Result<LabelledBatch>> + '_ {
    let mut order: Vec<i64> = (0..features.len()).collect();
    let mut random = Random::new(Stream::ProbeOrder, [seed, epoch, 0]);
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last as i64 + 1) as usize);
    }
    let batches: Vec<Vec<i64>> = order.chunks_exact(batch).map(<[i64]>::to_vec).collect();
    batches.into_iter().map(move |indices| {
        let indices = Tensor::from_slice(&indices).to_device(features.values.device());
        Ok((
            features.values.index_select(0, &indices),
            features.labels.index_select(0, &indices),
        ))
    })
}

/// Added to the variance under the root of the head's norm.
const EPS: f64 = 1e-6;

#[derive(Debug)]
struct Head {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

impl Head {
    fn new(dim: i64, classes: i64, seed: u64, device: Device) -> Self {
        let mut random = Random::new(Stream::ProbeHead, [seed, 0, 0]);
        let weight: Vec<f32> = (0..dim * classes)
            .map(|_| (0.01 * random.normal()) as f32)
            .collect();
        let options = (Kind::Float, device);
        Self {
            weight: Tensor::from_slice(&weight)
                .view([classes, dim])
                .to_device(device)
                .set_requires_grad(true),
            bias: Tensor::zeros([classes], options).set_requires_grad(true),
            running_mean: Tensor::zeros([dim], options),
            running_var: Tensor::ones([dim], options),
        }
    }

    fn forward(&self, features: &Tensor, train: bool) -> Tensor {
        const MOMENTUM: f64 = 0.1;
        let normalized = features.batch_norm::<&Tensor>(
            None,
            None,
            Some(&self.running_mean),
            Some(&self.running_var),
            train,
            MOMENTUM,
            EPS,
            true,
        );
        normalized.linear(&self.weight, Some(&self.bias))
    }

    /// The same of features that are not normalised first.
    fn without_norm(&self) -> Linear {
        no_grad(|| {
            let weight = &self.weight * (&self.running_var + EPS).rsqrt();
            let bias = &self.bias - weight.mv(&self.running_mean);
            Linear { weight, bias }
        })
    }

    fn score(&self, val: &Features, classes: usize) -> Score {
        const BATCH: i64 = 8192;
        no_grad(|| {
            let mut tally = Tally::default();
            let batch = rows_at_once(BATCH, classes);
            for start in (0..val.len()).step_by(batch as usize) {
                let count = batch.min(val.len() - start);
                let logits = self.forward(&val.values.narrow(0, start, count), false);
                tally.add(&logits, &val.labels.narrow(0, start, count));
            }
            tally.score()
        })
    }

    fn parameters(&self) -> BTreeMap<String, Tensor> {
        BTreeMap::from([
            ("weight".to_string(), self.weight.shallow_clone()),
            ("bias".to_string(), self.bias.shallow_clone()),
        ])
    }
}

enum HeadOptimizer {
    Lars(Lars),
    AdamW { optimizer: Optimizer, fine: Tensor },
}

impl HeadOptimizer {
    fn new(head: &Head, settings: &LinearSection) -> Self {
        let parameters = head.parameters();
        match settings.optimizer {
            LinearOptimizer::Lars => Self::Lars(Lars::new(&parameters, settings.weight_decay)),
            LinearOptimizer::AdamW => Self::AdamW {
                optimizer: Optimizer::new(&parameters, settings.weight_decay, [0.9, 0.999]),
                fine: Tensor::zeros([], (Kind::Float, head.weight.device())),
            },
        }
    }

    fn step(&mut self, lr: f64) -> Result<()> {
        match self {
            Self::Lars(lars) => lars.step(lars.grads()?, lr),
            Self::AdamW { optimizer, fine } => optimizer.step(optimizer.grads()?, lr, None, fine),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                epoch: &|epoch| Box::new(batches_of(&train, 64, 0, epoch)),
                steps_per_epoch: 8,
                batch: 64,
                val: &val,
                classes: 2,
                seed: 0,
            };
            let mut losses = Vec::new();
            let (score, head) =
                linear_probe(&probe, &settings, &Interrupt::default(), &mut |record| {
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

    #[test]
    fn an_epoch_has_each_image_at_most_once_and_another_order_each_time() {
        let features = separable(10, 1);
        let first = |epoch| {
            let batches: Vec<Tensor> = batches_of(&features, 4, 1, epoch)
                .map(|batch| batch.unwrap().0.select(1, 0).contiguous())
                .collect();
            assert_eq!(batches.len(), 2);
            Vec::<f32>::try_from(Tensor::cat(&batches, 0)).unwrap()
        };
        let mut seen = first(0);
        assert_ne!(seen, first(1));
        assert_eq!(seen, first(0));
        seen.sort_by(f32::total_cmp);
        seen.dedup();
        assert_eq!(seen.len(), 8);
    }
}

//! The loop that trains a head on a frozen encoder's features.

use std::collections::BTreeMap;
use std::fs::create_dir_all;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use mae_report::{MetricsWriter, Record, loss_svg, read_metrics};
use tch::{Device, Kind, Tensor, no_grad};

use super::features::Features;
use super::random::{Random, Stream};
use super::score::{Score, Tally};
use crate::error::Diverged;
use crate::run::interrupt::Interrupt;
use crate::run::progress::Progress;
use crate::train::schedule::Schedule;

/// Features and labels of one batch, `[batch, ..]` and `[batch]`, on the device.
pub type LabelledBatch = (Tensor, Tensor);

/// One batch after the other.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<LabelledBatch>> + 'a>;

/// Where a head learns from and what it is judged by.
pub struct Probe<'a> {
    /// The training batches of an epoch, counted from 0.
    pub epoch: &'a dyn Fn(u64) -> Batches<'a>,
    /// Training batches of an epoch.
    pub steps_per_epoch: u64,
    /// Images of a training batch.
    pub batch: usize,
    /// The images to judge by.
    pub val: &'a dyn Fn() -> Batches<'a>,
    /// The number of classes.
    pub classes: usize,
    /// Seed of the head's weights.
    pub seed: u64,
    /// Where it runs.
    pub device: Device,
}

impl Probe<'_> {
    /// The learning rate of each update, for `base_lr` for 256 images an update.
    pub(super) fn schedule(&self, epochs: u64, warmup_epochs: f64, base_lr: f64) -> Schedule {
        Schedule {
            peak_lr: base_lr * self.batch as f64 / 256.0,
            min_lr: 0.0,
            warmup_steps: warmup_epochs * self.steps_per_epoch as f64,
            total_steps: (epochs * self.steps_per_epoch) as f64,
        }
    }

    /// Trains `head` for `epochs` and scores it after each; returns the last score.
    ///
    /// # Errors
    /// If a batch cannot be made, libtorch refuses, the loss is not finite, or, as
    /// [`Stopped`](crate::error::Stopped), after a signal.
    pub(super) fn train(
        &self,
        head: &mut impl Head,
        epochs: u64,
        schedule: &Schedule,
        interrupt: &Interrupt,
        record: &mut dyn FnMut(Record) -> Result<()>,
    ) -> Result<Score> {
        let name = head.name();
        let mut score = None;
        let mut step = 0;
        for epoch in 1..=epochs {
            let started = Instant::now();
            let mut loss_sum = Tensor::zeros([], (Kind::Float, self.device));
            for batch in (self.epoch)(epoch - 1) {
                let (features, labels) = batch?;
                let loss = (head.forward(&features, true)).cross_entropy_for_logits(&labels);
                loss.backward();
                head.step(schedule.lr(step))?;
                loss_sum += loss.detach();
                step += 1;
            }
            let loss = loss_sum.double_value(&[]) / self.steps_per_epoch as f64;
            if !loss.is_finite() {
                return Err(Diverged(format!(
                    "the {name} probe's loss is not finite in epoch {epoch}; lower {name}.base_lr"
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
            let now = self.score(head)?;
            record(Record::Accuracy {
                epoch,
                step,
                protocol: name.into(),
                top1: now.top1,
                top5: now.top5,
            })?;
            score = Some(now);
        }
        score.with_context(|| format!("`{name}.epochs` is 0"))
    }

    fn score(&self, head: &impl Head) -> Result<Score> {
        let mut tally = Tally::default();
        for batch in (self.val)() {
            let (features, labels) = batch?;
            tally.add(&no_grad(|| head.forward(&features, false)), &labels);
        }
        Ok(tally.score())
    }
}

/// What is trained on features.
pub(super) trait Head {
    /// Its protocol, which is also its section of the configuration.
    fn name(&self) -> &'static str;

    /// Logits, `[batch, classes]`.
    fn forward(&self, features: &Tensor, train: bool) -> Tensor;

    /// One update with the gradients of the last backward pass.
    ///
    /// # Errors
    /// If libtorch refuses.
    fn step(&mut self, lr: f64) -> Result<()>;
}

/// Trains by `train`, which is given what its records go through: a bar, and in a `folder` its metrics and curves.
pub(super) fn with_curves<T>(
    folder: Option<&Path>,
    title: &str,
    epochs: u64,
    progress: &Progress,
    train: impl FnOnce(&mut dyn FnMut(Record) -> Result<()>) -> Result<T>,
) -> Result<T> {
    let path = match folder {
        Some(folder) => {
            create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
            Some(folder.join("metrics.jsonl"))
        }
        None => None,
    };
    let mut metrics = path.as_deref().map(MetricsWriter::create).transpose()?;
    let bar = progress.start(0, epochs);
    let trained = train(&mut |record| {
        if let Some(metrics) = &mut metrics {
            metrics.write(&record)?;
        }
        if let Record::Accuracy { top1, .. } = record {
            bar.advance();
            bar.message(&format!("{title}  top-1 {:.2} %", 100.0 * top1));
        }
        Ok(())
    })?;
    if let Some(path) = path {
        let curves = path.with_file_name("loss.svg");
        loss_svg(&curves, &read_metrics(&path)?, title)?;
    }
    Ok(trained)
}

/// Batches of features that are kept, in an order of each epoch's own; the last images that fill no batch are left out.
pub fn shuffled(
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

/// All features that are kept, in their order, up to `batch` at once.
pub fn in_order(
    features: &Features,
    batch: i64,
) -> impl Iterator<Item = Result<LabelledBatch>> + '_ {
    (0..features.len())
        .step_by(batch.max(1) as usize)
        .map(move |start| {
            let count = batch.min(features.len() - start);
            Ok((
                features.values.narrow(0, start, count),
                features.labels.narrow(0, start, count),
            ))
        })
}

/// Batch norm without scale and shift, whose statistics are kept for judging.
#[derive(Debug)]
pub(super) struct Norm {
    mean: Tensor,
    var: Tensor,
}

/// Added to the variance under the root.
const EPS: f64 = 1e-6;

impl Norm {
    pub fn new(dim: i64, device: Device) -> Self {
        let options = (Kind::Float, device);
        Self {
            mean: Tensor::zeros([dim], options),
            var: Tensor::ones([dim], options),
        }
    }

    /// Of `[rows, dim]`.
    pub fn forward(&self, features: &Tensor, train: bool) -> Tensor {
        const MOMENTUM: f64 = 0.1;
        features.batch_norm::<&Tensor>(
            None,
            None,
            Some(&self.mean),
            Some(&self.var),
            train,
            MOMENTUM,
            EPS,
            true,
        )
    }

    /// What judging multiplies by, and then takes off.
    pub fn scale_and_shift(&self) -> (Tensor, Tensor) {
        let scale = (&self.var + EPS).rsqrt();
        let shift = &self.mean * &scale;
        (scale, shift)
    }
}

/// A tensor that trains, of normal numbers times `deviation`.
pub(super) fn drawn(size: &[i64], deviation: f64, random: &mut Random, device: Device) -> Tensor {
    let values: Vec<f32> = (0..size.iter().product())
        .map(|_: i64| (deviation * random.normal()) as f32)
        .collect();
    Tensor::from_slice(&values)
        .view(size)
        .to_device(device)
        .set_requires_grad(true)
}

/// Parameters by their names.
pub(super) fn named<const N: usize>(parameters: [(&str, &Tensor); N]) -> BTreeMap<String, Tensor> {
    let named = |(name, tensor): (&str, &Tensor)| (name.to_string(), tensor.shallow_clone());
    parameters.map(named).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_each_image_at_most_once_and_another_order_each_time() {
        let features = Features {
            values: Tensor::arange(10, (Kind::Float, Device::Cpu)).view([10, 1]),
            labels: Tensor::arange(10, (Kind::Int64, Device::Cpu)),
            indices: Tensor::arange(10, (Kind::Int64, Device::Cpu)),
        };
        let first = |epoch| {
            let batches: Vec<Tensor> = shuffled(&features, 4, 1, epoch)
                .map(|batch| {
                    let (values, labels) = batch.unwrap();
                    assert_eq!(values.select(1, 0).to_kind(Kind::Int64), labels);
                    labels
                })
                .collect();
            assert_eq!(batches.len(), 2);
            Vec::<i64>::try_from(Tensor::cat(&batches, 0)).unwrap()
        };
        let mut seen = first(0);
        assert_ne!(seen, first(1));
        assert_eq!(seen, first(0));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 8);

        let sizes: Vec<i64> = in_order(&features, 4)
            .map(|batch| batch.unwrap().1.numel() as i64)
            .collect();
        assert_eq!(sizes, [4, 4, 2]);
    }
}

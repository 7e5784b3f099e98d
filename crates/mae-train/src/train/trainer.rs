//! One update: from the loss of batches to moved weights.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::Result;
use mae_model::LibtorchThreads;
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::Reducer;

use crate::distributed::World;
use crate::train::optim::Optimizer;
use crate::train::precision::{GradScaler, Precision};
use crate::train::totals::Totals;

/// What moves a model's weights: the optimizer, the loss scale, the running sums; all of it on the device.
#[derive(Debug)]
pub struct Trainer {
    /// AdamW and its moments.
    pub optimizer: Optimizer,
    /// The loss scale, under fp16.
    pub scaler: Option<GradScaler>,
    /// Sums for the metrics.
    pub totals: Totals,
    precision: Precision,
    clip_grad: f64,
    device: Device,
    world: Rc<World>,
    /// What averages gradients with other processes.
    reducer: Option<Reducer>,
}

impl Trainer {
    /// A trainer before its first update; a gradient norm above `clip_grad` is scaled down to it, 0 clips nothing.
    ///
    /// # Errors
    /// If libtorch refuses to average the gradients with those of `world`'s other processes.
    pub fn new(
        optimizer: Optimizer,
        precision: Precision,
        clip_grad: f64,
        device: Device,
        world: &Rc<World>,
    ) -> Result<Self> {
        Ok(Self {
            reducer: world.reducer(optimizer.params())?,
            world: Rc::clone(world),
            optimizer,
            scaler: (precision == Precision::Fp16).then(|| GradScaler::new(device)),
            totals: Totals::new(device),
            precision,
            clip_grad,
            device,
        })
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The processes that make the same updates.
    pub fn world(&self) -> &Rc<World> {
        &self.world
    }

    /// What it computes matrix products in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// One update from several batches, each image of all processes weighing the same; returns the number of images.
    /// Reads nothing back from the device.
    ///
    /// `images` are the sizes of the parts of the batches that this process has, and `loss_of` gives the mean loss of
    /// the part of that number; it is called under autocast, and not for a part without images.
    /// A loss or gradient that is not finite leaves weights and moments as they were, and is counted.
    ///
    /// # Errors
    /// Those of `loss_of`, or if libtorch refuses, or another process is gone.
    pub fn update(
        &mut self,
        images: &[usize],
        lr: f64,
        mut loss_of: impl FnMut(usize) -> Result<Tensor>,
    ) -> Result<usize> {
        let [total] = self.world.sums([images.iter().sum::<usize>() as i64])?;
        if total == 0 {
            // Broken images alone, in all processes.
            return Ok(0);
        }
        let mut loss_sum = Tensor::zeros([], (Kind::Float, self.device));
        for (batch, &count) in images.iter().enumerate() {
            let is_last = batch + 1 == images.len();
            if is_last && let Some(reducer) = &mut self.reducer {
                self.world.check(reducer.before_forward())?;
            }
            let loss = match count {
                0 => nothing_learned(self.optimizer.params()),
                _ => torch_ext::autocast(self.device, self.precision.kind(), || loss_of(batch))??,
            };
            let loss = loss * (count as f64 / total as f64);
            loss_sum += loss.detach();
            let loss = match &self.scaler {
                Some(scaler) => scaler.scale(&loss),
                None => loss,
            };
            let loss = match &self.reducer {
                // It averages over the processes what is to be their sum.
                Some(_) => loss * self.world.size() as f64,
                None => loss,
            };
            self.backward(&loss, is_last)?;
        }
        self.world.sum(&loss_sum)?;

        let _threads = LibtorchThreads::all();
        let grads = self.optimizer.grads()?;
        if let Some(scaler) = &mut self.scaler {
            let found_inf = scaler.unscale(&grads)?;
            scaler.adapt(&found_inf);
        }
        let grad_norm = torch_ext::total_norm(&grads)?;
        let is_bad = loss_sum
            .isfinite()
            .logical_and(&grad_norm.isfinite())
            .logical_not();
        let divisor = (self.clip_grad > 0.0).then(|| (&grad_norm / self.clip_grad).clamp_min(1.0));
        self.optimizer
            .step(grads, lr, divisor.as_ref(), &is_bad.to_kind(Kind::Float))?;
        no_grad(|| self.totals.add(&loss_sum, &grad_norm, &is_bad));
        Ok(total as usize)
    }

    /// Adds to the gradients; those of the last batch of an update are averaged with the other processes'.
    fn backward(&mut self, loss: &Tensor, is_last: bool) -> Result<()> {
        match &mut self.reducer {
            Some(reducer) => {
                if is_last {
                    reducer.before_backward(loss)?;
                }
                self.world.check(torch_ext::backward(loss))
            }
            None => Ok(torch_ext::backward(loss)?),
        }
    }

    /// What a checkpoint must keep, besides the weights, to go on exactly. The tensors are shared.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = self.optimizer.state();
        tensors.extend(self.totals.tensors());
        tensors.extend(self.scaler.iter().flat_map(GradScaler::state));
        tensors
    }
}

/// A loss of 0 in which every parameter takes part, for a process that has no images of a batch.
fn nothing_learned(params: &[Tensor]) -> Tensor {
    let zeros: Vec<Tensor> = params
        .iter()
        .map(|param| (param * 0.0).sum(Kind::Float))
        .collect();
    Tensor::stack(&zeros, 0).sum(Kind::Float)
}

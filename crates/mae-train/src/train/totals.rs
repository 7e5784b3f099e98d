//! Sums of losses and gradient norms that wait on the device until a line of metrics is due.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

/// Running sums for the metrics, kept on the device as f64 and part of a checkpoint.
#[derive(Debug)]
pub struct Totals {
    window: Sums,
    epoch: Sums,
    skipped: Tensor,
    skipped_in_row: Tensor,
}

#[derive(Debug)]
struct Sums {
    loss: Tensor,
    grad_norm: Tensor,
    steps: Tensor,
}

/// Means since the last reading, over the steps that were not skipped; NaN if all were.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    /// Mean loss.
    pub loss: f64,
    /// Mean gradient norm, before clipping.
    pub grad_norm: f64,
}

impl Totals {
    pub(crate) fn new(device: Device) -> Self {
        let zero = || Tensor::zeros([], (Kind::Double, device));
        let sums = || Sums {
            loss: zero(),
            grad_norm: zero(),
            steps: zero(),
        };
        Self {
            window: sums(),
            epoch: sums(),
            skipped: zero(),
            skipped_in_row: zero(),
        }
    }

    pub(crate) fn add(&mut self, loss: &Tensor, grad_norm: &Tensor, is_bad: &Tensor) {
        let is_good = is_bad.logical_not();
        let loss = loss.masked_fill(is_bad, 0.0);
        let grad_norm = grad_norm.masked_fill(is_bad, 0.0);
        for sums in [&mut self.window, &mut self.epoch] {
            sums.loss += &loss;
            sums.grad_norm += &grad_norm;
            sums.steps += &is_good;
        }
        self.skipped += is_bad;
        self.skipped_in_row += is_bad;
        self.skipped_in_row *= is_bad;
    }

    /// Means since the last call, read from the device.
    pub fn take_window(&mut self) -> Means {
        self.window.take()
    }

    /// Means since the last call, read from the device.
    pub fn take_epoch(&mut self) -> Means {
        self.epoch.take()
    }

    /// Updates skipped so far, read from the device.
    pub fn skipped(&self) -> u64 {
        self.skipped.double_value(&[]) as u64
    }

    /// How many of the latest updates were skipped without one between that was not, read from the device.
    pub fn skipped_in_row(&self) -> u64 {
        self.skipped_in_row.double_value(&[]) as u64
    }

    pub(crate) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = BTreeMap::from([
            ("totals.skipped".to_string(), self.skipped.shallow_clone()),
            (
                "totals.skipped_in_row".to_string(),
                self.skipped_in_row.shallow_clone(),
            ),
        ]);
        for (name, sums) in [("window", &self.window), ("epoch", &self.epoch)] {
            for (key, tensor) in [
                ("loss", &sums.loss),
                ("grad_norm", &sums.grad_norm),
                ("steps", &sums.steps),
            ] {
                tensors.insert(format!("totals.{name}.{key}"), tensor.shallow_clone());
            }
        }
        tensors
    }
}

impl Sums {
    fn take(&mut self) -> Means {
        let steps = self.steps.double_value(&[]);
        let means = Means {
            loss: self.loss.double_value(&[]) / steps,
            grad_norm: self.grad_norm.double_value(&[]) / steps,
        };
        for tensor in [&mut self.loss, &mut self.grad_norm, &mut self.steps] {
            let _ = tensor.zero_();
        }
        means
    }
}

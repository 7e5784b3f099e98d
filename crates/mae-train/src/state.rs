//! What training changes, and one update of it.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::Result;
use mae_data::{MaskedBatch, Pixels};
use mae_model::{LibtorchThreads, MaskedAutoencoderViT, Normalization};
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::Reducer;

use crate::config::RunConfig;
use crate::distributed::World;
use crate::optim::Optimizer;
use crate::precision::{GradScaler, Precision};

/// Everything that a step of pre-training changes, all of it on the device.
#[derive(Debug)]
pub struct TrainState {
    /// The network.
    pub model: MaskedAutoencoderViT,
    /// What moves its weights.
    pub trainer: Trainer,
}

impl TrainState {
    /// The state before the first step, the same in all processes of `world`.
    ///
    /// # Errors
    /// If the model cannot be built.
    pub fn new(
        config: &RunConfig,
        normalization: &Normalization,
        world: &Rc<World>,
    ) -> Result<Self> {
        let mut model =
            MaskedAutoencoderViT::new(&config.model, normalization, config.device, config.seed)?;
        model.set_kernels(config.run.kernels);
        let optimizer = Optimizer::new(
            &model.parameters(),
            config.optim.weight_decay,
            config.optim.betas,
        );
        let trainer = Trainer::new(
            optimizer,
            config.precision,
            config.optim.clip_grad,
            config.device,
            world,
        )?;
        Ok(Self { model, trainer })
    }

    /// One update from all images of `batches`: see [`Trainer::update`].
    ///
    /// # Errors
    /// If the batches do not fit the model, libtorch refuses, or another process is gone.
    pub fn update(&mut self, batches: &[MaskedBatch], lr: f64) -> Result<usize> {
        let images: Vec<usize> = batches.iter().map(MaskedBatch::len).collect();
        self.trainer.update(&images, lr, |batch| {
            let (visible, masked, ids_shuffle) = to_device(&batches[batch], self.model.device());
            Ok(self.model.forward(&visible, &masked, &ids_shuffle)?)
        })
    }
}

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
            scaler.update(&found_inf);
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

/// The tensors of a batch: visible and masked patches as u8 or f32, and `ids_shuffle`.
///
/// On CUDA the copies start from pinned memory and do not wait.
///
/// # Shapes
/// - `[batch, kept, patch_dim]`, `[batch, patches - kept, patch_dim]`, `[batch, patches]`
pub fn to_device(batch: &MaskedBatch, device: Device) -> (Tensor, Tensor, Tensor) {
    let (images, kept) = (batch.len() as i64, batch.kept as i64);
    let patches = batch.ids_shuffle.len() as i64 / images;
    let send = |tensor: Tensor| match device {
        Device::Cuda(_) => tensor
            .pin_memory(device)
            .to_device_(device, tensor.kind(), true, false),
        _ => tensor,
    };
    (
        send(tensor_of(&batch.visible).view([images, kept, -1])),
        send(tensor_of(&batch.masked).view([images, patches - kept, -1])),
        send(Tensor::from_slice(&batch.ids_shuffle).view([images, patches])),
    )
}

/// Pixels as a tensor of one dimension on the CPU, u8 or f32.
pub fn tensor_of(pixels: &Pixels) -> Tensor {
    match pixels {
        Pixels::U8(values) => Tensor::from_slice(values),
        Pixels::F32(values) => Tensor::from_slice(values),
    }
}

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
    fn new(device: Device) -> Self {
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

    fn add(&mut self, loss: &Tensor, grad_norm: &Tensor, is_bad: &Tensor) {
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

    fn tensors(&self) -> BTreeMap<String, Tensor> {
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

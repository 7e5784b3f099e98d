//! Attentive probing: one query gathers what it heeds of a frozen encoder's patch tokens, and a linear head judges that.
//!
//! A Masked Autoencoder trains neither its class token nor the mean of its patch tokens to stand for the image, so that a
//! linear probe of either undersells it.
//!
//! Source: El-Nouby et al. 2024, "Scalable Pre-training of Large Autoregressive Image Models", arXiv 2401.08541, section
//! 3.3; Bardes et al. 2024, arXiv 2404.08471, section 4.3.

use std::collections::BTreeMap;

use anyhow::Result;
use mae_report::Record;
use tch::{Device, Kind, Tensor};

use super::config::AttentiveSection;
use super::probe::{Head, Norm, Probe, drawn, named};
use super::random::{Random, Stream};
use super::score::Score;
use crate::run::interrupt::Interrupt;
use crate::train::optim::Optimizer;

/// Trains an attentive head of `heads` heads on tokens of `dim` numbers and scores it after the last epoch.
///
/// `record` gets the loss and accuracy of each epoch.
///
/// # Errors
/// If a batch cannot be made, libtorch refuses, the loss is not finite, or, as
/// [`Stopped`](crate::error::Stopped), after a signal.
pub fn attentive_probe(
    probe: &Probe,
    [dim, heads]: [usize; 2],
    settings: &AttentiveSection,
    interrupt: &Interrupt,
    record: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<Score> {
    let size = [dim, heads, probe.classes].map(|n| n as i64);
    let pooling = AttentivePooling::new(size, probe.seed, probe.device);
    let mut head = AttentiveHead {
        optimizer: Optimizer::new(&pooling.parameters(), settings.weight_decay, [0.9, 0.999]),
        fine: Tensor::zeros([], (Kind::Float, probe.device)),
        pooling,
    };
    let AttentiveSection {
        epochs,
        warmup_epochs,
        base_lr,
        ..
    } = *settings;
    let schedule = probe.schedule(epochs, warmup_epochs, base_lr);
    probe.train(&mut head, epochs, &schedule, interrupt, record)
}

/// Batch norm without scale and shift, attention of one query, and a linear layer.
#[derive(Debug)]
pub struct AttentivePooling {
    norm: Norm,
    /// `[heads, head_dim]`
    query: Tensor,
    /// `[dim, dim]`, without bias.
    key: Tensor,
    /// `[dim, dim]`, without bias.
    value: Tensor,
    /// `[classes, dim]`
    weight: Tensor,
    /// `[classes]`
    bias: Tensor,
}

impl AttentivePooling {
    /// Fresh weights for tokens of `dim` numbers, by `seed`; `dim` is a multiple of `heads`.
    pub fn new([dim, heads, classes]: [i64; 3], seed: u64, device: Device) -> Self {
        let mut random = Random::new(Stream::ProbeHead, [seed, 1, 0]);
        let mut draw = |size: [i64; 2], deviation| drawn(&size, deviation, &mut random, device);
        // Keeps the variance of what is multiplied.
        let keeping = (dim as f64).sqrt().recip();
        Self {
            norm: Norm::new(dim, device),
            query: draw([heads, dim / heads], 0.02),
            key: draw([dim, dim], keeping),
            value: draw([dim, dim], keeping),
            weight: draw([classes, dim], 0.01),
            bias: Tensor::zeros([classes], (Kind::Float, device)).set_requires_grad(true),
        }
    }

    /// Every parameter by its name. The tensors are shared.
    pub fn parameters(&self) -> BTreeMap<String, Tensor> {
        named([
            ("query", &self.query),
            ("key", &self.key),
            ("value", &self.value),
            ("weight", &self.weight),
            ("bias", &self.bias),
        ])
    }

    /// Logits of tokens; the statistics of the norm are the batch's in training, and else those of training.
    ///
    /// # Shapes
    /// - `tokens`: `[batch, patches, dim]`
    /// - returns `[batch, classes]`
    pub fn forward(&self, tokens: &Tensor, train: bool) -> Tensor {
        let [batch, _, dim] = tokens.size()[..] else {
            unreachable!("tokens are [batch, patches, dim]")
        };
        let [heads, head_dim] = self.query.size()[..] else {
            unreachable!("a query has [heads, head_dim]")
        };
        let tokens = self.norm.forward(&tokens.reshape([-1, dim]), train);
        let tokens = tokens.view([batch, -1, dim]);
        let by_head = |weight: &Tensor| weight.view([heads, head_dim, dim]);
        // There is one query, so the keys' matrix is applied to it, and the values' to what it gathers: neither to each
        // token, which would be most of the work.
        let scale = (head_dim as f64).sqrt().recip();
        let asks = (&self.query * scale)
            .unsqueeze(1)
            .matmul(&by_head(&self.key));
        let shares = tokens
            .matmul(&asks.squeeze_dim(1).tr())
            .softmax(1, None::<Kind>);
        let gathered = shares.transpose(1, 2).matmul(&tokens);
        let values = by_head(&self.value).matmul(&gathered.unsqueeze(-1));
        (values.reshape([batch, dim])).linear(&self.weight, Some(&self.bias))
    }
}

struct AttentiveHead {
    pooling: AttentivePooling,
    optimizer: Optimizer,
    fine: Tensor,
}

impl Head for AttentiveHead {
    fn name(&self) -> &'static str {
        "attentive"
    }

    fn forward(&self, features: &Tensor, train: bool) -> Tensor {
        self.pooling.forward(features, train)
    }

    fn step(&mut self, lr: f64) -> Result<()> {
        let Self {
            optimizer, fine, ..
        } = self;
        optimizer.step(optimizer.grads()?, lr, None, fine)
    }
}

//! The paper's variants: what each changes, and that it changes nothing else.

mod loss_and_encoder;
mod target;

use std::collections::{BTreeMap, BTreeSet};

use mae_model::{MaeConfig, MaskedAutoencoderViT, Normalization};
use tch::{Device, Kind, Tensor};

const BATCH: i64 = 3;
const PATCHES: i64 = 24;
const KEPT: i64 = 6;
const PATCH_DIM: i64 = 48;

fn config() -> MaeConfig {
    MaeConfig {
        image_height: 16,
        image_width: 24,
        patch_size: 4,
        embed_dim: 32,
        depth: 2,
        num_heads: 4,
        decoder_embed_dim: 24,
        decoder_depth: 2,
        decoder_num_heads: 3,
        norm_pix_loss: false,
        ..MaeConfig::tiny(16)
    }
}

fn build(config: &MaeConfig) -> MaskedAutoencoderViT {
    MaskedAutoencoderViT::new(config, &Normalization::identity(3), Device::Cpu, 7).unwrap()
}

/// Normalised pixels between -1 and 1, and an order of the patches for each image.
fn batch() -> (Tensor, Tensor, Tensor) {
    let count = BATCH * PATCHES * PATCH_DIM;
    let patches = ((Tensor::arange(count, (Kind::Float, Device::Cpu)) + 1.0) * 0.37)
        .sin()
        .view([BATCH, PATCHES, PATCH_DIM]);
    let noise = ((Tensor::arange(BATCH * PATCHES, (Kind::Float, Device::Cpu)) + 1.0) * 1.7)
        .sin()
        .view([BATCH, PATCHES]);
    let hidden = PATCHES - KEPT;
    (
        patches.narrow(1, 0, KEPT).contiguous(),
        patches.narrow(1, KEPT, hidden).contiguous(),
        noise.argsort(1, false),
    )
}

/// Norm of the difference over the norm.
fn relative(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).norm() / b.norm()).double_value(&[])
}

fn gradients(model: &MaskedAutoencoderViT) -> BTreeMap<String, Tensor> {
    let (visible, masked, ids_shuffle) = batch();
    model
        .forward(&visible, &masked, &ids_shuffle)
        .unwrap()
        .backward();
    let trainable = model.parameters().into_iter();
    trainable
        .filter(|(_, parameter)| parameter.requires_grad())
        .map(|(key, parameter)| {
            let gradient = parameter.grad();
            assert!(gradient.defined(), "{key} has no gradient");
            (key, gradient)
        })
        .collect()
}

/// The keys of one model that the other lacks, and the reverse; what both have must be the same.
fn differing_keys(
    a: &MaskedAutoencoderViT,
    b: &MaskedAutoencoderViT,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let (a, b) = (a.parameters(), b.parameters());
    for (key, value) in &a {
        if let Some(other) = b.get(key) {
            assert_eq!(value, other, "{key}");
        }
    }
    let only = |a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>| {
        (a.keys().filter(|key| !b.contains_key(*key)))
            .cloned()
            .collect()
    };
    (only(&a, &b), only(&b, &a))
}

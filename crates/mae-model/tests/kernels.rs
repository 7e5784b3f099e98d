//! The fused kernels against libtorch, value by value and gradient by gradient.

use std::collections::BTreeMap;

use mae_model::classifier::{ClassifierConfig, Pass};
use mae_model::{
    Kernels, LossRegion, MaeConfig, MaskedAutoencoderViT, Normalization, VitClassifier,
};
use tch::{Device, Kind, Tensor};
use torch_ext::autocast;

/// Values between -1 and 1 that repeat only after long.
fn wave(size: &[i64], step: f64) -> Tensor {
    let count = size.iter().product::<i64>();
    ((Tensor::arange(count, (Kind::Float, Device::Cpu)) + 1.0) * step)
        .sin()
        .view(size)
}

/// Norm of the difference over the norm.
fn relative(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).norm() / b.norm()).double_value(&[])
}

/// Biases and norms away from their first values, which would hide mistakes.
fn disturb(parameters: &BTreeMap<String, Tensor>) {
    for (key, parameter) in parameters {
        let mut parameter = parameter.shallow_clone();
        if key.ends_with("bias") || key.contains("norm") {
            tch::no_grad(|| parameter += wave(&parameter.size(), 0.7) * 0.2);
        }
    }
}

fn take_gradients(parameters: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let trainable = parameters.iter().filter(|(_, p)| p.requires_grad());
    trainable
        .map(|(key, parameter)| {
            let mut gradient = parameter.grad();
            let copy = gradient.copy();
            let _ = gradient.zero_();
            (key.clone(), copy)
        })
        .collect()
}

fn assert_close(fused: &BTreeMap<String, Tensor>, plain: &BTreeMap<String, Tensor>) {
    for (key, plain) in plain {
        let error = relative(&fused[key], plain);
        assert!(error < 1e-5, "{key}: {error}");
    }
}

/// Under autocast the fused blocks are no further from what is `exact` than libtorch's operations are, all in all and
/// value by value; and where the processor has no bf16 they are those.
fn assert_as_close_in_bf16(
    mut step: impl FnMut(Kernels) -> BTreeMap<String, Tensor>,
    exact: &BTreeMap<String, Tensor>,
) {
    let mut errors = |kernels| -> Vec<f64> {
        let values = autocast(Device::Cpu, Kind::BFloat16, || step(kernels)).unwrap();
        exact
            .iter()
            .map(|(key, exact)| relative(&values[key], exact))
            .collect()
    };
    let (plain, fused) = (errors(Kernels::Plain), errors(Kernels::Fused));
    let mean = |errors: &[f64]| errors.iter().sum::<f64>() / errors.len() as f64;
    assert!(
        mean(&fused) <= 1.05 * mean(&plain),
        "{} and {}",
        mean(&fused),
        mean(&plain)
    );
    for ((key, fused), plain) in exact.keys().zip(fused).zip(plain) {
        assert!(
            fused < 2.0 * plain + 1e-3,
            "{key}: {fused}, libtorch {plain}"
        );
    }
}

/// One pre-training step in both ways, for a model of this width whose images have `patches` patches.
fn check_mae(embed_dim: usize, heads: usize, patches: i64, kept: i64, batch: i64) {
    check_variant(&MaeConfig::tiny(16), embed_dim, heads, patches, kept, batch);
}

fn check_variant(
    variant: &MaeConfig,
    embed_dim: usize,
    heads: usize,
    patches: i64,
    kept: i64,
    batch: i64,
) {
    let config = MaeConfig {
        image_height: 4,
        image_width: 4 * patches as usize,
        patch_size: 4,
        embed_dim,
        num_heads: heads,
        depth: 2,
        decoder_embed_dim: embed_dim / 2,
        decoder_num_heads: heads,
        decoder_depth: 2,
        ..variant.clone()
    };
    let mut model =
        MaskedAutoencoderViT::new(&config, &Normalization::IMAGENET, Device::Cpu, 3).unwrap();
    let parameters = model.parameters();
    disturb(&parameters);
    let visible = wave(&[batch, kept, 48], 0.37);
    let masked = wave(&[batch, patches - kept, 48], 0.53);
    let ids_shuffle = Tensor::arange(patches, (Kind::Int64, Device::Cpu))
        .flip([0])
        .expand([batch, patches], false);
    let mut step = |kernels| {
        model.set_kernels(kernels);
        let latent = model.forward_encoder(&visible, &ids_shuffle).unwrap();
        let pred = model.predict(&latent, &ids_shuffle).unwrap();
        let loss = model.forward(&visible, &masked, &ids_shuffle).unwrap();
        loss.backward();
        let mut values = take_gradients(&parameters);
        values.extend([
            ("latent".into(), latent),
            ("pred".into(), pred),
            ("loss".into(), loss),
        ]);
        values
    };
    let plain = step(Kernels::Plain);
    assert_close(&step(Kernels::Fused), &plain);
    assert_close(&step(Kernels::FusedMkl), &plain);
    assert_as_close_in_bf16(step, &plain);
}

#[test]
fn a_step_is_the_same() {
    check_mae(64, 4, 24, 6, 3);
}

#[test]
fn a_step_of_a_variant_is_the_same() {
    let variant = MaeConfig {
        loss_region: LossRegion::All,
        encoder_mask_tokens: true,
        ..MaeConfig::tiny(16)
    };
    check_variant(&variant, 64, 4, 24, 6, 3);
}

#[test]
fn sizes_that_fill_no_vector_are_the_same() {
    check_mae(24, 1, 7, 1, 1);
    check_mae(40, 5, 19, 6, 5);
}

#[test]
fn many_chunks_are_the_same() {
    check_mae(32, 2, 65, 16, 80);
}

fn check_classifier(drop_path: f64, pass: Pass) {
    let encoder = MaeConfig {
        patch_size: 4,
        embed_dim: 48,
        num_heads: 3,
        depth: 3,
        ..MaeConfig::tiny(16)
    };
    let config = ClassifierConfig {
        drop_path,
        ..ClassifierConfig::fine_tune(encoder, 5)
    };
    let mut model = VitClassifier::new(&config, &Normalization::IMAGENET, Device::Cpu, 3).unwrap();
    let parameters = model.parameters();
    disturb(&parameters);
    let patches = wave(&[8, 16, 48], 0.37);
    let mut step = |kernels| {
        model.set_kernels(kernels);
        let logits = model.forward(&patches, pass).unwrap();
        let loss = (&logits * wave(&logits.size(), 1.3)).sum(Kind::Float);
        loss.backward();
        let features = model.features(&patches).unwrap();
        let mut values = take_gradients(&parameters);
        values.extend([("logits".into(), logits), ("features".into(), features)]);
        values
    };
    let plain = step(Kernels::Plain);
    assert_close(&step(Kernels::Fused), &plain);
    assert_close(&step(Kernels::FusedMkl), &plain);
    assert_as_close_in_bf16(step, &plain);
}

#[test]
fn a_classifier_is_the_same() {
    check_classifier(0.0, Pass::Eval);
}

#[test]
fn dropped_branches_are_the_same() {
    check_classifier(0.6, Pass::Train { seed: 1, step: 2 });
}

#[test]
fn a_value_that_is_not_finite_stays_so() {
    let config = MaeConfig {
        embed_dim: 32,
        num_heads: 2,
        ..MaeConfig::tiny(32)
    };
    let model =
        MaskedAutoencoderViT::new(&config, &Normalization::IMAGENET, Device::Cpu, 3).unwrap();
    let grid = config.grid().unwrap();
    // An infinite pixel: NaN would be one that is missing.
    let visible = wave(&[1, 1, grid.patch_dim() as i64], 0.37) * f64::INFINITY;
    let ids_shuffle = Tensor::arange(4, (Kind::Int64, Device::Cpu)).unsqueeze(0);
    let latent = model.forward_encoder(&visible, &ids_shuffle).unwrap();
    assert_eq!(latent.isnan().all().int64_value(&[]), 1);
}

//! Which patches the loss is over, and what the encoder sees in place of hidden ones.

use std::collections::BTreeSet;

use mae_model::classifier::ClassifierConfig;
use mae_model::{LossRegion, MaeConfig, MaskedAutoencoderViT, Normalization, VitClassifier};
use tch::{Device, Kind, Tensor};

use crate::{
    BATCH, KEPT, PATCH_DIM, PATCHES, batch, build, config, differing_keys, gradients, relative,
};

fn loss_on_all() -> MaskedAutoencoderViT {
    build(&MaeConfig {
        loss_region: LossRegion::All,
        ..config()
    })
}

fn encoder_with_mask_tokens() -> MaskedAutoencoderViT {
    build(&MaeConfig {
        encoder_mask_tokens: true,
        ..config()
    })
}

fn mean_square(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).square().mean(Kind::Double).double_value(&[])
}

#[test]
fn a_loss_on_all_patches_is_their_mean_and_leaves_the_network_as_it_is() {
    let (plain, all) = (build(&config()), loss_on_all());
    assert_eq!(differing_keys(&plain, &all), Default::default());

    let (visible, masked, ids_shuffle) = batch();
    let latent = all.forward_encoder(&visible, &ids_shuffle).unwrap();
    let pred = all.predict(&latent, &ids_shuffle).unwrap();
    // In the image's order, which `forward` never makes.
    let ids = ids_shuffle.unsqueeze(-1).expand_as(&pred);
    let image = pred
        .zeros_like()
        .scatter(1, &ids, &Tensor::cat(&[&visible, &masked], 1));
    let hidden = Tensor::ones([BATCH, PATCHES], (Kind::Float, Device::Cpu))
        .scatter_value(1, &ids_shuffle.narrow(1, 0, KEPT), 0.0)
        .unsqueeze(-1);

    let loss = |model: &MaskedAutoencoderViT| {
        let loss = model.forward(&visible, &masked, &ids_shuffle).unwrap();
        assert_eq!(loss.kind(), Kind::Float);
        loss.double_value(&[])
    };
    let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-5, "{a} against {b}");
    close(loss(&all), mean_square(&pred, &image));
    let squares = (&pred - &image).square() * &hidden;
    let on_hidden = squares.sum(Kind::Double) / (hidden.sum(Kind::Double) * PATCH_DIM);
    close(loss(&plain), on_hidden.double_value(&[]));

    let (of_plain, of_all) = (gradients(&plain), gradients(&all));
    for key in [
        "decoder_pred.weight",
        "decoder_embed.weight",
        "patch_embed.proj.weight",
    ] {
        assert!(relative(&of_all[key], &of_plain[key]) > 0.05, "{key}");
    }
}

#[test]
fn mask_tokens_in_the_encoder_replace_the_decoders() {
    let (plain, variant) = (build(&config()), encoder_with_mask_tokens());
    let key = |key: &str| BTreeSet::from([key.to_string()]);
    assert_eq!(
        differing_keys(&plain, &variant),
        (key("mask_token"), key("encoder_mask_token"))
    );
    let parameters = variant.parameters();
    assert_eq!(parameters["encoder_mask_token"].size(), [1, 1, 32]);
    let deviation = parameters["encoder_mask_token"].std(true);
    assert!((0.01..0.03).contains(&deviation.double_value(&[])));
    for (key, gradient) in gradients(&variant) {
        assert!(gradient.norm().double_value(&[]) > 0.0, "{key}");
    }
}

#[test]
fn the_encoder_sees_a_mask_token_where_a_patch_would_be_embedded() {
    let (plain, variant) = (build(&config()), encoder_with_mask_tokens());
    let (visible, _, ids_shuffle) = batch();
    let latent = variant.forward_encoder(&visible, &ids_shuffle).unwrap();
    assert_eq!(latent.size(), [BATCH, 1 + PATCHES, 32]);

    // Pixels whose embedding is the mask token, shown to the encoder without mask tokens.
    let parameters = variant.parameters();
    let weight = parameters["patch_embed.proj.weight"]
        .permute([0, 2, 3, 1])
        .flatten(1, 3);
    let token = parameters["encoder_mask_token"].view([32, 1])
        - parameters["patch_embed.proj.bias"].view([32, 1]);
    let pixels = weight
        .to_kind(Kind::Double)
        .pinverse(1e-12)
        .matmul(&token.to_kind(Kind::Double))
        .to_kind(Kind::Float)
        .view([1, 1, PATCH_DIM])
        .expand([BATCH, PATCHES - KEPT, -1], false);
    let expected = plain
        .forward_encoder(&Tensor::cat(&[&visible, &pixels], 1), &ids_shuffle)
        .unwrap();
    assert!(relative(&latent, &expected) < 1e-5);

    // The decoder adds positions and nothing else.
    let pred = variant.predict(&latent, &ids_shuffle).unwrap();
    assert_eq!(pred.size(), [BATCH, PATCHES, PATCH_DIM]);
    let masked = variant.forward_decoder(&latent, &ids_shuffle, KEPT);
    let ids_masked = (ids_shuffle.narrow(1, KEPT, PATCHES - KEPT).unsqueeze(-1))
        .expand([BATCH, PATCHES - KEPT, PATCH_DIM], false);
    assert!(relative(&masked.unwrap(), &pred.gather(1, &ids_masked, false)) < 1e-5);
}

/// Hidden pixels act on the loss as a target and in no other way: its gradient by them is that of the squares.
#[test]
fn hidden_pixels_reach_no_network() {
    for encoder_mask_tokens in [false, true] {
        let model = build(&MaeConfig {
            encoder_mask_tokens,
            ..config()
        });
        let (visible, masked, ids_shuffle) = batch();
        let masked = masked.set_requires_grad(true);
        let loss = model.forward(&visible, &masked, &ids_shuffle).unwrap();
        loss.backward();
        let latent = model.forward_encoder(&visible, &ids_shuffle).unwrap();
        let pred = model.forward_decoder(&latent, &ids_shuffle, KEPT).unwrap();
        let expected = (&masked - pred) * 2.0 / masked.numel() as f64;
        assert!(relative(&masked.grad(), &expected) < 1e-5);
    }
}

#[test]
fn latents_of_the_other_encoder_are_refused() {
    let (plain, variant) = (build(&config()), encoder_with_mask_tokens());
    let (visible, _, ids_shuffle) = batch();
    let latent = |model: &MaskedAutoencoderViT| {
        let latent = model.forward_encoder(&visible, &ids_shuffle);
        latent.unwrap()
    };
    let message = |model: &MaskedAutoencoderViT, latent: &Tensor| {
        let pred = model.predict(latent, &ids_shuffle);
        pred.unwrap_err().to_string()
    };
    assert!(message(&plain, &latent(&variant)).contains("expected [3, 1 + kept, 32]"));
    assert!(message(&variant, &latent(&plain)).contains("expected [3, 25, 32]"));
    let beyond = plain.forward_decoder(&latent(&plain), &ids_shuffle, PATCHES);
    let message = beyond.unwrap_err().to_string();
    assert!(message.contains("`first` is 24, expected a patch, from 0 to 23"));
}

#[test]
fn a_variants_encoder_is_loaded_and_judged_as_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let model = encoder_with_mask_tokens();
    model.save(&file).unwrap();
    let loaded = MaskedAutoencoderViT::load(&file, Device::Cpu).unwrap();
    assert_eq!(loaded.config(), model.config());
    assert_eq!(differing_keys(&model, &loaded), Default::default());

    let classifier_config = ClassifierConfig::linear_probe(model.config().clone(), 5);
    let classifier = VitClassifier::new(
        &classifier_config,
        &Normalization::identity(3),
        Device::Cpu,
        1,
    )
    .unwrap();
    assert!(!classifier.parameters().contains_key("encoder_mask_token"));
    classifier.load_encoder(&file).unwrap();
    // All patches in the image's order: nothing is hidden, so there is no mask token.
    let (visible, masked, _) = batch();
    let patches = Tensor::cat(&[visible, masked], 1);
    let ids = Tensor::arange(PATCHES, (Kind::Int64, Device::Cpu)).expand([BATCH, -1], false);
    let latent = model.forward_encoder(&patches, &ids).unwrap();
    let features = classifier.features(&patches).unwrap();
    assert!(relative(&features, &latent.select(1, 0)) < 1e-5);
}

#[test]
fn configurations_from_before_the_variants_are_read() {
    let mut json = serde_json::to_value(config()).unwrap();
    let keys = json.as_object_mut().unwrap();
    for key in ["target", "loss_region", "encoder_mask_tokens"] {
        assert!(keys.remove(key).is_some(), "{key}");
    }
    assert_eq!(serde_json::from_value::<MaeConfig>(json).unwrap(), config());
}

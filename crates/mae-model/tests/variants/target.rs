//! What the decoder predicts.

use std::collections::BTreeSet;

use mae_model::pca::Moments;
use mae_model::{
    LossRegion, MaeConfig, MaskedAutoencoderViT, Normalization, PatchStatistics, Pca, Target,
    Tokenizer, TokenizerConfig, unshuffle,
};
use tch::{Device, Kind, Tensor};

use crate::{
    BATCH, KEPT, PATCH_DIM, PATCHES, batch, build, config, differing_keys, gradients, relative,
};

const HIDDEN: i64 = PATCHES - KEPT;
const VOCABULARY: i64 = 20;

fn pca_config(components: i64) -> MaeConfig {
    MaeConfig {
        target: Target::Pca,
        pca_components: Some(components as usize),
        ..config()
    }
}

/// Of the patches of [`batch`].
fn pca(components: i64) -> Pca {
    let (visible, masked, _) = batch();
    let mut moments = Moments::new(PATCH_DIM as usize);
    moments.add(&visible).unwrap();
    moments.add(&masked).unwrap();
    moments.principal_components(components as usize).unwrap().0
}

fn pca_model(components: i64) -> MaskedAutoencoderViT {
    let model = build(&pca_config(components));
    model.set_pca(&pca(components)).unwrap();
    model
}

fn tokenizer(seed: u64) -> Tokenizer {
    let config = TokenizerConfig {
        image_height: 16,
        image_width: 24,
        patch_size: 4,
        channels: 3,
        vocabulary: VOCABULARY as usize,
        width: 16,
        blocks: 1,
    };
    Tokenizer::new(&config, &Normalization::identity(3), Device::Cpu, seed).unwrap()
}

fn tokens_config(loss_region: LossRegion) -> MaeConfig {
    MaeConfig {
        target: Target::Tokens,
        tokenizer: Some(tokenizer(0).config().clone()),
        loss_region,
        ..config()
    }
}

fn tokens_model(loss_region: LossRegion) -> MaskedAutoencoderViT {
    let model = build(&tokens_config(loss_region));
    model.set_tokenizer(&tokenizer(5)).unwrap();
    model
}

fn loss(model: &MaskedAutoencoderViT) -> f64 {
    let (visible, masked, ids_shuffle) = batch();
    let loss = model.forward(&visible, &masked, &ids_shuffle).unwrap();
    assert_eq!((loss.kind(), loss.size()), (Kind::Float, vec![]));
    loss.double_value(&[])
}

/// Predictions in the image's order.
fn predict(model: &MaskedAutoencoderViT) -> Tensor {
    let (visible, _, ids_shuffle) = batch();
    let latent = model.forward_encoder(&visible, &ids_shuffle).unwrap();
    model.predict(&latent, &ids_shuffle).unwrap()
}

/// The patches of whole images, in the images' order.
fn image() -> Tensor {
    let (visible, masked, ids_shuffle) = batch();
    unshuffle(&Tensor::cat(&[visible, masked], 1), &ids_shuffle)
}

fn close(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-5, "{found}, {expected}");
}

/// Saves and loads; all that a target learned beforehand must be in the file.
fn check_file(model: &MaskedAutoencoderViT) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    model.save(&file).unwrap();
    let loaded = MaskedAutoencoderViT::load(&file, Device::Cpu).unwrap();
    assert_eq!(loaded.config(), model.config());
    assert_eq!(differing_keys(model, &loaded), Default::default());
    assert_eq!(loss(&loaded), loss(model));
    let resumed = build(model.config());
    resumed.load_weights(&file).unwrap();
    assert_eq!(loss(&resumed), loss(model));
}

#[test]
fn components_are_a_fixed_part_of_the_model() {
    let (plain, model) = (build(&config()), pca_model(48));
    let (missing, extra) = differing_keys(&plain, &model);
    assert!(missing.is_empty());
    let basis = ["target.components", "target.mean"].map(String::from);
    assert_eq!(extra, BTreeSet::from(basis));
    let trained = gradients(&model);
    assert!(trained.keys().eq(gradients(&plain).keys()));
    let smaller = pca_model(5).parameters();
    assert_eq!(smaller["decoder_pred.weight"].size(), [5, 24]);
    check_file(&pca_model(5));
}

/// A rotation keeps distances: with all components the error is that of the pixels predicted.
#[test]
fn the_loss_is_the_error_of_the_largest_coefficients() {
    let hidden = |all: &Tensor| {
        let (_, _, ids_shuffle) = batch();
        let ids = ids_shuffle.narrow(1, KEPT, HIDDEN).unsqueeze(-1);
        all.gather(1, &ids.expand([BATCH, HIDDEN, all.size()[2]], false), false)
    };
    let model = pca_model(48);
    let basis = pca(48);
    let pred = predict(&model).matmul(&basis.components) + &basis.mean;
    let error = hidden(&(pred - image())).square().mean(Kind::Double);
    close(loss(&model), error.double_value(&[]));

    // Of fewer components, the same coefficients: their order is that of the variance.
    let few = pca_model(5);
    let coefficients = (image() - &basis.mean)
        .matmul(&basis.components.tr())
        .narrow(2, 0, 5);
    let error = hidden(&(predict(&few) - coefficients)).square();
    close(loss(&few), error.mean(Kind::Double).double_value(&[]));
    let all = build(&MaeConfig {
        loss_region: LossRegion::All,
        ..pca_config(5)
    });
    all.set_pca(&pca(5)).unwrap();
    let coefficients = (image() - &basis.mean)
        .matmul(&basis.components.tr())
        .narrow(2, 0, 5);
    let error = (predict(&all) - coefficients).square().mean(Kind::Double);
    close(loss(&all), error.double_value(&[]));
}

#[test]
fn coefficients_become_pixels() {
    let (_, _, ids_shuffle) = batch();
    let ids_keep = ids_shuffle.narrow(1, 0, KEPT);
    let basis = pca(5);
    let projection = (image() - &basis.mean).matmul(&basis.components.tr());
    let expected = projection.matmul(&basis.components) + &basis.mean;
    let pixels = pca_model(5).to_pixels(&projection, &image(), &ids_keep, PatchStatistics::Raw);
    assert!(relative(&pixels.unwrap(), &expected) < 1e-5);
}

#[test]
fn tokens_of_hidden_patches_are_predicted_with_cross_entropy() {
    let ids = tokenizer(5).encode_patches(&image()).unwrap();
    assert!(
        ids.view([-1]).unique_dim(0, true, false, false).0.numel() > 3,
        "{ids}"
    );
    let (_, _, ids_shuffle) = batch();
    for (region, first) in [(LossRegion::Masked, KEPT), (LossRegion::All, 0)] {
        let model = tokens_model(region);
        let log_q = predict(&model).log_softmax(-1, Kind::Double);
        let of_token = log_q.gather(2, &ids.unsqueeze(-1), false).squeeze_dim(-1);
        let places = ids_shuffle.narrow(1, first, PATCHES - first);
        let expected = -of_token.gather(1, &places, false).mean(Kind::Double);
        close(loss(&model), expected.double_value(&[]));
    }
}

#[test]
fn a_tokenizer_is_a_fixed_part_of_the_model() {
    let (plain, model) = (build(&config()), tokens_model(LossRegion::Masked));
    assert_eq!(model.parameters()["decoder_pred.bias"].size(), [VOCABULARY]);
    let before = tokenizer(5).parameters();
    for (key, weight) in &before {
        assert_eq!(&model.parameters()[&format!("target.{key}")], weight);
    }
    let keys = |model: &MaskedAutoencoderViT| model.parameters().into_keys();
    assert_eq!(keys(&model).count(), keys(&plain).count() + before.len());
    assert!(gradients(&model).keys().eq(gradients(&plain).keys()));
    check_file(&model);
}

#[test]
fn tokens_become_pixels_beside_the_true_ones() {
    let model = tokens_model(LossRegion::Masked);
    let (_, _, ids_shuffle) = batch();
    let ids_keep = ids_shuffle.narrow(1, 0, KEPT);
    let ids = tokenizer(5).encode_patches(&image()).unwrap();
    // Right for the hidden patches, and wrong, which must not matter, for the visible ones.
    let wrong = (&ids + 1).remainder(VOCABULARY);
    let shown = ids.scatter(1, &ids_keep, &wrong.gather(1, &ids_keep, false));
    let pred = shown.one_hot(VOCABULARY).to_kind(Kind::Float);
    let pixels = model
        .to_pixels(&pred, &image(), &ids_keep, PatchStatistics::Raw)
        .unwrap();
    let decoded = tokenizer(5).decode(&ids).unwrap();
    let expected = tokenizer(5).patches_of(&decoded).unwrap();
    assert!(relative(&pixels, &expected) < 1e-5);
}

#[test]
fn targets_and_losses_are_in_full_precision_under_autocast() {
    let (visible, masked, ids_shuffle) = batch();
    for model in [pca_model(5), tokens_model(LossRegion::All)] {
        let target = model.target(&visible, &masked, &ids_shuffle).unwrap();
        let pred = predict(&model).narrow(1, 0, target.size()[1]);
        let expected = model.forward_loss(&pred, &target).unwrap();
        torch_ext::autocast(Device::Cpu, Kind::BFloat16, || {
            let again = model.target(&visible, &masked, &ids_shuffle).unwrap();
            assert_eq!(again, target);
            let loss = model.forward_loss(&pred, &again).unwrap();
            assert_eq!((loss.kind(), &loss), (Kind::Float, &expected));
            let whole = model.forward(&visible, &masked, &ids_shuffle).unwrap();
            assert_eq!(whole.kind(), Kind::Float);
        })
        .unwrap();
    }
}

#[test]
fn what_a_target_must_have_learned_is_asked_for() {
    let (visible, masked, ids_shuffle) = batch();
    for (config, expected) in [
        (
            pca_config(5),
            "`pca` is not set, expected `set_pca` or a checkpoint",
        ),
        (
            tokens_config(LossRegion::Masked),
            "`tokenizer` is not set, expected `set_tokenizer` or a checkpoint",
        ),
    ] {
        let loss = build(&config).forward(&visible, &masked, &ids_shuffle);
        let message = loss.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let message = |result: mae_model::Result<()>| result.unwrap_err().to_string();
    let found = message(build(&pca_config(5)).set_pca(&pca(6)));
    assert!(found.contains("`components` has shape [6, 48], expected [5, 48]"));
    let found = message(build(&config()).set_pca(&pca(5)));
    assert!(
        found.contains("`target` is \"pixels\", expected \"pca\""),
        "{found}"
    );
    let found = message(pca_model(5).set_tokenizer(&tokenizer(0)));
    assert!(
        found.contains("`target` is \"pca\", expected \"tokens\""),
        "{found}"
    );
    let other = MaskedAutoencoderViT::new(
        &tokens_config(LossRegion::Masked),
        &Normalization::new(vec![0.5; 3], vec![0.5; 3]),
        Device::Cpu,
        0,
    );
    let found = message(other.unwrap().set_tokenizer(&tokenizer(0)));
    assert!(found.contains("`tokenizer's normalization`"), "{found}");
    let pred = Tensor::zeros([BATCH, HIDDEN, 4], (Kind::Float, Device::Cpu));
    let model = tokens_model(LossRegion::Masked);
    let target = model.target(&visible, &masked, &ids_shuffle).unwrap();
    let found = model.forward_loss(&pred, &target).unwrap_err().to_string();
    assert!(found.contains("expected [3, 18, 20]"), "{found}");
}

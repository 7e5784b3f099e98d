//! Values that are missing: NaN in the pixels that a model is given.

use mae_model::{
    MaeConfig, MaskedAutoencoderViT, Normalization, PatchStatistics, Target, Tokenizer,
    TokenizerConfig, pca,
};
use tch::{Device, Kind, Tensor};

const BATCH: i64 = 3;
const PATCHES: i64 = 6;
const KEPT: i64 = 2;
const PATCH_DIM: i64 = 48;
const CHANNELS: i64 = 3;

fn config(change: impl FnOnce(&mut MaeConfig)) -> MaeConfig {
    let mut config = MaeConfig {
        image_height: 8,
        image_width: 12,
        patch_size: 4,
        embed_dim: 32,
        depth: 1,
        num_heads: 4,
        decoder_embed_dim: 24,
        decoder_depth: 1,
        decoder_num_heads: 3,
        norm_pix_loss: false,
        ..MaeConfig::tiny(16)
    };
    change(&mut config);
    config
}

fn normalization() -> Normalization {
    Normalization::new(vec![0.4, -2.0, 300.0], vec![0.2, 5.0, 12.0])
}

fn build(config: &MaeConfig) -> MaskedAutoencoderViT {
    MaskedAutoencoderViT::new(config, &normalization(), Device::Cpu, 7).unwrap()
}

/// Values in the units of [`normalization`], `[BATCH, PATCHES, PATCH_DIM]`, and orders of the patches.
fn images() -> (Tensor, Tensor) {
    let wave = |count: i64, step: f64| {
        ((Tensor::arange(count, (Kind::Float, Device::Cpu)) + 1.0) * step).sin()
    };
    let normalized = wave(BATCH * PATCHES * PATCH_DIM, 0.37).view([BATCH, PATCHES, PATCH_DIM]);
    let ids_shuffle = wave(BATCH * PATCHES, 1.7)
        .view([BATCH, PATCHES])
        .argsort(1, false);
    (denormalize(&normalized), ids_shuffle)
}

fn denormalize(patches: &Tensor) -> Tensor {
    let pixels = patches.view([-1, CHANNELS]);
    normalization()
        .denormalize(&pixels)
        .unwrap()
        .view_as(patches)
}

fn normalize(patches: &Tensor) -> Tensor {
    let pixels = patches.reshape([-1, CHANNELS]);
    normalization().normalize(&pixels).unwrap().view_as(patches)
}

/// Visible and masked patches, in shuffled order.
fn split(patches: &Tensor) -> (Tensor, Tensor) {
    (
        patches.narrow(1, 0, KEPT).contiguous(),
        patches.narrow(1, KEPT, PATCHES - KEPT).contiguous(),
    )
}

/// In the first image, the second half of its first hidden patch, all of its second, and one value of a visible one are
/// missing; in the second, every hidden patch; in the third nothing.
fn with_gaps() -> Tensor {
    let (patches, _) = images();
    let gap = |patches: &Tensor| drop(patches.shallow_clone().fill_(f64::NAN));
    let first = patches.get(0);
    gap(&first.get(KEPT).narrow(0, PATCH_DIM / 2, PATCH_DIM / 2));
    gap(&first.get(KEPT + 1));
    gap(&first.get(0).narrow(0, 5, 1));
    gap(&patches.get(1).narrow(0, KEPT, PATCHES - KEPT));
    patches
}

fn loss(model: &MaskedAutoencoderViT, patches: &Tensor) -> Tensor {
    let (visible, masked) = split(patches);
    model.forward(&visible, &masked, &images().1).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

/// The loss as its documentation says it, number by number.
fn loss_by_hand(pred: &Tensor, target: &Tensor) -> f64 {
    let images = (0..BATCH).map(|image| {
        let (pred, target) = (numbers(&pred.get(image)), numbers(&target.get(image)));
        let errors: Vec<f64> = pred
            .iter()
            .zip(&target)
            .filter(|(_, target)| !target.is_nan())
            .map(|(pred, target)| (pred - target).powi(2))
            .collect();
        errors.iter().sum::<f64>() / errors.len().max(1) as f64
    });
    images.sum::<f64>() / BATCH as f64
}

fn check(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() < 1e-6 * expected.abs().max(1.0),
        "{found}, expected {expected}"
    );
}

#[test]
fn the_loss_is_of_what_is_there() {
    let (visible, masked) = split(&with_gaps());
    let ids_shuffle = images().1;
    for norm_pix_loss in [false, true] {
        let model = build(&config(|config| config.norm_pix_loss = norm_pix_loss));
        let latent = model.forward_encoder(&visible, &ids_shuffle).unwrap();
        let pred = model.forward_decoder(&latent, &ids_shuffle, KEPT).unwrap();
        // The target by hand: of each patch, its values in normalised units; under norm_pix_loss less their mean and
        // over their deviation.
        let known = masked.isnan().logical_not();
        let values = numbers(&normalize(&masked));
        let known = numbers(&known);
        let mut target = vec![f64::NAN; values.len()];
        for patch in (0..values.len()).step_by(PATCH_DIM as usize) {
            let there: Vec<usize> = (patch..patch + PATCH_DIM as usize)
                .filter(|&at| known[at] == 1.0)
                .collect();
            let count = there.len() as f64;
            let mean = there.iter().map(|&at| values[at]).sum::<f64>() / count;
            let squares = there
                .iter()
                .map(|&at| (values[at] - mean).powi(2))
                .sum::<f64>();
            let std = (squares / (count - 1.0) + 1e-6).sqrt();
            for at in there {
                target[at] = match norm_pix_loss {
                    true => (values[at] - mean) / std,
                    false => values[at],
                };
            }
        }
        let target = Tensor::from_slice(&target).view_as(&masked);
        let found = loss(&model, &with_gaps());
        check(found.double_value(&[]), loss_by_hand(&pred, &target));
        let again = model
            .forward_loss(
                &pred,
                &model.target(&visible, &masked, &ids_shuffle).unwrap(),
            )
            .unwrap();
        check(again.double_value(&[]), found.double_value(&[]));
    }
}

/// Nothing missing is the mean over all, as of bytes; an image counts the same in any batch.
#[test]
fn a_batch_is_the_mean_of_its_images() {
    let model = build(&config(|config| config.norm_pix_loss = true));
    let (patches, ids_shuffle) = images();
    let (visible, masked) = split(&patches);
    let latent = model.forward_encoder(&visible, &ids_shuffle).unwrap();
    let pred = model.forward_decoder(&latent, &ids_shuffle, KEPT).unwrap();
    let target = model.target(&visible, &masked, &ids_shuffle).unwrap();
    let plain = (pred - target).square().mean(Kind::Float);
    check(
        loss(&model, &patches).double_value(&[]),
        plain.double_value(&[]),
    );

    let patches = with_gaps();
    let alone = |image: i64| {
        let (visible, masked) = split(&patches.narrow(0, image, 1));
        let ids = ids_shuffle.narrow(0, image, 1);
        model
            .forward(&visible, &masked, &ids)
            .unwrap()
            .double_value(&[])
    };
    assert_eq!(alone(1), 0.0);
    let mean = (0..BATCH).map(alone).sum::<f64>() / BATCH as f64;
    check(loss(&model, &patches).double_value(&[]), mean);
}

/// What the encoder sees in a gap is the channel's mean, and no gradient is lost to NaN.
#[test]
fn gaps_are_filled_with_the_mean() {
    let model = build(&config(|_| {}));
    let (gaps, ids_shuffle) = (with_gaps(), images().1);
    let means = denormalize(&gaps.zeros_like());
    let filled = means.where_self(&gaps.isnan(), &gaps);
    let latent = |patches: &Tensor| {
        model
            .forward_encoder(&split(patches).0, &ids_shuffle)
            .unwrap()
    };
    let difference = (latent(&gaps) - latent(&filled))
        .abs()
        .max()
        .double_value(&[]);
    assert!(difference < 1e-5, "{difference}");

    loss(&model, &gaps).backward();
    for (key, parameter) in model.parameters() {
        if parameter.requires_grad() {
            assert_eq!(
                parameter.grad().isfinite().all().int64_value(&[]),
                1,
                "{key}"
            );
        }
    }
}

#[test]
fn coefficients_and_tokens_of_empty_patches_are_left_out() {
    let (gaps, ids_shuffle) = (with_gaps(), images().1);
    let (visible, masked) = split(&gaps);
    let empty = masked.isnan().all_dim(-1, false);
    let means = denormalize(&gaps.zeros_like());
    let filled = means.where_self(&gaps.isnan(), &gaps);

    let mut moments = pca::Moments::new(PATCH_DIM as usize);
    moments.add(&normalize(&images().0)).unwrap();
    let model = build(&config(|config| {
        config.target = Target::Pca;
        config.pca_components = Some(4);
    }));
    model
        .set_pca(&moments.principal_components(4).unwrap().0)
        .unwrap();
    check_left_out(
        &model,
        [&visible, &masked, &ids_shuffle],
        &split(&filled),
        &empty,
    );

    let tokenizer = TokenizerConfig {
        image_height: 8,
        image_width: 12,
        patch_size: 4,
        channels: CHANNELS as usize,
        vocabulary: 24,
        width: 16,
        blocks: 1,
    };
    let model = build(&config(|config| {
        config.target = Target::Tokens;
        config.tokenizer = Some(tokenizer.clone());
    }));
    let tokenizer = Tokenizer::new(&tokenizer, &normalization(), Device::Cpu, 3).unwrap();
    model.set_tokenizer(&tokenizer).unwrap();
    check_left_out(
        &model,
        [&visible, &masked, &ids_shuffle],
        &split(&filled),
        &empty,
    );
}

/// The target is that of filled images but where patches are empty, and these have no part in the loss.
fn check_left_out(
    model: &MaskedAutoencoderViT,
    [visible, masked, ids_shuffle]: [&Tensor; 3],
    (filled_visible, filled_masked): &(Tensor, Tensor),
    empty: &Tensor,
) {
    let target = model.target(visible, masked, ids_shuffle).unwrap();
    let whole = model
        .target(filled_visible, filled_masked, ids_shuffle)
        .unwrap();
    let is_tokens = target.kind() == Kind::Int64;
    let missing = match is_tokens {
        true => target.eq(-100),
        false => target.isnan().all_dim(-1, false),
    };
    assert_eq!(missing, *empty);
    let there = empty.logical_not();
    let difference = |a: &Tensor, b: &Tensor| {
        let rows = |values: &Tensor| values.flatten(0, 1).index(&[Some(there.flatten(0, 1))]);
        (rows(a) - rows(b)).abs().max().double_value(&[])
    };
    assert!(difference(&target, &whole) < 1e-5);

    let latent = model.forward_encoder(visible, ids_shuffle).unwrap();
    let pred = model.forward_decoder(&latent, ids_shuffle, KEPT).unwrap();
    let loss = model
        .forward(visible, masked, ids_shuffle)
        .unwrap()
        .double_value(&[]);
    let expected = match is_tokens {
        false => loss_by_hand(&pred, &target),
        true => {
            let probabilities = pred.log_softmax(-1, Kind::Double);
            let ids = target.clamp_min(0).unsqueeze(-1);
            let likelihood = probabilities.gather(2, &ids, false).squeeze_dim(-1);
            let sums = (-likelihood * &there).sum_dim_intlist(1i64, false, Kind::Double);
            let counts = there
                .sum_dim_intlist(1i64, false, Kind::Double)
                .clamp_min(1.0);
            (sums / counts).mean(Kind::Double).double_value(&[])
        }
    };
    check(loss, expected);
    // Any other prediction of an empty patch gives the same loss.
    let other = pred.masked_fill(&empty.unsqueeze(-1), 1e6);
    let found = model.forward_loss(&other, &target).unwrap();
    check(found.double_value(&[]), loss);
}

#[test]
fn pictures_take_the_statistics_of_what_is_there() {
    let model = build(&config(|config| config.norm_pix_loss = true));
    let (gaps, ids_shuffle) = (with_gaps(), images().1);
    let zeros = Tensor::zeros([BATCH, PATCHES, PATCH_DIM], (Kind::Float, Device::Cpu));
    let ids_keep = ids_shuffle.narrow(1, 0, KEPT);
    for statistics in PatchStatistics::ALL {
        let pixels = model
            .to_pixels(&zeros, &gaps, &ids_keep, statistics)
            .unwrap();
        assert_eq!(
            pixels.isfinite().all().int64_value(&[]),
            1,
            "{statistics:?}"
        );
    }
    // The half of the patch that is there has a mean, which the oracle gives to all of it.
    let pixels = model
        .to_pixels(&zeros, &gaps, &ids_keep, PatchStatistics::Oracle)
        .unwrap();
    let half = |patches: &Tensor| {
        normalize(patches)
            .get(0)
            .get(KEPT)
            .narrow(0, 0, PATCH_DIM / 2)
    };
    let expected = half(&gaps).mean(Kind::Double).double_value(&[]);
    let found = normalize(&pixels).get(0).get(KEPT);
    assert!((found - expected).abs().max().double_value(&[]) < 1e-4);
}

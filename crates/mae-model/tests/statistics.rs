//! From predictions to pixels: where the mean and deviation of normalised patches come from.

use mae_model::{MaeConfig, MaskedAutoencoderViT, Normalization, PatchStatistics};
use tch::{Device, Kind, Tensor};

const PATCH_DIM: i64 = 48;
/// The square root of 48 / 47: variances are unbiased estimates, as the authors' are.
const UNBIASED: f32 = 1.010_582;

/// A model of images of 2 x 3 patches.
fn model(change: impl FnOnce(&mut MaeConfig)) -> MaskedAutoencoderViT {
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
        norm_pix_loss: true,
        ..MaeConfig::tiny(16)
    };
    change(&mut config);
    let normalization = Normalization::new(vec![0.5; 3], vec![0.25; 3]);
    MaskedAutoencoderViT::new(&config, &normalization, Device::Cpu, 1).unwrap()
}

/// Six patches, each half of one grey and half of another.
fn patches(halves: [[u8; 2]; 6]) -> Tensor {
    let half = PATCH_DIM as usize / 2;
    let values: Vec<u8> = halves
        .iter()
        .flat_map(|[a, b]| [vec![*a; half], vec![*b; half]].concat())
        .collect();
    Tensor::from_slice(&values).view([1, 6, PATCH_DIM])
}

/// Means 100, .., 110 and deviations 100, .., 10 of the first and last patch, which are visible; deviations times
/// [`UNBIASED`].
fn image() -> Tensor {
    patches([[0, 200], [7, 9], [255, 3], [40, 50], [60, 60], [100, 120]])
}

/// The pixel that every value of a patch becomes when all are predicted as `pred`, one a patch.
fn pixels(pred: f64, image: &Tensor, statistics: PatchStatistics) -> Vec<f32> {
    let pred = Tensor::full([1, 6, PATCH_DIM], pred, (Kind::Float, Device::Cpu));
    let ids_keep = Tensor::from_slice(&[5i64, 0]).view([1, 2]);
    let pixels = model(|_| {})
        .to_pixels(&pred, image, &ids_keep, statistics)
        .unwrap();
    let levels = pixels.select(2, 11).view([6]) * 255.0;
    Vec::try_from(levels).unwrap()
}

fn check(found: &[f32], expected: [f32; 6]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() < 0.01,
            "{found}, expected {expected}"
        );
    }
}

#[test]
fn the_oracle_knows_each_true_patch() {
    let found = pixels(0.0, &image(), PatchStatistics::Oracle);
    check(&found, [100.0, 8.0, 129.0, 45.0, 60.0, 110.0]);
    let found = pixels(-1.0, &image(), PatchStatistics::Oracle);
    let std = [100.0, 1.0, 126.0, 5.0, 0.0, 10.0].map(|std| std * UNBIASED);
    // One grey has no deviation but the square root of 1e-6, 0.064 of 255.
    let least = 0.001 * 0.25 * 255.0;
    let expected = [
        100.0 - std[0],
        8.0 - std[1],
        129.0 - std[2],
        45.0 - std[3],
        60.0 - least,
        110.0 - std[5],
    ];
    check(&found, expected);
}

#[test]
fn visible_patches_tell_of_hidden_ones() {
    // Squared distances to the first patch: 1, 4, 1, 2; to the last: 2, 1, 4, 1. Weights are 1 / d^4.
    let mean = [
        100.0,
        (100.0 + 110.0 / 4.0) / 1.25,
        (100.0 + 16.0 * 110.0) / 17.0,
        (16.0 * 100.0 + 110.0) / 17.0,
        (100.0 / 4.0 + 110.0) / 1.25,
        110.0,
    ];
    let std = [
        100.0,
        (100.0 + 10.0 / 4.0) / 1.25,
        (100.0 + 16.0 * 10.0) / 17.0,
        (16.0 * 100.0 + 10.0) / 17.0,
        (100.0 / 4.0 + 10.0) / 1.25,
        10.0,
    ];
    check(&pixels(0.0, &image(), PatchStatistics::Visible), mean);
    let above = std::array::from_fn(|i| mean[i] + 0.5 * UNBIASED * std[i]);
    check(&pixels(0.5, &image(), PatchStatistics::Visible), above);
}

#[test]
fn hidden_pixels_show_in_the_oracles_picture_alone() {
    let other = patches([[0, 200], [1, 201], [2, 202], [3, 203], [4, 204], [100, 120]]);
    for statistics in PatchStatistics::ALL {
        let differs = pixels(0.5, &image(), statistics) != pixels(0.5, &other, statistics);
        assert_eq!(
            differs,
            statistics == PatchStatistics::Oracle,
            "{statistics:?}"
        );
    }
}

#[test]
fn raw_predictions_have_the_channels_statistics() {
    let found = pixels(0.5, &image(), PatchStatistics::Raw);
    check(&found, [(0.5 + 0.5 * 0.25) * 255.0; 6]);
}

#[test]
fn what_is_not_normalised_lacks_no_statistics() {
    assert_eq!(model(|_| {}).statistics().len(), 3);
    let model = model(|config| config.norm_pix_loss = false);
    assert_eq!(model.statistics(), [PatchStatistics::Raw]);
    let pred = Tensor::zeros([1, 6, PATCH_DIM], (Kind::Float, Device::Cpu));
    let ids_keep = Tensor::from_slice(&[0i64]).view([1, 1]);
    let to_pixels = |statistics| model.to_pixels(&pred, &image(), &ids_keep, statistics);
    let grey = to_pixels(PatchStatistics::Raw)
        .unwrap()
        .double_value(&[0, 3, 7]);
    assert!((grey - 0.5).abs() < 1e-6, "{grey}");
    let message = to_pixels(PatchStatistics::Oracle).unwrap_err().to_string();
    assert_eq!(
        message,
        "`statistics` is \"oracle\", expected \"raw\": this model predicts pixels that are not normalised by their \
         patch, which lack no mean and deviation"
    );
}

#[test]
fn patches_of_part_of_an_image_are_refused() {
    let (patches, ids_keep) = (
        image().narrow(1, 0, 5),
        Tensor::from_slice(&[0i64]).view([1, 1]),
    );
    let pred = Tensor::zeros([1, 5, PATCH_DIM], (Kind::Float, Device::Cpu));
    let found = model(|_| {}).to_pixels(&pred, &patches, &ids_keep, PatchStatistics::Visible);
    let message = found.unwrap_err().to_string();
    assert!(message.contains("expected [batch, 6, 48]"), "{message}");
}

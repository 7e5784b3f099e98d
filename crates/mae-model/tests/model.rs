//! The model against itself: what must be equal, what must be refused, what must survive a file.

use mae_data::{MaskSampler, SampleKey};
use mae_model::tensor_file::{read_tensors, verify, write_tensors};
use mae_model::{
    CHECKSUMS, MaeConfig, MaskedAutoencoderViT, ModelError, Normalization, PatchStatistics,
    in_units, unshuffle,
};
use std::collections::HashMap;
use tch::{Device, Kind, Tensor};

const BATCH: i64 = 3;

fn config(norm_pix_loss: bool) -> MaeConfig {
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
        norm_pix_loss,
        ..MaeConfig::tiny(16)
    }
}

fn model(norm_pix_loss: bool) -> MaskedAutoencoderViT {
    MaskedAutoencoderViT::new(
        &config(norm_pix_loss),
        &Normalization::IMAGENET,
        Device::Cpu,
        7,
    )
    .unwrap()
}

/// Some u8 patches in shuffled order, and their `ids_shuffle`.
fn batch(kept: i64) -> (Tensor, Tensor, Tensor) {
    let grid = config(true).grid().unwrap();
    let ids: Vec<i64> = (0..BATCH as u64)
        .flat_map(|index| {
            let key = SampleKey {
                seed: 1,
                epoch: 0,
                index,
            };
            let mask = MaskSampler::Random.sample(&grid, 0.75, key).unwrap();
            mask.ids_shuffle()
                .iter()
                .map(|&id| i64::from(id))
                .collect::<Vec<_>>()
        })
        .collect();
    let patches: Vec<u8> = (0..BATCH * 24 * 48).map(|i| (i * i % 251) as u8).collect();
    let patches = Tensor::from_slice(&patches).view([BATCH, 24, 48]);
    let ids_shuffle = Tensor::from_slice(&ids).view([BATCH, 24]);
    (
        patches.narrow(1, 0, kept).contiguous(),
        patches.narrow(1, kept, 24 - kept).contiguous(),
        ids_shuffle,
    )
}

/// Norm of the difference over the norm.
fn relative(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).norm() / b.norm()).double_value(&[])
}

#[test]
fn masked_only_decoder_equals_the_full_one() {
    let model = model(true);
    let (visible, masked, ids_shuffle) = batch(6);
    let target = model.target(&visible, &masked, &ids_shuffle).unwrap();
    let parameters = model.parameters();
    let gradients = || -> Vec<Tensor> {
        let trainable = parameters.values().filter(|p| p.requires_grad());
        trainable
            .map(|p| {
                let mut gradient = p.grad();
                let copy = gradient.copy();
                let _ = gradient.zero_();
                copy
            })
            .collect()
    };

    let latent = model.forward_encoder(&visible, &ids_shuffle).unwrap();
    let short = model.forward_decoder(&latent, &ids_shuffle, 6).unwrap();
    model.forward_loss(&short, &target).unwrap().backward();
    let short_gradients = gradients();

    let latent = model.forward_encoder(&visible, &ids_shuffle).unwrap();
    let full = model.predict(&latent, &ids_shuffle).unwrap();
    let ids_masked = ids_shuffle
        .narrow(1, 6, 18)
        .unsqueeze(-1)
        .expand([BATCH, 18, 48], false);
    let full = full.gather(1, &ids_masked, false);
    model.forward_loss(&full, &target).unwrap().backward();

    assert!(relative(&short, &full) < 1e-6);
    for (key, (short, full)) in parameters
        .iter()
        .filter(|(_, p)| p.requires_grad())
        .map(|(key, _)| key)
        .zip(short_gradients.iter().zip(gradients()))
    {
        // The key part of a q/k/v bias has no gradient but rounding; the others dominate the norm.
        let error = relative(short, &full);
        assert!(error < 1e-5, "{key}: {error}");
    }
}

#[test]
fn encoder_does_not_see_masked_pixels_or_order() {
    let model = model(false);
    let (visible, _, ids_shuffle) = batch(6);
    let latent = model.forward_encoder(&visible, &ids_shuffle).unwrap();
    assert_eq!(latent.size(), [BATCH, 7, 32]);
    let order = Tensor::from_slice(&[5i64, 0, 3, 1, 4, 2]);
    let ids_keep = ids_shuffle.narrow(1, 0, 6).index_select(1, &order);
    let ids_moved = Tensor::cat(&[ids_keep, ids_shuffle.narrow(1, 6, 18)], 1);
    let moved = model
        .forward_encoder(&visible.index_select(1, &order), &ids_moved)
        .unwrap();
    let back = latent.narrow(1, 1, 6).index_select(1, &order);
    assert!(relative(&moved.narrow(1, 1, 6), &back) < 1e-5);
}

#[test]
fn u8_patches_equal_those_in_units_of_mean_and_deviation() {
    for norm_pix_loss in [false, true] {
        let model = model(norm_pix_loss);
        let (visible, masked, ids_shuffle) = batch(6);
        let from_u8 = model
            .forward(&visible, &masked, &ids_shuffle)
            .unwrap()
            .double_value(&[]);
        let from_f32 = model
            .forward(&in_units(&visible), &in_units(&masked), &ids_shuffle)
            .unwrap()
            .double_value(&[]);
        assert!(
            (from_u8 / from_f32 - 1.0).abs() < 1e-5,
            "{from_u8} against {from_f32}"
        );
    }
}

#[test]
fn perfect_predictions_give_the_pixels_back() {
    for norm_pix_loss in [false, true] {
        let model = model(norm_pix_loss);
        let (visible, masked, ids_shuffle) = batch(6);
        let patches = unshuffle(&Tensor::cat(&[&visible, &masked], 1), &ids_shuffle);
        let as_predicted = |patches: &Tensor| {
            let mean = Tensor::from_slice(&mae_data::IMAGENET_MEAN.repeat(16));
            let std = Tensor::from_slice(&mae_data::IMAGENET_STD.repeat(16));
            let normalised = (patches.to_kind(Kind::Float) / 255.0 - mean) / std;
            if norm_pix_loss {
                let mean = normalised.mean_dim(-1i64, true, Kind::Float);
                let std = (normalised.var_dim(-1i64, true, true) + 1e-6).sqrt();
                (&normalised - mean) / std
            } else {
                normalised
            }
        };
        let asked = model.target(&visible, &masked, &ids_shuffle).unwrap();
        let loss = model.forward_loss(&as_predicted(&masked), &asked).unwrap();
        assert!(loss.double_value(&[]) < 1e-9);
        let statistics = match norm_pix_loss {
            true => PatchStatistics::Oracle,
            false => PatchStatistics::Raw,
        };
        let ids_keep = ids_shuffle.narrow(1, 0, 6);
        let pixels = model.to_pixels(&as_predicted(&patches), &patches, &ids_keep, statistics);
        let error = (pixels.unwrap() - in_units(&patches))
            .abs()
            .max()
            .double_value(&[]);
        assert!(error < 0.01 / 255.0, "{error} of 1");
    }
}

#[test]
fn initial_weights_follow_the_published_rule_and_the_seed() {
    let parameters = model(true).parameters();
    let again = model(true).parameters();
    let other =
        MaskedAutoencoderViT::new(&config(true), &Normalization::IMAGENET, Device::Cpu, 8).unwrap();
    for (key, tensor) in &parameters {
        assert_eq!(tensor, &again[key], "{key}");
    }
    assert_ne!(parameters["mask_token"], other.parameters()["mask_token"]);

    let extreme = |key: &str| parameters[key].abs().max().double_value(&[]);
    let close = |key: &str, fan_in: f64, fan_out: f64| {
        let bound = (6.0 / (fan_in + fan_out)).sqrt();
        let found = extreme(key);
        assert!(
            found <= bound && found > 0.97 * bound,
            "{key}: {found} for a bound of {bound}"
        );
    };
    close("blocks.0.attn.qkv.weight", 32.0, 96.0);
    close("patch_embed.proj.weight", 48.0, 32.0);
    close("decoder_pred.weight", 24.0, 48.0);
    assert_eq!(extreme("decoder_pred.bias"), 0.0);
    assert_eq!(parameters["norm.weight"].min().double_value(&[]), 1.0);
    let deviation = parameters["cls_token"].std(true).double_value(&[]);
    assert!((0.012..0.028).contains(&deviation), "{deviation}");
}

#[test]
fn shapes_that_disagree_are_refused() {
    let model = model(true);
    let (visible, masked, ids_shuffle) = batch(6);
    let message = |result: mae_model::Result<Tensor>| result.unwrap_err().to_string();
    let found = message(model.forward(&visible.narrow(2, 0, 40), &masked, &ids_shuffle));
    assert!(
        found.contains("`visible` has shape [3, 6, 40], expected [batch, patches, 48]"),
        "{found}"
    );
    let found = message(model.forward(&visible, &masked, &ids_shuffle.narrow(1, 0, 20)));
    assert!(
        found.contains("`ids_shuffle` has shape [3, 20], expected [batch, 24] of i64"),
        "{found}"
    );
    let found = message(model.forward(&visible, &masked.narrow(1, 0, 5), &ids_shuffle));
    assert!(
        found.contains("`masked` has shape [3, 5, 48], expected [3, 18, 48]"),
        "{found}"
    );
    let latent = Tensor::zeros([BATCH, 25, 32], (Kind::Float, Device::Cpu));
    assert!(message(model.forward_decoder(&latent, &ids_shuffle, 6)).contains("0 < kept < 24"));
}

#[test]
fn checkpoints_round_trip_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let model = model(true);
    model.save(&path).unwrap();
    let loaded = MaskedAutoencoderViT::load(&path, Device::Cpu).unwrap();
    assert_eq!(loaded.config(), model.config());
    assert_eq!(loaded.normalization(), model.normalization());
    for (key, tensor) in model.parameters() {
        assert_eq!(tensor, loaded.parameters()[&key], "{key}");
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left beside the file"
    );
}

#[test]
fn checkpoints_that_do_not_fit_name_every_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let model = model(true);
    let mut tensors = model.parameters();
    tensors.remove("mask_token");
    tensors.insert(
        "head.weight".into(),
        Tensor::zeros([2], (Kind::Float, Device::Cpu)),
    );
    tensors.insert(
        "norm.bias".into(),
        Tensor::zeros([5], (Kind::Float, Device::Cpu)),
    );
    write_tensors(&path, &tensors, HashMap::new()).unwrap();
    let before = model.parameters()["cls_token"].copy();

    let error = model.load_weights(&path).unwrap_err();
    let ModelError::Keys {
        missing,
        extra,
        misshaped,
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(missing, &["mask_token"]);
    assert_eq!(extra, &["head.weight"]);
    assert_eq!(misshaped, &["norm.bias (found [5], expected [32])"]);
    assert_eq!(before, model.parameters()["cls_token"]);
    let message = MaskedAutoencoderViT::load(&path, Device::Cpu)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("model.safetensors: metadata key `config` is missing"),
        "{message}"
    );
}

#[test]
fn damaged_checkpoints_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    model(true).save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for bytes in [
        &whole[..whole.len() - 1],
        &whole[..100],
        &b"not a checkpoint"[..],
        &[],
    ] {
        std::fs::write(&path, bytes).unwrap();
        let message = read_tensors(&path).unwrap_err().to_string();
        assert!(
            message.contains("not a complete safetensors file"),
            "{message}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(read_tensors(&path), Err(ModelError::Io { .. })));
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    model(true).save(&path).unwrap();
    assert!(verify(&path).unwrap());
    let whole = std::fs::read(&path).unwrap();
    let (tensors, metadata) = read_tensors(&path).unwrap();

    let values = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let places = (0..values)
        .step_by(3)
        .chain((values..whole.len()).step_by(997));
    for (place, flip) in places.zip([1, 0x20, 0x80, 0x0f, 0xff].into_iter().cycle()) {
        let mut bytes = whole.clone();
        bytes[place] ^= flip;
        std::fs::write(&path, bytes).unwrap();
        // But in the name under which the checksums themselves are.
        if let Ok((found, other)) = read_tensors(&path) {
            assert!(!other.contains_key(CHECKSUMS), "byte {place} by {flip:#x}");
            assert_eq!(found, tensors);
            assert_eq!(other["config"], metadata["config"]);
        }
    }

    let at = whole.len() - 2;
    let mut bytes = whole.clone();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = read_tensors(&path).unwrap_err();
    let ModelError::Damaged { parts, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(parts.len(), 1, "{parts:?}");
    assert!(tensors.contains_key(&parts[0]), "{parts:?}");
    let message = verify(&path).unwrap_err().to_string();
    for part in ["model.safetensors: damaged", &parts[0], "--resume"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_file_without_checksums_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.safetensors");
    let values = 1.5f32.to_le_bytes();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &values);
    safetensors::serialize_to_file([("x", view.unwrap())], None, &path).unwrap();
    assert!(!verify(&path).unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 0x80;
    std::fs::write(&path, &bytes).unwrap();
    let (tensors, _) = read_tensors(&path).unwrap();
    assert_eq!(tensors["x"], Tensor::from_slice(&[-1.5f32]));
}

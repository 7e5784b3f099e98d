//! The classifier against itself and the Masked Autoencoder that it comes from.

use std::path::Path;

use mae_model::classifier::{ClassifierConfig, HeadInit, Output, Pass, Pooling};
use mae_model::tensor_file::{read_tensors, write_tensors};
use mae_model::{MaeConfig, MaskedAutoencoderViT, Normalization, VitClassifier, pos_embed};
use tch::{Device, Kind, Tensor, no_grad};

const BATCH: i64 = 3;

fn encoder() -> MaeConfig {
    MaeConfig {
        image_height: 16,
        image_width: 24,
        patch_size: 4,
        embed_dim: 32,
        depth: 3,
        num_heads: 4,
        decoder_embed_dim: 24,
        decoder_depth: 1,
        decoder_num_heads: 3,
        ..MaeConfig::tiny(16)
    }
}

fn classifier(config: &ClassifierConfig) -> VitClassifier {
    VitClassifier::new(config, &Normalization::IMAGENET, Device::Cpu, 5).unwrap()
}

fn patches() -> Tensor {
    let pixels: Vec<u8> = (0..BATCH * 24 * 48).map(|i| (i * i % 251) as u8).collect();
    Tensor::from_slice(&pixels).view([BATCH, 24, 48])
}

/// Norm of the difference over the norm.
fn relative(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).norm() / b.norm()).double_value(&[])
}

/// Writes a pre-trained model's checkpoint.
fn save_mae(path: &Path) -> MaskedAutoencoderViT {
    let mae = MaskedAutoencoderViT::new(&encoder(), &Normalization::IMAGENET, Device::Cpu, 9);
    let mae = mae.unwrap();
    mae.save(path).unwrap();
    mae
}

#[test]
fn features_are_the_autoencoders_latent_pooled() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let mae = save_mae(&file);
    let ids = Tensor::arange(24, (Kind::Int64, Device::Cpu))
        .expand([BATCH, 24], false)
        .contiguous();
    let latent = mae.forward_encoder(&patches(), &ids).unwrap();
    for (pooling, expected) in [
        (Pooling::ClassToken, latent.select(1, 0)),
        (
            Pooling::NormThenMean,
            latent.narrow(1, 1, 24).mean_dim(1i64, false, None),
        ),
    ] {
        let model = classifier(&ClassifierConfig {
            pooling,
            ..ClassifierConfig::linear_probe(encoder(), 10)
        });
        model.load_encoder(&file).unwrap();
        let features = model.features(&patches()).unwrap();
        assert_eq!(features.size(), [BATCH, 32]);
        assert!(!features.requires_grad());
        let error = relative(&features, &expected);
        assert!(error < 1e-5, "{pooling:?}: {error}");
    }
}

#[test]
fn a_frozen_prefix_and_the_rest_are_the_whole() {
    let model = classifier(&ClassifierConfig::fine_tune(encoder(), 10));
    let whole = model.forward(&patches(), Pass::Eval).unwrap();
    assert_eq!(whole.size(), [BATCH, 10]);
    for blocks in 0..=3 {
        let tokens = model.tokens_after(&patches(), blocks).unwrap();
        assert!(!tokens.requires_grad());
        let logits = model.forward_from(&tokens, blocks, Pass::Eval).unwrap();
        assert_eq!(logits, whole);
    }
    let error = model.tokens_after(&patches(), 4).unwrap_err().to_string();
    assert!(
        error.contains("`blocks` is 4, expected at most 3"),
        "{error}"
    );
}

#[test]
fn a_training_pass_is_named_by_seed_and_step() {
    let model = classifier(&ClassifierConfig {
        drop_path: 0.5,
        head_init: HeadInit::Scratch,
        ..ClassifierConfig::fine_tune(encoder(), 10)
    });
    let train = |seed, step| {
        model
            .forward(&patches(), Pass::Train { seed, step })
            .unwrap()
    };
    let eval = model.forward(&patches(), Pass::Eval).unwrap();
    assert_eq!(train(1, 2), train(1, 2));
    assert_ne!(train(1, 2), train(1, 3));
    assert_ne!(train(1, 2), train(2, 2));
    assert_ne!(train(1, 2), eval);
    assert_eq!(eval, model.forward(&patches(), Pass::Eval).unwrap());
}

/// The last block's attention and MLP are kept or dropped apart from each other, image by image.
#[test]
fn every_image_keeps_or_drops_each_branch_at_the_rate() {
    let model = classifier(&ClassifierConfig {
        encoder: MaeConfig {
            depth: 2,
            ..encoder()
        },
        head_init: HeadInit::Scratch,
        drop_path: 0.4,
        ..ClassifierConfig::fine_tune(encoder(), 10)
    });
    let images = 4000;
    let tokens = model.tokens_after(&patches().narrow(0, 0, 1), 1).unwrap();
    let without_block = model.forward_from(&tokens, 2, Pass::Eval).unwrap();
    let tokens = tokens.expand([images, -1, -1], false).contiguous();
    let pass = Pass::Train { seed: 3, step: 0 };
    let logits = no_grad(|| model.forward_from(&tokens, 1, pass)).unwrap();

    // Equal images: what was kept is all that tells them apart, but for rounding.
    let share = |expected: &Tensor| {
        let distance = (&logits - expected).abs().amax([1i64], false);
        let equal = distance.lt(1e-4).sum(Kind::Int64).int64_value(&[]);
        equal as f64 / images as f64
    };
    let mut outcomes: Vec<Tensor> = Vec::new();
    for i in 0..100 {
        let new = logits.narrow(0, i, 1);
        let differs = |known: &Tensor| (known - &new).abs().max().double_value(&[]) > 1e-4;
        if outcomes.iter().all(differs) {
            outcomes.push(new);
        }
    }
    let mut shares: Vec<f64> = outcomes.iter().map(share).collect();
    shares.sort_by(f64::total_cmp);
    assert_eq!(shares.len(), 4);
    // The standard deviation of a share is at most 0.0076: allow five of them.
    for (found, expected) in shares.iter().zip([0.16, 0.24, 0.24, 0.36]) {
        assert!((found - expected).abs() < 0.038, "{shares:?}");
    }
    assert!((share(&without_block) - 0.16).abs() < 0.038);
}

#[test]
fn heads_start_as_published_and_positions_train() {
    let std = |config: &ClassifierConfig| {
        let parameters = classifier(config).parameters();
        assert_eq!(parameters["head.bias"].abs().max().double_value(&[]), 0.0);
        assert!(parameters["pos_embed"].requires_grad());
        assert_eq!(
            parameters["pos_embed"].detach(),
            pos_embed::sincos_2d(4, 6, 32)
        );
        parameters["head.weight"].std(true).double_value(&[])
    };
    let fine_tune = ClassifierConfig::fine_tune(encoder(), 1000);
    // 32,000 numbers: the deviation is known to half a per cent; allow three.
    assert!((std(&fine_tune) / 2e-5 - 1.0).abs() < 0.03);
    let linear_probe = ClassifierConfig::linear_probe(encoder(), 1000);
    assert!((std(&linear_probe) / 0.01 - 1.0).abs() < 0.03);
    let scratch = ClassifierConfig {
        head_init: HeadInit::Scratch,
        ..fine_tune
    };
    // Uniform in +-sqrt(6 / (32 + 1000)).
    let uniform = (2.0f64 / 1032.0).sqrt();
    assert!((std(&scratch) / uniform - 1.0).abs() < 0.03);
}

#[test]
fn the_norm_is_where_the_pooling_has_it() {
    let has = |pooling, key: &str| {
        let config = ClassifierConfig {
            pooling,
            ..ClassifierConfig::linear_probe(encoder(), 10)
        };
        classifier(&config).parameters().contains_key(key)
    };
    for (pooling, norm) in [
        (Pooling::MeanThenNorm, false),
        (Pooling::NormThenMean, true),
        (Pooling::ClassToken, true),
    ] {
        assert_eq!(has(pooling, "norm.weight"), norm, "{pooling:?}");
        assert_eq!(has(pooling, "fc_norm.weight"), !norm, "{pooling:?}");
    }
}

#[test]
fn partial_fine_tuning_names_its_keys() {
    let model = classifier(&ClassifierConfig::fine_tune(encoder(), 10));
    let block = |i: usize| {
        let names = [
            "attn.proj",
            "attn.qkv",
            "mlp.fc1",
            "mlp.fc2",
            "norm1",
            "norm2",
        ];
        names.map(|name| format!("blocks.{i}.{name}"))
    };
    let check = |partial: f64, modules: &[String]| {
        let expected: Vec<String> = modules
            .iter()
            .flat_map(|module| ["bias", "weight"].map(|part| format!("{module}.{part}")))
            .collect();
        assert_eq!(model.trainable_keys(partial).unwrap(), expected);
    };
    let last = ["fc_norm", "head"].map(String::from);
    check(0.0, &last[1..]);
    check(0.5, &[&block(2)[2..4], &block(2)[5..], &last[..]].concat());
    check(1.0, &[&block(2)[..], &last[..]].concat());
    check(3.0, &[&block(0)[..], &block(1), &block(2), &last].concat());
    for partial in [-1.0, 0.25, 1.5, 4.0, f64::NAN] {
        let error = model.trainable_keys(partial).unwrap_err().to_string();
        assert!(error.contains("`partial`"), "{error}");
    }
}

#[test]
fn loading_takes_the_encoder_and_leaves_the_head() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let mae = save_mae(&file);
    let model = classifier(&ClassifierConfig::fine_tune(encoder(), 10));
    let before = model.parameters()["head.weight"].copy();
    model.load_encoder(&file).unwrap();
    let pretrained = mae.parameters();
    for (key, parameter) in model.parameters() {
        match pretrained.get(&key) {
            Some(theirs) => assert_eq!(parameter, *theirs, "{key}"),
            None => assert!(
                key.starts_with("head.") || key.starts_with("fc_norm."),
                "{key}"
            ),
        }
    }
    assert_eq!(model.parameters()["head.weight"], before);
}

#[test]
fn loading_names_every_key_that_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    save_mae(&file);
    let (mut tensors, metadata) = read_tensors(&file).unwrap();
    tensors.remove("blocks.1.attn.qkv.bias");
    tensors.remove("cls_token");
    let misshaped = Tensor::zeros([3], (Kind::Float, Device::Cpu));
    tensors.insert("blocks.0.norm1.weight".into(), misshaped.shallow_clone());
    tensors.insert("pos_embed".into(), misshaped.shallow_clone());
    tensors.insert("blocks.3.norm1.weight".into(), misshaped);
    write_tensors(&file, &tensors, metadata).unwrap();

    let model = classifier(&ClassifierConfig::fine_tune(encoder(), 10));
    let before = model.parameters()["patch_embed.proj.weight"].copy();
    let error = model.load_encoder(&file).unwrap_err().to_string();
    for part in [
        "2 tensors missing: blocks.1.attn.qkv.bias, cls_token",
        "1 tensors not in the model: blocks.3.norm1.weight",
        "blocks.0.norm1.weight (found [3], expected [32])",
        "pos_embed (found [3], expected [1, 25, 32])",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(model.parameters()["patch_embed.proj.weight"], before);

    save_mae(&file);
    let heads = MaeConfig {
        num_heads: 8,
        ..encoder()
    };
    let error = classifier(&ClassifierConfig::fine_tune(heads, 10)).load_encoder(&file);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("`num_heads` is 8, expected 4"), "{error}");
}

#[test]
fn sine_cosine_positions_are_computed_for_another_grid() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    save_mae(&file);
    let larger = MaeConfig {
        image_height: 32,
        image_width: 28,
        ..encoder()
    };
    let model = classifier(&ClassifierConfig::fine_tune(larger, 10));
    model.load_encoder(&file).unwrap();
    assert_eq!(
        model.parameters()["pos_embed"].detach(),
        pos_embed::sincos_2d(8, 7, 32)
    );
}

#[test]
fn learned_positions_of_the_same_grid_are_kept_and_of_another_interpolated() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    save_mae(&file);
    let (mut tensors, metadata) = read_tensors(&file).unwrap();
    let learned = (Tensor::arange(25 * 32, (Kind::Float, Device::Cpu)) * 0.7)
        .sin()
        .view([1, 25, 32]);
    tensors.insert("pos_embed".into(), learned.shallow_clone());
    write_tensors(&file, &tensors, metadata).unwrap();
    for (image_width, expected) in [
        (24, learned.shallow_clone()),
        (40, pos_embed::interpolate(&learned, (4, 6), (4, 10))),
    ] {
        let config = MaeConfig {
            image_width,
            ..encoder()
        };
        let model = classifier(&ClassifierConfig::fine_tune(config, 10));
        model.load_encoder(&file).unwrap();
        assert_eq!(model.parameters()["pos_embed"].detach(), expected);
    }
}

#[test]
fn u8_patches_equal_those_in_units_of_mean_and_deviation() {
    let model = classifier(&ClassifierConfig::fine_tune(encoder(), 10));
    let pixels: Vec<u8> = (0..BATCH * 16 * 24 * 3)
        .map(|i| (i * 7 % 256) as u8)
        .collect();
    let images = Tensor::from_slice(&pixels).view([BATCH, 16, 24, 3]);
    let of_u8 = mae_model::patchify(&images, 4).unwrap();
    let of_f32 = mae_model::patchify(&mae_model::in_units(&images), 4).unwrap();
    let features = |patches: &Tensor| model.features(patches).unwrap();
    assert!(relative(&features(&of_u8), &features(&of_f32)) < 1e-6);
    assert!(
        Normalization::IMAGENET
            .normalize(&images.select(3, 0))
            .is_err()
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = classifier(&ClassifierConfig::fine_tune(encoder(), 10));
    let error = model.features(&patches().narrow(1, 0, 6)).unwrap_err();
    assert!(
        error.to_string().contains("[batch, 24, patch_dim]"),
        "{error}"
    );
    let error = model.forward_from(
        &Tensor::zeros([1, 24, 32], (Kind::Float, Device::Cpu)),
        0,
        Pass::Eval,
    );
    assert!(error.unwrap_err().to_string().contains("[batch, 25, 32]"));
    for (config, key) in [
        (
            ClassifierConfig {
                drop_path: 1.0,
                ..ClassifierConfig::fine_tune(encoder(), 10)
            },
            "`drop_path`",
        ),
        (ClassifierConfig::fine_tune(encoder(), 0), "`classes`"),
    ] {
        let error = VitClassifier::new(&config, &Normalization::IMAGENET, Device::Cpu, 0);
        assert!(error.unwrap_err().to_string().contains(key));
    }
}

#[test]
fn the_encoder_alone_gives_the_tokens_that_features_are_pooled_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    save_mae(&file);
    // Without a decoder, as an encoder that came from elsewhere has none.
    let (mut tensors, mut metadata) = read_tensors(&file).unwrap();
    tensors.retain(|key, _| !key.starts_with("decoder_") && key != "mask_token");
    metadata.insert("part".into(), "encoder".into());
    write_tensors(&file, &tensors, metadata).unwrap();

    let open = |pooling| VitClassifier::open_encoder(&file, pooling, Device::Cpu).unwrap();
    let tokens = open(Pooling::ClassToken).tokens(&patches()).unwrap();
    assert_eq!(tokens.size(), [BATCH, 25, 32]);
    let class = open(Pooling::ClassToken).features(&patches()).unwrap();
    assert!(relative(&tokens.select(1, 0), &class) < 1e-6);
    let mean = open(Pooling::NormThenMean).features(&patches()).unwrap();
    let of_tokens = tokens.narrow(1, 1, 24).mean_dim(1i64, false, None);
    assert!(relative(&of_tokens, &mean) < 1e-6);

    let error = open(Pooling::MeanThenNorm).tokens(&patches()).unwrap_err();
    assert!(
        error.to_string().contains("after the encoder's norm"),
        "{error}"
    );
    let error = VitClassifier::open_encoder(
        &folder.path().join("absent"),
        Pooling::ClassToken,
        Device::Cpu,
    );
    assert!(error.unwrap_err().to_string().contains("absent"));
}

#[test]
fn the_recorded_encoder_gives_the_tokens_of_any_batch() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    save_mae(&file);
    let mut model = VitClassifier::open_encoder(&file, Pooling::ClassToken, Device::Cpu).unwrap();
    let script = folder.path().join("encoder.pt");
    // u8 pixels by the fused kernels, f32 ones by what was recorded.
    let pixels = |batch: i64| {
        let count = batch * 16 * 24 * 3;
        let pixels: Vec<u8> = (0..count).map(|i| (i * 7 % 256) as u8).collect();
        Tensor::from_slice(&pixels).view([batch, 16, 24, 3])
    };
    let expected: Vec<Tensor> = (1..=5)
        .map(|batch| {
            model
                .tokens(&mae_model::patchify(&pixels(batch), 4).unwrap())
                .unwrap()
        })
        .collect();
    model.save_torchscript(&script).unwrap();

    let mut module = tch::CModule::load(&script).unwrap();
    for (expected, batch) in expected.iter().zip(1..) {
        let images = pixels(batch).permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
        let tokens = module.forward_ts(&[images]).unwrap();
        assert!(!tokens.requires_grad());
        assert!(relative(&tokens, expected) < 1e-5, "batch {batch}");
    }
    // Twice the height would be a whole number of images: it must not pass for that.
    for size in [
        [2, 3, 32, 24],
        [2, 3, 16, 48],
        [1, 3, 24, 16],
        [1, 1, 16, 24],
    ] {
        let images = Tensor::zeros(size, (Kind::Float, Device::Cpu));
        assert!(module.forward_ts(&[images]).is_err(), "{size:?}");
    }
    let mut keys: Vec<String> = (model.parameters().into_keys())
        .filter(|key| !key.starts_with("head."))
        .collect();
    let found = module.named_parameters().unwrap();
    let mut found: Vec<String> = found.into_iter().map(|(key, _)| key).collect();
    keys.sort();
    found.sort();
    assert_eq!(found, keys);

    // No tensor is a constant: all of it can be converted, and so moved.
    module.to(Device::Cpu, Kind::Double, false);
    let images = pixels(2).permute([0, 3, 1, 2]).to_kind(Kind::Double) / 255.0;
    let tokens = module.forward_ts(&[images]).unwrap();
    assert_eq!(tokens.kind(), Kind::Double);
    assert!(relative(&tokens, &expected[1]) < 1e-5);

    let mut before_the_norm =
        VitClassifier::open_encoder(&file, Pooling::MeanThenNorm, Device::Cpu).unwrap();
    let error = before_the_norm.save_torchscript(&script).unwrap_err();
    assert!(error.to_string().contains("`pooling`"), "{error}");
}

#[test]
fn an_onnx_file_computes_what_the_model_does() {
    let normalization = Normalization::new(vec![0.4, 0.1, 0.9], vec![0.2, 0.01, 1.5]);
    for pooling in [
        Pooling::ClassToken,
        Pooling::NormThenMean,
        Pooling::MeanThenNorm,
    ] {
        let config = ClassifierConfig {
            pooling,
            ..ClassifierConfig::linear_probe(encoder(), 7)
        };
        let model = VitClassifier::new(&config, &normalization, Device::Cpu, 5).unwrap();
        // What starts at zero, or at one, would hide its absence.
        no_grad(|| {
            for (key, mut parameter) in model.parameters() {
                if key != "pos_embed" {
                    parameter += parameter.rand_like() * 0.3;
                }
            }
        });
        let logits = model.to_onnx(Output::Logits, "").unwrap();
        let tokens = model.to_onnx(Output::Tokens, "");
        for batch in [1, 4] {
            let pixels = Tensor::rand([batch, 16, 24, 3], (Kind::Float, Device::Cpu));
            // One value that was not measured.
            let _ = pixels.view([-1]).get(100).fill_(f64::NAN);
            let patches = mae_model::patchify(&pixels, 4).unwrap();
            let images = pixels.permute([0, 3, 1, 2]);
            let expected = no_grad(|| model.forward(&patches, Pass::Eval)).unwrap();
            let found = logits.compute(&images).unwrap();
            assert_eq!(found.size(), [batch, 7]);
            let error = relative(&found, &expected);
            assert!(error < 1e-5, "{pooling:?}: {error}");
            match &tokens {
                Ok(tokens) => {
                    let found = tokens.compute(&images).unwrap();
                    assert_eq!(found.size(), [batch, 25, 32]);
                    let error = relative(&found, &model.tokens(&patches).unwrap());
                    assert!(error < 1e-5, "{pooling:?}: {error}");
                }
                Err(error) => {
                    assert_eq!(pooling, Pooling::MeanThenNorm);
                    assert!(error.to_string().contains("after the encoder's norm"));
                }
            }
        }
    }
}

//! The tokenizer: shapes, what must be refused, what must survive a file, what it learns, and how it compares with
//! another implementation.

use mae_model::tokenizer::{Relaxation, gumbel_noise, read_config};
use mae_model::{ModelError, Normalization, Tokenizer, TokenizerConfig};
use tch::{Device, Kind, Tensor, no_grad};

fn config(patch_size: usize, channels: usize) -> TokenizerConfig {
    TokenizerConfig {
        image_height: 2 * patch_size,
        image_width: 3 * patch_size,
        patch_size,
        channels,
        vocabulary: 24,
        width: 16,
        blocks: 1,
    }
}

fn normalization(channels: usize) -> Normalization {
    match channels {
        3 => Normalization::IMAGENET,
        _ => Normalization::new(vec![0.4; channels], vec![0.25; channels]),
    }
}

fn tokenizer(config: &TokenizerConfig, seed: u64) -> Tokenizer {
    Tokenizer::new(config, &normalization(config.channels), Device::Cpu, seed).unwrap()
}

/// `[batch, height, width, channels]` of u8: no two images alike.
fn pixels(config: &TokenizerConfig, batch: i64) -> Tensor {
    let size = [config.image_height, config.image_width, config.channels].map(|n| n as i64);
    let count = batch * size.iter().product::<i64>();
    let values: Vec<u8> = (0..count).map(|i| (i * i % 251) as u8).collect();
    Tensor::from_slice(&values).view([batch, size[0], size[1], size[2]])
}

#[test]
fn one_token_a_patch_whatever_its_size() {
    for (patch_size, channels) in [(4, 3), (7, 1), (14, 3), (16, 1), (13, 3), (2, 1)] {
        let config = config(patch_size, channels);
        let tokenizer = tokenizer(&config, 1);
        let images = tokenizer.normalize(&pixels(&config, 2)).unwrap();
        let size = images.size();

        let ids = tokenizer.encode(&images).unwrap();
        assert_eq!((ids.size(), ids.kind()), (vec![2, 6], Kind::Int64));
        assert_eq!(tokenizer.decode(&ids).unwrap().size(), size);

        let noise = gumbel_noise(&[2, 6, 24], 1, 0, Device::Cpu).unwrap();
        let relaxation = Relaxation {
            temperature: 0.7,
            kl_weight: 0.1,
        };
        let loss = tokenizer.forward(&images, &noise, relaxation).unwrap();
        loss.loss.backward();
        for (key, parameter) in tokenizer.parameters() {
            let gradient = parameter.grad();
            assert!(gradient.defined(), "{key} takes no part");
            let norm = gradient.norm().double_value(&[]);
            assert!(norm.is_finite() && norm > 0.0, "{key}: {norm}");
        }
    }
}

#[test]
fn patches_and_images_are_the_same_pixels() {
    let config = config(4, 3);
    let tokenizer = tokenizer(&config, 1);
    let pixels = pixels(&config, 2);
    let images = tokenizer.normalize(&pixels).unwrap();
    let back = (tokenizer.to_pixels(&images) * 255.0).round();
    assert_eq!(back.to_kind(Kind::Uint8), pixels);
    let patches = mae_model::patchify(&pixels, 4).unwrap();
    assert_eq!(tokenizer.images_of(&patches).unwrap(), images);
    let again = tokenizer.patches_of(&images).unwrap();
    let expected = mae_model::patchify(&images.permute([0, 2, 3, 1]), 4).unwrap();
    assert_eq!(again, expected);
    assert_eq!(
        tokenizer.encode_patches(&patches).unwrap(),
        tokenizer.encode(&images).unwrap()
    );
}

#[test]
fn the_loss_is_its_parts() {
    let config = config(4, 3);
    let tokenizer = tokenizer(&config, 1);
    let images = tokenizer.normalize(&pixels(&config, 2)).unwrap();
    let noise = gumbel_noise(&[2, 6, 24], 1, 0, Device::Cpu).unwrap();
    let of = |temperature, kl_weight| {
        let relaxation = Relaxation {
            temperature,
            kl_weight,
        };
        let loss = no_grad(|| tokenizer.forward(&images, &noise, relaxation)).unwrap();
        [loss.loss, loss.mse, loss.kl].map(|t| t.double_value(&[]))
    };
    let [loss, mse, kl] = of(0.5, 4.8);
    assert!((loss - (mse + 0.1 * kl)).abs() < 1e-6 * loss);

    // The divergence by its definition, from probabilities.
    let logits = no_grad(|| tokenizer.forward_encoder(&images)).unwrap();
    let q = logits.softmax(-1, Kind::Double).view([12, 24]);
    let q = q.mean_dim(0i64, false, Kind::Double);
    let terms = &q * (&q * 24.0).log();
    let expected = terms.sum(Kind::Double).double_value(&[]);
    assert!((kl - expected).abs() < 1e-5 * expected, "{kl} {expected}");

    // Near temperature 0 a mixture is the entry that the noise chose.
    let chosen = (logits + &noise).argmax(-1, false);
    let decoded = tokenizer.decode(&chosen).unwrap();
    let expected = (decoded - &images)
        .square()
        .mean(Kind::Double)
        .double_value(&[]);
    let [_, mse, _] = of(1e-4, 0.0);
    assert!((mse - expected).abs() < 1e-5 * expected, "{mse} {expected}");
}

#[test]
fn noise_is_gumbels_and_named_by_seed_and_step() {
    let draw = |seed, step| gumbel_noise(&[3, 100, 1000], seed, step, Device::Cpu).unwrap();
    let noise = draw(1, 2);
    assert_eq!(noise, draw(1, 2));
    assert_ne!(noise, draw(1, 3));
    assert_ne!(noise, draw(2, 2));
    // Mean: Euler's constant; variance: pi^2 / 6. Five deviations of means of 300,000.
    let noise = noise.to_kind(Kind::Double);
    let mean = noise.mean(Kind::Double).double_value(&[]);
    assert!((mean - 0.577_215_66).abs() < 0.012, "{mean}");
    let variance = noise.var(true).double_value(&[]);
    assert!((variance - 1.644_934).abs() < 0.035, "{variance}");
}

#[test]
fn weights_depend_on_the_seed_alone() {
    let config = config(4, 3);
    let weights = |seed| tokenizer(&config, seed).parameters();
    assert_eq!(weights(5), weights(5));
    assert_ne!(weights(5)["codebook"], weights(6)["codebook"]);
    let codebook = weights(5)["codebook"].std(true).double_value(&[]);
    assert!((codebook - 1.0).abs() < 0.15, "{codebook}");
}

#[test]
fn a_frozen_tokenizer_takes_no_gradient() {
    let mut tokenizer = tokenizer(&config(4, 3), 1);
    let trains = |t: &Tokenizer| t.parameters().values().any(|p| p.requires_grad());
    assert!(trains(&tokenizer));
    tokenizer.freeze();
    assert!(!trains(&tokenizer));
}

#[test]
fn a_file_gives_the_same_tokenizer_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.safetensors");
    let config = config(14, 1);
    let saved = tokenizer(&config, 9);
    saved.save(&path).unwrap();

    assert_eq!(
        read_config(&path).unwrap(),
        (config.clone(), normalization(1))
    );
    let loaded = Tokenizer::load(&path, Device::Cpu).unwrap();
    assert_eq!(loaded.config(), &config);
    assert_eq!(loaded.parameters(), saved.parameters());
    let images = saved.normalize(&pixels(&config, 2)).unwrap();
    assert_eq!(
        loaded.encode(&images).unwrap(),
        saved.encode(&images).unwrap()
    );

    // Another kind of model, and another tokenizer.
    let mae = folder.path().join("mae.safetensors");
    let mae_config = mae_model::MaeConfig::tiny(32);
    mae_model::MaskedAutoencoderViT::new(&mae_config, &normalization(3), Device::Cpu, 0)
        .unwrap()
        .save(&mae)
        .unwrap();
    let error = read_config(&mae).unwrap_err().to_string();
    assert!(error.contains("`tokenizer` is missing"), "{error}");
    let wider = TokenizerConfig {
        vocabulary: 25,
        ..config
    };
    let error = tokenizer(&wider, 0).load_weights(&path).unwrap_err();
    assert!(
        matches!(&error, ModelError::Keys { misshaped, .. } if misshaped.len() == 3),
        "{error}"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let config = config(4, 3);
    let tokenizer = tokenizer(&config, 1);
    let check = |result: mae_model::Result<Tensor>, expected: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    let floats = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
    let ids = |values: &[i64]| Tensor::from_slice(values).view([1, -1]);
    check(
        tokenizer.encode(&floats(&[1, 3, 12, 8])),
        "expected [batch, 3, 8, 12] of f32",
    );
    check(tokenizer.encode(&pixels(&config, 1)), "`images`");
    check(
        tokenizer.encode_patches(&floats(&[1, 5, 48])),
        "[batch, 6, 48]",
    );
    check(tokenizer.normalize(&floats(&[8, 12, 3])), "`images`");
    check(tokenizer.patches_of(&floats(&[8, 12, 3])), "`images`");
    check(tokenizer.decode(&ids(&[0; 5])), "[batch, 6] of i64");
    check(tokenizer.decode(&floats(&[1, 6])), "[batch, 6] of i64");
    check(tokenizer.decode(&ids(&[0, 1, 2, 3, 4, 24])), "0 to 23");
    check(tokenizer.decode(&ids(&[0, 1, 2, 3, 4, -1])), "0 to 23");
    let images = tokenizer.normalize(&pixels(&config, 2)).unwrap();
    let relaxation = Relaxation {
        temperature: 1.0,
        kl_weight: 0.0,
    };
    let short = gumbel_noise(&[2, 6, 23], 0, 0, Device::Cpu).unwrap();
    check(
        tokenizer
            .forward(&images, &short, relaxation)
            .map(|l| l.loss),
        "[2, 6, 24]",
    );
}

#[test]
fn losses_gradients_and_ids_are_those_of_plain_pytorch() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/tokenizer.safetensors"
    );
    let (golden, _) = mae_model::tensor_file::read_tensors(path.as_ref()).unwrap();
    let config = TokenizerConfig {
        image_height: 12,
        image_width: 18,
        patch_size: 6,
        channels: 3,
        vocabulary: 11,
        width: 16,
        blocks: 1,
    };
    // Printed by the script that made the file, for the forward pass.
    assert_eq!(config.training_flops(), 3 * 258_432);
    let tokenizer = tokenizer(&config, 0);
    let parameters = tokenizer.parameters();
    let stored = golden.keys().filter(|key| key.starts_with("weight."));
    assert_eq!(stored.count(), parameters.len());
    for (key, parameter) in &parameters {
        let mut parameter = parameter.shallow_clone();
        no_grad(|| parameter.copy_(&golden[&format!("weight.{key}")]));
    }
    let check = |name: &str, found: &Tensor, expected: &Tensor| {
        assert_eq!(found.size(), expected.size(), "{name}");
        let error = ((found - expected).norm() / expected.norm()).double_value(&[]);
        assert!(error < 1e-5, "{name}: {error}");
    };

    let relaxation = Relaxation {
        temperature: 0.6,
        kl_weight: 1.5,
    };
    let (images, noise) = (&golden["images"], &golden["noise"]);
    let loss = tokenizer.forward(images, noise, relaxation).unwrap();
    let parts = [&loss.loss, &loss.mse, &loss.kl].map(Tensor::shallow_clone);
    check("losses", &Tensor::stack(&parts, 0), &golden["losses"]);
    loss.loss.backward();
    for (key, parameter) in &parameters {
        check(key, &parameter.grad(), &golden[&format!("grad.{key}")]);
    }
    let logits = tokenizer.forward_encoder(images).unwrap();
    check("logits", &logits, &golden["logits"]);
    let ids = tokenizer.encode(images).unwrap();
    assert_eq!(ids, golden["ids"]);
    check(
        "decoded",
        &tokenizer.decode(&ids).unwrap(),
        &golden["decoded"],
    );
}

#[test]
fn training_makes_decoding_and_encoding_agree() {
    let config = TokenizerConfig {
        image_height: 16,
        image_width: 16,
        patch_size: 4,
        vocabulary: 16,
        ..config(4, 1)
    };
    let tokenizer = tokenizer(&config, 2);
    // Each patch is one of four greys, by a fixed pattern that no two images share.
    let greys: Vec<f32> = (0..8 * 16)
        .map(|i| [-1.5, -0.5, 0.5, 1.5][(i * i / 3 % 4) as usize])
        .collect();
    let greys = Tensor::from_slice(&greys).view([8, 1, 4, 1, 4, 1]);
    let images = greys
        .expand([8, 1, 4, 4, 4, 4], false)
        .reshape([8, 1, 16, 16]);

    let mut optimizer: Vec<(Tensor, Tensor)> = tokenizer
        .parameters()
        .into_values()
        .map(|parameter| (parameter.zeros_like(), parameter))
        .collect();
    for step in 0..300 {
        let noise = gumbel_noise(&[8, 16, 16], 1, step, Device::Cpu).unwrap();
        let relaxation = Relaxation {
            temperature: 1.0 - 0.9 * step as f64 / 300.0,
            kl_weight: 0.1,
        };
        let loss = tokenizer.forward(&images, &noise, relaxation).unwrap().loss;
        loss.backward();
        no_grad(|| {
            for (momentum, parameter) in &mut optimizer {
                let mut gradient = parameter.grad();
                *momentum = &*momentum * 0.9 + &gradient;
                *parameter -= &*momentum * 0.01;
                let _ = gradient.zero_();
            }
        });
    }
    let ids = tokenizer.encode(&images).unwrap();
    let decoded = tokenizer.decode(&ids).unwrap();
    let mse = (&decoded - &images)
        .square()
        .mean(Kind::Double)
        .double_value(&[]);
    assert!(mse < 0.125, "of a variance of 1.25 remains {mse}");
    // What was decoded is encoded as before.
    let again = tokenizer.encode(&decoded).unwrap();
    let same = again
        .eq_tensor(&ids)
        .to_kind(Kind::Double)
        .mean(Kind::Double);
    assert!(same.double_value(&[]) > 0.9, "{same}");
}

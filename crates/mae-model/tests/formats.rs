//! Weights of other programs: what they compute here, what comes back, and what is refused.
//!
//! `fixtures/formats/make_formats.py` made the files, and the numbers with the programs themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mae_model::checkpoint::{Part, read_tensors, write_tensors};
use mae_model::classifier::{ClassifierConfig, Pooling};
use mae_model::formats::{Adapt, Format, ReadOptions, Weights, read};
use mae_model::{
    LossRegion, MaeConfig, MaskedAutoencoderViT, Normalization, Target, VitClassifier, patchify,
};
use tch::{Device, Kind, Tensor, no_grad};

/// Norm of the difference over the norm.
const TOLERANCE: f64 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/formats")
        .join(name)
}

/// What the file of the authors' layout does not say.
fn authors() -> ReadOptions {
    ReadOptions {
        num_heads: Some(2),
        decoder_num_heads: Some(2),
        ..ReadOptions::default()
    }
}

fn read_fixture(name: &str) -> Weights {
    let options = match name {
        "authors.pth" => authors(),
        _ => ReadOptions::default(),
    };
    read(&fixture(name), &options).unwrap()
}

fn close(what: &str, ours: &Tensor, theirs: &Tensor) {
    assert_eq!(ours.size(), theirs.size(), "{what}");
    let error = ((ours - theirs).norm() / theirs.norm()).double_value(&[]);
    println!("{what}: {error:.1e}");
    assert!(error < TOLERANCE, "{what}: {error}");
}

/// The same bits under the same keys.
fn same(found: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Tensor>) {
    assert!(found.keys().eq(expected.keys()));
    for (key, tensor) in expected {
        assert_eq!(found[key].kind(), tensor.kind(), "{key}");
        assert_eq!(found[key], *tensor, "{key}");
    }
}

/// Converts a fixture and compares what it computes with what the other program computed.
fn check(name: &str, prefix: &str, part: Part) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let weights = read_fixture(name);
    assert_eq!(weights.part, part);
    weights.write(&file, Format::Native).unwrap();
    let (expected, _) = read_tensors(&fixture("expected.safetensors")).unwrap();
    let theirs = |key: &str| &expected[&format!("{prefix}.{key}")];
    let rows = weights.config.image_height as i64;
    let patches = patchify(&expected["images"].narrow(1, 0, rows), 4).unwrap();
    for (key, pooling) in [
        ("class_token", Pooling::ClassToken),
        ("mean", Pooling::NormThenMean),
    ] {
        let config = ClassifierConfig {
            pooling,
            ..ClassifierConfig::linear_probe(weights.config.clone(), 1)
        };
        let encoder = VitClassifier::new(&config, &weights.normalization, Device::Cpu, 0).unwrap();
        encoder.load_encoder(&file).unwrap();
        let what = format!("{name}, {key}");
        close(&what, &encoder.features(&patches).unwrap(), theirs(key));
    }
    if part == Part::Encoder {
        return;
    }
    let model = MaskedAutoencoderViT::load(&file, Device::Cpu).unwrap();
    let ids_shuffle = expected["noise"].argsort(1, false);
    let ids = ids_shuffle
        .unsqueeze(-1)
        .expand([-1, -1, patches.size()[2]], false);
    let shuffled = patches.gather(1, &ids, false);
    let (visible, masked) = (shuffled.narrow(1, 0, 2), shuffled.narrow(1, 2, 7));
    no_grad(|| {
        let latent = model.forward_encoder(&visible, &ids_shuffle).unwrap();
        let pred = model.predict(&latent, &ids_shuffle).unwrap();
        let loss = model.forward(&visible, &masked, &ids_shuffle).unwrap();
        close(&format!("{name}, latent"), &latent, theirs("latent"));
        close(&format!("{name}, pred"), &pred, theirs("pred"));
        close(&format!("{name}, loss"), &loss, theirs("loss"));
    });
}

#[test]
fn hugging_faces_weights_compute_the_same() {
    check("huggingface", "huggingface", Part::Whole);
    let weights = read_fixture("huggingface");
    assert_eq!(weights.format, Format::HuggingFace);
    assert_eq!(weights.config.layer_norm_eps, 1e-12);
    assert!(!weights.config.norm_pix_loss);
    let expected = Normalization::new(vec![0.5, 0.4, 0.3], vec![0.2, 0.25, 0.3]);
    assert_eq!(weights.normalization, expected);
}

#[test]
fn the_authors_weights_compute_the_same() {
    check("authors.pth", "authors", Part::Whole);
    let weights = read_fixture("authors.pth");
    assert_eq!(weights.format, Format::Authors);
    assert!(weights.config.norm_pix_loss, "as its Namespace says");
    assert_eq!(weights.normalization, Normalization::IMAGENET);
    assert!(weights.notes.iter().any(|note| note.contains("ImageNet's")));
}

#[test]
fn timms_weights_compute_the_same() {
    check("timm", "timm", Part::Encoder);
    let weights = read_fixture("timm");
    assert_eq!(weights.format, Format::Timm);
    let config = &weights.config;
    assert_eq!((config.image_height, config.image_width), (8, 12));
    assert!(
        weights
            .notes
            .iter()
            .any(|note| note.contains("head.weight"))
    );
}

#[test]
fn a_way_there_and_back_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, format) in [
        ("huggingface", Format::HuggingFace),
        ("authors.pth", Format::HuggingFace),
        ("timm", Format::Timm),
    ] {
        let weights = read_fixture(name);
        let native = path(&format!("{name}.safetensors"));
        weights.write(&native, Format::Native).unwrap();
        let weights_again = read(&native, &ReadOptions::default()).unwrap();
        weights_again.write(&path(name), format).unwrap();
        let back = read(&path(name), &ReadOptions::default()).unwrap();
        same(&back.tensors, &weights.tensors);
        assert_eq!(back.config, weights.config, "{name}");
        assert_eq!(back.normalization, weights.normalization, "{name}");
        assert_eq!(back.part, weights.part, "{name}");

        // An encoder alone, in every layout, at half precision.
        let mut encoder = weights_again.into_encoder();
        for tensor in encoder.tensors.values_mut() {
            *tensor = tensor.to_kind(Kind::BFloat16);
        }
        for (layout, suffix) in [
            (Format::Native, "-encoder.safetensors"),
            (Format::HuggingFace, "-hf"),
            (Format::Timm, "-timm"),
        ] {
            if name == "timm" && layout == Format::HuggingFace {
                continue;
            }
            let file = path(&format!("{name}{suffix}"));
            encoder.write(&file, layout).unwrap();
            let back = read(&file, &ReadOptions::default()).unwrap();
            same(&back.tensors, &encoder.tensors);
            assert_eq!(back.part, Part::Encoder);
        }
    }
}

#[test]
fn shards_and_pickled_weights_of_a_folder_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let source = fixture("huggingface");
    for name in ["config.json", "preprocessor_config.json"] {
        std::fs::copy(source.join(name), path(name)).unwrap();
    }
    let (tensors, _) = read_tensors(&source.join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    for (i, shard) in ["a.safetensors", "b.safetensors"].into_iter().enumerate() {
        let half: BTreeMap<String, Tensor> = (tensors.iter().skip(i).step_by(2))
            .map(|(key, tensor)| (key.clone(), tensor.shallow_clone()))
            .collect();
        write_tensors(&path(shard), &half, Default::default()).unwrap();
        map.extend(half.into_keys().map(|key| (key, shard.into())));
    }
    let index = |map: serde_json::Map<String, serde_json::Value>| {
        let text = serde_json::json!({ "weight_map": map }).to_string();
        std::fs::write(path("model.safetensors.index.json"), text).unwrap();
    };
    index(map.clone());
    let weights = read(folder.path(), &ReadOptions::default()).unwrap();
    same(&weights.tensors, &read_fixture("huggingface").tensors);

    let fails = |expected: &str| {
        let message = read(folder.path(), &ReadOptions::default())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
    };
    map.insert("absent".into(), "a.safetensors".into());
    index(map.clone());
    fails("lists `absent`, which none of its files has");
    map.insert("absent".into(), "../a.safetensors".into());
    index(map);
    fails("\"../a.safetensors\", which is no file beside it");
    std::fs::remove_file(path("model.safetensors.index.json")).unwrap();
    fails("a config.json without weights");
}

#[test]
fn what_is_not_said_is_asked_for_all_at_once() {
    let fails = |path: &Path, options: ReadOptions, expected: &[&str]| {
        let message = read(path, &options).unwrap_err().to_string();
        for part in expected {
            assert!(message.contains(part), "{part} in: {message}");
        }
    };
    fails(
        &fixture("authors.pth"),
        ReadOptions::default(),
        &[
            "does not say",
            "16 wide: --num-heads N",
            "8 wide: --decoder-num-heads N",
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let bare = folder.path().join("bare.safetensors");
    let (mut tensors, _) = read_tensors(&fixture("timm/model.safetensors")).unwrap();
    write_tensors(&bare, &tensors, Default::default()).unwrap();
    fails(
        &bare,
        ReadOptions::default(),
        &[
            "--num-heads",
            "6 patches of 4 x 4: --image-size HEIGHTxWIDTH",
            "--normalization imagenet, or --mean and --std",
        ],
    );
    let said = ReadOptions {
        num_heads: Some(2),
        image_size: Some((8, 12)),
        normalization: Some(Normalization::IMAGENET),
        ..ReadOptions::default()
    };
    let weights = read(&bare, &said).unwrap();
    assert_eq!(weights.config.num_heads, 2);
    // What is said must fit.
    let other_size = ReadOptions {
        image_size: Some((12, 12)),
        ..said.clone()
    };
    fails(
        &bare,
        other_size,
        &["pos_embed (found [1, 7, 16], expected [1, 10, 16])"],
    );
    let three = ReadOptions {
        num_heads: Some(3),
        ..said.clone()
    };
    fails(&bare, three, &["`embed_dim` is 16"]);
    let contradiction = ReadOptions {
        num_heads: Some(4),
        ..ReadOptions::default()
    };
    fails(
        &fixture("huggingface"),
        contradiction,
        &["`num_heads` is 4, expected 2, as"],
    );
    let no_decoder = ReadOptions {
        norm_pix_loss: Some(true),
        ..ReadOptions::default()
    };
    fails(
        &fixture("timm"),
        no_decoder,
        &[
            "`norm_pix_loss` is true, expected nothing",
            "has no decoder",
        ],
    );

    // Sine-cosine positions show their grid, square or not.
    tensors.insert(
        "pos_embed".into(),
        mae_model::pos_embed::sincos_2d(2, 3, 16),
    );
    write_tensors(&bare, &tensors, Default::default()).unwrap();
    let unsaid = ReadOptions {
        image_size: None,
        ..said
    };
    let weights = read(&bare, &unsaid).unwrap();
    assert_eq!(
        (weights.config.image_height, weights.config.image_width),
        (8, 12)
    );
    assert!(
        weights
            .notes
            .iter()
            .any(|note| note.contains("sine-cosine"))
    );
}

#[test]
fn other_models_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.safetensors");
    let options = ReadOptions {
        num_heads: Some(2),
        image_size: Some((8, 12)),
        normalization: Some(Normalization::IMAGENET),
        ..ReadOptions::default()
    };
    let check = |change: &dyn Fn(&mut BTreeMap<String, Tensor>), expected: &str| {
        let (mut tensors, _) = read_tensors(&fixture("timm/model.safetensors")).unwrap();
        change(&mut tensors);
        write_tensors(&file, &tensors, Default::default()).unwrap();
        let message = read(&file, &options).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("other.safetensors"), "{message}");
    };
    let ones = || Tensor::ones([16], (Kind::Float, Device::Cpu));
    let add = |key: &'static str| {
        move |tensors: &mut BTreeMap<String, Tensor>| drop(tensors.insert(key.into(), ones()))
    };
    check(
        &add("blocks.0.ls1.gamma"),
        "`blocks.0.ls1.gamma`: it has layer scale",
    );
    check(&add("reg_token"), "register tokens");
    check(&add("blocks.0.other"), "not in the model: blocks.0.other");
    check(
        &|tensors| drop(tensors.remove("blocks.1.mlp.fc2.bias")),
        "1 tensors missing: blocks.1.mlp.fc2.bias",
    );
    check(
        &|tensors| drop(tensors.remove("cls_token")),
        "a Vision Transformer without a class token",
    );
    check(
        &|tensors| drop(tensors.remove("patch_embed.proj.weight")),
        "no weights of a Vision Transformer",
    );
    check(
        &|tensors| tensors.retain(|key, _| key == "head.weight"),
        "no weights in it",
    );
    check(
        &|tensors| drop(tensors.insert("norm.bias".into(), ones().to_kind(Kind::Int64))),
        "`norm.bias` is of Int64",
    );
    check(
        &|tensors| {
            drop(tensors.insert(
                "pos_embed".into(),
                Tensor::ones([7, 16], (Kind::Float, Device::Cpu)),
            ))
        },
        "`pos_embed` has shape [7, 16], expected 3 dimensions",
    );
}

#[test]
fn a_norm_after_pooling_becomes_the_norm_if_it_is_the_only_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pooled.safetensors");
    let options = ReadOptions {
        num_heads: Some(2),
        image_size: Some((8, 12)),
        normalization: Some(Normalization::IMAGENET),
        ..ReadOptions::default()
    };
    let (mut tensors, _) = read_tensors(&fixture("timm/model.safetensors")).unwrap();
    let norm = tensors["norm.weight"].shallow_clone();
    for name in ["weight", "bias"] {
        let other = tensors[&format!("norm.{name}")].f_mul_scalar(2.0).unwrap();
        tensors.insert(format!("fc_norm.{name}"), other);
    }
    write_tensors(&file, &tensors, Default::default()).unwrap();
    let both = read(&file, &options).unwrap();
    assert_eq!(both.tensors["norm.weight"], norm);
    assert!(
        both.notes
            .iter()
            .any(|note| note.contains("`fc_norm`, which comes after pooling, is left out"))
    );
    tensors.retain(|key, _| !key.starts_with("norm."));
    write_tensors(&file, &tensors, Default::default()).unwrap();
    let pooled = read(&file, &options).unwrap();
    assert_eq!(pooled.tensors["norm.weight"], tensors["fc_norm.weight"]);
    assert!(
        pooled
            .notes
            .iter()
            .any(|note| note.contains("becomes the encoder's last norm"))
    );
}

#[test]
fn what_a_layout_cannot_hold_is_refused_or_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let native = |config: MaeConfig| {
        let model =
            MaskedAutoencoderViT::new(&config, &Normalization::IMAGENET, Device::Cpu, 0).unwrap();
        let file = path("own.safetensors");
        model.save(&file).unwrap();
        read(&file, &ReadOptions::default()).unwrap()
    };
    let small = MaeConfig {
        patch_size: 4,
        embed_dim: 16,
        depth: 1,
        num_heads: 2,
        decoder_embed_dim: 8,
        decoder_depth: 1,
        decoder_num_heads: 2,
        norm_pix_loss: false,
        ..MaeConfig::tiny(8)
    };
    let refuse = |config: MaeConfig, expected: &str| {
        let weights = native(config);
        let message = weights
            .write(&path("hf"), Format::HuggingFace)
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!path("hf").exists());
        weights
    };
    refuse(
        MaeConfig {
            image_width: 12,
            ..small.clone()
        },
        "square images only, this model takes 8 x 12",
    );
    let mask_tokens = MaeConfig {
        encoder_mask_tokens: true,
        ..small.clone()
    };
    let weights = refuse(mask_tokens, "no mask tokens in its encoder");
    weights
        .into_encoder()
        .write(&path("masked"), Format::HuggingFace)
        .unwrap();
    let pca = MaeConfig {
        target: Target::Pca,
        pca_components: Some(5),
        ..small.clone()
    };
    let weights = refuse(pca.clone(), "predicts pixels only");
    weights
        .write(&path("pca.safetensors"), Format::Native)
        .unwrap();
    let message = read(
        &path("pca.safetensors"),
        &ReadOptions {
            channels: Some((1, Adapt::Mean)),
            ..ReadOptions::default()
        },
    );
    assert!(
        message
            .unwrap_err()
            .to_string()
            .contains("does not predict the channels of pixels")
    );
    MaskedAutoencoderViT::load(&path("pca.safetensors"), Device::Cpu).unwrap();

    let all = native(MaeConfig {
        loss_region: LossRegion::All,
        layer_norm_eps: 1e-5,
        ..small.clone()
    });
    let notes = all
        .write(&path("all"), Format::HuggingFace)
        .unwrap()
        .join("\n");
    assert!(
        notes.contains("loss is over all patches") && notes.contains("mask_ratio"),
        "{notes}"
    );
    let notes = all.write(&path("timm"), Format::Timm).unwrap().join("\n");
    assert!(
        notes.contains("the decoder is left out") && notes.contains("this model's 0.00001"),
        "{notes}"
    );
    assert!(
        all.write(&path("pth"), Format::Authors)
            .unwrap_err()
            .to_string()
            .contains("read only")
    );

    let file = path("encoder.safetensors");
    all.into_encoder().write(&file, Format::Native).unwrap();
    let message = MaskedAutoencoderViT::load(&file, Device::Cpu)
        .unwrap_err()
        .to_string();
    assert!(message.contains("an encoder only"), "{message}");
}

#[test]
fn adapted_channels_see_the_same_in_grey_images() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let latent = |weights: &Weights| {
        weights.write(&file, Format::Native).unwrap();
        let model = MaskedAutoencoderViT::load(&file, Device::Cpu).unwrap();
        let channels = weights.config.channels as i64;
        let grey = Tensor::arange(2 * 144, (Kind::Int64, Device::Cpu))
            .remainder(251)
            .to_kind(Kind::Uint8)
            .view([2, 12, 12, 1]);
        let images = grey.expand([-1, -1, -1, channels], false).contiguous();
        let ids = Tensor::arange(9, (Kind::Int64, Device::Cpu)).expand([2, 9], false);
        let patches = patchify(&images, 4).unwrap();
        no_grad(|| {
            let latent = model
                .forward_encoder(&patches.narrow(1, 0, 3), &ids)
                .unwrap();
            let pred = model.predict(&latent, &ids).unwrap();
            (latent, pred.view([2, 9, 16, channels]))
        })
    };
    let with = |channels, statistics: usize| {
        let options = ReadOptions {
            channels,
            normalization: Some(Normalization::new(
                vec![0.5; statistics],
                vec![0.25; statistics],
            )),
            ..ReadOptions::default()
        };
        read(&fixture("huggingface"), &options).unwrap()
    };
    let (expected, pred) = latent(&with(None, 3));
    for channels in [1, 2, 5, 6] {
        let weights = with(Some((channels, Adapt::Mean)), channels);
        assert_eq!(weights.config.channels, channels);
        let (found, predicted) = latent(&weights);
        close("mean", &found, &expected);
        let mean = pred.mean_dim(-1i64, true, Kind::Float);
        close(
            "mean, pred",
            &predicted,
            &mean.expand([2, 9, 16, channels as i64], false),
        );
    }
    // Where the old channels come equally often, repeating keeps their sum.
    let (found, predicted) = latent(&with(Some((6, Adapt::Repeat)), 6));
    close("repeat", &found, &expected);
    close(
        "repeat, pred",
        &predicted,
        &Tensor::cat(&[&pred, &pred], -1),
    );

    let adapted = |adapt| {
        let options = ReadOptions {
            channels: Some((4, adapt)),
            ..ReadOptions::default()
        };
        read(&fixture("huggingface"), &options).unwrap()
    };
    let repeated = adapted(Adapt::Repeat);
    assert_eq!(repeated.normalization.mean[..], [0.5, 0.4, 0.3, 0.5]);
    let key = "patch_embed.proj.weight";
    let (old, new) = (
        &read_fixture("huggingface").tensors[key],
        &repeated.tensors[key],
    );
    assert_eq!(new.select(1, 3), old.select(1, 0) * 0.75);
    assert!((adapted(Adapt::Mean).normalization.mean[3] - 0.4).abs() < 1e-6);
}

#[test]
fn weights_are_found_wherever_a_program_puts_them() {
    let expected = read_fixture("authors.pth").tensors;
    let read_with = |name: &str, key: Option<&str>| {
        let said = ReadOptions {
            norm_pix_loss: Some(true),
            normalization: Some(Normalization::IMAGENET),
            weights_key: key.map(str::to_string),
            ..authors()
        };
        read(&fixture(name), &said)
    };
    for name in ["legacy.pth", "beside.pth", "module.pth"] {
        let weights = read_with(name, None).unwrap();
        same(&weights.tensors, &expected);
    }
    let beside = read_with("beside.pth", None).unwrap();
    assert!(
        beside.notes.iter().any(|note| note.contains(
            "those under \"state_dict.module\"; it also has some under \"state_dict_ema\": --weights-key KEY"
        )),
        "{:?}",
        beside.notes
    );
    let average = read_with("beside.pth", Some("state_dict_ema")).unwrap();
    for (key, tensor) in &average.tensors {
        assert_eq!(*tensor, 2.0 * &expected[key], "{key}");
    }
    let message = read_with("beside.pth", Some("teacher"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("no weights under \"teacher\""),
        "{message}"
    );
    let half = read_with("half.pth", None).unwrap();
    for (key, tensor) in &half.tensors {
        assert_eq!(*tensor, expected[key].to_kind(Kind::BFloat16), "{key}");
    }
}

#[test]
fn layouts_of_other_programs_become_the_native_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.safetensors");
    let expected = read_fixture("authors.pth").tensors;
    let said = ReadOptions {
        norm_pix_loss: Some(true),
        normalization: Some(Normalization::IMAGENET),
        ..authors()
    };
    // Names as replacements in order, and what there is besides.
    let check = |part: Part, replacements: &[(&str, &str)], extra: &[&str]| {
        let mut tensors = BTreeMap::new();
        for (key, tensor) in &expected {
            let is_decoder = key.starts_with("decoder_") || key == "mask_token";
            if part == Part::Encoder && is_decoder {
                continue;
            }
            let mut name = key.clone();
            for (ours, theirs) in replacements {
                name = match ours.strip_prefix('^') {
                    Some(start) => match name.strip_prefix(start) {
                        Some(rest) => format!("{theirs}{rest}"),
                        None => name,
                    },
                    None => name.replace(ours, theirs),
                };
            }
            tensors.insert(name, tensor.shallow_clone());
        }
        for key in extra {
            tensors.insert(
                key.to_string(),
                Tensor::ones([3], (Kind::Float, Device::Cpu)),
            );
        }
        write_tensors(&file, &tensors, Default::default()).unwrap();
        let options = match part {
            Part::Whole => said.clone(),
            Part::Encoder => ReadOptions {
                decoder_num_heads: None,
                norm_pix_loss: None,
                ..said.clone()
            },
        };
        let weights = read(&file, &options).unwrap();
        assert_eq!(weights.part, part);
        let keys = weights.tensors.keys().cloned().collect::<Vec<_>>();
        let of_part: BTreeMap<_, _> = (expected.iter())
            .filter(|(key, _)| keys.contains(key))
            .map(|(key, tensor)| (key.clone(), tensor.shallow_clone()))
            .collect();
        same(&weights.tensors, &of_part);
    };
    let mmpretrain = [
        (".norm1.", ".ln1."),
        (".norm2.", ".ln2."),
        (".mlp.fc1.", ".ffn.layers.0.0."),
        (".mlp.fc2.", ".ffn.layers.1."),
        ("^patch_embed.proj.", "backbone.patch_embed.projection."),
        ("^blocks.", "backbone.layers."),
        ("^norm.", "backbone.ln1."),
        ("^cls_token", "backbone.cls_token"),
        ("^pos_embed", "backbone.pos_embed"),
        ("^decoder_norm.", "neck.ln1."),
        ("^decoder_", "neck.decoder_"),
        ("^mask_token", "neck.mask_token"),
    ];
    check(
        Part::Whole,
        &mmpretrain,
        &["data_preprocessor.mean", "head.fc.bias"],
    );
    check(Part::Encoder, &mmpretrain, &[]);
    let torchvision = [
        (".norm1.", ".ln_1."),
        (".norm2.", ".ln_2."),
        (".attn.qkv.weight", ".self_attention.in_proj_weight"),
        (".attn.qkv.bias", ".self_attention.in_proj_bias"),
        (".attn.proj.", ".self_attention.out_proj."),
        (".mlp.fc1.", ".mlp.linear_1."),
        (".mlp.fc2.", ".mlp.linear_2."),
        ("^patch_embed.proj.", "conv_proj."),
        ("^blocks.", "encoder.layers.encoder_layer_"),
        ("^norm.", "encoder.ln."),
        ("^cls_token", "class_token"),
        ("^pos_embed", "encoder.pos_embedding"),
    ];
    check(Part::Encoder, &torchvision, &["heads.head.bias"]);
    // Prithvi's second version: encoder and decoder as two modules.
    let two = [
        ("^decoder_", "decoder.decoder_"),
        ("^mask_token", "decoder.mask_token"),
        ("^blocks.", "encoder.blocks."),
        ("^norm.", "encoder.norm."),
        ("^patch_embed.", "encoder.patch_embed."),
        ("^cls_token", "encoder.cls_token"),
        ("^pos_embed", "encoder.pos_embed"),
    ];
    check(Part::Whole, &two, &[]);
    check(
        Part::Encoder,
        &[("^", "teacher.backbone.")],
        &["student.backbone.norm.weight", "teacher.head.mlp.bias"],
    );

    // Prithvi's patch embedding has a dimension for frames.
    let of_frames = |frames: i64, positions: i64| {
        let mut tensors: BTreeMap<_, _> = (expected.iter())
            .map(|(key, tensor)| (key.clone(), tensor.shallow_clone()))
            .collect();
        let weight = &expected["patch_embed.proj.weight"];
        let [d, c, p, q] = weight.size()[..] else {
            panic!()
        };
        let weight = weight
            .unsqueeze(2)
            .expand([d, c, frames, p, q], false)
            .contiguous();
        tensors.insert("patch_embed.proj.weight".into(), weight);
        if positions > 1 {
            let more = Tensor::zeros([1, 1 + 9 * positions, d], (Kind::Float, Device::Cpu));
            tensors.insert("pos_embed".into(), more);
        }
        write_tensors(&file, &tensors, Default::default()).unwrap();
        read(&file, &said)
    };
    same(&of_frames(1, 1).unwrap().tensors, &expected);
    let message = of_frames(2, 1).unwrap_err().to_string();
    assert!(
        message.contains("is of 2 frames of 4 x 4 pixels"),
        "{message}"
    );
    let message = of_frames(1, 3).unwrap_err().to_string();
    assert!(
        message.contains("positions are of 3 frames of 3 x 3 patches, as Prithvi's"),
        "{message}"
    );
}

/// The authors' fixture as an encoder alone, changed; what of it is read with `options`.
fn changed_encoder(
    change: &dyn Fn(&mut BTreeMap<String, Tensor>),
    options: &ReadOptions,
) -> mae_model::Result<Weights> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("changed.safetensors");
    let mut tensors = read_fixture("authors.pth").into_encoder().tensors;
    change(&mut tensors);
    write_tensors(&file, &tensors, Default::default()).unwrap();
    read(&file, options)
}

#[test]
fn as_many_frames_as_make_a_square_are_no_image() {
    let said = ReadOptions {
        num_heads: Some(2),
        normalization: Some(Normalization::IMAGENET),
        ..ReadOptions::default()
    };
    let with_positions = |positions: &Tensor| {
        let change = |tensors: &mut BTreeMap<String, Tensor>| {
            let key = "patch_embed.proj.weight";
            let weight = tensors[key].unsqueeze(2);
            tensors.insert(key.into(), weight);
            tensors.insert("pos_embed".into(), positions.shallow_clone());
        };
        changed_encoder(&change, &said)
    };
    // Half of each position says where in the frame it is, and half which frame.
    let in_frame = mae_model::pos_embed::sincos_2d(4, 4, 8).narrow(1, 1, 16);
    let mut rows = vec![Tensor::zeros([1, 1, 16], (Kind::Float, Device::Cpu))];
    for frame in 0..4 {
        let time = Tensor::full(
            [1, 16, 8],
            f64::from(frame).sin(),
            (Kind::Float, Device::Cpu),
        );
        rows.push(Tensor::cat(&[&in_frame, &time], 2));
    }
    let message = with_positions(&Tensor::cat(&rows, 1))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("positions are of 4 frames of 4 x 4 patches"),
        "{message}"
    );
    let image = mae_model::pos_embed::sincos_2d(8, 8, 16);
    assert_eq!(with_positions(&image).unwrap().config.image_height, 32);
}

#[test]
fn a_class_token_without_a_position_has_one_of_zeros() {
    let said = ReadOptions {
        num_heads: Some(2),
        normalization: Some(Normalization::IMAGENET),
        ..ReadOptions::default()
    };
    let expected = read_fixture("authors.pth").tensors["pos_embed"].shallow_clone();
    let of_patches = |tensors: &mut BTreeMap<String, Tensor>| {
        tensors.insert("pos_embed".into(), expected.narrow(1, 1, 9).contiguous());
    };
    let sized = ReadOptions {
        image_size: Some((12, 12)),
        ..said.clone()
    };
    let weights = changed_encoder(&of_patches, &sized).unwrap();
    assert_eq!(weights.config.image_height, 12);
    let positions = &weights.tensors["pos_embed"];
    assert_eq!(positions.narrow(1, 1, 9), expected.narrow(1, 1, 9));
    assert_eq!(positions.select(1, 0).abs().max().double_value(&[]), 0.0);
    let is_said = |note: &String| note.contains("no position");
    assert!(weights.notes.iter().any(is_said));

    // The number of positions alone does not tell: it is asked for.
    let message = changed_encoder(&of_patches, &said).unwrap_err().to_string();
    assert!(
        message.contains("--image-size HEIGHTxWIDTH; of 9, if its class token has no position"),
        "{message}"
    );
    // 25 positions, of 4 x 6 patches and the class token.
    let oblong = |tensors: &mut BTreeMap<String, Tensor>| {
        let positions = mae_model::pos_embed::sincos_2d(4, 6, 16);
        tensors.insert("pos_embed".into(), positions);
    };
    let config = changed_encoder(&oblong, &said).unwrap().config;
    assert_eq!((config.image_height, config.image_width), (16, 24));
}

#[test]
fn of_an_encoder_that_is_wanted_alone_nothing_of_the_decoder_is_asked() {
    let said = ReadOptions {
        num_heads: Some(2),
        part: Some(Part::Encoder),
        ..ReadOptions::default()
    };
    let weights = read(&fixture("authors.pth"), &said).unwrap();
    assert_eq!(weights.part, Part::Encoder);
    same(
        &weights.tensors,
        &read_fixture("authors.pth").into_encoder().tensors,
    );
    let native = ReadOptions {
        part: Some(Part::Encoder),
        ..ReadOptions::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("whole.safetensors");
    read_fixture("authors.pth")
        .write(&file, Format::Native)
        .unwrap();
    same(&read(&file, &native).unwrap().tensors, &weights.tensors);
}

#[test]
fn shards_of_any_name_are_read_by_an_index_that_lists_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let expected = read_fixture("authors.pth").into_encoder().tensors;
    let said = ReadOptions {
        num_heads: Some(2),
        normalization: Some(Normalization::IMAGENET),
        ..ReadOptions::default()
    };
    let shards = [
        "vit-00001-of-00002.safetensors",
        "vit-00002-of-00002.safetensors",
    ];
    let mut map = serde_json::Map::new();
    for (i, shard) in shards.into_iter().enumerate() {
        let half: BTreeMap<String, Tensor> = (expected.iter().skip(i).step_by(2))
            .map(|(key, tensor)| (key.clone(), tensor.shallow_clone()))
            .collect();
        write_tensors(&path(shard), &half, Default::default()).unwrap();
        map.extend(half.into_keys().map(|key| (key, shard.into())));
    }
    let message = read(&path(shards[1]), &said).unwrap_err().to_string();
    assert!(message.contains("no index beside it"), "{message}");
    let index = serde_json::json!({ "weight_map": map }).to_string();
    std::fs::write(path("vit.safetensors.index.json"), index).unwrap();
    for from in ["", "vit.safetensors.index.json", shards[0], shards[1]] {
        same(&read(&path(from), &said).unwrap().tensors, &expected);
    }
}

#[test]
fn what_is_no_plain_vision_transformer_is_called_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.safetensors");
    let check = |change: &dyn Fn(&mut BTreeMap<String, Tensor>), expected: &str| {
        let mut tensors = read_fixture("timm").tensors;
        change(&mut tensors);
        write_tensors(&file, &tensors, Default::default()).unwrap();
        let message = read(&file, &ReadOptions::default())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
    };
    let with = |keys: &'static [(&'static str, &'static [i64])]| {
        move |tensors: &mut BTreeMap<String, Tensor>| {
            for (key, size) in keys {
                tensors.insert(
                    key.to_string(),
                    Tensor::ones(*size, (Kind::Float, Device::Cpu)),
                );
            }
        }
    };
    check(
        &with(&[
            ("register_tokens", &[1, 4, 16]),
            ("blocks.0.ls1.gamma", &[16]),
        ]),
        "it has 4 register tokens and layer scale, as DINOv2",
    );
    check(
        &with(&[(
            "layers.0.blocks.0.attn.relative_position_bias_table",
            &[9, 2],
        )]),
        "it is a Swin Transformer, and no plain",
    );
    let only = |key: &'static str| {
        move |tensors: &mut BTreeMap<String, Tensor>| {
            tensors.clear();
            tensors.insert(
                key.into(),
                Tensor::ones([4, 3, 7, 7], (Kind::Float, Device::Cpu)),
            );
        }
    };
    check(&only("layer1.0.conv1.weight"), "a ResNet");
    check(
        &only("module.visual.transformer.resblocks.0.ln_1.weight"),
        "a CLIP or SigLIP model",
    );
    check(&only("downsample_layers.0.0.weight"), "a ConvNeXt");
    check(
        &only("patch_embed.0.proj.weight"),
        "a SatMAE of several groups",
    );

    let text = |content: &str, expected: &str| {
        for name in ["page.pth", "page.safetensors"] {
            let file = folder.path().join(name);
            std::fs::write(&file, content).unwrap();
            let message = read(&file, &ReadOptions::default())
                .unwrap_err()
                .to_string();
            assert!(message.contains(expected), "{message}");
        }
    };
    text(
        "<!DOCTYPE html><html>Sign in</html>",
        "an HTML page, not the file",
    );
    text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 343258\n",
        "a pointer of Git LFS of a file of 343258 bytes, not the file: fetch it with git lfs pull",
    );
    // Content decides, not the name.
    let renamed = folder.path().join("renamed.pth");
    std::fs::copy(fixture("timm/model.safetensors"), &renamed).unwrap();
    std::fs::copy(
        fixture("timm/config.json"),
        folder.path().join("config.json"),
    )
    .unwrap();
    same(
        &read(&renamed, &ReadOptions::default()).unwrap().tensors,
        &read_fixture("timm").tensors,
    );
}

#[test]
fn hugging_faces_vit_is_an_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("huggingface");
    let (tensors, _) = read_tensors(&source.join("model.safetensors")).unwrap();
    let mut encoder: BTreeMap<String, Tensor> = (tensors.into_iter())
        .filter(|(key, _)| key.starts_with("vit."))
        .collect();
    for head in ["classifier.weight", "vit.pooler.dense.weight"] {
        encoder.insert(
            head.into(),
            Tensor::ones([2, 16], (Kind::Float, Device::Cpu)),
        );
    }
    write_tensors(
        &folder.path().join("model.safetensors"),
        &encoder,
        Default::default(),
    )
    .unwrap();
    let config = std::fs::read_to_string(source.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["model_type"] = "vit".into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let preprocessor = "preprocessor_config.json";
    std::fs::copy(source.join(preprocessor), folder.path().join(preprocessor)).unwrap();
    let weights = read(folder.path(), &ReadOptions::default()).unwrap();
    assert_eq!(weights.part, Part::Encoder);
    same(
        &weights.tensors,
        &read_fixture("huggingface").into_encoder().tensors,
    );
}

#[test]
fn shards_are_read_by_their_index_from_any_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let expected = read_fixture("authors.pth");
    let said = ReadOptions {
        norm_pix_loss: Some(true),
        normalization: Some(Normalization::IMAGENET),
        ..authors()
    };
    let shards = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let mut map = serde_json::Map::new();
    for (i, shard) in shards.into_iter().enumerate() {
        let half: BTreeMap<String, Tensor> = (expected.tensors.iter().skip(i).step_by(2))
            .map(|(key, tensor)| (format!("model.{key}"), tensor.shallow_clone()))
            .collect();
        write_tensors(&path(shard), &half, Default::default()).unwrap();
        map.extend(half.into_keys().map(|key| (key, shard.into())));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
    std::fs::write(path("model.safetensors.index.json"), index).unwrap();
    for from in ["", "model.safetensors.index.json", shards[0], shards[1]] {
        let weights = read(&path(from), &said).unwrap();
        same(&weights.tensors, &expected.tensors);
    }
    std::fs::remove_file(path(shards[1])).unwrap();
    let message = read(folder.path(), &said).unwrap_err().to_string();
    assert!(
        message.contains(
            "names \"model-00002-of-00002.safetensors\", which is not beside it: fetch it"
        ),
        "{message}"
    );

    // Of torch.save, as Hugging Face wrote them before.
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        fixture("legacy.pth"),
        folder.path().join("pytorch_model-00001-of-00001.bin"),
    )
    .unwrap();
    let map: serde_json::Map<_, _> = (expected.tensors.keys())
        .map(|key| {
            (
                format!("model.{key}"),
                "pytorch_model-00001-of-00001.bin".into(),
            )
        })
        .collect();
    let index = serde_json::json!({ "weight_map": map }).to_string();
    std::fs::write(folder.path().join("pytorch_model.bin.index.json"), index).unwrap();
    same(
        &read(folder.path(), &said).unwrap().tensors,
        &expected.tensors,
    );
}

#[test]
fn damaged_files_of_torch_save_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("damaged.pth");
    let whole = std::fs::read(fixture("authors.pth")).unwrap();
    let try_read = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        read(&file, &authors())
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    for len in [0, 1, 4, 100, whole.len() / 2, whole.len() - 30] {
        let message = try_read(&whole[..len]).unwrap_err();
        assert!(message.contains("damaged.pth"), "{message}");
        assert!(message.contains("not a complete"), "{message}");
    }
    // One byte of the weights: the archive's checksums tell.
    let at = |needle: &[u8]| {
        whole
            .windows(needle.len())
            .position(|window| window == needle)
            .unwrap()
    };
    let number =
        read_fixture("authors.pth").tensors["decoder_pred.weight"].double_value(&[0, 0]) as f32;
    let mut changed = whole.clone();
    changed[at(&number.to_le_bytes())] ^= 1;
    assert!(try_read(&changed).unwrap_err().contains("not a complete"));
    // Any byte of the pickle and of the directory: refused or the same, without a panic.
    for i in (0..2000).step_by(7).chain(whole.len() - 500..whole.len()) {
        let mut changed = whole.clone();
        changed[i] ^= 0x55;
        let _ = try_read(&changed);
    }
}

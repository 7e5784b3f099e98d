//! Weights of other programs: what they compute here, what comes back, and what is refused.
//!
//! `fixtures/formats/make_formats.py` made the files, and the numbers with the programs themselves.

mod files;
mod layouts;
mod refusals;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mae_model::checkpoint::Part;
use mae_model::classifier::{ClassifierConfig, Pooling};
use mae_model::formats::{Adapt, Format, ReadOptions, Weights, read};
use mae_model::tensor_file::{read_tensors, write_tensors};
use mae_model::{MaskedAutoencoderViT, Normalization, VitClassifier, patchify};
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
    let weights = read_fixture(name);
    assert_eq!(weights.part, part);
    check_weights(name, &weights, prefix);
}

fn check_weights(name: &str, weights: &Weights, prefix: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
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
    if weights.part == Part::Encoder {
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

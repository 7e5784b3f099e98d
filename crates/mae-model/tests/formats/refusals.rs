//! What is asked for, and what is refused by its name.

use std::collections::BTreeMap;
use std::path::Path;

use mae_model::classifier::{ClassifierConfig, Pooling};
use mae_model::formats::{Adapt, Format, ReadOptions, read, write_classifier};
use mae_model::tensor_file::{read_tensors, write_tensors};
use mae_model::{
    LossRegion, MaeConfig, MaskedAutoencoderViT, Normalization, Target, VitClassifier,
};
use tch::{Device, Kind, Tensor};

use super::{fixture, read_fixture, same};

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
        &add("blocks.0.gamma_1"),
        "`blocks.0.gamma_1`: it has layer scale named `gamma_1`",
    );
    check(
        &|tensors| tensors.retain(|key, _| !key.starts_with("norm.")),
        "no norm after the last block",
    );
    check(
        &|tensors| drop(tensors.remove("pos_embed")),
        "its positions are rotary, relative or left to its program",
    );
    check(
        &|tensors| tensors.retain(|key, _| !key.ends_with("norm1.bias")),
        "norms without biases, as RMSNorm",
    );
    check(
        &|tensors| {
            for block in ["blocks.0", "blocks.1"] {
                let key = format!("{block}.mlp.fc2.weight");
                let half = tensors[&key].narrow(1, 0, 16).contiguous();
                tensors.insert(key, half);
            }
        },
        "gated MLPs (SwiGLU), as EVA-02",
    );
    check(&add("lora_a"), "LoRA beside its weights: merge it");
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
        "it is a DINOv2 with 4 register tokens, and no plain Vision Transformer",
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
fn a_classifier_is_written_where_transformers_has_one_like_it() {
    let encoder = MaeConfig {
        embed_dim: 32,
        depth: 2,
        num_heads: 4,
        ..MaeConfig::tiny(16)
    };
    let folder = tempfile::tempdir().unwrap();
    let write = |pooling, encoder: &MaeConfig| {
        let config = ClassifierConfig {
            pooling,
            ..ClassifierConfig::linear_probe(encoder.clone(), 3)
        };
        let model = VitClassifier::new(&config, &Normalization::IMAGENET, Device::Cpu, 0).unwrap();
        let out = folder.path().join(format!("{pooling:?}"));
        write_classifier(&model, &out, Format::HuggingFace).map_err(|error| error.to_string())
    };
    assert_eq!(write(Pooling::ClassToken, &encoder).unwrap(), [""; 0]);
    let [note] = &write(Pooling::MeanThenNorm, &encoder).unwrap()[..] else {
        panic!("one note")
    };
    assert!(note.contains("BeitForImageClassification"), "{note}");
    let message = write(Pooling::NormThenMean, &encoder).unwrap_err();
    assert!(message.contains("--format timm has it"), "{message}");
    let wide = MaeConfig {
        image_width: 32,
        ..encoder
    };
    let message = write(Pooling::MeanThenNorm, &wide).unwrap_err();
    assert!(message.contains("square images only"), "{message}");
}

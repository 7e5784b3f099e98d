//! Layouts of other programs, and what becomes something else here.

use std::collections::BTreeMap;

use mae_model::Normalization;
use mae_model::checkpoint::Part;
use mae_model::formats::{ReadOptions, Weights, read};
use mae_model::tensor_file::{read_tensors, write_tensors};
use tch::{Device, Kind, Tensor};

use super::{authors, changed_encoder, check_weights, fixture, read_fixture, same};

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
    // mmsegmentation's, whose attention is PyTorch's own.
    let mmsegmentation = [
        (".attn.qkv.weight", ".attn.attn.in_proj_weight"),
        (".attn.qkv.bias", ".attn.attn.in_proj_bias"),
        (".attn.proj.", ".attn.attn.out_proj."),
    ];
    check(
        Part::Encoder,
        &[&mmsegmentation[..], &mmpretrain[..]].concat(),
        &["decode_head.conv_seg.bias"],
    );
    // DINOv2's as published, in two chunks.
    let chunked = [("^blocks.0.", "blocks.0.0."), ("^blocks.1.", "blocks.1.1.")];
    check(Part::Encoder, &chunked, &["mask_token"]);
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

/// What only the timm fixture's configuration says.
fn of_timm() -> ReadOptions {
    let weights = read_fixture("timm");
    ReadOptions {
        num_heads: Some(weights.config.num_heads),
        image_size: Some((weights.config.image_height, weights.config.image_width)),
        normalization: Some(weights.normalization),
        ..ReadOptions::default()
    }
}

/// timm's fixture, changed; what of it is read.
fn changed_timm(change: &dyn Fn(&mut BTreeMap<String, Tensor>)) -> Weights {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("changed.safetensors");
    let (mut tensors, _) = read_tensors(&fixture("timm/model.safetensors")).unwrap();
    change(&mut tensors);
    write_tensors(&file, &tensors, Default::default()).unwrap();
    read(&file, &of_timm()).unwrap()
}

#[test]
fn layer_scale_computes_the_same_without_it() {
    let weights = changed_timm(&|tensors| {
        for block in 0..2 {
            for (scale, layer) in [("ls1", "attn.proj"), ("ls2", "mlp.fc2")] {
                // What layer and scale make together is what the fixture's layer made.
                let gamma = Tensor::linspace(-0.5, 0.4, 16, (Kind::Float, Device::Cpu));
                let layer = format!("blocks.{block}.{layer}");
                for (part, gamma) in [
                    ("weight", gamma.unsqueeze(1)),
                    ("bias", gamma.shallow_clone()),
                ] {
                    let key = format!("{layer}.{part}");
                    let tensor = &tensors[&key] / gamma;
                    tensors.insert(key, tensor);
                }
                tensors.insert(format!("blocks.{block}.{scale}.gamma"), gamma);
            }
        }
    });
    assert!(
        weights
            .notes
            .iter()
            .any(|note| note.contains("layer scale"))
    );
    check_weights("layer scale", &weights, "timm");
}

#[test]
fn biases_of_queries_keys_and_values_may_be_absent() {
    let weights = changed_timm(&|tensors| {
        tensors.retain(|key, _| !key.ends_with("attn.qkv.bias"));
    });
    assert!(
        weights
            .notes
            .iter()
            .any(|note| note.contains("have no bias"))
    );
    let bias = &weights.tensors["blocks.1.attn.qkv.bias"];
    assert_eq!(*bias, Tensor::zeros([48], (Kind::Float, Device::Cpu)));
    // Those of the keys change nothing that is computed.
    let weights = changed_timm(&|tensors| {
        for block in ["blocks.0.attn", "blocks.1.attn"] {
            let bias = tensors.remove(&format!("{block}.qkv.bias")).unwrap();
            for (i, name) in ["q_bias", "v_bias"].into_iter().enumerate() {
                let part = bias.narrow(0, 32 * i as i64, 16).contiguous();
                tensors.insert(format!("{block}.{name}"), part);
            }
        }
    });
    check_weights("no bias of keys", &weights, "timm");
}

#[test]
fn hugging_faces_dinov2_is_a_plain_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (tensors, _) = read_tensors(&fixture("huggingface/model.safetensors")).unwrap();
    let ones = || Tensor::ones([16], (Kind::Float, Device::Cpu));
    let mut dino = BTreeMap::from([("embeddings.mask_token".to_string(), ones().unsqueeze(0))]);
    for (key, tensor) in tensors {
        let Some(key) = key.strip_prefix("vit.") else {
            continue;
        };
        let key = (key.replace("layernorm_before", "norm1"))
            .replace("layernorm_after", "norm2")
            .replace("intermediate.dense", "mlp.fc1");
        let key = match key.contains("attention") {
            true => key,
            false => key.replace("output.dense", "mlp.fc2"),
        };
        dino.insert(key, tensor);
    }
    for block in 0..2 {
        for scale in ["layer_scale1", "layer_scale2"] {
            dino.insert(format!("encoder.layer.{block}.{scale}.lambda1"), ones());
        }
    }
    write_tensors(&path("model.safetensors"), &dino, Default::default()).unwrap();
    let config = std::fs::read_to_string(fixture("huggingface/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let preprocessor = "preprocessor_config.json";
    std::fs::copy(
        fixture("huggingface").join(preprocessor),
        path(preprocessor),
    )
    .unwrap();
    let mut read_as = |key: &str, value: serde_json::Value| {
        config[key] = value;
        std::fs::write(path("config.json"), config.to_string()).unwrap();
        // The file alone is described by what is beside it.
        read(&path("model.safetensors"), &ReadOptions::default())
    };
    let weights = read_as("model_type", "dinov2".into()).unwrap();
    let expected = read_fixture("huggingface").into_encoder().tensors;
    same(&weights.tensors, &expected);
    for (key, value, expected) in [
        ("qkv_bias", false.into(), "says `qkv_bias` false"),
        ("use_swiglu_ffn", true.into(), "says `use_swiglu_ffn` true"),
        (
            "model_type",
            "dinov2_with_registers".into(),
            "\"dinov2_with_registers\", expected",
        ),
    ] {
        let message = read_as(key, value).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

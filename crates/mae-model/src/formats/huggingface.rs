//! Hugging Face's ViTMAE, ViT and DINOv2.
//!
//! The keys written are those of `facebook/vit-mae-base`, which every version of transformers reads; those that
//! version 5 writes are read as well.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::keys::Renaming;
use super::{Facts, Format, Found, Weights, folder, foreign, names, read_json};
use crate::classifier::{ClassifierConfig, Pooling};
use crate::metadata::Part;
use crate::{LossRegion, Normalization, Result, Target, VitClassifier};

const RENAMING: Renaming = Renaming {
    names: &[
        ("cls_token", &["vit.embeddings.cls_token"]),
        ("pos_embed", &["vit.embeddings.position_embeddings"]),
        (
            "patch_embed.proj",
            &["vit.embeddings.patch_embeddings.projection"],
        ),
        ("norm", &["vit.layernorm"]),
        ("mask_token", &["decoder.mask_token"]),
        ("decoder_pos_embed", &["decoder.decoder_pos_embed"]),
        ("decoder_embed", &["decoder.decoder_embed"]),
        ("decoder_norm", &["decoder.decoder_norm"]),
        ("decoder_pred", &["decoder.decoder_pred"]),
    ],
    blocks: &[
        ("blocks", "vit.encoder.layer"),
        ("decoder_blocks", "decoder.decoder_layers"),
    ],
    block: &[
        ("norm1", &["layernorm_before"]),
        (
            "attn.qkv",
            &[
                "attention.attention.query",
                "attention.attention.key",
                "attention.attention.value",
            ],
        ),
        ("attn.proj", &["attention.output.dense"]),
        ("norm2", &["layernorm_after"]),
        ("mlp.fc1", &["intermediate.dense"]),
        ("mlp.fc2", &["output.dense"]),
        // DINOv2's alone.
        ("ls1.gamma", &["layer_scale1.lambda1"]),
        ("ls2.gamma", &["layer_scale2.lambda1"]),
    ],
};

/// What other versions of transformers write, and its name here.
const VARIANTS: [(&str, &str); 10] = [
    ("decoder.decoder_encoder.layer.", "decoder.decoder_layers."),
    ("vit.layers.", "vit.encoder.layer."),
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    // DINOv2's.
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
];

/// What an encoder alone has in front of all its keys when it is part of a whole model.
const ENCODER: &str = "vit.";

/// Whether tensors are of this layout.
pub fn is_it(tensors: &BTreeMap<String, Tensor>) -> bool {
    ["", ENCODER]
        .iter()
        .any(|prefix| tensors.contains_key(&format!("{prefix}embeddings.cls_token")))
}

/// Whether one of the whole names is of this layout.
pub fn has_its_name<'a>(mut names: impl Iterator<Item = &'a String>) -> bool {
    names.any(|name| name.ends_with("embeddings.patch_embeddings.projection.weight"))
}

/// The weights of `tensors`, described by `config` and what else is in `folder`.
pub fn found(
    path: &Path,
    folder: &Path,
    tensors: BTreeMap<String, Tensor>,
    config: &Value,
) -> Result<Found> {
    let mut notes = Vec::new();
    let facts = facts(path, folder, config, &mut notes)?;
    let tensors = to_native(path, tensors)?;
    check_biases(path, config, &tensors)?;
    Ok(Found {
        path: path.into(),
        format: Format::HuggingFace,
        tensors,
        facts,
        notes,
    })
}

fn to_native(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    // What comes after the encoder of Hugging Face's ViT.
    let is_head = |key: &str| {
        ["classifier.", "pooler."]
            .iter()
            .any(|head| key.contains(head))
    };
    let tensors = tensors.into_iter().filter(|(key, _)| !is_head(key));
    let mut theirs = names::renamed(path, tensors.collect(), usual_key)?;
    // DINOv2's pre-training alone used it.
    theirs.remove("vit.embeddings.mask_token");
    let mut natives: Vec<String> = theirs
        .keys()
        .filter_map(|key| RENAMING.native(key))
        .collect();
    natives.sort();
    natives.dedup();
    let mut tensors = BTreeMap::new();
    for native in natives {
        let keys = RENAMING
            .theirs(&native)
            .expect("a native key has names elsewhere");
        let parts: Vec<Tensor> = keys.iter().filter_map(|key| theirs.remove(key)).collect();
        if parts.len() < keys.len() {
            return Err(foreign(
                path,
                format!("not all of {} are there", keys.join(", ")),
            ));
        }
        let tensor = match &parts[..] {
            [tensor] => tensor.shallow_clone(),
            parts => Tensor::f_cat(parts, 0)?,
        };
        tensors.insert(native, tensor);
    }
    // What is left is reported as not of the model.
    tensors.extend(theirs);
    Ok(tensors)
}

fn usual_key(key: &str) -> String {
    let mut key = match key.starts_with("vit.") || key.starts_with("decoder.") {
        true => key.to_string(),
        false => format!("{ENCODER}{key}"),
    };
    for (variant, usual) in VARIANTS {
        key = key.replace(variant, usual);
    }
    key
}

fn facts(path: &Path, folder: &Path, config: &Value, notes: &mut Vec<String>) -> Result<Facts> {
    let model_type = config["model_type"].as_str().unwrap_or_default();
    if !["vit_mae", "vit", "dinov2"].contains(&model_type) {
        return Err(foreign(
            path,
            format!(
                "config.json says `model_type` {model_type:?}, expected \"vit_mae\", \"vit\" or \"dinov2\", which are plain Vision Transformers"
            ),
        ));
    }
    let is_dino = model_type == "dinov2";
    for (key, expected) in [
        ("hidden_act", json!("gelu")),
        ("use_swiglu_ffn", json!(false)),
    ] {
        let found = config.get(key).unwrap_or(&expected);
        if *found != expected {
            return Err(foreign(
                path,
                format!(
                    "config.json says `{key}` {found}, expected {expected}, as the published models have"
                ),
            ));
        }
    }
    // Absent keys have the values that transformers gives them.
    let number = |key: &str, default: usize| -> Result<Option<usize>> {
        match config.get(key) {
            None | Some(Value::Null) => Ok(Some(default)),
            Some(value) => match value.as_u64() {
                Some(value) => Ok(Some(value as usize)),
                None => Err(foreign(
                    path,
                    format!("config.json says `{key}` {value}, expected a whole number"),
                )),
            },
        }
    };
    let image_size = match config.get("image_size") {
        Some(Value::Array(sides)) => {
            match sides[..].iter().map(Value::as_u64).collect::<Vec<_>>()[..] {
                [Some(height), Some(width)] => Some((height as usize, width as usize)),
                _ => {
                    return Err(foreign(
                        path,
                        "config.json says an `image_size` that is not one number or two".into(),
                    ));
                }
            }
        }
        _ => number("image_size", 224)?.map(|side| (side, side)),
    };
    if let Some(ratio) = config
        .get("mask_ratio")
        .and_then(Value::as_f64)
        .filter(|ratio| *ratio != 0.75)
    {
        notes.push(format!("its mask_ratio of {ratio} is no part of the weights: train with --set mask.ratio={ratio}"));
    }
    Ok(Facts {
        said_by: "config.json",
        embed_dim: number("hidden_size", 768)?,
        depth: number("num_hidden_layers", 12)?,
        num_heads: number("num_attention_heads", 12)?,
        decoder_embed_dim: number("decoder_hidden_size", 512)?,
        decoder_depth: number("decoder_num_hidden_layers", 8)?,
        decoder_num_heads: number("decoder_num_attention_heads", 16)?,
        patch_size: number("patch_size", if is_dino { 14 } else { 16 })?,
        channels: number("num_channels", 3)?,
        image_size,
        norm_pix_loss: Some(
            config
                .get("norm_pix_loss")
                .and_then(Value::as_bool)
                .unwrap_or(false),
        ),
        layer_norm_eps: Some(
            config
                .get("layer_norm_eps")
                .and_then(Value::as_f64)
                .unwrap_or(if is_dino { 1e-6 } else { 1e-12 }),
        ),
        normalization: normalization(folder),
    })
}

/// Checks that there are the biases that the description says, for transformers takes its word.
fn check_biases(path: &Path, config: &Value, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let said = config
        .get("qkv_bias")
        .and_then(Value::as_bool)
        .unwrap_or(true);
    let found = tensors.contains_key("blocks.0.attn.qkv.bias");
    match said == found || tensors.is_empty() {
        true => Ok(()),
        false => Err(foreign(
            path,
            format!(
                "config.json says `qkv_bias` {said}, and its weights say otherwise: one of the two is another model's"
            ),
        )),
    }
}

/// What the images' preprocessing says, if it is there.
fn normalization(folder: &Path) -> Option<Normalization> {
    let json = read_json(&folder.join("preprocessor_config.json")).ok()?;
    let channels = |key: &str| serde_json::from_value::<Vec<f32>>(json.get(key)?.clone()).ok();
    Some(Normalization::new(
        channels("image_mean")?,
        channels("image_std")?,
    ))
}

pub fn write(weights: &Weights, path: &Path) -> Result<Vec<String>> {
    let config = &weights.config;
    let refuse = |what: &str| Err(foreign(path, format!("Hugging Face's ViTMAE {what}")));
    check_square(weights, path, "ViTMAE")?;
    let whole = weights.part == Part::Whole;
    if whole && config.target != Target::Pixels {
        return refuse(
            "predicts pixels only, this model something else; its encoder alone can be written: --part encoder",
        );
    }
    if whole && config.encoder_mask_tokens {
        return refuse(
            "has no mask tokens in its encoder, this model has; its encoder alone can be written: --part encoder",
        );
    }
    let mut notes = Vec::new();
    if whole {
        notes.push("mask_ratio is no part of the weights: config.json has 0.75, which is the share that their loss hides".into());
    }
    if whole && config.loss_region == LossRegion::All {
        notes.push(
            "this model's loss is over all patches (loss_region), theirs is over the masked ones"
                .into(),
        );
    }
    let tensors = their_tensors(weights, path, if whole { "" } else { ENCODER })?;
    let files = [
        ("config.json", model_config(weights)),
        ("preprocessor_config.json", preprocessor(weights)),
    ];
    folder::write(path, &tensors, &files)?;
    Ok(notes)
}

/// Writes a classifier: as `ViTForImageClassification` if it looks at the class token, and as
/// `BeitForImageClassification`, whose settings leave a plain ViT, if it looks at the mean of the patches and norms that.
pub fn write_classifier(model: &VitClassifier, path: &Path) -> Result<Vec<String>> {
    let ClassifierConfig {
        encoder,
        pooling,
        view,
        ..
    } = model.config();
    if *pooling == Pooling::NormThenMean {
        return Err(foreign(
            path,
            "transformers has no classifier that looks at the mean of the patches after their norm, as this one does; \
             --format timm has it, whose folder transformers loads, too, by AutoModelForImageClassification; or judge the \
             class token, with --set features.pool=class"
                .into(),
        ));
    }
    let mut weights = Weights {
        path: path.into(),
        format: Format::HuggingFace,
        config: encoder.clone(),
        normalization: model.normalization().clone(),
        part: Part::Encoder,
        tensors: model.parameters(),
        notes: Vec::new(),
    };
    check_square(&weights, path, "ViT")?;
    let mut take = |key: &str, theirs: &str| {
        ["weight", "bias"].map(|part| {
            let tensor = weights.tensors.remove(&format!("{key}.{part}"));
            let tensor = tensor.expect("every layer has a weight and a bias");
            (format!("{theirs}.{part}"), tensor)
        })
    };
    let mut own = Vec::from(take("head", "classifier"));
    let is_beit = *pooling == Pooling::MeanThenNorm;
    if is_beit {
        own.extend(take("fc_norm", "beit.pooler.layernorm"));
    }
    let mut tensors = their_tensors(&weights, path, "")?;
    let mut config = model_config(&weights);
    let mut notes = Vec::new();
    if is_beit {
        // It adds the same to all scores of a query, which changes none of its shares.
        tensors.retain(|key, _| !key.ends_with(".attention.key.bias"));
        tensors = (tensors.into_iter())
            .map(|(key, tensor)| (key.replacen(ENCODER, "beit.", 1), tensor))
            .collect();
        config["architectures"] = json!(["BeitForImageClassification"]);
        config["model_type"] = "beit".into();
        config["use_absolute_position_embeddings"] = true.into();
        config["use_mean_pooling"] = true.into();
        config["layer_scale_init_value"] = json!(0.0);
        config["drop_path_rate"] = json!(0.0);
        notes.push(
            "it is a BeitForImageClassification without what BEiT adds, for Hugging Face's ViT looks at the class token \
             alone; the keys of its attention have no bias, which changes nothing"
                .into(),
        );
    } else {
        config["architectures"] = json!(["ViTForImageClassification"]);
        config["model_type"] = "vit".into();
    }
    tensors.extend(own);
    let names = model.class_names();
    let numbered = |(number, name): (usize, &String)| (number.to_string(), name.as_str().into());
    config["id2label"] = Value::Object(names.iter().enumerate().map(numbered).collect());
    let labels = |(number, name): (usize, &String)| (name.clone(), number.into());
    config["label2id"] = Value::Object(names.iter().enumerate().map(labels).collect());
    let mut preprocessor = preprocessor(&weights);
    // It keeps the shape of an image, as this project does.
    preprocessor["image_processor_type"] = "BitImageProcessor".into();
    let side = encoder.image_height;
    let shorter = (side as f64 / view.crop_share).floor() as usize;
    preprocessor["size"] = json!({"shortest_edge": shorter});
    preprocessor["do_center_crop"] = true.into();
    preprocessor["crop_size"] = json!({"height": side, "width": side});
    let files = [
        ("config.json", config),
        ("preprocessor_config.json", preprocessor),
    ];
    folder::write(path, &tensors, &files)?;
    Ok(notes)
}

fn check_square(weights: &Weights, path: &Path, name: &str) -> Result<()> {
    let config = &weights.config;
    match config.image_height == config.image_width {
        true => Ok(()),
        false => Err(foreign(
            path,
            format!(
                "Hugging Face's {name} takes square images only, this model takes {} x {}",
                config.image_height, config.image_width
            ),
        )),
    }
}

/// The tensors under their keys, from which `cut` is taken where they begin with it.
fn their_tensors(weights: &Weights, path: &Path, cut: &str) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for (native, tensor) in &weights.tensors {
        let Some(keys) = RENAMING.theirs(native) else {
            return Err(foreign(
                path,
                format!("Hugging Face's ViTMAE has no place for `{native}`"),
            ));
        };
        let rows = tensor.size()[0] / keys.len() as i64;
        for (part, key) in keys.iter().enumerate() {
            let key = key.strip_prefix(cut).unwrap_or(key);
            let tensor = tensor.narrow(0, part as i64 * rows, rows);
            tensors.insert(key.to_string(), tensor);
        }
    }
    Ok(tensors)
}

fn model_config(weights: &Weights) -> Value {
    let config = &weights.config;
    let hidden = |width: usize| (width as f64 * config.mlp_ratio) as usize;
    let mut json = json!({
        "architectures": [match weights.part {
            Part::Whole => "ViTMAEForPreTraining",
            Part::Encoder => "ViTMAEModel",
        }],
        "model_type": "vit_mae",
        "dtype": dtype(&weights.tensors),
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": hidden(config.embed_dim),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": config.layer_norm_eps,
        "image_size": config.image_height,
        "patch_size": config.patch_size,
        "num_channels": config.channels,
        "qkv_bias": true,
    });
    if weights.part == Part::Whole {
        let decoder = json!({
            "decoder_hidden_size": config.decoder_embed_dim,
            "decoder_num_hidden_layers": config.decoder_depth,
            "decoder_num_attention_heads": config.decoder_num_heads,
            "decoder_intermediate_size": hidden(config.decoder_embed_dim),
            "mask_ratio": 0.75,
            "norm_pix_loss": config.norm_pix_loss,
        });
        if let (Value::Object(all), Value::Object(decoder)) = (&mut json, decoder) {
            all.extend(decoder);
        }
    }
    json
}

fn preprocessor(weights: &Weights) -> Value {
    let config = &weights.config;
    json!({
        "image_processor_type": "ViTImageProcessor",
        "do_resize": true,
        "size": {"height": config.image_height, "width": config.image_width},
        // Bicubic, as this project's crops are.
        "resample": 3,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": folder::decimals(&weights.normalization.mean),
        "image_std": folder::decimals(&weights.normalization.std),
    })
}

/// The precision that loses nothing, by PyTorch's name.
pub fn dtype(tensors: &BTreeMap<String, Tensor>) -> &'static str {
    let kinds: Vec<Kind> = tensors.values().map(Tensor::kind).collect();
    let all = |kind| kinds.iter().all(|found| *found == kind);
    match () {
        () if kinds.contains(&Kind::Double) => "float64",
        () if all(Kind::Half) => "float16",
        () if all(Kind::BFloat16) => "bfloat16",
        () => "float32",
    }
}

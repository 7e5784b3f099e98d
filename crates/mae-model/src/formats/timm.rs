//! timm's Vision Transformers: encoders and classifiers, under the native keys.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tch::Tensor;

use super::{Facts, Format, Found, Weights, folder, foreign};
use crate::classifier::{ClassifierConfig, Pooling};
use crate::metadata::Part;
use crate::{MaeConfig, Normalization, Result, VitClassifier};

/// Widths and heads by the size in the name of an architecture.
///
/// Source: Dosovitskiy et al. 2021, table 1; Touvron et al. 2021, "DeiT", table 1.
const SIZES: [(&str, usize, usize); 5] = [
    ("_tiny_", 192, 3),
    ("_small_", 384, 6),
    ("_base_", 768, 12),
    ("_large_", 1024, 16),
    ("_huge_", 1280, 16),
];

/// What timm's Vision Transformers add to variances.
const LAYER_NORM_EPS: f64 = 1e-6;

/// The weights of `tensors`, described by `config`, if there is one.
pub fn found(
    path: &Path,
    tensors: BTreeMap<String, Tensor>,
    config: Option<&Value>,
) -> Result<Found> {
    Ok(Found {
        path: path.into(),
        format: Format::Timm,
        facts: match config {
            Some(config) => facts(path, &tensors, config)?,
            None => Facts::default(),
        },
        tensors,
        notes: Vec::new(),
    })
}

fn facts(path: &Path, tensors: &BTreeMap<String, Tensor>, config: &Value) -> Result<Facts> {
    let architecture = config["architecture"].as_str().unwrap_or_default();
    if !["vit_", "deit_"]
        .iter()
        .any(|prefix| architecture.starts_with(prefix))
    {
        return Err(foreign(
            path,
            format!(
                "config.json says `architecture` {architecture:?}, expected one of timm's plain Vision Transformers, for example \"vit_base_patch16_224\""
            ),
        ));
    }
    let arguments = &config["model_args"];
    // Layers of other kinds compute something else with the same weights.
    for kind in ["act_layer", "norm_layer", "mlp_layer"] {
        match &arguments[kind] {
            Value::Null | Value::Bool(false) => {}
            other => {
                return Err(foreign(
                    path,
                    format!(
                        "config.json says `{kind}` {other}, expected none, as the plain ones have"
                    ),
                ));
            }
        }
    }
    // Older files have all in one.
    let pretrained = config.get("pretrained_cfg").unwrap_or(config);
    let number = |value: &Value| value.as_u64().map(|n| n as usize);
    let width = tensors
        .get("cls_token")
        .and_then(|token| token.size().last().copied());
    let usual = SIZES
        .iter()
        .find(|(size, dim, _)| architecture.contains(size) && width == Some(*dim as i64));
    let sides = |value: &Value| match value {
        Value::Array(sides) => match &sides[..] {
            [height, width] => Some((number(height)?, number(width)?)),
            [_, height, width] => Some((number(height)?, number(width)?)),
            _ => None,
        },
        side => number(side).map(|side| (side, side)),
    };
    let statistics =
        |key: &str| serde_json::from_value::<Vec<f32>>(pretrained.get(key)?.clone()).ok();
    Ok(Facts {
        said_by: "config.json",
        embed_dim: number(&arguments["embed_dim"]),
        depth: number(&arguments["depth"]),
        num_heads: number(&arguments["num_heads"]).or(usual.map(|(_, _, heads)| *heads)),
        patch_size: number(&arguments["patch_size"]),
        channels: number(&arguments["in_chans"]),
        image_size: sides(&arguments["img_size"]).or(sides(&pretrained["input_size"])),
        normalization: statistics("mean")
            .zip(statistics("std"))
            .map(|(mean, std)| Normalization::new(mean, std)),
        ..Facts::default()
    })
}

pub fn write(weights: &Weights, path: &Path) -> Result<Vec<String>> {
    let config = &weights.config;
    let mut notes = eps_note(config);
    if weights.part == Part::Whole {
        notes.push("timm has encoders only: the decoder is left out".into());
    }
    let encoder = super::keys::layout(config, Part::Encoder);
    let tensors: BTreeMap<String, Tensor> = (weights.tensors.iter())
        .filter(|(key, _)| encoder.contains_key(*key))
        .map(|(key, tensor)| (key.clone(), tensor.shallow_clone()))
        .collect();
    let json = description(config, &weights.normalization, 1.0, 0, "token");
    folder::write(path, &tensors, &[("config.json", json)])?;
    Ok(notes)
}

/// Writes a classifier: all of timm's have the same keys.
pub fn write_classifier(model: &VitClassifier, path: &Path) -> Result<Vec<String>> {
    let ClassifierConfig {
        encoder,
        classes,
        pooling,
        view,
        ..
    } = model.config();
    let pool = match pooling {
        Pooling::MeanThenNorm | Pooling::NormThenMean => "avg",
        Pooling::ClassToken => "token",
    };
    let mut json = description(
        encoder,
        model.normalization(),
        view.crop_share,
        *classes,
        pool,
    );
    json["label_names"] = model.class_names().into();
    json["model_args"]["global_pool"] = pool.into();
    json["model_args"]["fc_norm"] = (*pooling == Pooling::MeanThenNorm).into();
    folder::write(path, &model.parameters(), &[("config.json", json)])?;
    Ok(eps_note(encoder))
}

fn eps_note(config: &MaeConfig) -> Vec<String> {
    match config.layer_norm_eps == LAYER_NORM_EPS {
        true => Vec::new(),
        false => vec![format!(
            "timm's norms add {LAYER_NORM_EPS} to the variance, this model's {}: features differ a little",
            config.layer_norm_eps
        )],
    }
}

/// What timm is told of a model; without `classes` it has no head.
fn description(
    config: &MaeConfig,
    normalization: &Normalization,
    crop: f64,
    classes: usize,
    pool: &str,
) -> Value {
    // Any plain architecture serves: the arguments after it say every dimension.
    let architecture = match config.patch_size {
        14 => "vit_huge_patch14_224",
        _ => "vit_base_patch16_224",
    };
    let size = [config.image_height, config.image_width];
    json!({
        "architecture": architecture,
        "num_classes": classes,
        "num_features": config.embed_dim,
        "global_pool": pool,
        "model_args": {
            "img_size": size,
            "patch_size": config.patch_size,
            "in_chans": config.channels,
            "embed_dim": config.embed_dim,
            "depth": config.depth,
            "num_heads": config.num_heads,
            "mlp_ratio": config.mlp_ratio,
        },
        "pretrained_cfg": {
            "input_size": [config.channels, size[0], size[1]],
            "fixed_input_size": true,
            "interpolation": "bicubic",
            "crop_pct": crop,
            "mean": folder::decimals(&normalization.mean),
            "std": folder::decimals(&normalization.std),
            "num_classes": classes,
            "pool_size": null,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    })
}

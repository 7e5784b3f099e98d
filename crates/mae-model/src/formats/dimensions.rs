//! What weights say about the model that they are of, and what must be said beside them.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Kind, Tensor};

use super::fold::fold;
use super::keys::layout;
use super::{Found, Part, ReadOptions, Weights, foreign, parts};
use crate::pos_embed::sincos_2d;
use crate::{LossRegion, MaeConfig, ModelError, Result, Target};

/// Computed positions differ by rounding, in a file of f16 by up to 5e-4.
const SAME_POSITION: f64 = 1e-3;

/// What comes after an encoder, and is of no use to another.
const HEADS: [&str; 15] = [
    "head.",
    "heads.",
    "pre_logits.",
    "classifier.",
    "pooler.",
    "predictor.",
    "projector.",
    "data_preprocessor.",
    // Of segmentation and detection.
    "decode_head.",
    "auxiliary_head.",
    "rpn_head.",
    "roi_head.",
    "bbox_head.",
    "neck.lateral_convs.",
    "neck.convs.",
];

/// Whether a tensor is of what comes after an encoder.
pub fn is_head(key: &str) -> bool {
    HEADS.iter().any(|prefix| key.starts_with(prefix))
}

/// Checks a file's tensors, completes what is known of their model, and makes it the model.
pub fn settle(found: Found, options: &ReadOptions) -> Result<Weights> {
    let path = found.path.clone();
    let mut found = found;
    let mut options = options.clone();
    if options.part == Some(Part::Encoder) {
        (found.tensors).retain(|key, _| !key.starts_with("decoder") && key != "mask_token");
        (options.decoder_num_heads, options.norm_pix_loss) = (None, None);
    }
    parts::check(&path, &found.tensors)?;
    let part = match found.tensors.contains_key("decoder_embed.weight") {
        true => Part::Whole,
        false => Part::Encoder,
    };
    let Found {
        format,
        mut tensors,
        facts,
        mut notes,
        ..
    } = found;
    drop_heads(&path, &mut tensors, &mut notes)?;
    check_kinds(&path, &tensors)?;
    fold(&path, &mut tensors, &mut notes)?;

    let [embed_dim, channels, patch_size, width] =
        sizes(&path, &tensors, "patch_embed.proj.weight")?;
    if patch_size != width {
        return Err(foreign(
            &path,
            format!("its patches are {patch_size} x {width} pixels; expected squares"),
        ));
    }
    let [hidden, _] = sizes(&path, &tensors, "blocks.0.mlp.fc1.weight")?;
    if !tensors.contains_key("norm.weight") {
        return Err(foreign(
            &path,
            "no `norm`: its encoder has no norm after the last block, as InternViT's and mmsegmentation's with final_norm=False, and this project's always has".into(),
        ));
    }
    let depth = blocks(&tensors, "blocks");
    let mlp_ratio = hidden as f64 / embed_dim as f64;
    // An encoder alone has the numbers of some decoder that can be built.
    let (mut decoder_embed_dim, mut decoder_depth) = (embed_dim, 1);
    if part == Part::Whole {
        [decoder_embed_dim, _] = sizes(&path, &tensors, "decoder_embed.weight")?;
        decoder_depth = blocks(&tensors, "decoder_blocks");
        let [decoder_hidden, _] = sizes(&path, &tensors, "decoder_blocks.0.mlp.fc1.weight")?;
        if decoder_hidden * embed_dim != hidden * decoder_embed_dim {
            return Err(foreign(
                &path,
                format!(
                    "its encoder's MLPs are {hidden} wide on tokens of {embed_dim}, its decoder's {decoder_hidden} on {decoder_embed_dim}; \
                 expected one ratio for both; its encoder alone can be converted"
                ),
            ));
        }
    }

    let mut missing = Vec::new();
    let num_heads = facts.num_heads.or(options.num_heads);
    if num_heads.is_none() {
        missing.push(format!(
            "the attention heads of the encoder, {embed_dim} wide: --num-heads N{}",
            usual_heads(embed_dim)
        ));
    }
    let decoder_num_heads = facts.decoder_num_heads.or(options.decoder_num_heads);
    let norm_pix_loss = facts.norm_pix_loss.or(options.norm_pix_loss);
    if part == Part::Whole {
        if decoder_num_heads.is_none() {
            missing.push(format!(
                "the attention heads of the decoder, {decoder_embed_dim} wide: --decoder-num-heads N{}",
                if decoder_embed_dim == 512 { " (16 in the published models)" } else { "" }
            ));
        }
        if norm_pix_loss.is_none() {
            missing.push("whether it predicts patches normalised by their own mean and variance: --norm-pix-loss true or false".into());
        }
    }
    let image_size = facts.image_size.or(options.image_size);
    let [_, tokens, _] = sizes(&path, &tensors, "pos_embed")?;
    // Only the size of images tells: 25 positions may be 5 x 5 patches, or 4 x 6 and the class token.
    let is_without_class = image_size
        .is_some_and(|(height, width)| tokens == height / patch_size * (width / patch_size));
    let patches = match is_without_class {
        true => tokens,
        false => tokens - 1,
    };
    if is_without_class {
        // What has no position has one of zeros.
        let positions = &tensors["pos_embed"];
        let of_class = positions.f_narrow(1, 0, 1)?.f_zeros_like()?;
        let positions = Tensor::f_cat(&[&of_class, positions], 1)?;
        tensors.insert("pos_embed".into(), positions);
        notes.push(
            "its class token has no position; here it has one of zeros, which is the same".into(),
        );
    }
    let (image_height, image_width) = match image_size {
        Some(size) => size,
        None => match grid_of(&tensors["pos_embed"], patches, embed_dim) {
            Some((rows, columns, why)) => {
                let size = (rows * patch_size, columns * patch_size);
                notes.push(format!("images are {} x {} pixels, {why}", size.0, size.1));
                size
            }
            None => {
                missing.push(format!(
                    "the size of its images, of {patches} patches of {patch_size} x {patch_size}: --image-size HEIGHTxWIDTH{}",
                    match tokens.isqrt().pow(2) == tokens {
                        true => format!("; of {tokens}, if its class token has no position"),
                        false => String::new(),
                    }
                ));
                (0, 0)
            }
        },
    };
    let normalization = options.normalization.clone().or(facts.normalization);
    if normalization.is_none() {
        missing.push(format!(
            "the mean and standard deviation of its {channels} channels: {}--mean and --std",
            if channels == 3 {
                "--normalization imagenet, or "
            } else {
                ""
            }
        ));
    }
    let (Some(num_heads), Some(normalization), true) =
        (num_heads, normalization, missing.is_empty())
    else {
        return Err(ModelError::Unsaid { path, missing });
    };

    let config = MaeConfig {
        image_height,
        image_width,
        patch_size,
        channels,
        embed_dim,
        depth,
        num_heads,
        decoder_embed_dim,
        decoder_depth,
        decoder_num_heads: if part == Part::Whole {
            decoder_num_heads.unwrap_or_default()
        } else {
            num_heads
        },
        mlp_ratio,
        layer_norm_eps: facts.layer_norm_eps.unwrap_or(1e-6),
        norm_pix_loss: norm_pix_loss.unwrap_or_default(),
        target: Target::Pixels,
        loss_region: LossRegion::Masked,
        encoder_mask_tokens: false,
        pca_components: None,
        tokenizer: None,
    };
    config.validate()?;
    for (what, said, found) in [
        ("blocks", facts.depth, depth),
        ("width", facts.embed_dim, embed_dim),
        ("patch size", facts.patch_size, patch_size),
        ("channels", facts.channels, channels),
        ("blocks in the decoder", facts.decoder_depth, decoder_depth),
        ("decoder width", facts.decoder_embed_dim, decoder_embed_dim),
    ] {
        let of_decoder = what.contains("decoder");
        if said.is_some_and(|said| said != found) && (part == Part::Whole || !of_decoder) {
            return Err(foreign(
                &path,
                format!(
                    "{} says {} {what}, its weights have {found}: one of the two is another model's",
                    facts.said_by,
                    said.unwrap_or_default()
                ),
            ));
        }
    }
    options.check(&path, &config, part)?;
    Ok(Weights {
        path,
        format,
        config,
        normalization,
        part,
        tensors,
        notes,
    })
}

/// Compares keys and shapes with those of the model; what a target learned beforehand is its own affair.
pub fn check_layout(weights: &Weights) -> Result<()> {
    let expected = layout(&weights.config, weights.part);
    let found = &weights.tensors;
    let is_extra = |key: &&String| !expected.contains_key(*key) && !key.starts_with("target.");
    let missing: Vec<String> = expected
        .keys()
        .filter(|key| !found.contains_key(*key))
        .cloned()
        .collect();
    let extra: Vec<String> = found.keys().filter(is_extra).cloned().collect();
    let misshaped: Vec<String> = (expected.iter())
        .filter_map(|(key, wanted)| {
            let size = found.get(key)?.size();
            (size != *wanted).then(|| format!("{key} (found {size:?}, expected {wanted:?})"))
        })
        .collect();
    if missing.is_empty() && extra.is_empty() && misshaped.is_empty() {
        return Ok(());
    }
    Err(ModelError::Keys {
        path: weights.path.clone(),
        missing,
        extra,
        misshaped,
    })
}

/// Leaves out the classifier, and the mask token of an encoder alone; a norm after pooling becomes the norm where there is no other.
fn drop_heads(
    path: &Path,
    tensors: &mut BTreeMap<String, Tensor>,
    notes: &mut Vec<String>,
) -> Result<()> {
    if !tensors.contains_key("decoder_embed.weight") && tensors.remove("mask_token").is_some() {
        notes.push("its mask token, which its pre-training alone used, is left out".into());
    }
    let classifier: Vec<String> = (tensors.keys().filter(|key| is_head(key)))
        .cloned()
        .collect();
    if !classifier.is_empty() {
        notes.push(format!(
            "its classification head is left out: {}",
            classifier.join(", ")
        ));
    }
    classifier.iter().for_each(|key| drop(tensors.remove(key)));
    let has_norm = tensors.contains_key("norm.weight");
    let pooled = ["weight", "bias"].map(|name| (name, tensors.remove(&format!("fc_norm.{name}"))));
    for (name, tensor) in pooled {
        let Some(tensor) = tensor else { continue };
        if !has_norm {
            tensors.insert(format!("norm.{name}"), tensor);
        }
        if name == "weight" {
            notes.push(match has_norm {
                true => "its `fc_norm`, which comes after pooling, is left out".into(),
                false => "its norm comes after the mean of the tokens (`fc_norm`); here it becomes the encoder's last norm, applied to each token".into(),
            });
        }
    }
    if tensors.is_empty() {
        return Err(foreign(path, "no weights in it".into()));
    }
    Ok(())
}

fn check_kinds(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    for (key, tensor) in tensors {
        let kind = tensor.kind();
        if !matches!(
            kind,
            Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16
        ) {
            return Err(foreign(
                path,
                format!("`{key}` is of {kind:?}; expected numbers with a fraction"),
            ));
        }
    }
    Ok(())
}

/// The sizes of a tensor that every model has.
fn sizes<const N: usize>(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    key: &str,
) -> Result<[usize; N]> {
    let tensor = tensors.get(key).ok_or_else(|| {
        let some: Vec<&str> = tensors.keys().take(3).map(String::as_str).collect();
        foreign(path, format!(
            "no `{key}`: these are no weights of a Vision Transformer in the layout of the MAE authors, timm or Hugging Face's ViTMAE; \
             its keys begin with {}",
            some.join(", ")
        ))
    })?;
    let size = tensor.size();
    let as_usize: Vec<usize> = size.iter().map(|&n| n as usize).collect();
    as_usize
        .try_into()
        .ok()
        .filter(|size: &[usize; N]| !size.contains(&0))
        .ok_or_else(|| {
            foreign(
                path,
                format!("`{key}` has shape {size:?}, expected {N} dimensions, none of them 0"),
            )
        })
}

/// How many blocks there are from the first on; a gap shows as missing and extra keys.
fn blocks(tensors: &BTreeMap<String, Tensor>, prefix: &str) -> usize {
    (0..)
        .take_while(|i| tensors.contains_key(&format!("{prefix}.{i}.norm1.weight")))
        .count()
        .max(1)
}

/// Rows and columns of patches: those whose sine-cosine positions these are, or as many rows as columns.
fn grid_of(pos_embed: &Tensor, patches: usize, dim: usize) -> Option<(usize, usize, &'static str)> {
    let positions = pos_embed.to_kind(Kind::Float);
    let fits = pos_embed.size() == [1, 1 + patches as i64, dim as i64];
    if dim.is_multiple_of(4) && patches > 0 && fits {
        // No model has more patches in a row or column; and it bounds what a strange file costs.
        for rows in (1..=patches.min(512)).filter(|rows| patches.is_multiple_of(*rows)) {
            let columns = patches / rows;
            let distance = (&positions - sincos_2d(rows, columns, dim)).abs().max();
            if distance.double_value(&[]) < SAME_POSITION {
                return Some((rows, columns, "as its sine-cosine positions show"));
            }
        }
    }
    let side = patches.isqrt();
    (side > 0 && side * side == patches)
        .then_some((side, side, "taken as square, as the number of its positions suggests: --image-size HEIGHTxWIDTH says otherwise"))
}

fn usual_heads(embed_dim: usize) -> &'static str {
    match embed_dim {
        192 => " (3 in ViT-Tiny)",
        384 => " (6 in ViT-Small)",
        768 => " (12 in ViT-Base)",
        1024 => " (16 in ViT-Large)",
        1280 => " (16 in ViT-Huge)",
        _ => "",
    }
}

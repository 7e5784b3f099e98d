//! Names of other programs' Vision Transformers as native ones, where no configuration is needed for it.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Kind, Tensor};

use super::foreign;
use super::keys::Renaming;
use crate::Result;

/// mmpretrain's and mmselfsup's Vision Transformers and Masked Autoencoders.
///
/// Source: <https://github.com/open-mmlab/mmpretrain>, the names in `VisionTransformer` and `MAEPretrainDecoder`.
const MMPRETRAIN: Renaming = Renaming {
    names: &[
        ("cls_token", &["cls_token"]),
        ("pos_embed", &["pos_embed"]),
        ("patch_embed.proj", &["patch_embed.projection"]),
        ("norm", &["ln1"]),
        ("mask_token", &["neck.mask_token"]),
        ("decoder_pos_embed", &["neck.decoder_pos_embed"]),
        ("decoder_embed", &["neck.decoder_embed"]),
        ("decoder_norm", &["neck.ln1"]),
        ("decoder_pred", &["neck.decoder_pred"]),
    ],
    blocks: &[
        ("blocks", "layers"),
        ("decoder_blocks", "neck.decoder_blocks"),
    ],
    block: &[
        ("norm1", &["ln1"]),
        ("attn.qkv", &["attn.qkv"]),
        ("attn.proj", &["attn.proj"]),
        ("norm2", &["ln2"]),
        ("mlp.fc1", &["ffn.layers.0.0"]),
        ("mlp.fc2", &["ffn.layers.1"]),
    ],
};

/// torchvision's Vision Transformers.
///
/// Source: <https://github.com/pytorch/vision>, the names in `VisionTransformer`.
const TORCHVISION: Renaming = Renaming {
    names: &[
        ("cls_token", &["class_token"]),
        ("pos_embed", &["encoder.pos_embedding"]),
        ("patch_embed.proj", &["conv_proj"]),
        ("norm", &["encoder.ln"]),
    ],
    blocks: &[("blocks", "encoder.layers")],
    block: &[
        ("norm1", &["ln_1"]),
        ("attn.qkv", &["self_attention.in_proj"]),
        ("attn.proj", &["self_attention.out_proj"]),
        ("norm2", &["ln_2"]),
        ("mlp.fc1", &["mlp.0"]),
        ("mlp.fc2", &["mlp.3"]),
    ],
};

/// The tensors under native names, where their layout is one of these; else as they are.
///
/// # Errors
/// [`ModelError::Foreign`](crate::ModelError::Foreign) with what they are of, if that is no plain Vision Transformer.
pub fn to_native(
    path: &Path,
    tensors: BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>> {
    if let Some(what) = other_model(&tensors) {
        return Err(foreign(
            path,
            format!("it is {what}, and no plain Vision Transformer"),
        ));
    }
    let has = |key: &str| tensors.contains_key(key);
    let tensors =
        if has("patch_embed.projection.weight") || has("backbone.patch_embed.projection.weight") {
            // The encoder's names are those of a model alone, too.
            let tensors = tensors.into_iter().map(|(key, tensor)| {
                let name = key.strip_prefix("backbone.").unwrap_or(&key).to_string();
                (name, tensor)
            });
            renamed(&MMPRETRAIN, tensors.collect())
        } else if has("conv_proj.weight") {
            let tensors = tensors.into_iter().map(|(key, tensor)| {
                let name = key
                    .replace("encoder_layer_", "")
                    .replace("in_proj_", "in_proj.")
                    .replace("linear_1", "0")
                    .replace("linear_2", "3")
                    .replace("heads.", "head.");
                (name, tensor)
            });
            renamed(&TORCHVISION, tensors.collect())
        } else {
            tensors
        };
    one_frame(path, tensors)
}

fn renamed(renaming: &Renaming, tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    (tensors.into_iter())
        .map(|(key, tensor)| (renaming.native(&key).unwrap_or(key), tensor))
        .collect()
}

/// A patch embedding over one frame of a film, as one over an image: Prithvi's has a dimension for time.
fn one_frame(
    path: &Path,
    mut tensors: BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>> {
    const KEY: &str = "patch_embed.proj.weight";
    let Some(weight) = tensors.get(KEY) else {
        return Ok(tensors);
    };
    let &[_, _, frames, height, width] = &weight.size()[..] else {
        return Ok(tensors);
    };
    if frames != 1 {
        return Err(foreign(
            path,
            format!(
                "`{KEY}` is of {frames} frames of {height} x {width} pixels: it is of films; expected one frame, as an image is"
            ),
        ));
    }
    let tokens = (tensors.get("pos_embed")).and_then(|positions| positions.size().get(1).copied());
    let patches = tokens.unwrap_or(0) - 1;
    let is_square = |n: i64| n > 0 && n.isqrt() * n.isqrt() == n;
    // Four frames of 14 x 14 patches are as many as one of 28 x 28: then the positions themselves tell.
    let are_frames = |n: &i64| {
        patches % n == 0
            && is_square(patches / n)
            && (!is_square(patches) || repeat(&tensors["pos_embed"], *n))
    };
    if let Some(frames) = (2..=64).find(are_frames) {
        let side = (patches / frames).isqrt();
        return Err(foreign(
            path,
            format!(
                "its positions are of {frames} frames of {side} x {side} patches, as Prithvi's; expected one frame, as an image is"
            ),
        ));
    }
    let weight = weight.f_squeeze_dim(2)?;
    tensors.insert(KEY.into(), weight);
    Ok(tensors)
}

/// Whether positions are those of so many frames: from one frame to another all of a frame's change by the same.
///
/// Those of an image do not, unless what is taken for a frame is no more than one of its rows.
fn repeat(pos_embed: &Tensor, frames: i64) -> bool {
    const SAME: f64 = 1e-3;
    let &[_, tokens, dim] = &pos_embed.size()[..] else {
        return false;
    };
    let patches = tokens - 1;
    if patches / frames <= frames {
        return false;
    }
    let positions = (pos_embed.select(0, 0).narrow(0, 1, patches))
        .to_kind(Kind::Float)
        .reshape([frames, patches / frames, dim]);
    let change = positions.narrow(0, 1, frames - 1) - positions.narrow(0, 0, 1);
    let spread = change.amax([1], false) - change.amin([1], false);
    spread.max().double_value(&[]) < SAME
}

/// What tensors are of, if it is known by their names and none of what can be read.
fn other_model(tensors: &BTreeMap<String, Tensor>) -> Option<String> {
    let has = |part: &str| tensors.keys().any(|key| key.contains(part));
    let ends = |part: &str| tensors.keys().any(|key| key.ends_with(part));
    let known: [(bool, &str); 13] = [
        (
            has("relative_position_bias_table") && (has("layers.") || has("features.")),
            "a Swin Transformer",
        ),
        (
            has("visual.transformer.resblocks.")
                || has("vision_model.embeddings.")
                || has("pre_layrnorm."),
            "a CLIP or SigLIP model",
        ),
        (
            has("patch_embed.0.proj."),
            "a SatMAE of several groups of channels",
        ),
        (
            has("channel_embed"),
            "a model with embeddings of channels, as SatMAE's of groups",
        ),
        (
            has("rel_pos_h") || has("image_encoder.neck."),
            "a Segment Anything encoder",
        ),
        (
            has("_bn0.") || has("blocks.0.0.conv_pw.") || has("blocks.0.0.bn1."),
            "an EfficientNet or MobileNet",
        ),
        (
            has("downsample_layers.") || ends("conv_dw.weight"),
            "a ConvNeXt",
        ),
        (has("layer1.0.conv1."), "a ResNet"),
        (
            has("features.0.0.weight") || has("features.denseblock1"),
            "a convolutional network of torchvision",
        ),
        (has("transformer.h.") || has("lm_head."), "a language model"),
        (
            has("text_model.") || has("text_encoder."),
            "a model of images and texts",
        ),
        (
            has("down_blocks.") || has("diffusion_model."),
            "a diffusion model",
        ),
        (ends("num_batches_tracked"), "a convolutional network"),
    ];
    (known.into_iter()).find_map(|(is_it, what)| is_it.then(|| what.to_string()))
}

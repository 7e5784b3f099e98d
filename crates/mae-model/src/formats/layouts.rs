//! Names of other programs' Vision Transformers as native ones, where no configuration is needed for it.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Kind, Tensor};

use super::keys::Renaming;
use super::{families, foreign, names};
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
    families::check(path, &tensors)?;
    let has = |key: &str| tensors.contains_key(key);
    let tensors =
        if has("patch_embed.projection.weight") || has("backbone.patch_embed.projection.weight") {
            // The encoder's names are those of a model alone, too; mmsegmentation's attention is PyTorch's.
            renamed(path, &MMPRETRAIN, tensors, |key| {
                (key.strip_prefix("backbone.").unwrap_or(key))
                    .replace(".attn.attn.in_proj_", ".attn.qkv.")
                    .replace(".attn.attn.out_proj.", ".attn.proj.")
            })?
        } else if has("conv_proj.weight") {
            renamed(path, &TORCHVISION, tensors, |key| {
                key.replace("encoder_layer_", "")
                    .replace("in_proj_", "in_proj.")
                    .replace("linear_1", "0")
                    .replace("linear_2", "3")
                    .replace("heads.", "head.")
            })?
        } else {
            names::renamed(path, tensors, without_chunk)?
        };
    one_frame(path, tensors)
}

fn renamed(
    path: &Path,
    renaming: &Renaming,
    tensors: BTreeMap<String, Tensor>,
    usual: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, Tensor>> {
    names::renamed(path, tensors, |key| {
        let key = usual(key);
        renaming.native(&key).unwrap_or(key)
    })
}

/// `blocks.1.12.norm1.weight`, the twelfth block of all and in the second chunk, as `blocks.12.norm1.weight`.
///
/// Source: <https://github.com/facebookresearch/dinov2>, `BlockChunk`, which has empty places for the blocks before.
fn without_chunk(key: &str) -> String {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match key.splitn(4, '.').collect::<Vec<_>>()[..] {
        ["blocks", chunk, block, rest] if is_number(chunk) && is_number(block) => {
            format!("blocks.{block}.{rest}")
        }
        _ => key.into(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_blocks_have_no_name() {
        let check = |key: &str, expected: &str| assert_eq!(without_chunk(key), expected);
        check("blocks.1.12.norm1.weight", "blocks.12.norm1.weight");
        check("blocks.12.norm1.weight", "blocks.12.norm1.weight");
        check("blocks.0.mlp.0.weight", "blocks.0.mlp.0.weight");
        check("cls_token", "cls_token");
    }
}

//! What weights are of, if of no plain Vision Transformer: known by the names of their tensors.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use super::dimensions::is_head;
use super::foreign;
use crate::Result;

/// Parts of names that a model has, all of them, and what it is; the first row that fits counts.
///
/// `^` is before the start of a name, `$` after its end.
/// Source: the names in timm 1.0, torchvision, transformers and the models' own programs.
const FAMILIES: [(&[&str], &str); 61] = [
    (
        &["relative_position_bias_table", "layers."],
        "a Swin Transformer",
    ),
    (
        &["relative_position_bias_table", "features."],
        "a Swin Transformer",
    ),
    (&["^layers.", "cpb_mlp."], "a Swin Transformer"),
    (&["visual.transformer.resblocks."], "a CLIP or SigLIP model"),
    (&["vision_model.embeddings."], "a CLIP or SigLIP model"),
    (&["pre_layrnorm."], "a CLIP or SigLIP model"),
    (&["blocks.0.blocks.0.0."], "a CrossViT"),
    (
        &["patch_embed.0.proj."],
        "a SatMAE of several groups of channels",
    ),
    (
        &["channel_embed"],
        "a model with embeddings of channels, as SatMAE's of groups",
    ),
    (&["rope_embed."], "a DINOv3"),
    (&["storage_tokens"], "a DINOv3"),
    (&["qkv.bias_mask"], "a DINOv3"),
    (&["pos_embed_spatial"], "a Hiera or MViT"),
    (&["pos_embed_window"], "a Hiera, as of Segment Anything 2"),
    (&["rel_pos_h", "stages."], "an MViT"),
    (
        &["rel_pos_h"],
        "a Segment Anything or ViTDet encoder, which attends within windows and has relative positions",
    ),
    (&["image_encoder.neck."], "a Segment Anything encoder"),
    (&["cls_attn_blocks."], "an XCiT"),
    (&["blocks_token_only."], "a CaiT"),
    (
        &["relative_position_bias_table", "stages."],
        "a CoAtNet, MaxViT or GC ViT",
    ),
    (
        &["relative_position_bias_table", "^blocks."],
        "a BEiT, which has relative positions",
    ),
    (
        &["blocks.0.attn.q_proj."],
        "an EVA-02, which has rotary positions",
    ),
    (&["transformers.0.blocks."], "a PiT"),
    (
        &["dist_token"],
        "a distilled DeiT, which has a distillation token",
    ),
    (&["attn.gating_param"], "a ConViT"),
    (&["patch_embeds.0.proj."], "a Twins"),
    (&["serial_blocks1."], "a CoaT"),
    (&["pixel_embed.proj."], "a TNT"),
    (&["attention_biases"], "a LeViT, TinyViT or EfficientFormer"),
    (&["post_network."], "a VOLO"),
    (&["network.0.0.attn."], "a VOLO"),
    (&["levels.0.transformer_encoder."], "a NesT"),
    (&["rnn_tokens."], "a Sequencer"),
    (&["mlp_channels."], "an MLP-Mixer, ResMLP or gMLP"),
    (&["modulation.f."], "a FocalNet"),
    (&["cpe1.proj."], "a DaViT"),
    (
        &["attns.0.attn.qkv."],
        "a Vision Transformer of parallel blocks",
    ),
    (&["global_block."], "a GC ViT"),
    (&["layer_scale1.scale"], "a PoolFormer"),
    (&[".mixer.in_proj."], "a Mamba"),
    (&["^embeds.proj."], "a NaFlexViT"),
    (&[".kv.", "stages."], "a PVT"),
    (&["^patch_embed1.proj.", "^block1."], "a PVT or SegFormer"),
    (
        &["rel_pos."],
        "a Vision Transformer with relative positions",
    ),
    (&["patch_embed.norm.weight$", "fc1_g."], "an AIMv2"),
    (
        &["patch_embed.backbone."],
        "a hybrid of a convolutional network and a Vision Transformer",
    ),
    (&["_bn0."], "an EfficientNet or MobileNet"),
    (&["blocks.0.0.conv_pw."], "an EfficientNet or MobileNet"),
    (&["blocks.0.0.bn1."], "an EfficientNet or MobileNet"),
    (&["downsample_layers."], "a ConvNeXt"),
    (&["conv_dw.weight$", ".gamma$"], "a ConvNeXt or EdgeNeXt"),
    (&["layer1.0.conv1."], "a ResNet"),
    (
        &["features.0.0.weight"],
        "a convolutional network of torchvision",
    ),
    (
        &["features.0.weight"],
        "a convolutional network of torchvision",
    ),
    (&["transformer.h."], "a language model"),
    (&["lm_head."], "a language model"),
    (&["text_model."], "a model of images and texts"),
    (&["text_encoder."], "a model of images and texts"),
    (&["down_blocks."], "a diffusion model"),
    (&["diffusion_model."], "a diffusion model"),
    (
        &["num_batches_tracked$"],
        "a convolutional network, or one with convolutions and batch normalisation",
    ),
];

/// Checks that tensors are of no model that is known to be another.
///
/// # Errors
/// [`ModelError::Foreign`](crate::ModelError::Foreign) with its name.
pub fn check(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    match family(tensors) {
        None => Ok(()),
        Some(what) => Err(foreign(
            path,
            format!(
                "it is {what}, and no plain Vision Transformer, whose weights are what this program can use: MAE's, DINO's, DeiT's, timm's vit_base_patch16_224"
            ),
        )),
    }
}

/// The name of the model that they are of, if it is known to be another.
fn family(tensors: &BTreeMap<String, Tensor>) -> Option<String> {
    let names: Vec<String> = (tensors.keys())
        .filter(|key| !is_head(key))
        .map(|key| format!("^{key}$"))
        .collect();
    let has = |part: &&str| names.iter().any(|name| name.contains(*part));
    let known = FAMILIES.iter().find(|(parts, _)| parts.iter().all(has));
    known
        .map(|(_, what)| what.to_string())
        .or_else(|| by_shape(tensors))
        .or_else(|| {
            has(&"^stages.")
                .then(|| "a network of several stages, as ConvNeXt, PVT and Swin are".into())
        })
}

/// What the names alone do not tell.
fn by_shape(tensors: &BTreeMap<String, Tensor>) -> Option<String> {
    let has = |key: &str| tensors.contains_key(key);
    let first = |key: &str| tensors.get(key)?.size().first().copied();
    let registers = ["register_tokens", "reg_token"]
        .iter()
        .find_map(|key| tensors.get(*key)?.size().get(1).copied());
    let has_scale = tensors.keys().any(|key| key.ends_with(".ls1.gamma"));
    let width = first("blocks.0.norm1.weight");
    let is_wider = |key: &String| {
        key.starts_with("blocks.") && key.ends_with(".norm1.weight") && first(key) != width
    };
    let is_gated = tensors.keys().any(|key| key.contains("mlp.w12."));
    match registers {
        Some(_) if has("cls_token") && has("blocks.0.gamma_1") && !has("pos_embed") => {
            Some("a DINOv3".into())
        }
        Some(count) if has_scale && has("cls_token") => {
            Some(format!("a DINOv2 with {count} register tokens"))
        }
        _ if has_scale && is_gated => {
            Some("a DINOv2 with gated MLPs (SwiGLU), as its giant".into())
        }
        _ if width.is_some() && tensors.keys().any(is_wider) => {
            Some("a Vision Transformer whose blocks become wider, as Hiera's".into())
        }
        // Its blocks have the norms behind, under the names of those before.
        _ if has("blocks.0.attn.q_bias") && first("blocks.0.norm1.weight") == Some(1792) => {
            Some("an EVA-02 of CLIP, whose norms come after attention and MLP".into())
        }
        _ => None,
    }
}

/// What a foreign file seems to be, by its tensors: of what can be converted the end is `layout`.
pub fn guess(tensors: &BTreeMap<String, Tensor>) -> String {
    if let Some(family) = family(tensors) {
        return family;
    }
    let has = |part: &str| tensors.keys().any(|key| key.contains(part));
    let hugging_face = has("embeddings.patch_embeddings");
    let (encoder, decoder) = (
        hugging_face || has("patch_embed.proj.weight"),
        has("decoder_blocks.") || has("decoder.decoder_"),
    );
    let layout = match (hugging_face, decoder) {
        (true, _) => "Hugging Face's layout",
        (false, true) => "the MAE authors' layout",
        (false, false) => "timm's layout",
    };
    match (encoder, decoder) {
        (true, true) => format!("a Masked Autoencoder in {layout}"),
        (true, false) if has("head.weight") || has("classifier.weight") => {
            format!("a ViT with a head of classes in {layout}")
        }
        (true, false) => format!("the encoder of a ViT in {layout}"),
        (false, _) => "neither a ViT nor a Masked Autoencoder".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// Names of timm's models, each with a few of its tensors.
    #[test]
    fn models_are_called_by_their_names() {
        let check = |tensors: &[(&str, &[i64])], expected: &str| {
            let tensors = (tensors.iter())
                .map(|(key, size)| {
                    (
                        key.to_string(),
                        Tensor::zeros(*size, (Kind::Float, Device::Cpu)),
                    )
                })
                .collect();
            assert_eq!(family(&tensors).unwrap_or_default(), expected);
        };
        check(
            &[
                ("blocks.0.norm1.weight", &[4]),
                ("blocks.1.norm1.weight", &[4]),
            ],
            "",
        );
        check(
            &[
                ("blocks.0.norm1.weight", &[4]),
                ("blocks.1.norm1.weight", &[8]),
            ],
            "a Vision Transformer whose blocks become wider, as Hiera's",
        );
        check(
            &[
                ("cls_token", &[1]),
                ("register_tokens", &[1, 4, 8]),
                ("blocks.0.ls1.gamma", &[8]),
            ],
            "a DINOv2 with 4 register tokens",
        );
        // As published, in chunks of blocks.
        check(
            &[
                ("cls_token", &[1]),
                ("register_tokens", &[1, 4, 8]),
                ("blocks.0.0.ls1.gamma", &[8]),
            ],
            "a DINOv2 with 4 register tokens",
        );
        check(
            &[
                ("cls_token", &[1]),
                ("reg_token", &[1, 4, 8]),
                ("blocks.0.gamma_1", &[8]),
            ],
            "a DINOv3",
        );
        check(&[("rope_embed.periods", &[4])], "a DINOv3");
        check(
            &[
                ("blocks.0.attn.relative_position_bias_table", &[9, 2]),
                ("blocks.0.gamma_1", &[8]),
            ],
            "a BEiT, which has relative positions",
        );
        check(
            &[("blocks.0.attn.rel_pos_h", &[9, 2])],
            "a Segment Anything or ViTDet encoder, which attends within windows and has relative positions",
        );
        check(&[("cls_attn_blocks.0.norm1.weight", &[9])], "an XCiT");
        check(
            &[
                ("blocks_token_only.0.norm1.weight", &[9]),
                ("blocks.0.gamma_1", &[9]),
            ],
            "a CaiT",
        );
        check(
            &[("dist_token", &[1, 1, 9]), ("head_dist.weight", &[2, 9])],
            "a distilled DeiT, which has a distillation token",
        );
        check(
            &[("stages.0.blocks.0.x", &[9])],
            "a network of several stages, as ConvNeXt, PVT and Swin are",
        );
        // The batch normalisation of a linear probe is none of the encoder.
        check(&[("head.0.num_batches_tracked", &[])], "");
    }
}

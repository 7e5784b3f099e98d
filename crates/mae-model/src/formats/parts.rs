//! Parts of Vision Transformers that this project's have not, or always have; with them the numbers would be others.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use super::dimensions::is_head;
use super::foreign;
use crate::Result;

/// Parts of names, and what they are of.
const FOREIGN: [(&str, &str); 25] = [
    ("register_tokens", "register tokens"),
    ("reg_token", "register tokens"),
    (
        ".gamma_1",
        "layer scale named `gamma_1`, as in BEiT, EVA, DeiT III and RoPE-ViT, of which some have rotary positions that no file shows",
    ),
    (".gamma1", "layer scale"),
    (".q_norm.", "norms of queries and keys"),
    (".k_norm.", "norms of queries and keys"),
    (".attn.norm.", "a norm within attention"),
    (".mlp.norm.", "a norm within its MLPs"),
    ("norm_pre.", "a norm before the blocks, as CLIP's encoders"),
    ("pre_norm.", "a norm before the blocks, as CLIP's encoders"),
    ("ln_pre.", "a norm before the blocks, as CLIP's encoders"),
    ("patch_embed.norm.", "a norm of patch embeddings"),
    ("attn_pool.", "attention pooling"),
    ("relative_position", "relative positions"),
    (".mlp.w12.", "gated MLPs (SwiGLU)"),
    (".mlp.w1.", "gated MLPs (SwiGLU)"),
    (".mlp.fc1_g.", "gated MLPs (SwiGLU)"),
    (".mlp.gate_proj.", "gated MLPs (SwiGLU)"),
    ("rope", "rotary positions"),
    ("freqs", "rotary positions"),
    ("temporal_embed", "embeddings of time"),
    (
        "lora_",
        "LoRA beside its weights: merge it into them first, and save these",
    ),
    (".adapter", "adapters"),
    ("prompt_embed", "prompts beside its patches"),
    ("absmax", "quantised weights"),
];

/// Checks that an encoder has what every plain Vision Transformer has, and nothing else that is known.
///
/// # Errors
/// [`ModelError::Foreign`](crate::ModelError::Foreign) with what is different.
pub fn check(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut found: Vec<String> = Vec::new();
    let mut first = None;
    for (part, what) in FOREIGN {
        let is_it = |key: &&String| key.contains(part) && !is_head(key);
        let Some(key) = tensors.keys().find(is_it) else {
            continue;
        };
        let what = match (what, tensors[key].size().get(1)) {
            ("register tokens", Some(1)) => "a register token".into(),
            ("register tokens", Some(count)) => format!("{count} {what}"),
            _ => what.to_string(),
        };
        if !found.contains(&what) {
            found.push(what);
        }
        first.get_or_insert(key);
    }
    if let Some(first) = first {
        return Err(different(
            path,
            &format!("`{first}`: it has {}", found.join(" and ")),
        ));
    }
    let has = |key: &str| tensors.contains_key(key);
    let size = |key: &str, dimension: usize| tensors.get(key)?.size().get(dimension).copied();
    if !has("patch_embed.proj.weight") {
        return Ok(());
    }
    if !has("cls_token") {
        return Err(foreign(
            path,
            "no `cls_token`: it is a Vision Transformer without a class token, as SigLIP's and those of mean pooling; this project's always has one".into(),
        ));
    }
    if !has("pos_embed") {
        return Err(foreign(
            path,
            "no `pos_embed`: its positions are rotary, relative or left to its program; expected positions that are added to the patches, in the file".into(),
        ));
    }
    if has("blocks.0.norm1.weight") && !has("blocks.0.norm1.bias") {
        return Err(different(
            path,
            "no `blocks.0.norm1.bias`: it has norms without biases, as RMSNorm",
        ));
    }
    let (hidden, taken) = (
        size("blocks.0.mlp.fc1.weight", 0),
        size("blocks.0.mlp.fc2.weight", 1),
    );
    if hidden.is_some() && hidden == taken.map(|taken| 2 * taken) {
        return Err(different(
            path,
            "`blocks.0.mlp.fc1.weight` makes twice what `fc2` takes: it has gated MLPs (SwiGLU), as EVA-02 and DINOv2's giant",
        ));
    }
    Ok(())
}

fn different(path: &Path, what: &str) -> crate::ModelError {
    foreign(
        path,
        format!(
            "{what}, which this project's Vision Transformer has not, so it would compute something else; expected a plain one"
        ),
    )
}

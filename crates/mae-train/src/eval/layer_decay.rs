//! Layer-wise learning rates: the nearer to the pixels, the smaller.
//!
//! Source: Clark et al. 2020, "ELECTRA", appendix B; He et al. 2021, appendix A.1, table 9.

use tch::Tensor;

use crate::train::optim::ParamGroup;

/// The layer of a classifier's parameter: 0 is the embedding, `i + 1` block `i`, `depth + 1` norm and head.
///
/// ```
/// use mae_train::eval::layer_decay::layer_id;
/// assert_eq!(layer_id("pos_embed", 12), 0);
/// assert_eq!(layer_id("blocks.3.attn.qkv.weight", 12), 4);
/// assert_eq!(layer_id("head.bias", 12), 13);
/// ```
pub fn layer_id(key: &str, depth: usize) -> usize {
    let mut parts = key.split('.');
    match parts.next() {
        Some("cls_token" | "pos_embed" | "patch_embed") => 0,
        Some("blocks") => match parts.next().and_then(|block| block.parse::<usize>().ok()) {
            Some(block) => block + 1,
            None => depth + 1,
        },
        _ => depth + 1,
    }
}

/// The learning rate's factor of a classifier's parameter: `decay^(depth + 1 - layer)`.
pub fn lr_scale(key: &str, depth: usize, decay: f64) -> f64 {
    decay.powi(depth as i32 + 1 - layer_id(key, depth) as i32)
}

/// The group of a classifier's parameter in fine-tuning: [`lr_scale`], and decay on matrices alone.
///
/// Class token and positions do not decay here, though the class token does in pre-training, as published.
pub fn param_group(
    key: &str,
    parameter: &Tensor,
    depth: usize,
    decay: f64,
    weight_decay: f64,
) -> ParamGroup {
    let decays = parameter.dim() >= 2 && !matches!(key, "cls_token" | "pos_embed");
    ParamGroup {
        lr_scale: lr_scale(key, depth, decay),
        weight_decay: if decays { weight_decay } else { 0.0 },
    }
}

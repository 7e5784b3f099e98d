//! The keys of a model's tensors: what there must be, and what it is called elsewhere.

use std::collections::BTreeMap;

use super::Part;
use crate::MaeConfig;

/// The native keys of a model and the shapes of their tensors, without what its target learned beforehand.
pub fn layout(config: &MaeConfig, part: Part) -> BTreeMap<String, Vec<i64>> {
    let p = config.patch_size;
    let patches = config.image_height / p * (config.image_width / p);
    let mut keys = BTreeMap::new();
    let mut add = |key: &str, size: &[usize]| {
        let size = size.iter().map(|&n| n as i64).collect();
        keys.insert(key.to_string(), size);
    };
    let dim = config.embed_dim;
    add("cls_token", &[1, 1, dim]);
    add("pos_embed", &[1, 1 + patches, dim]);
    add("patch_embed.proj.weight", &[dim, config.channels, p, p]);
    add("patch_embed.proj.bias", &[dim]);
    add_blocks(&mut add, "blocks", config.depth, dim, config.mlp_ratio);
    add_layer(&mut add, "norm", &[dim]);
    if part == Part::Whole {
        let width = config.decoder_embed_dim;
        match config.encoder_mask_tokens {
            true => add("encoder_mask_token", &[1, 1, dim]),
            false => add("mask_token", &[1, 1, width]),
        }
        add("decoder_pos_embed", &[1, 1 + patches, width]);
        add_layer(&mut add, "decoder_embed", &[width, dim]);
        add_blocks(
            &mut add,
            "decoder_blocks",
            config.decoder_depth,
            width,
            config.mlp_ratio,
        );
        add_layer(&mut add, "decoder_norm", &[width]);
        add_layer(&mut add, "decoder_pred", &[config.target_dim(), width]);
    }
    keys
}

fn add_blocks(
    add: &mut impl FnMut(&str, &[usize]),
    prefix: &str,
    depth: usize,
    dim: usize,
    mlp_ratio: f64,
) {
    let hidden = (dim as f64 * mlp_ratio) as usize;
    for i in 0..depth {
        let mut layer =
            |name: &str, size: &[usize]| add_layer(add, &format!("{prefix}.{i}.{name}"), size);
        layer("norm1", &[dim]);
        layer("attn.qkv", &[3 * dim, dim]);
        layer("attn.proj", &[dim, dim]);
        layer("norm2", &[dim]);
        layer("mlp.fc1", &[hidden, dim]);
        layer("mlp.fc2", &[dim, hidden]);
    }
}

/// A weight, and a bias as long as its first dimension.
fn add_layer(add: &mut impl FnMut(&str, &[usize]), name: &str, size: &[usize]) {
    add(&format!("{name}.weight"), size);
    add(&format!("{name}.bias"), &size[..1]);
}

/// How another program calls what is here called otherwise: native names first, each with those that it is made of.
pub struct Renaming {
    /// Names of tensors, and of layers without their `.weight` and `.bias`.
    pub names: &'static [(&'static str, &'static [&'static str])],
    /// What comes before a block's number.
    pub blocks: &'static [(&'static str, &'static str)],
    /// Names of layers in a block.
    pub block: &'static [(&'static str, &'static [&'static str])],
}

impl Renaming {
    /// Their keys for a native one, in the order in which their tensors follow each other in ours.
    pub fn theirs(&self, native: &str) -> Option<Vec<String>> {
        let (name, suffix) = split_suffix(native);
        for (ours, theirs) in self.blocks {
            if let Some((number, layer)) = block_of(name, ours) {
                let (_, names) = self.block.iter().find(|(native, _)| *native == layer)?;
                let key = |name: &&str| format!("{theirs}.{number}.{name}{suffix}");
                return Some(names.iter().map(key).collect());
            }
        }
        let (_, names) = self.names.iter().find(|(native, _)| *native == name)?;
        Some(names.iter().map(|name| format!("{name}{suffix}")).collect())
    }

    /// The native key of one of theirs; the one to look [`theirs`](Self::theirs) up for.
    pub fn native(&self, theirs: &str) -> Option<String> {
        let (name, suffix) = split_suffix(theirs);
        for (ours, prefix) in self.blocks {
            if let Some((number, layer)) = block_of(name, prefix) {
                let (native, _) = self
                    .block
                    .iter()
                    .find(|(_, names)| names.contains(&layer))?;
                return Some(format!("{ours}.{number}.{native}{suffix}"));
            }
        }
        let (native, _) = self.names.iter().find(|(_, names)| names.contains(&name))?;
        Some(format!("{native}{suffix}"))
    }
}

fn split_suffix(key: &str) -> (&str, &str) {
    for suffix in [".weight", ".bias"] {
        if let Some(name) = key.strip_suffix(suffix) {
            return (name, &key[name.len()..]);
        }
    }
    (key, "")
}

/// `prefix.NUMBER.layer`, split.
fn block_of<'a>(name: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let (number, layer) = name
        .strip_prefix(prefix)?
        .strip_prefix('.')?
        .split_once('.')?;
    number
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some((number, layer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MaskedAutoencoderViT, Normalization};
    use tch::Device;

    #[test]
    fn the_layout_is_that_of_the_model() {
        let tiny = MaeConfig {
            image_height: 48,
            depth: 2,
            mlp_ratio: 2.0,
            ..MaeConfig::tiny(32)
        };
        let mask_tokens = MaeConfig {
            encoder_mask_tokens: true,
            ..tiny.clone()
        };
        for config in [tiny, mask_tokens] {
            let model =
                MaskedAutoencoderViT::new(&config, &Normalization::IMAGENET, Device::Cpu, 0)
                    .unwrap();
            let sizes: BTreeMap<_, _> = (model.parameters().into_iter())
                .map(|(key, tensor)| (key, tensor.size()))
                .collect();
            assert_eq!(layout(&config, Part::Whole), sizes);
            let encoder: BTreeMap<_, _> = (sizes.into_iter())
                .filter(|(key, _)| !key.starts_with("decoder_") && !key.ends_with("mask_token"))
                .collect();
            assert_eq!(layout(&config, Part::Encoder), encoder);
        }
    }
}

//! Files of `torch.save`: of the MAE authors' code, whose keys are the native ones, and of others without a description
//! beside them.

use std::collections::BTreeMap;
use std::path::Path;

use super::layouts::to_native;
use super::torch_file::{Scalar, TorchFile, Weights};
use super::{Facts, Format, Found, foreign};
use crate::{Normalization, Result};

/// What the names of the authors' models stand for: blocks, width, heads and patch of the encoder.
///
/// Source: He et al. 2021, appendix A.1; Dosovitskiy et al. 2021, table 1. All decoders are 512 wide and 8 deep and
/// have 16 heads.
const MODELS: [(&str, [usize; 4]); 3] = [
    ("vit_base_patch16", [12, 768, 12, 16]),
    ("vit_large_patch16", [24, 1024, 16, 16]),
    ("vit_huge_patch14", [32, 1280, 16, 14]),
];

/// The weights of a file of `torch.save`, those under `key` if it is given.
pub fn found(path: &Path, mut file: TorchFile, key: Option<&str>) -> Result<Found> {
    let arguments = file.arguments();
    let Weights {
        tensors,
        prefix,
        note,
    } = file.weights(key)?;
    let tensors = to_native(path, tensors)?;
    let mut facts = facts(&arguments);
    heads_of_modules(path, &file, &prefix, &mut facts)?;
    let mut notes = Vec::from_iter(note);
    let channels = tensors
        .get("patch_embed.proj.weight")
        .and_then(|weight| weight.size().get(1).copied());
    if channels == Some(3) && are_of_imagenet(&arguments) {
        facts.normalization = Some(Normalization::IMAGENET);
        notes.push("channel statistics are taken as ImageNet's, as the authors' program always has them; --mean and --std say otherwise".into());
    }
    Ok(Found {
        path: path.into(),
        format: Format::Authors,
        tensors,
        facts,
        notes,
    })
}

/// Whether these are hyperparameters of the authors' program, which has no statistics but ImageNet's; a program made of
/// it for other images, SatMAE's, says which images.
fn are_of_imagenet(arguments: &BTreeMap<String, Scalar>) -> bool {
    let has = |key: &str| arguments.contains_key(key);
    (has("norm_pix_loss") || has("model")) && !has("dataset_type")
}

/// The heads that modules know, if these were saved whole.
///
/// Source: the names of timm's `Attention` and of torchvision's `EncoderBlock`.
fn heads_of_modules(path: &Path, file: &TorchFile, prefix: &str, facts: &mut Facts) -> Result<()> {
    let heads = |names: &[&str]| {
        (names.iter())
            .find_map(|name| file.module_number(&format!("{prefix}{name}.num_heads")))
            .and_then(|heads| usize::try_from(heads).ok())
    };
    let encoder = heads(&[
        "blocks.0.attn",
        "encoder.layers.encoder_layer_0.self_attention",
    ]);
    let decoder = heads(&["decoder_blocks.0.attn"]);
    for (whose, said, found) in [
        ("encoder", &mut facts.num_heads, encoder),
        ("decoder", &mut facts.decoder_num_heads, decoder),
    ] {
        match (*said, found) {
            (Some(said), Some(found)) if said != found => {
                return Err(foreign(
                    path,
                    format!(
                        "its `args` are of a model of {said} heads in the {whose}, its modules have {found}: save the state_dict() alone, and say --num-heads"
                    ),
                ));
            }
            (_, found) => *said = said.or(found),
        }
    }
    Ok(())
}

fn facts(arguments: &BTreeMap<String, Scalar>) -> Facts {
    let mut facts = Facts {
        said_by: "its `args`",
        ..Facts::default()
    };
    if let Some(Scalar::Bool(norm_pix_loss)) = arguments.get("norm_pix_loss") {
        facts.norm_pix_loss = Some(*norm_pix_loss);
    }
    if let Some(&Scalar::Int(side)) = arguments.get("input_size") {
        facts.image_size = usize::try_from(side).ok().map(|side| (side, side));
    }
    let Some(Scalar::Text(name)) = arguments.get("model") else {
        return facts;
    };
    let (name, is_mae) = match name.strip_prefix("mae_") {
        Some(name) => (name.trim_end_matches("_dec512d8b"), true),
        None => (name.as_str(), false),
    };
    if let Some((_, [depth, embed_dim, num_heads, patch_size])) =
        MODELS.iter().find(|(known, _)| *known == name)
    {
        facts.depth = Some(*depth);
        facts.embed_dim = Some(*embed_dim);
        facts.num_heads = Some(*num_heads);
        facts.patch_size = Some(*patch_size);
        if is_mae {
            facts.decoder_depth = Some(8);
            facts.decoder_embed_dim = Some(512);
            facts.decoder_num_heads = Some(16);
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_taken_as_imagenets_of_the_authors_program_alone() {
        let check = |keys: &[&str], expected: bool| {
            let arguments = keys.iter().map(|key| (key.to_string(), Scalar::Int(1)));
            assert_eq!(are_of_imagenet(&arguments.collect()), expected, "{keys:?}");
        };
        check(&["model", "norm_pix_loss", "input_size"], true);
        check(&["model", "nb_classes"], true);
        check(&["model", "norm_pix_loss", "dataset_type"], false);
        check(&["arch", "patch_size"], false);
        check(&[], false);
    }
}

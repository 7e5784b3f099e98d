//! Which tensors of a file are the model's, and what they are called without what is in front of their names.
//!
//! Programs put weights into dictionaries of dictionaries (`state_dict`, `model`, `model_ema`) and modules into modules
//! (`module.`, `backbone.`, `teacher.`), so a name is known by its end.

use std::collections::BTreeMap;
use std::path::Path;

use super::foreign;
use crate::Result;

/// The patch embedding of each layout, of which every Vision Transformer has one; longer names first.
const ANCHORS: [&str; 7] = [
    // Hugging Face's.
    "vit.embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.projection.weight",
    // mmpretrain's.
    "backbone.patch_embed.projection.weight",
    "patch_embed.projection.weight",
    // The authors', timm's, DINO's.
    "patch_embed.proj.weight",
    // Of several groups of channels, as SatMAE's.
    "patch_embed.0.proj.weight",
    // torchvision's.
    "conv_proj.weight",
];

/// Modules that wrap others wherever they are.
const WRAPPERS: [&str; 3] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// What a part of a name says of weights that are not what training ended with, or are not published.
const AVERAGES: [&str; 5] = ["ema", "averaged", "momentum", "shadow", "swa"];

/// The tensors of one model in a file.
pub struct Chosen<T> {
    /// What is in front of their names: `model.`, or nothing.
    pub prefix: String,
    /// The tensors, by their names without it.
    pub tensors: BTreeMap<String, T>,
    /// What is in front of the names of other models in the file.
    pub others: Vec<String>,
}

/// Finds the model among a file's tensors: the one under `key`, if that is given, else one that is no average and no
/// student, else the first.
///
/// Names of no model that is known come back as they are.
///
/// # Errors
/// [`ModelError::Foreign`](crate::ModelError::Foreign) if there is none under `key`, with those that there are; or as
/// [`renamed`], if only a wrapper tells two tensors from each other.
pub fn choose<T: PartialEq>(
    path: &Path,
    tensors: BTreeMap<String, T>,
    key: Option<&str>,
) -> Result<Chosen<T>> {
    let tensors = renamed(path, tensors, without_wrappers)?;
    let mut prefixes = prefixes(tensors.keys());
    if let Some(key) = key {
        let key = key.trim_end_matches('.');
        let is_under = |prefix: &String| {
            let mut parts = prefix.split('.');
            prefix.trim_end_matches('.') == key || parts.any(|part| part == key)
        };
        let Some(place) = prefixes.iter().position(is_under) else {
            return Err(foreign(
                path,
                format!(
                    "no weights under {key:?}; it has some under {}",
                    list(&prefixes)
                ),
            ));
        };
        let chosen = prefixes.remove(place);
        prefixes.insert(0, chosen);
    }
    let mut prefixes = prefixes.into_iter();
    let Some(prefix) = prefixes.next() else {
        return Ok(Chosen {
            prefix: String::new(),
            tensors,
            others: Vec::new(),
        });
    };
    let others: Vec<String> = prefixes.collect();
    if let Some(parent) = prefix.strip_suffix("encoder.")
        && tensors.contains_key(&format!("{parent}decoder.decoder_embed.weight"))
    {
        let parts = [format!("{parent}encoder."), format!("{parent}decoder.")];
        let tensors = (tensors.into_iter())
            .filter_map(|(name, tensor)| {
                let name = parts
                    .iter()
                    .find_map(|part| name.strip_prefix(part.as_str()))?;
                Some((name.to_string(), tensor))
            })
            .collect();
        return Ok(Chosen {
            prefix: parent.to_string(),
            tensors,
            others,
        });
    }
    let is_of_another = |name: &str| {
        (others.iter()).any(|other| other.len() > prefix.len() && name.starts_with(other.as_str()))
    };
    let tensors = (tensors.into_iter())
        .filter(|(name, _)| !is_of_another(name))
        .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_string(), tensor)))
        .collect();
    Ok(Chosen {
        prefix,
        tensors,
        others,
    })
}

impl<T> Chosen<T> {
    /// What was chosen of what, if there was a choice.
    pub fn note(&self) -> Option<String> {
        (!self.others.is_empty()).then(|| {
            format!(
                "the weights are those under {}; it also has some under {}: --weights-key KEY takes them",
                named(&self.prefix),
                list(&self.others)
            )
        })
    }
}

/// The tensors under other names.
///
/// # Errors
/// [`ModelError::Foreign`](crate::ModelError::Foreign) if two that differ get one name.
pub fn renamed<T: PartialEq>(
    path: &Path,
    tensors: BTreeMap<String, T>,
    rename: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, T>> {
    let mut before: BTreeMap<String, String> = BTreeMap::new();
    let mut after: BTreeMap<String, T> = BTreeMap::new();
    for (name, tensor) in tensors {
        let new = rename(&name);
        if let (Some(other), Some(first)) = (before.get(&new), after.get(&new))
            && *first != tensor
        {
            return Err(foreign(
                path,
                format!(
                    "`{other}` and `{name}` are two tensors that differ, and both are the model's `{new}`: \
                     save the one model of them alone, torch.save(model.state_dict(), \"weights.pth\")"
                ),
            ));
        }
        before.insert(new.clone(), name);
        after.insert(new, tensor);
    }
    Ok(after)
}

fn without_wrappers(name: &str) -> String {
    let parts: Vec<&str> = (name.split('.'))
        .filter(|part| !WRAPPERS.contains(part))
        .collect();
    parts.join(".")
}

/// Where the models are, without the dot at the end, in the order in which they are taken.
pub fn places<T>(tensors: &BTreeMap<String, T>) -> Vec<String> {
    let names: Vec<String> = tensors.keys().map(|name| without_wrappers(name)).collect();
    (prefixes(names.iter()).into_iter())
        .map(|prefix| prefix.trim_end_matches('.').to_string())
        .collect()
}

/// What is in front of the models' names, in the order in which they are taken.
fn prefixes<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut prefixes: Vec<String> = names.filter_map(|name| prefix_of(name)).collect();
    prefixes.sort_by_key(|prefix| (rank(prefix), prefix.len(), prefix.clone()));
    prefixes.dedup();
    prefixes
}

/// What is in front of the name of a patch embedding.
fn prefix_of(name: &str) -> Option<String> {
    let rest = ANCHORS
        .iter()
        .find_map(|anchor| name.strip_suffix(anchor))?;
    (rest.is_empty() || rest.ends_with('.')).then(|| rest.to_string())
}

/// The smaller, the sooner taken.
fn rank(prefix: &str) -> usize {
    let is = |words: &[&str]| {
        prefix
            .split(['.', '_'])
            .any(|part| words.contains(&part.to_ascii_lowercase().as_str()))
    };
    match prefix {
        _ if is(&AVERAGES) => 2,
        // Of a student and its teacher, the teacher is what is published.
        _ if is(&["student"]) => 1,
        _ => 0,
    }
}

fn named(prefix: &str) -> String {
    match prefix.trim_end_matches('.') {
        "" => "no name".into(),
        name => format!("{name:?}"),
    }
}

fn list(prefixes: &[String]) -> String {
    match prefixes {
        [] => "none".into(),
        _ => (prefixes
            .iter()
            .map(|prefix| named(prefix))
            .collect::<Vec<_>>())
        .join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], key: Option<&str>) -> (String, Vec<String>, Vec<String>) {
        let tensors = names.iter().map(|name| (name.to_string(), ())).collect();
        let chosen = choose("a.pth".as_ref(), tensors, key).unwrap();
        (
            chosen.prefix,
            chosen.tensors.into_keys().collect(),
            chosen.others,
        )
    }

    #[test]
    fn what_is_in_front_of_names_is_found() {
        for prefix in [
            "",
            "module.",
            "model.",
            "state_dict.module._orig_mod.",
            "_orig_mod.module.",
            "state_dict.model.backbone.",
            "model_state.encoder.",
            "teacher.backbone.",
        ] {
            let names = ["patch_embed.proj.weight", "blocks.0._orig_mod.norm1.weight"];
            let names = names.map(|name| format!("{prefix}{name}"));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let (_, found, others) = chosen(&names, None);
            assert_eq!(
                found,
                ["blocks.0.norm1.weight", "patch_embed.proj.weight"],
                "{prefix}"
            );
            assert!(others.is_empty());
        }
    }

    #[test]
    fn of_several_models_the_trained_one_is_taken_unless_told_otherwise() {
        let names = [
            "model.patch_embed.proj.weight",
            "model_ema.patch_embed.proj.weight",
            "optimizer.state.0.exp_avg",
        ];
        let (prefix, found, others) = chosen(&names, None);
        assert_eq!((prefix.as_str(), found.len()), ("model.", 1));
        assert_eq!(others, ["model_ema."]);
        assert_eq!(chosen(&names, Some("model_ema")).0, "model_ema.");
        let names = [
            "student.patch_embed.proj.weight",
            "teacher.patch_embed.proj.weight",
        ];
        assert_eq!(chosen(&names, None).0, "teacher.");
        assert_eq!(chosen(&names, Some("student")).0, "student.");
        // Beside each other, and one in the other.
        let names = [
            "patch_embed.proj.weight",
            "norm.bias",
            "ema.patch_embed.proj.weight",
        ];
        let (prefix, found, _) = chosen(&names, None);
        assert_eq!((prefix.as_str(), found.len()), ("", 2));

        let tensors = BTreeMap::from([("model.patch_embed.proj.weight".to_string(), 0)]);
        let refused = choose("a.pth".as_ref(), tensors, Some("ema"))
            .err()
            .unwrap();
        assert!(
            refused
                .to_string()
                .contains("no weights under \"ema\"; it has some under \"model\""),
            "{refused}"
        );
    }

    #[test]
    fn two_tensors_of_one_name_are_refused() {
        let names = [
            "_orig_mod.patch_embed.proj.weight",
            "patch_embed.proj.weight",
        ];
        let chosen = |second: u8| {
            let tensors = names.map(str::to_string).into_iter().zip([1, second]);
            choose("a.pth".as_ref(), tensors.collect(), None)
        };
        let message = chosen(2).err().unwrap().to_string();
        for part in names.into_iter().chain(["a.pth", "torch.save("]) {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(chosen(1).unwrap().tensors.len(), 1, "the same twice");
    }
}

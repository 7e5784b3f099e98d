//! From files, recipes and `--set` to a [`TrainConfig`].

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{DataSource, RunConfig, TrainConfig};
use crate::config::recipes::{self, Recipe};

/// Where a configuration starts from.
#[derive(Clone, Debug)]
pub enum Source {
    /// An embedded recipe.
    Recipe(String),
    /// A TOML file.
    File(PathBuf),
    /// What such a file holds, and its name.
    Text(String, PathBuf),
}

/// Reads `source`, puts `data` and then `overrides` (`a.b=value`) over it.
///
/// # Errors
/// With the file and the key: unknown ones with the nearest that exists, wrong types with both types.
pub fn read(source: &Source, data: Option<&Path>, overrides: &[String]) -> Result<TrainConfig> {
    read_run(source, recipes::PRETRAIN, data, overrides)
}

/// What makes a configuration independent of the devices that are here.
pub const ON_CPU: &str = "run.device=cpu";

/// Reads and resolves the configuration of a pre-training run that has begun: where does not matter, for there may be
/// no such device here.
///
/// # Errors
/// As [`read`] and [`TrainConfig::resolve`].
pub fn read_begun(source: &Source) -> Result<RunConfig> {
    read(source, None, &[ON_CPU.into()])?.resolve()
}

/// Reads the configuration of any kind of run that has a `[data]`, as [`read`] does.
///
/// # Errors
/// As [`read`].
pub fn read_run<T: DeserializeOwned>(
    source: &Source,
    recipes: &[Recipe],
    data: Option<&Path>,
    overrides: &[String],
) -> Result<T> {
    read_as(source, recipes, overrides, |table| match data {
        Some(path) => set_data(table, path),
        None => Ok(()),
    })
}

/// Reads a configuration of any kind; `adjust` comes between `source` and `overrides`.
///
/// # Errors
/// As [`read`].
pub fn read_as<T: DeserializeOwned>(
    source: &Source,
    recipes: &[Recipe],
    overrides: &[String],
    adjust: impl FnOnce(&mut Table) -> Result<()>,
) -> Result<T> {
    let check = check::<T>;
    let (name, text) = match source {
        Source::Recipe(name) => (
            format!("recipe {name}"),
            recipes::find(recipes, name)?.text.to_string(),
        ),
        Source::File(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("reading {}", path.display()))?;
            (path.display().to_string(), text)
        }
        Source::Text(text, path) => (path.display().to_string(), text.clone()),
    };
    let mut table: Table = text
        .parse()
        .with_context(|| format!("{name} is not valid TOML"))?;
    // Checked alone first, so that a mistake is blamed on where it is.
    check(table.clone()).with_context(|| name)?;
    adjust(&mut table)?;
    for pair in overrides {
        let before = table.clone();
        set(&mut table, pair)?;
        if let Err(error) = check(table.clone()) {
            let error = match in_a_section(&before, pair, |table| check(table).is_ok()) {
                Some(whole) => anyhow!("there is no such key; did you mean `{whole}`?"),
                None => error,
            };
            return Err(error.context(format!("--set {pair}")));
        }
    }
    check(table)
}

/// The whole key that was meant, where the section is missing in front of it: `optim.base_lr` for `base_lr`.
fn in_a_section(table: &Table, pair: &str, is_valid: impl Fn(Table) -> bool) -> Option<String> {
    let (key, _) = pair.split_once('=')?;
    if key.contains('.') {
        return None;
    }
    let sections = [
        "model",
        "data",
        "mask",
        "optim",
        "run",
        "relaxation",
        "features",
        "knn",
        "linear",
        "finetune",
    ];
    // Not one of several.
    let mut meant = sections.iter().filter(|section| {
        let mut table = table.clone();
        set(&mut table, &format!("{section}.{pair}")).is_ok() && is_valid(table)
    });
    let (section, None) = (meant.next()?, meant.next()) else {
        return None;
    };
    Some(format!("{section}.{}", key.trim()))
}

fn check<T: DeserializeOwned>(table: Table) -> Result<T> {
    let mut track = serde_path_to_error::Track::new();
    T::deserialize(serde_path_to_error::Deserializer::new(
        Value::Table(table),
        &mut track,
    ))
    .map_err(|error| {
        let message = error.to_string();
        // The lines after the first repeat the path.
        let first = message.lines().next().unwrap_or_default();
        explain(&track.path().to_string(), first)
    })
}

/// Serde's message with the whole key and, where a name is unknown, the nearest one.
fn explain(path: &str, message: &str) -> anyhow::Error {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") {
        let unknown = quoted.next().unwrap_or_default();
        let section = path
            .strip_suffix(unknown)
            .unwrap_or(path)
            .trim_end_matches('.');
        let full = |key: &str| {
            if section.is_empty() {
                key.to_string()
            } else {
                format!("{section}.{key}")
            }
        };
        let known: Vec<&str> = quoted.collect();
        let near = known
            .iter()
            .map(|key| (strsim::jaro_winkler(unknown, key), *key))
            .filter(|(likeness, _)| *likeness > 0.75)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = match near {
            Some((_, key)) => format!("did you mean `{}`?", full(key)),
            None => format!("expected one of {}", known.join(", ")),
        };
        return anyhow!("there is no key `{}`; {hint}", full(unknown));
    }
    anyhow!("`{path}`: {message}")
}

/// Points `data` at a folder or at files.
fn set_data(table: &mut Table, path: &Path) -> Result<()> {
    let source = Value::try_from(DataSource::of(path))?;
    let section = table
        .entry("data")
        .or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(section) = section else {
        bail!("`data` is not a section")
    };
    let path = path
        .to_str()
        .ok_or_else(|| anyhow!("--data {}: not a name in UTF-8", path.display()))?;
    section.insert("source".into(), source);
    section.insert("path".into(), path.into());
    Ok(())
}

/// Puts one `a.b=value` into the table; the value is TOML, or else a string.
fn set(table: &mut Table, pair: &str) -> Result<()> {
    let wrong = || anyhow!("--set {pair}: expected KEY=VALUE, for example --set optim.epochs=20");
    let (path, value) = pair.split_once('=').ok_or_else(wrong)?;
    let (path, text) = (path.trim(), value.trim());
    let value = match format!("value = {text}").parse::<Table>() {
        Ok(mut parsed) => parsed.remove("value").ok_or_else(wrong)?,
        Err(_) => Value::String(text.into()),
    };
    let mut keys: Vec<&str> = path.split('.').collect();
    let last = keys.pop().filter(|key| !key.is_empty()).ok_or_else(wrong)?;
    let mut section = table;
    for key in keys {
        let next = section
            .entry(key)
            .or_insert_with(|| Value::Table(Table::new()));
        section = next
            .as_table_mut()
            .ok_or_else(|| anyhow!("--set {pair}: `{key}` is a value, not a section"))?;
    }
    // A square's side stands for height and width, so the one set last replaces the other.
    match path {
        "model.image_size" => {
            section.remove("image_height");
            section.remove("image_width");
        }
        "model.image_height" | "model.image_width" => {
            section.remove("image_size");
        }
        _ => {}
    }
    section.insert(last.into(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::config::EvalConfig;
    use mae_data::{Augmentation, ColorJitter, Transform};

    fn quickstart(overrides: &[&str]) -> Result<crate::config::RunConfig> {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        read(&Source::Recipe("quickstart".into()), None, &overrides)?.resolve()
    }

    /// The whole chain of causes that one override leads to.
    fn message(overrides: &[&str]) -> String {
        format!("{:#}", quickstart(overrides).unwrap_err())
    }

    #[test]
    fn every_recipe_resolves_and_its_toml_reads_back_as_itself() {
        for recipe in recipes::PRETRAIN {
            let needs_data = recipe.text.contains("source = \"folder\"")
                || recipe.text.contains("source = \"cifar");
            let data = needs_data.then_some("data.path=images".to_string());
            let config = read(&Source::Recipe(recipe.name.into()), None, data.as_slice()).unwrap();
            let resolved = config
                .resolve()
                .unwrap_or_else(|error| panic!("{}: {error:#}", recipe.name));
            let again = check::<TrainConfig>(resolved.to_toml().parse().unwrap())
                .unwrap()
                .resolve()
                .unwrap();
            assert_eq!(resolved, again, "{}", recipe.name);
        }
    }

    #[test]
    fn every_recipe_of_evaluation_resolves_and_its_toml_reads_back_as_itself() {
        for recipe in recipes::EVAL {
            let source = Source::Recipe(recipe.name.into());
            let mut config: EvalConfig = read_as(&source, recipes::EVAL, &[], |_| Ok(())).unwrap();
            config.resolve().unwrap();
            assert_eq!(
                check::<EvalConfig>(config.to_toml().parse().unwrap()).unwrap(),
                config
            );
        }
    }

    #[test]
    fn overrides_take_toml_values_and_plain_words() {
        let config = quickstart(&[
            "optim.betas=[0.8, 0.9]",
            "data.augmentation=random-resized-crop",
            "seed=7",
        ])
        .unwrap();
        assert_eq!(config.optim.betas, [0.8, 0.9]);
        assert_eq!(
            config.data.augmentation,
            crate::config::AugmentationKind::RandomResizedCrop
        );
        assert_eq!(config.seed, 7);
        let sides = ["model.image_height=32", "model.image_width=48"];
        let model = quickstart(&sides).unwrap().method.model;
        assert_eq!((model.image_height, model.image_width), (32, 48));
    }

    #[test]
    fn crops_and_colours_are_those_of_the_configuration() {
        let transform = |overrides: &[&str]| {
            let config = quickstart(overrides).unwrap();
            let again = check::<TrainConfig>(config.to_toml().parse().unwrap()).unwrap();
            assert_eq!(again.resolve().unwrap(), config);
            config.transform()
        };
        assert_eq!(transform(&[]), Transform::center_crop(64, 64));
        let jittered = transform(&[
            "data.augmentation=random-crop",
            "data.crop_share=0.5",
            "data.color_jitter={hue=0.2}",
        ]);
        let expected = Transform {
            augmentation: Augmentation::RandomCrop { crop_share: 0.5 },
            color_jitter: Some(ColorJitter {
                hue: 0.2,
                ..ColorJitter::default()
            }),
            ..Transform::center_crop(64, 64)
        };
        assert_eq!(jittered, expected);
    }

    #[test]
    fn mistakes_name_the_key_and_the_remedy() {
        let cases = [
            (
                "optim.epoch=3",
                "no key `optim.epoch`; did you mean `optim.epochs`?",
            ),
            ("optin.epochs=3", "no key `optin`; did you mean `optim`?"),
            (
                "clip_grad=1",
                "no such key; did you mean `optim.clip_grad`?",
            ),
            ("clip_grad=much", "no key `clip_grad`"),
            (
                "optim.epochs=many",
                "`optim.epochs`: invalid type: string \"many\", expected u64",
            ),
            ("optim.epochs=0", "`optim.epochs` is 0, expected at least 1"),
            (
                "optim.warmup_epochs=5000",
                "`optim.warmup_epochs` is 5000, expected fewer than `optim.epochs`",
            ),
            ("optim.min_lr=1", "`optim.min_lr` is 1, above the peak"),
            ("optim.betas=[0.9, 1.0]", "`optim.betas` has 1"),
            (
                "mask.ratio=1.5",
                "`mask` does not fit the patches of an image: mask_ratio: expected a number between 0 and 1",
            ),
            (
                "mask.sampler=spiral",
                "`mask.sampler`: unknown variant `spiral`",
            ),
            (
                "model.preset=gigantic",
                "`model.preset` is \"gigantic\", expected \"tiny\"",
            ),
            ("model.patch_size=7", "`model` cannot be built"),
            ("model.decoder_num_heads=7", "`decoder_embed_dim`"),
            (
                "model.image_height=32",
                "`model.image_height` and `model.image_width` go together",
            ),
            (
                "model.channels=0",
                "`model.channels` is 0, expected 3 (colour), 1 (grey) or what the files have",
            ),
            (
                "model.channels=2",
                "`model.channels` is 2, but drawn scenes have 3 or 1",
            ),
            (
                "data.values=f32",
                "`data.values` is \"f32\", but the images have 8 bits",
            ),
            (
                "data.values=u16",
                "unknown variant `u16`, expected `u8` or `f32`",
            ),
            (
                "data.path=photos",
                "`data.source` is \"synthetic\", which reads no files",
            ),
            ("data.source=folder", "`data.path` is missing"),
            (
                "data.normalization=given",
                "give `data.mean` and `data.std`",
            ),
            (
                "data.mean=[0.5]",
                "have no effect unless data.normalization=given",
            ),
            ("run.device=tpu", "`run.device` is \"tpu\""),
            (
                "run.precision=fp8",
                "`run.precision`: unknown variant `fp8`",
            ),
            ("epochs", "expected KEY=VALUE"),
            ("data.source.x=1", "`source` is a value, not a section"),
            ("seed.x=1", "`seed`: invalid type: map, expected u64"),
        ];
        for (pair, expected) in cases {
            let found = message(&[pair]);
            assert!(found.contains(expected), "--set {pair} says: {found}");
        }
        let pairs = [
            (
                [
                    "data.augmentation=random-resized-crop",
                    "data.crop_scale=[2.0, 1.0]",
                ],
                "scale",
            ),
            (
                ["data.augmentation=random-crop", "data.crop_share=2"],
                "crop_share",
            ),
            (["data.color_jitter={}", "data.color_jitter.hue=0.9"], "hue"),
            (["mask.sampler=grid", "mask.ratio=0.5"], "0.75"),
        ];
        for (pairs, expected) in pairs {
            let found = message(&pairs);
            assert!(found.contains(expected), "--set {pairs:?} says: {found}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.toml");
        std::fs::write(&path, "epochs = = 3").unwrap();
        let found = format!("{:#}", read(&Source::File(path), None, &[]).unwrap_err());
        assert!(found.contains("my.toml is not valid TOML"), "{found}");
        let found = format!(
            "{:#}",
            read(&Source::File("absent.toml".into()), None, &[]).unwrap_err()
        );
        assert!(found.contains("reading absent.toml"), "{found}");
    }
}

//! What `cargo xtask ablate` sets changes the configuration there, and nowhere else.

use std::collections::BTreeMap;

use mae_train::config::{Source, read};
use toml::{Table, Value};

/// The settings of every study: its name, the value's, and the keys; as mae-ablate's own tests find them.
const STUDIES: &str = include_str!("../../mae-ablate/tests/fixtures/studies.txt");

/// The model that the settings were scaled to.
const BASE: &[&str] = &[
    "model.image_size=32",
    "model.patch_size=4",
    "model.embed_dim=64",
    "model.depth=4",
    "model.num_heads=2",
    "model.decoder_embed_dim=32",
    "model.decoder_num_heads=2",
    "optim.epochs=4",
    "run.device=cpu",
];

/// A resolved configuration as `section.key = value`.
fn resolve(more: &[&str]) -> BTreeMap<String, Value> {
    let overrides: Vec<String> = BASE.iter().chain(more).map(ToString::to_string).collect();
    let config = read(&Source::Recipe("quickstart".into()), None, &overrides);
    let config = config.and_then(|config| config.resolve());
    let config = config.unwrap_or_else(|error| panic!("{more:?}: {error:#}"));
    let table: Table = config.to_toml().parse().unwrap();
    let mut keys = BTreeMap::new();
    for (section, value) in table {
        match value {
            Value::Table(section_keys) => keys.extend(
                (section_keys.into_iter()).map(|(key, value)| (format!("{section}.{key}"), value)),
            ),
            value => drop(keys.insert(section, value)),
        }
    }
    keys
}

#[test]
fn each_value_of_a_study_sets_its_own_keys_and_no_others() {
    let base = resolve(&[]);
    let mut seen: BTreeMap<&str, Vec<BTreeMap<String, Value>>> = BTreeMap::new();
    for line in STUDIES.lines() {
        let [study, label, settings] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line:?}")
        };
        if study == "partial-finetune" {
            // Its values differ in the evaluation.
            continue;
        }
        let settings: Vec<&str> = settings.split(' ').collect();
        let resolved = resolve(&settings);
        let set: Vec<&str> = (settings.iter())
            .map(|pair| pair.split_once('=').unwrap().0)
            .collect();
        let changed: Vec<&String> = (base.keys().chain(resolved.keys()))
            .filter(|key| base.get(*key) != resolved.get(*key))
            .collect();
        for key in changed {
            assert!(set.contains(&key.as_str()), "{study} {label} changes {key}");
        }
        for pair in settings {
            let (key, value) = pair.split_once('=').unwrap();
            let found = &resolved[key];
            let shown = found
                .as_str()
                .map_or_else(|| found.to_string(), str::to_string);
            // `{}` stands for the jitter's defaults.
            assert!(
                shown == value || value == "{}",
                "{study} {label}: {key} is {shown}"
            );
        }
        let others = seen.entry(study).or_default();
        assert!(
            !others.contains(&resolved),
            "{study} {label} is like another value"
        );
        others.push(resolved);
    }
    assert!(!seen.is_empty());
}

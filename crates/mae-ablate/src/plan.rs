//! From studies to cells: every configuration resolved and named before anything runs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use mae_report::Machine;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{
    base::{Settings, hash, seed},
    cell::Folder,
    study::Study,
};

/// What `plan.json` in an ablation's folder holds: enough to run its cells and to report them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub settings: Settings,
    /// The resolved base configuration, TOML.
    pub base_config: String,
    /// Where the latest cells run, or were submitted.
    pub machine: Machine,
    /// The code that runs them.
    pub revision: String,
    pub studies: Vec<Planned>,
}

/// A study with its cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    pub study: Study,
    /// What the user typed.
    pub command: String,
    /// On what and how its cells run, in words.
    pub engine: String,
    /// For each variant, for each seed: the cell.
    pub cells: Vec<Vec<Key>>,
}

/// Which pre-training a variant and seed need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    pub seed: u64,
    /// Of the resolved configuration.
    pub hash: String,
}

/// A pre-training and what it is judged by, perhaps for several studies.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The first study, value and seed that need it, in words.
    pub name: String,
    pub hash: String,
    /// As for `mae-train eval --protocols`.
    pub protocols: Vec<String>,
}

/// Configurations by their hash, TOML.
pub type Configs = BTreeMap<String, String>;

impl Plan {
    /// Where an ablation keeps its plan.
    pub fn path(out: &Path) -> PathBuf {
        out.join("plan.json")
    }

    /// The plan of the ablation in `out`, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(out: &Path) -> Result<Option<Self>> {
        let path = Self::path(out);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let plan = serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is no plan of this version's `ablate`: give another --out",
                path.display()
            )
        })?;
        Ok(Some(plan))
    }

    /// Writes the plan into `out`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, out: &Path) -> Result<()> {
        mae_report::write_atomic(&Self::path(out), &serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// Makes sure that studies under `settings` can be added to this ablation, which is in `out`.
    ///
    /// # Errors
    /// If its own settings are others.
    pub fn admit(
        &self,
        settings: &Settings,
        base_config: &str,
        studies: &[Study],
        out: &Path,
    ) -> Result<()> {
        let needs_tokens = |study: &Study| study.variants.iter().any(|v| v.needs_tokenizer);
        let tokens = studies.iter().any(needs_tokens)
            && self
                .studies
                .iter()
                .any(|planned| needs_tokens(&planned.study));
        let differences = self.settings.differences(settings, tokens);
        ensure!(
            differences.is_empty() && self.base_config == base_config,
            "{} holds an ablation of other settings ({}): repeat those, delete it, or give another --out",
            out.display(),
            match differences[..] {
                [] => "the same options resolve to another configuration now".to_string(),
                _ => differences.join(", "),
            }
        );
        Ok(())
    }

    /// Adds studies to those that were planned before, in place of those of the same name.
    pub fn join(&mut self, earlier: Self) {
        let mut studies = earlier.studies;
        for planned in self.studies.drain(..) {
            match (studies.iter_mut()).find(|other| other.study.name == planned.study.name) {
                Some(other) => *other = planned,
                None => studies.push(planned),
            }
        }
        self.studies = studies;
    }

    /// Every cell once, in the order of the studies; a cell of several has all their protocols.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = Vec::new();
        for Planned {
            study, cells: keys, ..
        } in &self.studies
        {
            for (variant, keys) in study.variants.iter().zip(keys) {
                for key in keys {
                    let index = cells.iter().position(|cell| cell.hash == key.hash);
                    let index = index.unwrap_or_else(|| {
                        cells.push(Cell {
                            name: match variant.protocol {
                                None => {
                                    format!("{} {}, seed {}", study.name, variant.label, key.seed)
                                }
                                Some(_) => format!("{}, seed {}", study.name, key.seed),
                            },
                            hash: key.hash.clone(),
                            protocols: self.protocols(),
                        });
                        cells.len() - 1
                    });
                    let protocols = &mut cells[index].protocols;
                    (variant.protocol.iter())
                        .filter(|protocol| !protocols.contains(protocol))
                        .cloned()
                        .collect::<Vec<_>>()
                        .into_iter()
                        .for_each(|protocol| protocols.push(protocol));
                }
            }
        }
        cells
    }

    /// The cells that are not finished in `out`.
    pub fn unfinished(&self, out: &Path) -> Vec<Cell> {
        let mut cells = self.cells();
        cells.retain(|cell| !Folder::new(out, &cell.hash, &self.settings).is_finished(cell));
        cells
    }

    /// What every value is judged by.
    pub fn protocols(&self) -> Vec<String> {
        let mut protocols = vec!["knn".to_string(), "linear".to_string()];
        if self.settings.finetune {
            protocols.push("finetune".into());
        }
        protocols
    }
}

/// Resolves every variant, and with it every seed's configuration.
///
/// # Errors
/// With the variant, and the program's words, for each that it refuses.
pub fn resolve(
    study: &Study,
    settings: &Settings,
    program: &Path,
    seeds: u64,
    configs: &mut Configs,
) -> Result<Vec<Vec<Key>>> {
    let resolved: Vec<Mutex<Option<Result<Table>>>> =
        study.variants.iter().map(|_| Mutex::new(None)).collect();
    let next = Mutex::new(0..study.variants.len());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(i) = lock(&next).next() {
                    let table = settings.resolve(program, &study.variants[i].set);
                    *lock(&resolved[i]) = Some(table);
                }
            });
        }
    });
    let mut cells = Vec::new();
    let mut refused = String::new();
    for (variant, table) in study.variants.iter().zip(resolved) {
        let table = table.into_inner().ok().flatten();
        match table.context("a thread that resolves configurations died")? {
            Ok(table) => cells.push(keys(&table, seeds, configs)?),
            Err(error) => refused += &format!("\n  {} {}: {error:#}", study.name, variant.label),
        }
    }
    if !refused.is_empty() {
        bail!("these values do not fit the configuration; nothing was started:{refused}");
    }
    for (i, (variant, keys)) in study.variants.iter().zip(&cells).enumerate() {
        let same = (0..i).find(|&other| {
            cells[other] == *keys && study.variants[other].protocol == variant.protocol
        });
        if let Some(other) = same {
            bail!(
                "{} {} and {} resolve to the same configuration: there is nothing to compare; nothing was started",
                study.name,
                study.variants[other].label,
                variant.label
            );
        }
    }
    Ok(cells)
}

/// The configuration of each seed, by its hash.
fn keys(table: &Table, seeds: u64, configs: &mut Configs) -> Result<Vec<Key>> {
    let first = seed(table)?;
    (first..first + seeds)
        .map(|seed| {
            let mut table = table.clone();
            table.insert("seed".into(), Value::Integer(seed as i64));
            let text = toml::to_string(&table)?;
            let hash = hash(&text);
            configs.insert(hash.clone(), text);
            Ok(Key { seed, hash })
        })
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

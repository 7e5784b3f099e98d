//! `docs/results/bench.json`: every single measurement of the latest run of each section on each processor.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use mae_report::Machine;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Section;

/// The file, and what is in it: a section's records, one a processor, the latest first.
pub struct Results {
    path: PathBuf,
    sections: BTreeMap<String, Vec<Record>>,
}

/// What one run of a section measured, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// When it began, UTC.
    pub date: String,
    /// What git calls the measured code.
    pub revision: String,
    /// What repeats all of it.
    pub command: String,
    pub machine: Machine,
    pub rustc: String,
    /// The version.
    pub libtorch: String,
    pub rounds: u32,
    /// What a reader must know of all measurements.
    pub notes: Vec<String>,
    pub groups: Vec<Group>,
}

/// Contenders that did the same work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    pub title: String,
    /// Ours first.
    pub contenders: Vec<Contender>,
}

/// One system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contender {
    pub name: String,
    /// How to repeat its measurement.
    pub command: String,
    /// Why it was left out, if it was.
    pub failure: Option<String>,
    pub runs: Vec<Run>,
}

/// One start of a contender's command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// From 1.
    pub round: u32,
    /// UTC.
    pub started: String,
    /// What it printed, one object a line.
    pub lines: Vec<Map<String, Value>>,
}

impl Results {
    /// What the workspace in `root` has so far.
    ///
    /// # Errors
    /// If the file is there and not one of ours.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join("docs/results/bench.json");
        let sections = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| {
                format!(
                    "{} is not what this program writes: correct or remove it",
                    path.display()
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Ok(Self { path, sections })
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces a section's record of this processor and writes the file; returns those of all processors.
    pub fn keep(&mut self, section: Section, record: Record) -> Result<&[Record]> {
        let records = self.sections.entry(section.to_string()).or_default();
        records.retain(|other| other.machine.cpu != record.machine.cpu);
        records.insert(0, record);
        let text = serde_json::to_string_pretty(&self.sections)?;
        write(&self.path, &(text + "\n"))?;
        Ok(&self.sections[&section.to_string()])
    }
}

/// Writes beside and renames: a reader sees the old file or the new.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let partial = path.with_extension("partial");
    let folder = path.parent().context("a file in no folder")?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&partial, text))
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Precision;

    #[test]
    fn each_processor_keeps_its_latest_record() {
        let root = tempfile::tempdir().unwrap();
        let record = |cpu: &str, date: &str| Record {
            date: date.into(),
            revision: "abc1234".into(),
            command: "run all".into(),
            machine: Machine {
                cpu: cpu.into(),
                ..Machine::this()
            },
            rustc: "rustc 1.95.0".into(),
            libtorch: "2.13.0".into(),
            rounds: 1,
            notes: Vec::new(),
            groups: Vec::new(),
        };
        for (cpu, date) in [("one", "1"), ("other", "2"), ("one", "3")] {
            let mut results = Results::open(root.path()).unwrap();
            results
                .keep(Section::Step(Precision::Fp32), record(cpu, date))
                .unwrap();
        }
        let mut results = Results::open(root.path()).unwrap();
        let records = results
            .keep(Section::Step(Precision::Fp32), record("new", "4"))
            .unwrap();
        let dates: Vec<_> = records.iter().map(|record| &record.date[..]).collect();
        assert_eq!(dates, ["4", "3", "2"]);
    }
}

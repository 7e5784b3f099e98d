//! Measuring contenders in turn, so that a machine that becomes slower does so for all of them.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use mae_report::Machine;
use serde_json::{Map, Value};

use super::record::{Contender, Group, Record, Run};
use crate::{
    libtorch,
    process::{self, Interrupt},
    revision,
};

/// Everything that is measured in turn.
pub struct Suite {
    /// What all groups share, in a sentence each.
    pub notes: Vec<String>,
    /// What is compared with each other.
    pub groups: Vec<Competition>,
}

/// What is compared with each other.
pub struct Competition {
    pub title: String,
    pub entries: Vec<Entry>,
}

/// One command that measures, and prints a line of JSON for each measurement.
pub struct Entry {
    pub name: String,
    pub role: Role,
    /// How a reader would repeat it.
    pub shown: String,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// Variables of its environment.
    pub environment: Vec<(&'static str, OsString)>,
}

impl Entry {
    /// An entry without arguments.
    pub fn new(name: &str, role: Role, program: PathBuf) -> Self {
        Self {
            name: name.to_string(),
            role,
            shown: String::new(),
            program,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// One more variable of its environment.
    pub fn environment(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// One more argument.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// More arguments, as many as there are words.
    pub fn options(mut self, words: &str) -> Self {
        self.arguments
            .extend(words.split_whitespace().map(OsString::from));
        self
    }

    /// Says how a reader would repeat it.
    pub fn shown(mut self, command: String) -> Self {
        self.shown = command;
        self
    }
}

/// Whether there can be a table without it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Must run.
    Ours,
    /// Is left out where it does not.
    Peer,
}

/// An entry, its measurements so far, and what it found best for itself.
struct Measured {
    entry: Entry,
    contender: Contender,
    repeat_with: Vec<String>,
}

/// Runs every entry of `suite` once a round.
///
/// # Errors
/// If one of ours fails, or the user interrupts.
pub fn in_turn(
    suite: Suite,
    rounds: u32,
    command: &str,
    root: &Path,
    interrupt: &Interrupt,
) -> Result<Record> {
    let mut groups: Vec<(String, Vec<Measured>)> = suite
        .groups
        .into_iter()
        .map(|group| (group.title, group.entries.into_iter().map(begin).collect()))
        .collect();
    let (date, revision) = (now(), revision::of(root));
    for round in 1..=rounds {
        for (title, group) in &mut groups {
            for measured in group
                .iter_mut()
                .filter(|one| one.contender.failure.is_none())
            {
                eprintln!(
                    "round {round} of {rounds}, {title}: {}",
                    measured.entry.name
                );
                measure(measured, round, root, interrupt)?;
            }
        }
    }
    Ok(Record {
        date,
        revision,
        command: command.to_string(),
        machine: Machine::this(),
        rustc: revision::rustc(),
        libtorch: libtorch::VERSION.to_string(),
        rounds,
        notes: suite.notes,
        groups: groups
            .into_iter()
            .map(|(title, group)| Group {
                title,
                contenders: group.into_iter().map(|one| one.contender).collect(),
            })
            .collect(),
    })
}

/// The time, UTC, as `2026-01-31T23:59:58Z`.
fn now() -> String {
    jiff::Timestamp::now().strftime("%FT%TZ").to_string()
}

fn begin(entry: Entry) -> Measured {
    Measured {
        contender: Contender {
            name: entry.name.clone(),
            command: entry.shown.clone(),
            failure: None,
            runs: Vec::new(),
        },
        entry,
        repeat_with: Vec::new(),
    }
}

fn measure(measured: &mut Measured, round: u32, root: &Path, interrupt: &Interrupt) -> Result<()> {
    let entry = &measured.entry;
    let mut command = Command::new(&entry.program);
    command
        .args(&entry.arguments)
        .args(&measured.repeat_with)
        .envs(entry.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(root)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let started = now();
    let finished = process::run(&mut command, interrupt)?;
    let lines = if finished.status.success() {
        lines(&finished.output)
    } else {
        // The last line of a traceback is its message.
        let reason = finished
            .errors
            .trim_end()
            .lines()
            .next_back()
            .unwrap_or_default();
        Err(anyhow::anyhow!("{}: {reason}", finished.status))
    };
    match lines {
        Ok(lines) => {
            if let Some(arguments) = lines.iter().rev().find_map(|line| line.get("repeat_with")) {
                measured.repeat_with = serde_json::from_value(arguments.clone())
                    .context("`repeat_with` is no list of arguments")?;
            }
            measured.contender.runs.push(Run {
                round,
                started,
                lines,
            });
        }
        Err(error) if entry.role == Role::Ours => {
            eprint!("{}", finished.errors);
            return Err(error.context(format!("`{}` failed", entry.shown)));
        }
        Err(error) => {
            eprintln!(
                "{} does not run here and is left out: {error:#}",
                entry.name
            );
            measured.contender.failure = Some(format!("{error:#}"));
        }
    }
    Ok(())
}

/// The objects that a measurement printed; whatever else it printed is not for us.
fn lines(output: &str) -> Result<Vec<Map<String, Value>>> {
    let lines: Vec<Map<String, Value>> = output
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect::<Result<_>>()?;
    if lines.is_empty() {
        bail!("it printed no measurement");
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_from_other_output() {
        let found = lines("loading\n{\"images_per_s\": 3}\n").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["images_per_s"], 3);
        assert!(lines("loading\n").is_err());
        assert!(lines("{\"images_per_s\": \n").is_err());
    }
}

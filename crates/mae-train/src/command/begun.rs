//! How a run or an evaluation that has begun is found again, and kept the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mae_train::config::{DataSource, Source};
use mae_train::distributed::World;

/// What the command line and the folder say of what has begun.
pub struct Begun {
    /// The folder, if it is said.
    pub out: Option<PathBuf>,
    /// Whether to go on with what is in it.
    pub resume: bool,
    /// The settings that it began under, if it is to go on and there are any.
    pub settings: Option<Source>,
}

impl Begun {
    /// Looks into `out` for `file`, which keeps the settings there.
    ///
    /// All processes of `world` call this, and are told what the first finds.
    pub fn find(world: &World, out: Option<&Path>, resume: bool, file: &str) -> Result<Self> {
        // The folder that was begun before the launcher started the processes anew.
        let again = world.recall("folder")?.map(PathBuf::from);
        let resume = resume || again.is_some();
        let out = again.or_else(|| out.map(Path::to_owned));
        let file = out.as_ref().map(|out| out.join(file));
        let file = file.unwrap_or_default();
        // The first process alone needs the folder.
        let text = world.from_first(|| match resume && file.exists() {
            true => {
                let text = std::fs::read_to_string(&file)
                    .with_context(|| format!("reading {}", file.display()))?;
                // Nothing would be filled up with the settings of a new one.
                ensure!(
                    !text.trim().is_empty(),
                    "{} is empty, so nobody knows what to go on with: copy it again, or begin anew with another --out",
                    file.display()
                );
                Ok(text)
            }
            false => Ok(String::new()),
        })?;
        Ok(Self {
            out,
            resume,
            settings: (!text.is_empty()).then_some(Source::Text(text, file)),
        })
    }
}

/// Makes sure that the images of what has begun are where they were.
pub fn check_there(path: &Path) -> Result<()> {
    // Braces and stars may stand for several tar files.
    ensure!(
        path.exists() || DataSource::of(path) == DataSource::Tar,
        "{}: the images that it began with are not there; if they moved, say where they are with --data",
        path.display()
    );
    Ok(())
}

/// Makes sure that what is asked for, as TOML, is what began in `out`, a run or an evaluation, as `what` says.
pub fn check_same(what: &str, asked: &str, begun: &str, out: &Path) -> Result<()> {
    let (asked, begun) = (lines(asked), lines(begun));
    let mut differences: Vec<String> = (asked.iter())
        .filter(|&(key, line)| begun.get(key) != Some(line))
        .map(|(key, line)| {
            let theirs = begun.get(key).unwrap_or(&"none");
            format!("{line} (the {what} has {theirs})")
        })
        .collect();
    let missing = begun.iter().filter(|(key, _)| !asked.contains_key(*key));
    differences.extend(missing.map(|(key, line)| format!("no {key} (the {what} has {line})")));
    ensure!(
        differences.is_empty(),
        "{} cannot go on under another configuration: {}; leave these out, or start a new {what} with another --out",
        out.display(),
        differences.join("; ")
    );
    Ok(())
}

/// The lines of TOML by their whole keys, where each value is on one line.
fn lines(toml: &str) -> BTreeMap<String, &str> {
    let mut section = "";
    let mut lines = BTreeMap::new();
    for line in toml.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, _)) = line.split_once(" = ") {
            let dot = if section.is_empty() { "" } else { "." };
            lines.insert(format!("{section}{dot}{key}"), line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_new_and_missing_keys_are_named() {
        let begun = "seed = 0\n\n[a]\nx = 1\ny = [2, 3]\n\n[b]\nx = 1\n";
        let check = |asked: &str| check_same("run", asked, begun, Path::new("out"));
        check(begun).unwrap();
        let asked = "seed = 0\n\n[a]\ny = [2, 4]\nz = 5\n\n[b]\nx = 1\n";
        let message = check(asked).unwrap_err().to_string();
        for part in [
            "y = [2, 4] (the run has y = [2, 3])",
            "z = 5 (the run has none)",
            "no a.x (the run has x = 1)",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("seed"), "{message}");
    }
}

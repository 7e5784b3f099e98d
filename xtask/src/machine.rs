//! Where and when something was measured.

use std::{env, fs, path::Path, process::Command, thread};

use serde::{Deserialize, Serialize};

use crate::libtorch;

/// What a reader must know of the computer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that a program may use.
    pub cores: usize,
    /// Bytes of memory, where the system says so.
    pub memory: Option<u64>,
    pub os: String,
    pub rustc: String,
    pub libtorch: String,
}

impl Machine {
    /// The one that this runs on.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let unknown = || "unknown".to_string();
        let name = value(&read("/etc/os-release"), "PRETTY_NAME", '=')
            .unwrap_or_else(|| env::consts::OS.to_string());
        let kernel = first_line("uname", &["-sr"]).unwrap_or_else(|| env::consts::ARCH.to_string());
        Self {
            cpu: processor(&read("/proc/cpuinfo"))
                .or_else(|| first_line("sysctl", &["-n", "machdep.cpu.brand_string"]))
                .unwrap_or_else(unknown),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory: value(&read("/proc/meminfo"), "MemTotal", ':')
                .and_then(|kib| kib.strip_suffix("kB")?.trim().parse().ok())
                .map(|kib: u64| kib * 1024),
            os: format!("{name}, {kernel}"),
            rustc: first_line("rustc", &["--version"]).unwrap_or_else(unknown),
            libtorch: libtorch::VERSION.to_string(),
        }
    }
}

/// The name in Linux's `cpuinfo`, with the family and the model, for virtual machines hide what they run on.
fn processor(cpuinfo: &str) -> Option<String> {
    let name = value(cpuinfo, "model name", ':')?;
    let number = |key: &str| value(cpuinfo, key, ':');
    Some(match (number("cpu family"), number("model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name,
    })
}

/// What git calls the workspace in `root`; `-dirty` if files differ from the commit, but for the results.
pub fn revision(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let root = root.to_string_lossy();
        first_line("git", &[&["-C", &root], arguments].concat())
    };
    let changes = git(&["status", "--porcelain", "--", ".", ":!docs/results"]);
    match git(&["rev-parse", "--short", "HEAD"]) {
        Some(commit) if changes.is_none() => commit,
        Some(commit) => commit + "-dirty",
        None => "unknown".to_string(),
    }
}

/// The time, UTC, as `2026-01-31T23:59:58Z`.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%FT%TZ").to_string()
}

/// The value of `key` in lines of `key SEPARATOR value`.
fn value(text: &str, key: &str, separator: char) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().trim_matches('"').to_string())
        .filter(|value| !value.is_empty())
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim().to_string();
    (output.status.success() && !line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_lines() {
        let text = "model\t\t: 2\nmodel name\t: A CPU 3: fast\nempty :\n";
        assert_eq!(
            value(text, "model name", ':').as_deref(),
            Some("A CPU 3: fast")
        );
        assert_eq!(value(text, "empty", ':'), None);
        assert_eq!(processor(text).as_deref(), Some("A CPU 3: fast"));
        let text = format!("cpu family : 26\n{text}");
        let named = "A CPU 3: fast (family 26, model 2)";
        assert_eq!(processor(&text).as_deref(), Some(named));
        assert_eq!(
            value("NAME=\"An OS\"", "NAME", '=').as_deref(),
            Some("An OS")
        );
    }
}

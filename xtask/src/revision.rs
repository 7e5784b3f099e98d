//! Which code, and which compiler.

use std::{path::Path, process::Command};

/// What git calls the workspace in `root`; `-dirty` if files differ from the commit, but for the results.
pub fn of(root: &Path) -> String {
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

/// What the compiler calls itself.
pub fn rustc() -> String {
    first_line("rustc", &["--version"]).unwrap_or_else(|| "unknown".to_string())
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim().to_string();
    (output.status.success() && !line.is_empty()).then_some(line)
}

//! Building what is run.

use std::{
    io::{self},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    cargo,
    libtorch::Source,
    process::{self, Interrupt},
};

/// What is built of the workspace.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// The program of the package of its name, to be fast.
    Program(&'a str),
    /// The same, to be there soon.
    Tool(&'a str),
    /// An example of a package, to be fast.
    Example(&'a str, &'a str),
}

/// Builds a program, and says where it is, so that it can be started without cargo.
///
/// # Errors
/// If it does not build.
pub fn build(
    root: &Path,
    target: Target,
    libtorch: Source,
    interrupt: &Interrupt,
) -> Result<PathBuf> {
    let (profile, package, kind, name) = match target {
        Target::Program(name) => ("release", name, "--bin", name),
        Target::Tool(name) => ("xtask", name, "--bin", name),
        Target::Example(package, name) => ("release", package, "--example", name),
    };
    let mut build = cargo::command(libtorch);
    build
        .args([
            "build",
            "--profile",
            profile,
            "--package",
            package,
            kind,
            name,
        ])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        .stdout(Stdio::piped())
        .stderr(io::stderr());
    let finished = process::run(&mut build, interrupt)?;
    if !finished.status.success() {
        bail!("{name} of {package} does not build: see the messages above");
    }
    executable(&finished.output).with_context(|| format!("cargo does not say where {name} is"))
}

/// The last one that cargo's messages name.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_read_from_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/target/release/examples/load"}
{"reason":"build-finished","success":true}"#;
        let expect = PathBuf::from("/target/release/examples/load");
        assert_eq!(executable(messages), Some(expect));
        assert_eq!(executable("warning: something\n"), None);
    }
}

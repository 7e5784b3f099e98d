//! `cargo xtask ablate`: the door to `mae-ablate`.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::Result;

use crate::{
    built::{self, Target},
    cargo,
    libtorch::Source,
    process::Interrupt,
    revision, setup,
};

/// Runs `cargo xtask ablate`.
pub fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let root = cargo::workspace_root();
    let interrupt = Interrupt::catch()?;
    let build = |target, libtorch| built::build(&root, target, libtorch, &interrupt);
    // It links no libtorch, so it does not matter where that is.
    let tool = build(Target::Tool("mae-ablate"), Source::Config)?;
    let mut ablate = Command::new(tool);
    if trains(arguments) {
        let libtorch = setup::ensure()?;
        ablate
            .env("MAE_TRAIN", build(Target::Program("mae-train"), libtorch)?)
            .env("MAE_REVISION", revision::of(&root));
    }
    ablate.args(arguments);
    // What it calls itself, in its help and where it says what to type.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::arg0(&mut ablate, "cargo xtask ablate");
    cargo::become_command(ablate)
}

/// Whether mae-ablate needs mae-train for these arguments.
fn trains(arguments: &[OsString]) -> bool {
    let is = |words: &[&str], argument: &OsString| words.iter().any(|word| argument == word);
    !arguments.is_empty()
        && !is(
            &["list", "report", "help", "-V", "--version"],
            &arguments[0],
        )
        && !arguments
            .iter()
            .any(|argument| is(&["-h", "--help"], argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_trains_needs_the_program_that_does() {
        let check = |line: &str| {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            trains(&words)
        };
        for line in [
            "",
            "list",
            "report --out runs/list",
            "--help",
            "mask-ratio -h",
            "-V",
        ] {
            assert!(!check(line), "{line}");
        }
        for line in ["mask-ratio", "--data list target", "mask-ratio --dry-run"] {
            assert!(check(line), "{line}");
        }
    }
}

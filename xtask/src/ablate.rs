//! `cargo xtask ablate`: the door to `mae-ablate`.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::Result;
use clap::Args;

use crate::{
    built::{self, Target},
    cargo,
    libtorch::Source,
    process::Interrupt,
    revision, setup,
};

/// Set libtorch up if needed, build mae-train and mae-ablate, and compare variants
///
/// Every argument goes to mae-ablate as it is: `cargo xtask ablate --help` shows mae-ablate's own help.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// mae-ablate's arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    arguments: Vec<OsString>,
}

/// Runs `cargo xtask ablate`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = cargo::workspace_root();
    let interrupt = Interrupt::catch()?;
    let build = |target, libtorch| built::build(&root, target, libtorch, &interrupt);
    // It links no libtorch, so it does not matter where that is.
    let tool = build(Target::Tool("mae-ablate"), Source::Config)?;
    let mut ablate = Command::new(tool);
    if trains(&arguments.arguments) {
        let libtorch = setup::ensure()?;
        ablate
            .env("MAE_TRAIN", build(Target::Program("mae-train"), libtorch)?)
            .env("MAE_REVISION", revision::of(&root));
    }
    ablate.args(&arguments.arguments);
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

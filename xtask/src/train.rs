//! `cargo xtask train`: from a fresh clone to a training run in one command.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Result, bail};
use clap::Args;

use crate::{cargo, setup};

/// Set libtorch up if needed, build mae-train and run it
///
/// Every argument goes to mae-train as it is: `cargo xtask train --help` shows mae-train's own help.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// mae-train's arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    arguments: Vec<OsString>,
}

/// Runs `cargo xtask train`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    train(&arguments.arguments)
}

/// Builds mae-train and becomes it.
pub fn train(arguments: &[OsString]) -> Result<ExitCode> {
    let libtorch = setup::ensure()?;
    let selection = ["--release", "--package", "mae-train", "--bin", "mae-train"];
    // Built separately so that the build shows its progress, and the quiet run shows mae-train's output only.
    let built = cargo::command(libtorch)
        .arg("build")
        .args(selection)
        .status()?;
    if !built.success() {
        bail!("mae-train does not build: see the messages above");
    }
    let mut run = cargo::command(libtorch);
    run.arg("run")
        .arg("--quiet")
        .args(selection)
        .arg("--")
        .args(arguments);
    cargo::become_command(run)
}

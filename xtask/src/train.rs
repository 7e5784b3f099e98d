//! `cargo xtask train`: from a fresh clone to a training run in one command.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Result, bail};

use crate::{cargo, setup};

/// Runs `cargo xtask train`: builds mae-train and becomes it.
pub fn run(arguments: &[OsString]) -> Result<ExitCode> {
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

//! `cargo xtask test`: every test of the workspace.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;

use crate::{cargo, setup};

/// Runs `cargo xtask test`.
pub fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let mut test = cargo::command(setup::ensure()?);
    test.args(["test", "--workspace"]).args(arguments);
    cargo::become_command(test)
}

//! `cargo xtask test`: every test of the workspace.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::Args;

use crate::{cargo, setup};

/// Set libtorch up if needed and run every test of the workspace
///
/// Every argument goes to `cargo test --workspace` as it is, for example
/// `cargo xtask test --release -- --nocapture`.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// cargo test's arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    arguments: Vec<OsString>,
}

/// Runs `cargo xtask test`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut test = cargo::command(setup::ensure()?);
    test.args(["test", "--workspace"])
        .args(&arguments.arguments);
    cargo::become_command(test)
}

//! The workspace's own commands: `cargo xtask setup`, `train`, `launch`, `test`, `ablate`, `bench` and `docs`,
//! and for maintainers `refresh-pins`.
//!
//! This program prepares the machine for the other crates, so it must run before they can be built:
//! it never links libtorch and compiles in seconds.
//! Each command is one module; what they know of libtorch is in [`libtorch`].

mod ablate;
mod bench;
mod built;
mod cargo;
mod docs;
mod launch;
mod libtorch;
mod process;
mod refresh_pins;
mod revision;
mod setup;
mod test;
mod train;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, Parser, Subcommand};

/// Sets libtorch up, trains, tests, compares and measures: no environment variable to set, nothing to install by hand.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Arguments),
    /// Set libtorch up if needed, build mae-train and run it
    ///
    /// Every argument goes to mae-train as it is: `cargo xtask train --help` shows mae-train's own help.
    Train(PassedOn),
    Launch(launch::Arguments),
    /// Set libtorch up if needed and run every test of the workspace
    ///
    /// Every argument goes to `cargo test --workspace` as it is, for example
    /// `cargo xtask test --release -- --nocapture`.
    Test(PassedOn),
    /// Set libtorch up if needed, build mae-train and mae-ablate, and compare variants
    ///
    /// Every argument goes to mae-ablate as it is: `cargo xtask ablate --help` shows mae-ablate's own help.
    Ablate(PassedOn),
    Bench(bench::Arguments),
    Docs(docs::Arguments),
    #[command(hide = true)]
    RefreshPins(refresh_pins::Arguments),
}

/// What goes to another program as it is, `--help` too.
#[derive(Args)]
#[command(disable_help_flag = true)]
struct PassedOn {
    /// That program's arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Train(passed) => train::run(&passed.arguments),
        Command::Launch(arguments) => launch::run(&arguments),
        Command::Test(passed) => test::run(&passed.arguments),
        Command::Ablate(passed) => ablate::run(&passed.arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Docs(arguments) => docs::run(&arguments),
        Command::RefreshPins(arguments) => refresh_pins::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn every_command_of_its_own_has_examples() {
        for command in super::Cli::command().get_subcommands() {
            // All that comes after these is for another program.
            let passes_on = ["train", "test", "ablate"].contains(&command.get_name());
            let help = command.get_after_help().map(ToString::to_string);
            let has_examples = help.is_some_and(|help| help.starts_with("Examples:"));
            assert_eq!(has_examples, !passes_on, "{}", command.get_name());
        }
    }
}

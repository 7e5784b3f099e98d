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

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Train(train::Arguments),
    Launch(launch::Arguments),
    Test(test::Arguments),
    Ablate(ablate::Arguments),
    Bench(bench::Arguments),
    Docs(docs::Arguments),
    #[command(hide = true)]
    RefreshPins(refresh_pins::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Launch(arguments) => launch::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Ablate(arguments) => ablate::run(&arguments),
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

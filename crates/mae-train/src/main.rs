//! The command line: arguments to configurations, outcomes to words and exit codes.

#[cfg(target_os = "linux")]
mod allocator;
mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mae_train::recipes;

/// Pre-trains a Masked Autoencoder on your own images, and measures what it learned.
///
/// Without a command it pre-trains; without any argument it pre-trains the quickstart recipe on drawn scenes.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    pretrain: command::pretrain::PretrainArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Pre-trains a model (the default command)
    #[command(after_help = command::pretrain::EXAMPLES)]
    Pretrain(command::pretrain::PretrainArgs),
    /// Measures what an encoder learned: kNN, linear probe, partial and full fine-tuning
    #[command(after_help = command::eval::EXAMPLES)]
    Eval(Box<command::eval::EvalArgs>),
    /// Trains a tokenizer on your images: each patch becomes one token of a vocabulary
    #[command(after_help = command::tokenizer::EXAMPLES)]
    Tokenizer(command::tokenizer::TokenizerArgs),
    /// Makes images ready for training once: one file, at the size that is needed
    #[command(after_help = command::pack::EXAMPLES)]
    Pack(command::pack::PackArgs),
    /// Lists the recipes
    Recipes,
    /// Prints the complete configuration that a run would have
    Config(command::config::ConfigArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => cli.pretrain.run(),
        Some(Command::Pretrain(args)) => args.run(),
        Some(Command::Eval(args)) => args.run(),
        Some(Command::Tokenizer(args)) => args.run(),
        Some(Command::Pack(args)) => args.run(),
        Some(Command::Recipes) => {
            for (command, recipes) in [
                ("pretrain", recipes::PRETRAIN),
                ("eval", recipes::EVAL),
                ("tokenizer", recipes::TOKENIZER),
            ] {
                for recipe in recipes {
                    println!("{:9} {:18} {}", command, recipe.name, recipe.summary());
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Config(args)) => args.to_toml().map(|config| {
            print!("{config}");
            ExitCode::SUCCESS
        }),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

//! The command line: arguments to configurations, outcomes to words and exit codes.

#[cfg(target_os = "linux")]
mod allocator;
mod command;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use mae_train::distributed::refuse_others;

/// Pre-trains a Masked Autoencoder on your own images, and measures what it learned.
///
/// Without a command it pre-trains; without any argument it pre-trains the quickstart recipe on drawn scenes.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = command::pretrain::EXAMPLES
)]
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
    /// Writes which class a fine-tuned model takes each of your images for
    #[command(after_help = command::predict::EXAMPLES)]
    Predict(command::predict::PredictArgs),
    /// Writes what an encoder makes of your images: one vector an image, or one a patch
    #[command(after_help = command::embed::EXAMPLES)]
    Embed(command::embed::EmbedArgs),
    /// Writes an encoder or a classifier for other programs, as TorchScript or ONNX
    #[command(after_help = command::export::EXAMPLES)]
    Export(command::export::ExportArgs),
    /// Trains a tokenizer on your images: each patch becomes one token of a vocabulary
    #[command(after_help = command::tokenizer::EXAMPLES)]
    Tokenizer(command::tokenizer::TokenizerArgs),
    /// Makes images ready for training once: one file, at the size that is needed
    #[command(after_help = command::pack::EXAMPLES)]
    Pack(command::pack::PackArgs),
    /// Draws what a model makes of images that are partly hidden
    #[command(after_help = command::reconstruct::EXAMPLES)]
    Reconstruct(command::reconstruct::ReconstructArgs),
    /// Draws what an encoder looks at in images, and what it takes for alike
    #[command(after_help = command::attend::EXAMPLES)]
    Attend(command::attend::AttendArgs),
    /// Says what a checkpoint, a run or a data set is, and what is in it
    #[command(after_help = command::inspect::EXAMPLES)]
    Inspect(command::inspect::InspectArgs),
    /// Converts weights: of the MAE authors, Hugging Face and timm to this program's, and back
    #[command(after_help = command::convert::EXAMPLES)]
    Convert(Box<command::convert::ConvertArgs>),
    /// Lists the recipes
    #[command(after_help = command::recipes::EXAMPLES)]
    Recipes,
    /// Prints the complete configuration that a run would have
    #[command(after_help = command::config::EXAMPLES)]
    Config(command::config::ConfigArgs),
    /// Looks a run over before it begins: speed, time, memory, disk, and what may be wrong
    #[command(after_help = command::doctor::EXAMPLES)]
    Doctor(command::doctor::DoctorArgs),
    /// Says how long training takes on several devices, by formulas
    #[command(after_help = command::plan::EXAMPLES)]
    Plan(command::plan::PlanArgs),
    /// Prints a script that completes commands and options in your shell
    #[command(after_help = command::completions::EXAMPLES)]
    Completions(command::completions::CompletionsArgs),
    /// Writes manual pages
    #[command(after_help = command::man::EXAMPLES)]
    Man(command::man::ManArgs),
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    let command = cli.command.unwrap_or(Command::Pretrain(cli.pretrain));
    let version = torch_ext::check_version().map_err(anyhow::Error::from);
    (version.and_then(|()| command.run())).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Ends the program with what is wrong with its arguments, or with the help that was asked for.
fn refuse(error: &clap::Error) -> ! {
    let _ = error.print();
    let is_of_words = matches!(
        error.kind(),
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand | ErrorKind::ArgumentConflict
    );
    let words: Vec<PathBuf> = std::env::args_os().map(PathBuf::from).collect();
    if is_of_words && let Some(hint) = pattern_hint(&words) {
        eprintln!("\n{hint}");
    }
    std::process::exit(error.exit_code())
}

/// What to say where a shell may have replaced a pattern, as two files one after the other show.
fn pattern_hint(words: &[PathBuf]) -> Option<String> {
    let are_files = |pair: &&[PathBuf]| {
        pair[0].extension() == pair[1].extension() && pair.iter().all(|word| word.is_file())
    };
    let file = &words.windows(2).find(are_files)?[0];
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    Some(
        match file.extension().is_some_and(|ending| ending == "tar") {
            true => format!(
                "if a pattern was meant, put it in quotes, as '{}', for the shell replaces it by the names of files",
                folder.join("*.tar").display()
            ),
            false => format!(
                "if the shell put these names in the place of a pattern: images are read from their folder, {}, and only tar \
             files by a pattern, in quotes",
                folder.display()
            ),
        },
    )
}

impl Command {
    fn run(self) -> Result<ExitCode> {
        if !matches!(self, Self::Pretrain(_) | Self::Eval(_) | Self::Tokenizer(_)) {
            refuse_others()?;
        }
        match self {
            Self::Pretrain(args) => args.run(),
            Self::Eval(args) => args.run(),
            Self::Tokenizer(args) => args.run(),
            Self::Embed(args) => args.run(),
            Self::Predict(args) => args.run(),
            Self::Export(args) => args.run(),
            Self::Pack(args) => args.run(),
            Self::Reconstruct(args) => args.run(),
            Self::Attend(args) => args.run(),
            Self::Inspect(args) => args.run(),
            Self::Convert(args) => args.run(),
            Self::Recipes => command::recipes::run(),
            Self::Config(args) => args.run(),
            Self::Doctor(args) => args.run(),
            Self::Plan(args) => args.run(),
            Self::Completions(args) => args.run(Cli::command()),
            Self::Man(args) => args.run(Cli::command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command lines among the examples of a command, without the words that explain them.
    fn examples(command: &clap::Command) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
        let commands = lines.map(|line| line.split("  ").next().unwrap_or(line));
        commands
            .map(|line| line.split(" > ").next().unwrap_or(line).to_owned())
            .filter(|line| line.starts_with("mae-train"))
            .collect()
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        let mut program = Cli::command();
        program.build();
        program.clone().debug_assert();
        let commands = program.get_subcommands().filter(|c| c.get_name() != "help");
        for command in commands.chain([&program]) {
            let name = command.get_name();
            let examples = examples(command);
            assert!(!examples.is_empty(), "{name} has no examples");
            let own = |example: &String| example.split(' ').nth(1) == Some(name);
            assert!(name == "mae-train" || examples.iter().any(own), "{name}");
            for example in examples {
                let words = shlex::split(&example).expect("balanced quotes");
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{name}: {example}\n{error}");
                }
            }
        }
    }
}

//! `mae-ablate`: the paper's ablations on the user's images, and the user's own.
//!
//! A *study* varies one setting and has a *variant* for each value; with a seed a variant is a *cell*: a pre-training
//! and its evaluation, by child processes of `mae-train`.
//! [`study`] and [`grid`] say what there is to compare, [`plan`] resolves and names the cells, [`cell`] runs one,
//! [`local`] and [`slurm`] run them all, [`collect`] reads what they left, and [`report`] shows it;
//! [`ablation`] does all of it in order.

mod ablation;
mod base;
mod cell;
mod collect;
mod display;
mod grid;
mod interrupt;
mod local;
mod plan;
mod report;
mod slurm;
mod study;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::{ablation::Ablation, plan::Plan};

/// Compare variants: the paper's ablations, or your own, with intervals over seeds
///
/// Every value of a study is pre-trained with several seeds and judged by its nearest neighbours and a linear probe.
/// The report, with the paper's numbers beside, is in report.html and report.md in --out.
///
/// Killed at any point and started again, it keeps finished cells and resumes the others; cells that studies have
/// in common run once.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Action>,
    #[command(flatten)]
    ablation: Ablation,
}

/// What `--help` ends with, under the name that this was called as.
fn examples() -> String {
    EXAMPLES.replace("mae-ablate", &called_as())
}

const EXAMPLES: &str = "Examples:
  mae-ablate list
  mae-ablate mask-ratio --dry-run
  mae-ablate mask-ratio decoder-depth --recipe cifar10 --data photos/train --val photos/test --jobs 2
  mae-ablate target --data photos --set optim.epochs=5 --seeds 5
  mae-ablate my-grid.toml --config my.toml
  mae-ablate schedule --data photos --launcher slurm --sbatch=--gpus=1 --jobs 8
  mae-ablate report --out runs/ablation

A grid of your own is a TOML file:
  [grid]                                  # every combination
  \"model.patch_size\" = [4, 8]
  \"optim.base_lr\" = [1e-3, 2e-3]
  [[cell]]                                # and single ones
  label = \"one block\"
  set = { \"model.decoder_depth\" = 1 }

Environment:
  MAE_TRAIN     the program mae-train [default: the one beside this, or the first on the search path]
  MAE_REVISION  what the report calls the code [default: that program's version]";

#[derive(Subcommand)]
enum Action {
    /// List the studies
    List,
    /// Write the report of what an ablation has found so far
    Report {
        /// The ablation's folder
        #[arg(long, value_name = "DIR", default_value = ablation::OUT)]
        out: PathBuf,
    },
    /// Run one cell: what a task of Slurm does
    #[command(hide = true)]
    Cell(slurm::Task),
}

fn main() -> ExitCode {
    let matches = Cli::command().after_help(examples()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match &cli.command {
        Some(Action::List) => {
            for (name, varies) in study::STUDIES {
                println!("{name:18} {varies}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(Action::Report { out }) => report_only(out),
        Some(Action::Cell(task)) => slurm::run(task),
        None => cli.ablation.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Writes the report of the ablation in `out`.
fn report_only(out: &Path) -> Result<ExitCode> {
    let plan = Plan::open(out)?.with_context(|| {
        format!(
            "{} holds no ablation: there is no plan.json in it",
            out.display()
        )
    })?;
    write_report(&plan, out)?;
    let cells = plan.cells().len();
    let finished = cells - plan.unfinished(out).len();
    println!("{finished} of {cells} cells are finished");
    println!("report: {}", out.join("report.html").display());
    Ok(ExitCode::SUCCESS)
}

fn write_report(plan: &Plan, out: &Path) -> Result<()> {
    report::write(&collect::collect(plan, out)?, out).context("writing the report")
}

/// What this program was called as: `mae-ablate`, or `cargo xtask ablate`, which calls it so.
fn called_as() -> String {
    let name = env::args_os().next().map(PathBuf::from);
    let name = name.as_deref().and_then(Path::file_name);
    name.map_or_else(
        || env!("CARGO_PKG_NAME").into(),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
#[path = "../../../xtask/src/docs/blocks.rs"]
mod blocks;

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser, error::ErrorKind};

    use super::{Cli, blocks};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_ablation_in_the_documentation_parses() {
        let root = super::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let (mut pages, mut found) = (blocks::pages(&root), 0);
        pages.push(root.join("crates/mae-ablate/README.md"));
        for command in pages.iter().flat_map(|page| blocks::commands(page)) {
            let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
            let arguments = match words[..] {
                ["cargo", "xtask", "ablate", ref arguments @ ..] => arguments,
                ["mae-ablate", ref arguments @ ..] => arguments,
                _ => continue,
            };
            found += 1;
            let parsed = Cli::try_parse_from([&["mae-ablate"], arguments].concat());
            let Err(error) = parsed else { continue };
            // A command may be spoken of without what it needs.
            let is_mention =
                arguments.is_empty() && error.kind() == ErrorKind::MissingRequiredArgument;
            assert!(
                is_mention || !error.use_stderr(),
                "{}: {error}",
                command.place
            );
        }
        assert!(found > 10, "only {found} were found");
    }
}

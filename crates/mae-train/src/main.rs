//! The command line: arguments to configurations, outcomes to words and exit codes.

#[cfg(target_os = "linux")]
mod allocator;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use mae_train::config::{NormalizationSource, RunConfig, Source, read};
use mae_train::interrupt::Interrupt;
use mae_train::pretrain::pretrain;
use mae_train::progress::Progress;
use mae_train::recipes;
use mae_train::run_dir::RunDir;
use mae_train::train_loop::Outcome;

/// Pre-trains a Masked Autoencoder on your own images.
///
/// Without a command it pre-trains; without any argument it pre-trains the quickstart recipe on drawn scenes.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    pretrain: PretrainArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Pre-trains a model (the default command)
    #[command(after_help = EXAMPLES)]
    Pretrain(PretrainArgs),
    /// Lists the recipes
    Recipes,
    /// Prints the complete configuration that a run would have
    Config(ConfigArgs),
}

const EXAMPLES: &str = "Examples:
  mae-train pretrain                                      the quickstart, on drawn scenes
  mae-train pretrain --data photos                        the quickstart's model on your images
  mae-train pretrain --recipe imagenet_vit_b16 --data imagenet/train --set optim.epochs=300
  mae-train pretrain --resume --out runs/quickstart       go on where it stopped";

/// What to train on and how.
#[derive(Args)]
struct ConfigArgs {
    /// An embedded recipe: see `mae-train recipes` [default: quickstart]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    recipe: Option<String>,
    /// A TOML file: see `mae-train config` for its keys
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of your images (or of CIFAR's binary files)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Changes one key, for example `optim.epochs=20`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Args)]
struct PretrainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The folder to write the run into [default: the first free one of runs/NAME, runs/NAME-2, ...]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Goes on from the latest checkpoint in --out, or starts there if there is no run yet
    #[arg(long, requires = "out")]
    resume: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => run_pretrain(&cli.pretrain),
        Some(Command::Pretrain(args)) => run_pretrain(&args),
        Some(Command::Recipes) => {
            for recipe in recipes::ALL {
                println!("{:18}{}", recipe.name, recipe.summary());
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Config(args)) => args.resolve().map(|config| {
            print!("{}", config.to_toml());
            ExitCode::SUCCESS
        }),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_pretrain(args: &PretrainArgs) -> Result<ExitCode> {
    let progress = Progress::stderr();
    let logger =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).build();
    let level = logger.filter();
    indicatif_log_bridge::LogWrapper::new(progress.bars(), logger).try_init()?;
    log::set_max_level(level);

    let (config, run_dir) = args.start()?;
    let interrupt = Interrupt::catch()?;
    eprintln!(
        "{} in {}, on {} in {}",
        if run_dir.checkpoints().exists() {
            "resuming the run"
        } else {
            "a new run"
        },
        run_dir.path().display(),
        config.run.device,
        config.precision.name(),
    );
    match pretrain(config, &run_dir, &interrupt, &progress)? {
        Outcome::Finished { loss, checkpoint } => {
            if let Some(loss) = loss {
                println!("finished, loss {loss:.4} in the last epoch");
            }
            println!(
                "pictures: {}/  curves: {}  checkpoint: {}",
                run_dir.reconstructions().display(),
                run_dir.curves().display(),
                checkpoint.join("model.safetensors").display()
            );
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Interrupted { signal, checkpoint } => {
            println!(
                "stopped and saved as {}; go on with: mae-train pretrain --resume --out {}",
                checkpoint.display(),
                run_dir.path().display()
            );
            Ok(ExitCode::from(128 + signal as u8))
        }
    }
}

impl ConfigArgs {
    fn source(&self) -> Option<Source> {
        match (&self.recipe, &self.config) {
            (Some(name), _) => Some(Source::Recipe(name.clone())),
            (None, Some(path)) => Some(Source::File(path.clone())),
            (None, None) => None,
        }
    }

    fn resolve(&self) -> Result<RunConfig> {
        self.resolve_from(
            self.source()
                .unwrap_or_else(|| Source::Recipe("quickstart".into())),
        )
    }

    fn resolve_from(&self, source: Source) -> Result<RunConfig> {
        read(&source, self.data.as_deref(), &self.set)?.resolve()
    }

    /// What a run is called where nothing else is said.
    fn name(&self) -> &str {
        match (&self.config, &self.recipe) {
            (Some(path), _) => path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or("run"),
            (None, Some(name)) => name,
            (None, None) => "quickstart",
        }
    }
}

impl PretrainArgs {
    /// The configuration and folder of the run to start or to go on with.
    fn start(&self) -> Result<(RunConfig, RunDir)> {
        let Some(out) = &self.out else {
            let config = self.config.resolve()?;
            return Ok((config, RunDir::create(&free_folder(self.config.name()))?));
        };
        if !(self.resume && out.join("config.toml").exists()) {
            let config = self.config.resolve()?;
            return Ok((config, RunDir::create(out)?));
        }
        let run_dir = RunDir::open(out)?;
        let stored = Source::File(run_dir.config());
        let mut config = self
            .config
            .resolve_from(self.config.source().unwrap_or(stored.clone()))?;
        continue_exactly(&mut config, &read(&stored, None, &[])?.resolve()?, &run_dir)?;
        Ok((config, run_dir))
    }
}

/// Makes sure that going on under `config` continues the run that began under `stored`.
///
/// Only `[run]` may differ, and where the images lie.
fn continue_exactly(config: &mut RunConfig, stored: &RunConfig, run_dir: &RunDir) -> Result<()> {
    if config.data.normalization == NormalizationSource::Auto {
        let measured = stored.data.clone();
        (config.data.normalization, config.data.mean, config.data.std) =
            (measured.normalization, measured.mean, measured.std);
    }
    let mut comparable = config.clone();
    comparable.data.path.clone_from(&stored.data.path);
    comparable.run = stored.run.clone();
    comparable.run.precision = config.run.precision;
    let (asked, stored) = (comparable.to_toml(), stored.to_toml());
    let differences: Vec<String> = asked
        .lines()
        .zip(stored.lines())
        .filter(|(asked, stored)| asked != stored)
        .map(|(asked, stored)| format!("{asked} (the run has {stored})"))
        .collect();
    ensure!(
        differences.is_empty() && asked.lines().count() == stored.lines().count(),
        "{} cannot go on under another configuration: {}; leave these out, or start a new run with another --out",
        run_dir.path().display(),
        differences.join("; ")
    );
    Ok(())
}

/// The first of `runs/NAME`, `runs/NAME-2`, ... that is not there yet.
fn free_folder(name: &str) -> PathBuf {
    let folder = |suffix: String| Path::new("runs").join(format!("{name}{suffix}"));
    std::iter::once(folder(String::new()))
        .chain((2..).map(|number| folder(format!("-{number}"))))
        .find(|path| !path.exists())
        .expect("numbers do not end")
}

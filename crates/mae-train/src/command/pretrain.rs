//! `mae-train pretrain` and `mae-train config`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;
use mae_train::config::{NormalizationSource, RunConfig, Source, read, read_as};
use mae_train::eval::config::EvalConfig;
use mae_train::interrupt::Interrupt;
use mae_train::pretrain::pretrain;
use mae_train::recipes;
use mae_train::run_dir::RunDir;
use mae_train::train_loop::Outcome;

use super::{free_folder, start_progress};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train pretrain                                      the quickstart, on drawn scenes
  mae-train pretrain --data photos                        the quickstart's model on your images
  mae-train pretrain --recipe imagenet_vit_b16 --data imagenet/train --set optim.epochs=300
  mae-train pretrain --data photos.mae                    on images that `mae-train pack` has made ready
  mae-train pretrain --data 'shards-{0000..0012}.tar'     on tar files in WebDataset's layout
  mae-train pretrain --resume --out runs/quickstart       go on where it stopped";

/// What to train on and how.
#[derive(Args)]
pub struct ConfigArgs {
    /// An embedded recipe: see `mae-train recipes` [default: quickstart]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    recipe: Option<String>,
    /// A TOML file: see `mae-train config` for its keys
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Your images: a folder (or CIFAR's binary files), a file of `mae-train pack`, or tar shards
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Changes one key, for example `optim.epochs=20`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// A run to start or to go on with.
#[derive(Args)]
pub struct PretrainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The folder to write the run into [default: the first free one of runs/NAME, runs/NAME-2, ...]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Goes on from the latest checkpoint in --out, or starts there if there is no run yet
    #[arg(long, requires = "out")]
    resume: bool,
}

impl ConfigArgs {
    fn source(&self) -> Option<Source> {
        match (&self.recipe, &self.config) {
            (Some(name), _) => Some(Source::Recipe(name.clone())),
            (None, Some(path)) => Some(Source::File(path.clone())),
            (None, None) => None,
        }
    }

    /// The complete configuration that a run, or under a recipe of evaluation an evaluation, would have.
    pub fn to_toml(&self) -> Result<String> {
        match &self.recipe {
            Some(name) if recipes::EVAL.iter().any(|recipe| recipe.name == name) => {
                let source = Source::Recipe(name.clone());
                let mut config: EvalConfig =
                    read_as(&source, recipes::EVAL, &self.set, |_| Ok(()))?;
                config.resolve()?;
                Ok(config.to_toml())
            }
            _ => Ok(self.resolve()?.to_toml()),
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
    /// Runs it and says how it ended.
    pub fn run(&self) -> Result<ExitCode> {
        let progress = start_progress()?;
        let (config, run_dir) = self.start()?;
        let interrupt = Interrupt::catch()?;
        let images = match &config.data.path {
            Some(path) => path.display().to_string(),
            None => "drawn scenes".into(),
        };
        eprintln!(
            "{} in {}, of {images}, on {} in {}",
            match (run_dir.checkpoints().exists(), self.resume) {
                (true, _) => "resuming the run",
                (false, true) => "no checkpoint to resume from: a new run",
                (false, false) => "a new run",
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

//! What the commands that train have in common: arguments to a configuration and a folder, outcomes to words.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;
use mae_train::config::{Method, NormalizationSource, ON_CPU, Run, Source};
use mae_train::distributed::World;
use mae_train::run::folder::RunDir;
use mae_train::run::shell;
use mae_train::train_loop::Outcome;

use super::begun::{Begun, check_same, check_there};
use super::free_folder;
use super::processes::ProcessArgs;

/// What to train on and how.
#[derive(Args)]
pub struct TrainingArgs {
    /// An embedded recipe: see `mae-train recipes` [default: the command's first]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub recipe: Option<String>,
    /// A TOML file: see `mae-train config` for its keys
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Your images: a folder (or CIFAR's binary files), a file of `mae-train pack`, or tar shards
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Changes one key, for example `optim.epochs=20`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// A run to start or to go on with.
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    training: TrainingArgs,
    /// The folder to write the run into [default: the first free one of runs/NAME, runs/NAME-2, ...]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Goes on from the latest checkpoint in --out, or starts there if there is no run yet
    #[arg(long, requires = "out")]
    resume: bool,
    #[command(flatten)]
    pub processes: ProcessArgs,
}

impl TrainingArgs {
    /// Where the configuration starts from, if it is said.
    pub fn source(&self) -> Option<Source> {
        match (&self.recipe, &self.config) {
            (Some(name), _) => Some(Source::Recipe(name.clone())),
            (None, Some(path)) => Some(Source::File(path.clone())),
            (None, None) => None,
        }
    }

    /// The complete configuration.
    pub fn resolve<M: Method>(&self) -> Result<Run<M>> {
        let default = || Source::Recipe(M::RECIPE.into());
        self.resolve_from(&self.source().unwrap_or_else(default))
    }

    fn resolve_from<M: Method>(&self, source: &Source) -> Result<Run<M>> {
        Run::read(source, self.data.as_deref(), &self.set)
    }

    /// What a run is called where nothing else is said.
    fn name<M: Method>(&self) -> &str {
        match (&self.config, &self.recipe) {
            (Some(path), _) => path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or("run"),
            (None, Some(name)) => name,
            (None, None) => M::RECIPE,
        }
    }
}

impl RunArgs {
    /// The configuration and, in the first process, the folder of the run to start or to go on with; says which.
    pub fn start<M: Method>(&self, world: &World) -> Result<(Run<M>, Option<RunDir>)> {
        let (mut config, run_dir) = self.find::<M>(world)?;
        world.agree("configuration", &anywhere(&config))?;
        config.device = world.device(config.device)?;
        if let Some(run_dir) = &run_dir {
            let images = match &config.data.path {
                Some(path) => path.display().to_string(),
                None => "drawn scenes".into(),
            };
            eprintln!(
                "{} in {}, of {images}, on {} in {}{}",
                match (
                    run_dir.checkpoints().exists(),
                    run_dir.config().exists() || self.resume
                ) {
                    (true, _) => "resuming the run",
                    (false, true) => "no checkpoint to resume from: a new run",
                    (false, false) => "a new run",
                },
                run_dir.path().display(),
                mae_train::device::name(config.device),
                config.precision.name(),
                match world.size() {
                    1 => String::new(),
                    size => format!(", by {size} processes"),
                }
            );
        }
        Ok((config, run_dir))
    }

    fn find<M: Method>(&self, world: &World) -> Result<(Run<M>, Option<RunDir>)> {
        let training = &self.training;
        let begun = Begun::find(world, self.out.as_deref(), self.resume, "config.toml")?;
        let Begun { out, resume, .. } = begun;
        let config = match begun.settings {
            None => training.resolve()?,
            Some(stored) => {
                refuse_other::<M>(&stored)?;
                let source = training.source();
                let mut config: Run<M> =
                    training.resolve_from(source.as_ref().unwrap_or(&stored))?;
                let out = out.as_deref().unwrap_or_else(|| Path::new("runs"));
                if let (None, Some(path)) = (&training.data, &config.data.path) {
                    check_there(path)?;
                }
                // Where it began does not matter.
                let begun = Run::read(&stored, None, &[ON_CPU.into()])?;
                continue_exactly(&mut config, &begun, out)?;
                config
            }
        };
        if !world.is_first() {
            return Ok((config, None));
        }
        let out = out.unwrap_or_else(|| free_folder(training.name::<M>()));
        let run_dir = match resume && out.join("config.toml").exists() {
            true => RunDir::open(&out)?,
            false => RunDir::create(&out)?,
        };
        world.remember("folder", &out.to_string_lossy())?;
        Ok((config, Some(run_dir)))
    }
}

/// Makes sure that a run was begun by this command.
fn refuse_other<M: Method>(stored: &Source) -> Result<()> {
    let Source::Text(text, path) = stored else {
        return Ok(());
    };
    let mut begun =
        (text.lines()).filter_map(|line| line.strip_prefix("# Repeat the run with: mae-train "));
    let command = begun.next().and_then(|line| line.split(' ').next());
    let command = command.unwrap_or(M::COMMAND);
    ensure!(
        command == M::COMMAND,
        "{} is of a run of `mae-train {command}`, not of `mae-train {}`: go on with that command, or give another --out",
        path.display(),
        M::COMMAND
    );
    Ok(())
}

/// A configuration without what may differ between machines: where the images lie, and the device.
fn anywhere(config: &Run<impl Method>) -> String {
    let toml = config.to_toml();
    let lines = toml.lines().filter(|line| {
        let key = line.split('=').next().unwrap_or_default().trim();
        !matches!(key, "path" | "device")
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// Says how a run ended, in the process that writes.
pub fn report<M: Method>(outcome: Outcome, run_dir: Option<&RunDir>) -> ExitCode {
    match outcome {
        Outcome::Finished { loss, checkpoint } => {
            if let (Some(run_dir), Some(checkpoint)) = (run_dir, checkpoint) {
                match loss {
                    Some(loss) => println!("finished, loss {loss:.4} in the last epoch"),
                    None => println!("the run was finished before: nothing was left to do"),
                }
                println!(
                    "pictures: {}/  curves: {}  checkpoint: {}",
                    run_dir.reconstructions().display(),
                    run_dir.curves().display(),
                    checkpoint.join("model.safetensors").display()
                );
            }
            ExitCode::SUCCESS
        }
        Outcome::Interrupted { signal, checkpoint } => {
            if let (Some(run_dir), Some(checkpoint)) = (run_dir, checkpoint) {
                println!(
                    "stopped and saved as {}; go on with: mae-train {} --resume --out {}",
                    checkpoint.display(),
                    M::COMMAND,
                    shell::word(run_dir.path())
                );
            }
            ExitCode::from(128 + signal as u8)
        }
    }
}

/// Makes sure that going on under `config` continues the run that began under `stored`.
///
/// Only `[run]` may differ, and where the images lie.
fn continue_exactly<M: Method>(config: &mut Run<M>, stored: &Run<M>, out: &Path) -> Result<()> {
    config.data.values = config.data.values.or(stored.data.values);
    if config.data.normalization == NormalizationSource::Auto {
        let (data, measured) = (&mut config.data, stored.data.clone());
        (data.normalization, data.mean, data.std) =
            (measured.normalization, measured.mean, measured.std);
    }
    let mut comparable = config.clone().with_run_of(stored);
    comparable.data.path.clone_from(&stored.data.path);
    check_same("run", &comparable.to_toml(), &stored.to_toml(), out)
}

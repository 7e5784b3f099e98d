//! `mae-train eval`.

mod images;
mod settings;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use mae_data::Dataset;
use mae_model::checkpoint::read_config;
use mae_train::config::recipes;
use mae_train::config::{Source, read_as};
use mae_train::data;
use mae_train::distributed::World;
use mae_train::eval::config::EvalConfig;
use mae_train::eval::features::FeatureCache;
use mae_train::eval::{Evaluation, NEIGHBOURS, Protocol, REPORT, SETTINGS, Start, evaluate};
use mae_train::run::checkpoint;
use mae_train::run::folder::RunDir;
use mae_train::run::interrupt::Interrupt;
use mae_train::run::manifest;
use mae_train::run::shell;

use super::begun::{Begun, check_there};
use super::processes::ProcessArgs;
use super::{free_folder, start_progress};
use images::Images;
use settings::Settings;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train eval --from runs/quickstart --baseline            kNN and a linear probe, beside a random encoder
  mae-train eval --from runs/photos --data photos/train --val photos/test --protocols knn,linear,partial:4,finetune
  mae-train eval --from runs/photos --data photos/train --val photos/test --protocols finetune --init random
  mae-train eval --from runs/photos --data photos --protocols spectrum        ranks and held-out loss, without labels
  mae-train eval --resume --out runs/eval                     go on where it stopped
  mae-train eval --from model.safetensors --data photos --set knn.k='[5]' --set linear.optimizer=adamw

Labels come from sub-folders, one a class, from CIFAR's files, from what was packed, or from .cls and .json files in
tar shards. Extracted features are kept in the user's cache
directory, in mae-rs/features (or MAE_CACHE_DIR), and used again for the same weights, images and settings.";

/// What to judge, and how.
#[derive(Args)]
pub struct EvalArgs {
    /// A run's folder, a checkpoint's folder, or its model.safetensors
    #[arg(long, value_name = "PATH", required_unless_present = "resume")]
    from: Option<PathBuf>,
    /// The images to learn from, labelled unless only spectrum is asked for: a folder, a packed file or tar shards [default: the run's own]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// The images to judge by, likewise [default: what the run held out, CIFAR's test images, or a part of
    /// --data held out]
    #[arg(long, value_name = "PATH")]
    val: Option<PathBuf>,
    /// Of knn, linear, attentive, partial:BLOCKS and finetune, and of spectrum, which needs no labels [default: knn,linear]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    protocols: Vec<Protocol>,
    /// Also judges an encoder of fresh weights, beside it
    #[arg(long)]
    baseline: bool,
    /// What the encoder starts from [default: pretrained]
    #[arg(long, value_name = "START", conflicts_with = "baseline")]
    init: Option<Init>,
    /// Trains the linear probe on random crops and flips, as published, in place of cached features
    #[arg(long)]
    augment: bool,
    /// An embedded recipe: see `mae-train recipes` [default: finetune_cifar10]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    recipe: Option<String>,
    /// A TOML file with the keys of a recipe
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Changes one key, for example `finetune.epochs=20`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The folder to write the results into [default: the first free one of runs/eval, runs/eval-2, ...]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Goes on with the evaluation in --out, or starts there if there is none yet; what it was told is kept there, and
    /// more --protocols, --baseline or --init add to it
    #[arg(long, requires = "out")]
    resume: bool,
    #[command(flatten)]
    processes: ProcessArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Init {
    /// The weights of --from
    Pretrained,
    /// Fresh weights: what the same protocol gives without pre-training
    Random,
}

impl EvalArgs {
    /// Judges the encoder and prints the table.
    pub fn run(&self) -> Result<ExitCode> {
        self.processes.run(|world| self.judge(world))
    }

    fn judge(&self, world: &Rc<World>) -> Result<ExitCode> {
        let progress = start_progress(world)?;
        let mut begun = Begun::find(world, self.out.as_deref(), self.resume, SETTINGS)?;
        let stored = match begun.settings.take() {
            Some(Source::Text(text, path)) => Some(Settings::read(&text, &path)?),
            _ => None,
        };
        let mut config = self.config(stored.as_ref())?;
        let (device, precision) = config.resolve()?;
        world.agree("configuration", &config.to_toml())?;
        let device = world.device(device)?;
        let protocols = self.protocols(stored.as_ref())?;
        let starts = self.starts(stored.as_ref())?;
        let settings = self.settings(stored, &protocols, &starts, config, &begun)?;
        let weights = settings.weights.clone();
        let (encoder, normalization) = read_config(&weights)?;
        let Images {
            train,
            val,
            nodata,
            listed,
        } = images::open(&settings, encoder.channels, &progress)?;
        for images in [&train, &val] {
            data::agree(images.as_ref(), world)?;
        }
        let out = match world.is_first() {
            true => Some(folder(begun, &settings, &listed, world)?),
            false => None,
        };
        let interrupt = Interrupt::catch()?;
        if let Some(out) = &out {
            eprintln!(
                "judging {} by {} images, on {} in {}; results in {}",
                weights.display(),
                val.len(),
                mae_train::device::name(device),
                precision.name(),
                out.display()
            );
        }
        let evaluation = Evaluation {
            config: &settings.config,
            device,
            precision,
            encoder,
            normalization,
            weights,
            train,
            val,
            nodata,
            out: out.as_deref(),
            world,
            cache: FeatureCache::of_user(),
            interrupt: &interrupt,
            progress: &progress,
        };
        match evaluate(&evaluation, &protocols, &starts)? {
            Some(report) => {
                if let Some(out) = &out {
                    println!("{}", report.table());
                    println!("\nresults: {}", out.join(REPORT).display());
                    for start in &starts {
                        let folder = out.join(format!("{}-{}", Protocol::Knn, start.name()));
                        let picture = folder.join(NEIGHBOURS);
                        if picture.exists() {
                            println!("nearest neighbours: {}", picture.display());
                        }
                    }
                }
                Ok(ExitCode::SUCCESS)
            }
            None => {
                if let Some(out) = &out {
                    println!(
                        "stopped; go on with: mae-train eval --resume --out {}",
                        shell::word(out)
                    );
                }
                Ok(ExitCode::from(128 + interrupt.signal().unwrap_or(2) as u8))
            }
        }
    }

    fn config(&self, stored: Option<&Settings>) -> Result<EvalConfig> {
        let source = match (&self.config, &self.recipe, stored) {
            (Some(path), ..) => Source::File(path.clone()),
            (None, Some(name), _) => Source::Recipe(name.clone()),
            (None, None, Some(stored)) => Source::Text(stored.config.to_toml(), SETTINGS.into()),
            (None, None, None) => Source::Recipe("finetune_cifar10".into()),
        };
        let mut config: EvalConfig = read_as(&source, recipes::EVAL, &self.set, |_| Ok(()))?;
        config.linear.augment |= self.augment;
        Ok(config)
    }

    /// What to judge by now; with what was asked for before, only what is new or unfinished has to be done.
    fn protocols(&self, stored: Option<&Settings>) -> Result<Vec<Protocol>> {
        match (&self.protocols[..], stored) {
            ([], Some(stored)) => stored.protocols(),
            ([], None) => Ok(vec![Protocol::Knn, Protocol::Linear]),
            (asked, _) => Ok(asked.to_vec()),
        }
    }

    fn starts(&self, stored: Option<&Settings>) -> Result<Vec<Start>> {
        Ok(match (self.baseline, self.init, stored) {
            (true, ..) => vec![Start::Pretrained, Start::Random],
            (false, Some(Init::Random), _) => vec![Start::Random],
            (false, None, Some(stored)) => stored.starts()?,
            (false, Some(Init::Pretrained) | None, _) => vec![Start::Pretrained],
        })
    }

    /// What the evaluation is of: as it began, where that is not said again.
    fn settings(
        &self,
        stored: Option<Settings>,
        protocols: &[Protocol],
        starts: &[Start],
        config: EvalConfig,
        begun: &Begun,
    ) -> Result<Settings> {
        let weights = match (&self.from, &stored) {
            (Some(from), _) => checkpoint::find_model(from).context("--from")?,
            (None, Some(stored)) => checkpoint::find_model(&stored.weights)
                .context("the weights that the evaluation began with (put them back, or begin anew with another --out)")?,
            (None, None) => bail!(
                "--from is missing, and {} holds no evaluation to go on with: say what to judge",
                begun
                    .out
                    .as_deref()
                    .unwrap_or_else(|| Path::new("runs"))
                    .display()
            ),
        };
        if let (None, Some(Some(path))) = (&self.data, stored.as_ref().map(|stored| &stored.data)) {
            check_there(path)?;
        }
        let before = |asked: &Option<PathBuf>, stored: Option<&Option<PathBuf>>| {
            asked.clone().or_else(|| stored?.clone())
        };
        let data = before(&self.data, stored.as_ref().map(|stored| &stored.data));
        let val = before(&self.val, stored.as_ref().map(|stored| &stored.val));
        let settings = Settings::new(weights, [data, val], protocols, starts, config);
        match (&stored, &begun.out) {
            (Some(stored), Some(out)) => settings.continue_from(stored, out),
            _ => Ok(settings),
        }
    }
}

/// The folder for the results, with the settings and the list of the images in it.
fn folder(
    begun: Begun,
    settings: &Settings,
    images: &[(&str, Arc<dyn Dataset>)],
    world: &World,
) -> Result<PathBuf> {
    let out = begun.out.unwrap_or_else(|| free_folder("eval"));
    let has_begun = has_begun(&out);
    if has_begun && !begun.resume {
        bail!(
            "{} holds an evaluation already: go on with --resume, or give another --out",
            out.display()
        );
    }
    std::fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    for (name, images) in images {
        let path = out.join(name);
        match has_begun {
            true => manifest::check(&path, images.as_ref(), "or give another --out"),
            false => manifest::write(&path, images.as_ref()),
        }
        .with_context(|| format!("by {name}"))?;
    }
    settings.write(&out.join(SETTINGS), &out)?;
    world.remember("folder", &out.to_string_lossy())?;
    Ok(out)
}

/// Whether there is a result in `out`, or a classifier that has learned something.
fn has_begun(out: &Path) -> bool {
    let mut protocols = (std::fs::read_dir(out).into_iter().flatten()).flatten();
    out.join(REPORT).exists()
        || protocols.any(|folder| RunDir::checkpoints_of(&folder.path()).exists())
}

//! One ablation, from its options to its report.

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Mutex,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use mae_report::Machine;

use crate::{
    base::{Base, Settings, output},
    called_as, cell, grid,
    interrupt::Interrupt,
    local,
    plan::{self, Configs, Plan, Planned},
    slurm,
    study::{self, Study},
    write_report,
};

/// What is compared, on which images, by what, and where.
#[derive(Args)]
pub struct Ablation {
    /// Studies, by name or as the file of a grid of your own
    #[arg(value_name = "STUDY", required = true)]
    studies: Vec<String>,
    /// An embedded recipe of mae-train to begin from [default: quickstart]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    recipe: Option<String>,
    /// A TOML file to begin from
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Your labelled images; without it those of the recipe
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// The labelled images to judge by [default: a part of --data held out, or CIFAR's test images]
    #[arg(long, value_name = "PATH", requires = "data")]
    val: Option<PathBuf>,
    /// Changes one key of all cells, for example `optim.epochs=20`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Changes one key of all evaluations, for example `linear.epochs=30`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    eval_set: Vec<String>,
    /// Judges every value by full fine-tuning, too
    #[arg(long)]
    finetune: bool,
    /// For the study `target`: a tokenizer's run or file [default: one is trained first, on the same images]
    #[arg(long, value_name = "PATH", conflicts_with = "tokenizer_set")]
    tokenizer: Option<PathBuf>,
    /// Changes one key of the tokenizer that is trained for the study `target`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    tokenizer_set: Vec<String>,
    /// Seeds of each value
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Cells at a time, the threads divided among them [default: one, or one for each graphics processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// The folder to write everything into
    #[arg(long, value_name = "DIR", default_value = OUT)]
    out: PathBuf,
    /// Lists the cells and stops
    #[arg(long)]
    dry_run: bool,
    /// What runs the cells
    #[arg(long, value_name = "ENGINE", default_value = "local")]
    launcher: Launcher,
    /// An argument for sbatch, as in --sbatch=--partition=gpu; repeatable
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    sbatch: Vec<String>,
}

/// The folder of an ablation that was given none.
pub const OUT: &str = "runs/ablation";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Launcher {
    /// Child processes on this machine
    Local,
    /// One job array, through sbatch
    Slurm,
}

impl Ablation {
    /// Runs all cells, or submits them.
    ///
    /// # Errors
    /// If the options do not fit the configuration, the images or what `--out` holds.
    pub fn run(&self) -> Result<ExitCode> {
        ensure!(
            self.sbatch.is_empty() || self.launcher == Launcher::Slurm,
            "--sbatch is for --launcher slurm"
        );
        let interrupt = Interrupt::catch()?;
        let (program, revision) = mae_train()?;

        let settings = self.settings();
        let base_config = settings.resolve(&program, &[])?;
        settings.check_images(&base_config)?;
        settings.check_keys(&program)?;
        let base = Base::of(&base_config)?;
        let mut studies = self.studies(&base)?;
        let earlier = Plan::open(&self.out)?;
        let base_text = toml::to_string(&base_config)?;
        if let Some(earlier) = &earlier {
            earlier.admit(&settings, &base_text, &studies, &self.out)?;
        }
        let tokenizer = self.tokenizer(&settings, &studies, &base_config, &program)?;
        for variant in studies.iter_mut().flat_map(|study| &mut study.variants) {
            if let (true, Some(path)) = (variant.needs_tokenizer, &tokenizer) {
                variant
                    .set
                    .push(format!("data.tokenizer={}", path.display()));
            }
        }
        if tokenizer.is_none() {
            for study in &mut studies {
                study.variants.retain(|variant| !variant.needs_tokenizer);
            }
        }

        let gpus = match self.launcher {
            Launcher::Local => local::gpus(),
            Launcher::Slurm => Vec::new(),
        };
        let jobs = self.jobs.map_or(gpus.len().max(1), usize::from);
        let slots = local::slots(jobs, &gpus);
        let mut configs = Configs::new();
        let planned = (studies.into_iter())
            .map(|study| {
                let cells = plan::resolve(&study, &settings, &program, self.seeds, &mut configs)?;
                Ok(Planned {
                    study,
                    command: typed(),
                    engine: self.engine(&slots),
                    cells,
                })
            })
            .collect::<Result<_>>()?;
        let mut plan = Plan {
            settings,
            base_config: base_text,
            machine: Machine::this(),
            revision,
            studies: planned,
        };
        if self.dry_run {
            self.list(&plan);
            return Ok(ExitCode::SUCCESS);
        }

        if let Some(earlier) = earlier {
            plan.join(earlier);
        }
        for (hash, config) in &configs {
            let folder = cell::Folder::new(&self.out, hash, &plan.settings);
            std::fs::create_dir_all(&folder.path)
                .with_context(|| format!("creating {}", folder.path.display()))?;
            mae_report::write_atomic(&folder.config(), config.as_bytes())?;
        }
        plan.save(&self.out)?;
        match self.launcher {
            Launcher::Local => self.run_here(&plan, &program, &slots, &interrupt),
            Launcher::Slurm => {
                let jobs = self.jobs.map(usize::from);
                slurm::submit(&plan, &self.out, &program, jobs, &self.sbatch)
            }
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            recipe: self.recipe.clone(),
            config: self.config.clone(),
            data: self.data.clone(),
            val: self.val.clone(),
            set: self.set.clone(),
            eval_set: self.eval_set.clone(),
            finetune: self.finetune,
            tokenizer: self.tokenizer.clone(),
            tokenizer_set: self.tokenizer_set.clone(),
        }
    }

    fn studies(&self, base: &Base) -> Result<Vec<Study>> {
        let mut studies: Vec<Study> = Vec::new();
        for name in &self.studies {
            let study = match name.ends_with(".toml") {
                true => grid::read(Path::new(name))?,
                false => study::study(name, base)?,
            };
            if studies.iter().any(|other| other.name == study.name) {
                bail!("the study {} is given twice", study.name);
            }
            studies.push(study);
        }
        Ok(studies)
    }

    /// The tokenizer that studies need, trained if the user gave none; in a dry run nothing is trained.
    fn tokenizer(
        &self,
        settings: &Settings,
        studies: &[Study],
        base_config: &toml::Table,
        program: &Path,
    ) -> Result<Option<PathBuf>> {
        let mut variants = studies.iter().flat_map(|study| &study.variants);
        if !variants.any(|variant| variant.needs_tokenizer) {
            return Ok(None);
        }
        if let Some(given) = &settings.tokenizer {
            return Ok(Some(given.clone()));
        }
        let path = self.out.join("tokenizer");
        if self.dry_run {
            println!(
                "a tokenizer is trained first, into {}; cells that need it are not listed",
                path.display()
            );
            return Ok(None);
        }
        eprintln!("first the tokenizer, in {}", path.display());
        let mut command = Command::new(program);
        command
            .arg("tokenizer")
            .arg("--resume")
            .arg("--out")
            .arg(&path);
        let own = ["image_height", "image_width", "patch_size", "channels"];
        for section in ["model", "data"] {
            let keys = base_config.get(section).and_then(toml::Value::as_table);
            for (key, value) in keys.into_iter().flatten() {
                if section == "data" || own.contains(&key.as_str()) {
                    command.arg("--set").arg(format!("{section}.{key}={value}"));
                }
            }
        }
        for pair in &settings.tokenizer_set {
            command.arg("--set").arg(pair);
        }
        let status =
            (command.status()).with_context(|| format!("running {}", program.display()))?;
        ensure!(
            status.success(),
            "the tokenizer was not trained to its end ({status}): repeat the command to go on, or give one by --tokenizer"
        );
        Ok(Some(path))
    }

    /// On what and how cells run, in words.
    fn engine(&self, slots: &[cell::Slot]) -> String {
        match self.launcher {
            Launcher::Slurm => "The cells ran as a Slurm job array.".into(),
            Launcher::Local => {
                let gpus: BTreeSet<_> = slots.iter().filter_map(|slot| slot.gpu.as_ref()).collect();
                let threads = slots.first().map_or(1, |slot| slot.threads);
                match (slots.len(), gpus.len()) {
                    (1, 0) => format!("The cells ran one after the other, with {threads} threads."),
                    (jobs, 0) => format!(
                        "{jobs} cells ran at a time, with {threads} thread{} each: they share the machine, so times are \
                         comparable with each other only.",
                        if threads == 1 { "" } else { "s" }
                    ),
                    (jobs, gpus) => {
                        format!("{jobs} cells ran at a time on {gpus} graphics processors.")
                    }
                }
            }
        }
    }

    /// What `--dry-run` prints.
    fn list(&self, plan: &Plan) {
        for Planned { study, cells, .. } in &plan.studies {
            println!("{}: {}", study.name, study.question);
            if let Some(rule) = &study.rule {
                println!("  {rule}");
            }
            for (variant, keys) in study.variants.iter().zip(cells) {
                let hashes: Vec<&str> = keys.iter().map(|key| key.hash.as_str()).collect();
                let settings = match &variant.protocol {
                    Some(protocol) => protocol.clone(),
                    None => variant.set.join(" "),
                };
                println!("  {:22} {settings}  [{}]", variant.label, hashes.join(" "));
            }
        }
        let cells = plan.cells().len();
        let finished = cells - plan.unfinished(&self.out).len();
        println!(
            "{cells} cells, one for each value and seed, of which {finished} are finished; a cell's folder is named by \
             what stands in brackets"
        );
    }

    fn run_here(
        &self,
        plan: &Plan,
        program: &Path,
        slots: &[cell::Slot],
        interrupt: &Interrupt,
    ) -> Result<ExitCode> {
        let one_at_a_time = Mutex::new(());
        let report = || {
            let _guard = one_at_a_time.lock();
            write_report(plan, &self.out)
        };
        let ended = local::run(plan, &self.out, program, slots, interrupt, report)?;
        report()?;
        println!("report: {}", self.out.join("report.html").display());
        if ended.interrupted {
            println!("stopped; the same command goes on");
            return Ok(ExitCode::from(130));
        }
        if ended.failed.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!(
            "{} cells failed; the same command tries them again:",
            ended.failed.len()
        );
        for (name, reason) in &ended.failed {
            eprintln!("  {name}: {reason}");
        }
        Ok(ExitCode::FAILURE)
    }
}

/// The command line, as it can be typed again.
fn typed() -> String {
    let words = env::args().skip(1).map(|word| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,/:+@%".contains(c);
        match !word.is_empty() && word.chars().all(is_plain) {
            true => word,
            false => format!("'{}'", word.replace('\'', r"'\''")),
        }
    });
    format!("{} {}", called_as(), words.collect::<Vec<_>>().join(" "))
}

/// The program that trains and judges, and what names its code.
fn mae_train() -> Result<(PathBuf, String)> {
    let name = format!("mae-train{}", env::consts::EXE_SUFFIX);
    let program = env::var_os("MAE_TRAIN")
        .filter(|named| !named.is_empty())
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let beside = env::current_exe()
                .ok()
                .map(|this| this.with_file_name(&name));
            beside
                .filter(|path| path.is_file())
                .unwrap_or_else(|| name.into())
        });
    let version = output(Command::new(&program).arg("--version"))
        .context("ablations are run by mae-train: install it, or name it by MAE_TRAIN=PATH")?;
    ensure!(
        version.starts_with("mae-train "),
        "{} is no mae-train: asked for its --version, it says {version:?}",
        program.display()
    );
    let revision = env::var("MAE_REVISION");
    Ok((
        program,
        revision.unwrap_or_else(|_| version.trim().to_string()),
    ))
}

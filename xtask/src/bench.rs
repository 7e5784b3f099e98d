//! `cargo xtask bench`: our loader and training step, measured in turn with other systems'.
//!
//! [`loader`] and [`step`] say what is measured, [`measure`] does it, [`record`] keeps every measurement,
//! [`table`] makes numbers of them and [`page`] puts those into the documentation.
//! The other systems are scripts in `benches/peers`, in a Python environment of their own ([`python`]).

mod loader;
mod measure;
mod page;
mod photos;
mod python;
mod record;
mod step;
mod table;

use std::{fmt, path::PathBuf, process::ExitCode};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use self::{page::Page, python::Python, record::Results};
use crate::process::Interrupt;
use crate::{cargo, libtorch::cache::Cache};

const EXAMPLES: &str = "Examples:
  cargo xtask bench                                 ours alone, minutes
  cargo xtask bench all --peers                     in turn with PIL, torchvision, DALI and Hugging Face
  cargo xtask bench loader --photos photos --workers 2
  cargo xtask bench step --rounds 11
  cargo xtask bench step --precision bf16 --peers";

/// Measure our loader and training step, with --peers in turn with other systems'
///
/// Prints a table, keeps every single measurement in docs/results/bench.json, and puts the table into
/// docs/results/performance.md, which has a part for each processor that it was run on.
///
/// The other systems are Python packages, which --peers installs into an environment of its own in the cache
/// (MAE_CACHE_DIR, or `mae-rs` in your user cache directory) with the index that your pip is configured for.
/// A system that cannot be installed or does not run is named and left out.
///
/// Close other programs first: whatever else runs is measured, too.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value_t = What::All)]
    what: What,

    /// Measure other systems, too: about 3 GB to download and 6 GB on disk the first time
    #[arg(long)]
    peers: bool,

    /// How often each measurement is repeated, in turn with the others
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// The loaders' worker threads or processes; one per core without it
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    workers: Option<u32>,

    /// What the steps' matrix products are computed in
    #[arg(long, value_enum, default_value_t = Precision::Fp32)]
    precision: Precision,

    /// A folder of JPEG photographs for the loaders; without it some are drawn and kept in the cache
    #[arg(long, value_name = "DIR")]
    photos: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Photographs to batches
    Loader,
    /// One training step on the CPU
    Step,
    /// Both
    All,
}

/// What the matrix products of a step are computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32 bits
    Fp32,
    /// 16 bits, added up in 32
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
        })
    }
}

impl Arguments {
    /// The command that measures `section` like this.
    fn repeat(&self, section: Section) -> String {
        let mut command = match section {
            Section::Loader => "cargo xtask bench loader".to_string(),
            Section::Step(precision) => format!("cargo xtask bench step --precision {precision}"),
        };
        if self.peers {
            command += " --peers";
        }
        if section == Section::Loader {
            if let Some(workers) = self.workers {
                command += &format!(" --workers {workers}");
            }
            if self.photos.is_some() {
                command += " --photos DIR";
            }
        }
        command + &format!(" --rounds {}", self.rounds)
    }
}

/// A part of the page and of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Photographs to batches.
    Loader,
    /// One training step.
    Step(Precision),
}

impl fmt::Display for Section {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Loader => "loader",
            Self::Step(Precision::Fp32) => "step",
            Self::Step(Precision::Bf16) => "step-bf16",
        })
    }
}

/// Runs `cargo xtask bench`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = cargo::workspace_root();
    let step = Section::Step(arguments.precision);
    let sections: &[Section] = match arguments.what {
        What::Loader => &[Section::Loader],
        What::Step => &[step],
        What::All => &[Section::Loader, step],
    };
    ensure!(
        arguments.what != What::Loader || arguments.precision == Precision::Fp32,
        "--precision is of the step, and the loader has none: leave it out, or measure `step` or `all`"
    );
    // What would be in the way at the end is found before the hours of measuring.
    let mut page = Page::open(&root)?;
    let mut results = Results::open(&root)?;

    let interrupt = Interrupt::catch()?;
    let cache = Cache::locate()?;
    let mut python = Python::new(&cache, &interrupt);
    for &section in sections {
        let suite = match section {
            Section::Loader => {
                let photos = photos::find(arguments.photos.as_deref(), &root, &mut python)?;
                let peers = peers(arguments, section, &mut python)?;
                loader::suite(&root, &photos, arguments.workers, peers, &interrupt)?
            }
            Section::Step(precision) => {
                let peers = peers(arguments, section, &mut python)?;
                step::suite(&root, precision, peers, &interrupt)?
            }
        };
        let command = arguments.repeat(section);
        let record = measure::in_turn(suite, arguments.rounds, &command, &root, &interrupt)?;
        println!("{}", table::render(&record));
        let records = results.keep(section, record)?;
        page.replace(section, &table::render_all(records))?;
    }
    eprintln!("every measurement is in {}", results.path().display());
    Ok(ExitCode::SUCCESS)
}

/// The environment with what `section`'s peers need, if they were asked for.
fn peers<'a>(
    arguments: &Arguments,
    section: Section,
    python: &'a mut Python,
) -> Result<Option<&'a Python<'a>>> {
    if !arguments.peers {
        return Ok(None);
    }
    python.install_peers(section)?;
    Ok(Some(python))
}

//! One module a command, and what they share.

pub mod attend;
mod begun;
pub mod completions;
pub mod config;
pub mod convert;
pub mod doctor;
pub mod embed;
pub mod eval;
pub mod export;
mod images;
pub mod inspect;
pub mod man;
pub mod pack;
mod picture;
pub mod plan;
pub mod predict;
pub mod pretrain;
mod processes;
pub mod recipes;
pub mod reconstruct;
mod run;
pub mod tokenizer;

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use mae_train::distributed::World;
use mae_train::predict::{find, is_of_evaluation};
use mae_train::run::checkpoint;
use mae_train::run::progress::Progress;

/// A progress bar, of which several processes show one, and a logger that does not tear it.
fn start_progress(world: &World) -> Result<Progress> {
    let progress = match world.is_first() {
        true => Progress::stderr(),
        false => Progress::hidden(),
    };
    let logger =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).build();
    let level = logger.filter();
    indicatif_log_bridge::LogWrapper::new(progress.bars(), logger).try_init()?;
    log::set_max_level(level);
    Ok(progress)
}

/// The weights that `--from` names: a run's latest, those of a file, or the classifier that an evaluation learned.
fn find_weights(from: &Path) -> Result<PathBuf> {
    let weights = match is_of_evaluation(from) {
        true => find(from),
        false => checkpoint::find_model(from),
    };
    weights.context("--from")
}

/// The first of `NAME.EXTENSION`, `NAME-2.EXTENSION`, ... that is not there yet.
fn free_file(name: &str, extension: &str) -> PathBuf {
    let file = |suffix: String| PathBuf::from(format!("{name}{suffix}.{extension}"));
    std::iter::once(file(String::new()))
        .chain((2..).map(|number| file(format!("-{number}"))))
        .find(|path| !path.exists())
        .expect("numbers do not end")
}

/// The first of `runs/NAME`, `runs/NAME-2`, ... that is not there yet.
fn free_folder(name: &str) -> PathBuf {
    let folder = |suffix: String| Path::new("runs").join(format!("{name}{suffix}"));
    std::iter::once(folder(String::new()))
        .chain((2..).map(|number| folder(format!("-{number}"))))
        .find(|path| !path.exists())
        .expect("numbers do not end")
}

/// Whether `file` is there, and is `place` or lies in it.
fn lies_in(file: &Path, place: &Path) -> bool {
    matches!((file.canonicalize(), place.canonicalize()), (Ok(file), Ok(place)) if file.starts_with(&place))
}

/// Says which images were left out, by name and reason.
fn tell_of_broken(broken: &[(String, String)]) {
    const SHOWN: usize = 10;
    match broken.len() {
        0 => return,
        1 => println!("left out 1 broken image:"),
        count => println!("left out {count} broken images:"),
    }
    for (name, reason) in broken.iter().take(SHOWN) {
        println!("  {name}: {reason}");
    }
    if broken.len() > SHOWN {
        println!("  and {} more", broken.len() - SHOWN);
    }
}

/// Writes to standard output; a reader that has seen enough, as `head`, is no error.
fn write_stdout(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<ExitCode> {
    let mut stdout = io::stdout().lock();
    match write(&mut stdout).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

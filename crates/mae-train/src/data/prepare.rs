//! What a run does with its images before it trains on them.

use std::sync::Arc;

use anyhow::{Result, ensure};
use mae_data::Dataset;
use mae_model::Normalization;

use super::parts::Parts;
use super::{agree, open, settle_normalization, settle_values, tell_of_images, tell_of_labels};
use crate::config::{Method, Run, RunKeys};
use crate::distributed::World;
use crate::run::checkpoint;
use crate::run::folder::RunDir;
use crate::run::manifest;
use crate::run::progress::Progress;

/// A run's images, and what is known of them.
pub struct Prepared {
    /// The images.
    pub dataset: Arc<dyn Dataset>,
    /// Their channel statistics.
    pub normalization: Normalization,
    /// Whether there is no checkpoint to go on from.
    pub is_new: bool,
}

/// Opens the images of a run, makes sure that a resumed one goes on with those that it began with, and fills in what
/// the configuration leaves to be measured.
///
/// All processes of `world` call this; the first alone has a `run_dir`.
///
/// # Errors
/// If they cannot be read, or are others than before or than those of another process.
pub fn prepare<M: Method>(
    config: &mut Run<M>,
    run_dir: Option<&RunDir>,
    world: &World,
    progress: &Progress,
) -> Result<Prepared> {
    let dataset = open(&config.data, &config.grid, config.seed)?;
    let needs_labels = config.run.for_loop().eval_every > 0;
    if let Some(path) = &config.data.path
        && let Some(parts) = Parts::of(dataset.as_ref(), path)
    {
        ensure!(
            !needs_labels,
            "`run.eval_every` needs one sub-folder a class, but {parts}; give one of them with --data"
        );
        progress.line(&parts.notice());
    }
    tell_of_images(&[dataset.as_ref()], progress);
    if needs_labels {
        tell_of_labels(&[dataset.as_ref()], progress);
    }
    let is_new = match run_dir {
        Some(run_dir) => checkpoint::latest(&run_dir.checkpoints())?.is_none(),
        None => true,
    };
    if let Some(run_dir) = run_dir.filter(|_| !is_new) {
        manifest::check(&run_dir.images(), dataset.as_ref(), &M::begin_anew(run_dir))?;
        if let Some(path) = &config.data.path {
            run_dir.note_data(path)?;
        }
    }
    settle_values(&mut config.data, dataset.as_ref())?;
    let (grid, seed) = (config.grid, config.seed);
    let normalization = settle_normalization(&mut config.data, &grid, seed, dataset.as_ref())?;
    agree(dataset.as_ref(), world)?;
    Ok(Prepared {
        dataset,
        normalization,
        is_new,
    })
}

//! From a configuration to images, statistics and batches.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use mae_data::{
    Cifar, CifarDataset, Dataset, FolderDataset, Loader, LoaderConfig, Order, PackedDataset,
    PatchGrid, Split, SyntheticDataset, TarDataset, Transform, channel_mean_std,
};
use mae_model::Normalization;

use crate::config::{DataSection, DataSource, NormalizationSource, RunConfig, Source, read};

/// Images whose pixels are looked at for `data.normalization = "auto"`.
const STATISTICS_SAMPLE: usize = 1024;

/// Opens the images that `data` describes; drawn ones are of the size of `grid` and depend on `seed`.
///
/// # Errors
/// With the path and what was found there.
pub fn open(data: &DataSection, grid: &PatchGrid, seed: u64) -> Result<Arc<dyn Dataset>> {
    let path = data.path.as_deref().unwrap_or_else(|| ".".as_ref());
    match data.source {
        DataSource::Synthetic => Ok(Arc::new(SyntheticDataset::new(
            data.samples,
            grid.height(),
            grid.width(),
            grid.channels(),
            seed,
        )?)),
        source => open_files(source, path, Split::Train, grid.channels()),
    }
}

/// Opens the images that the run which `weights`, a checkpoint's model.safetensors, belongs to was trained on.
///
/// # Errors
/// If the file is in no run's folder, or the run's images are not there any more.
pub fn open_own(weights: &Path) -> Result<Arc<dyn Dataset>> {
    // RUN/checkpoints/step-00000001/model.safetensors
    let run = weights
        .ancestors()
        .nth(3)
        .map(|run| run.join("config.toml"));
    let config = run
        .filter(|config| config.exists())
        .with_context(|| format!("{} lies in no run's folder", weights.display()))?;
    // Where it was trained does not matter, and there may be no such device here.
    let on_cpu = ["run.device=cpu".to_string()];
    let run = read(&Source::File(config), None, &on_cpu)?.resolve()?;
    open(&run.data, &run.grid, run.seed)
}

/// Opens the images at `path`, whatever [`DataSource::of`] finds there; `split` matters to CIFAR's files alone.
///
/// # Errors
/// With the path and what was found there.
pub fn open_path(path: &Path, split: Split, channels: usize) -> Result<Arc<dyn Dataset>> {
    open_files(DataSource::of(path), path, split, channels)
}

fn open_files(
    source: DataSource,
    path: &Path,
    split: Split,
    channels: usize,
) -> Result<Arc<dyn Dataset>> {
    Ok(match source {
        DataSource::Cifar10 => Arc::new(CifarDataset::open(path, Cifar::Ten, split)?),
        DataSource::Cifar100 => Arc::new(CifarDataset::open(path, Cifar::Hundred, split)?),
        DataSource::Packed => Arc::new(PackedDataset::open(path, channels)?),
        DataSource::Tar => Arc::new(TarDataset::open(&[path], channels)?),
        DataSource::Folder | DataSource::Synthetic => {
            Arc::new(FolderDataset::open(path, channels)?)
        }
    })
}

/// Settles the channel statistics, measuring them if need be, and writes them into `data`.
///
/// # Errors
/// If no image of the sample can be read.
pub fn settle_normalization(
    data: &mut DataSection,
    grid: &PatchGrid,
    seed: u64,
    dataset: &dyn Dataset,
) -> Result<Normalization> {
    if let Some(normalization) = data.normalization() {
        return Ok(normalization);
    }
    // Of plain crops, so that the same images give the same numbers under any augmentation.
    let crop = Transform::center_crop(grid.height(), grid.width());
    let stats = channel_mean_std(dataset, &crop, STATISTICS_SAMPLE, seed)
        .context("measuring the channels' mean and standard deviation")?;
    data.normalization = NormalizationSource::Given;
    data.mean = Some(stats.mean.clone());
    data.std = Some(stats.std.clone());
    Ok(Normalization::new(stats.mean, stats.std))
}

/// The loader of training batches.
///
/// # Errors
/// If the settings make no batch of these images.
pub fn loader(config: &RunConfig, dataset: Arc<dyn Dataset>) -> Result<Loader> {
    Ok(Loader::new(
        dataset,
        LoaderConfig {
            workers: config.run.workers,
            prefetch: 2 * config.optim.accumulate,
            drop_last: config.data.drop_last,
            order: Order::Shuffled,
            seed: config.seed,
            max_broken_share: config.data.max_broken_share,
            mask_ratio: config.mask.ratio,
            sampler: config.mask.sampler,
            transform: config.transform(),
            ..LoaderConfig::new(config.grid, config.optim.batch_size)
        },
    )?)
}

//! From a configuration to images, statistics and batches.

pub mod batch;
pub mod choose;
pub mod digest;
pub mod parts;
pub mod prepare;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use mae_data::{
    ChannelStats, Cifar, CifarDataset, Dataset, FolderDataset, Image, LeftOut, Loader,
    LoaderConfig, Nodata, Order, PackedDataset, PatchGrid, PixelKind, Pixels, Split,
    SyntheticDataset, TarDataset, Transform, channel_mean_std,
};
use mae_model::Normalization;
use sha2::{Digest, Sha256};

use crate::config::{
    DataSection, DataSource, MaskSection, NormalizationSource, RunConfig, Source, read_begun,
};
use crate::data::digest::hex;
use crate::distributed::World;
use crate::run::checkpoint;
use crate::run::progress::Progress;

/// Images whose pixels are looked at for `data.normalization = "auto"`.
const STATISTICS_SAMPLE: usize = 1024;
/// Images that tell whether values are in 0..1.
const UNITS_SAMPLE: usize = 16;

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
        source => {
            let (split, channels) = (Split::Train, grid.channels());
            open_files(source, path, split, channels, data.values, data.nodata)
        }
    }
}

/// Opens the images at `path`, the `val` of `data`, whose kind of values is settled, as those of `data` are opened.
///
/// # Errors
/// With the path and what was found there.
pub fn open_val(data: &DataSection, path: &Path, channels: usize) -> Result<Arc<dyn Dataset>> {
    let nodata = nodata_as_in_others(data.nodata, path)?;
    let source = DataSource::of(path);
    // Bytes have no other reading.
    let values = data
        .values
        .filter(|_| may_declare_nodata(source) || source == DataSource::Packed);
    open_files(source, path, Split::Test, channels, values, nodata)
}

/// Opens the images that the run which `weights`, a checkpoint's model.safetensors, belongs to was trained on.
///
/// # Errors
/// If the file is in no run's folder, or the run's images are not there any more.
pub fn open_own(weights: &Path) -> Result<Arc<dyn Dataset>> {
    let run = config_of(weights)?
        .with_context(|| format!("{} lies in no run's folder", weights.display()))?;
    open(&run.data, &run.grid, run.seed)
}

/// What the run that `weights`, a checkpoint's model.safetensors, belongs to hides of an image, and its seed; the defaults
/// where the file lies in no run's folder.
///
/// # Errors
/// If the run's configuration cannot be read.
pub fn mask_of(weights: &Path) -> Result<(MaskSection, u64)> {
    Ok(config_of(weights)?.map_or_else(Default::default, |run| (run.method.mask, run.seed)))
}

/// The configuration of the run that a checkpoint's model.safetensors belongs to, if it does to one.
fn config_of(weights: &Path) -> Result<Option<RunConfig>> {
    checkpoint::run_of(weights)
        .map(|run| read_begun(&Source::File(run.join("config.toml"))))
        .transpose()
}

/// Opens the images at `path`, whatever [`DataSource::of`] finds there; `split` matters to CIFAR's files alone.
///
/// # Errors
/// With the path and what was found there.
pub fn open_path(
    path: &Path,
    split: Split,
    channels: usize,
    nodata: Nodata,
) -> Result<Arc<dyn Dataset>> {
    open_files(DataSource::of(path), path, split, channels, None, nodata)
}

/// What stands for a missing value in the images at `path`, if nothing is said: what stood for it in the images of the
/// run that `weights`, a checkpoint's model.safetensors, belongs to.
///
/// # Errors
/// If the run's configuration, or a file at `path`, cannot be read.
pub fn nodata_as_in_training(weights: &Path, path: &Path) -> Result<Nodata> {
    match can_have_nodata(path)? {
        true => Ok(config_of(weights)?.map_or(Nodata::Auto, |run| run.data.nodata)),
        false => Ok(Nodata::Auto),
    }
}

/// `known`, which stood for a missing value in other images, for those at `path`, if they can have any.
///
/// # Errors
/// If a file at `path` cannot be read.
pub fn nodata_as_in_others(known: Nodata, path: &Path) -> Result<Nodata> {
    Ok(match can_have_nodata(path)? {
        true => known,
        false => Nodata::Auto,
    })
}

fn can_have_nodata(path: &Path) -> Result<bool> {
    Ok(may_declare_nodata(DataSource::of(path)) || is_image(path)?)
}

/// Whether the images are files of their own, which may have missing values and be read with others.
fn may_declare_nodata(source: DataSource) -> bool {
    matches!(source, DataSource::Folder | DataSource::Tar)
}

/// Whether it is one image, or nothing else that is known.
fn is_image(path: &Path) -> Result<bool> {
    let is_packed =
        || PackedDataset::is_packed(path).with_context(|| format!("reading {}", path.display()));
    Ok(DataSource::of(path) == DataSource::Packed && !is_packed()?)
}

/// Opens the images at `path` as [`open_path`] does, or the one image that it is.
///
/// # Errors
/// With the path and what was found there.
pub fn open_path_or_image(
    path: &Path,
    split: Split,
    channels: usize,
    nodata: Nodata,
) -> Result<Arc<dyn Dataset>> {
    match is_image(path)? {
        true => {
            let image = FolderDataset::of_one(path, channels)?;
            Ok(Arc::new(image.with_nodata(nodata)))
        }
        false => open_path(path, split, channels, nodata),
    }
}

fn open_files(
    source: DataSource,
    path: &Path,
    split: Split,
    channels: usize,
    values: Option<PixelKind>,
    nodata: Nodata,
) -> Result<Arc<dyn Dataset>> {
    Cifar::check_unpacked(path)?;
    ensure!(
        nodata == Nodata::Auto || may_declare_nodata(source),
        "{}: only image files and arrays, in a folder or tar files, can be told what stands for a missing value, found \
         nodata {nodata}; leave it out, or give it to mae-train pack, whose files keep what is missing",
        path.display()
    );
    Ok(match source {
        DataSource::Cifar10 => Arc::new(CifarDataset::open(path, Cifar::Ten, split)?),
        DataSource::Cifar100 => Arc::new(CifarDataset::open(path, Cifar::Hundred, split)?),
        DataSource::Packed => {
            let packed = PackedDataset::open(path, channels)?;
            let values = values.unwrap_or(packed.kind());
            Arc::new(packed.read_as(values)?)
        }
        DataSource::Tar => {
            let shards = TarDataset::open(&[path], channels)?.with_nodata(nodata);
            match values {
                Some(values) => Arc::new(shards.read_as(values)),
                None => Arc::new(shards),
            }
        }
        DataSource::Folder | DataSource::Synthetic => {
            let folder = FolderDataset::open(path, channels)?.with_nodata(nodata);
            match values {
                Some(values) => Arc::new(folder.read_as(values)),
                None => Arc::new(folder),
            }
        }
    })
}

/// Writes into `data` what the values of the images are, so that a run goes on with the same.
///
/// # Errors
/// If `data` asks for changes that such values do not allow.
pub fn settle_values(data: &mut DataSection, dataset: &dyn Dataset) -> Result<()> {
    data.values = Some(dataset.kind());
    data.check_colours(dataset.channels(), dataset.kind())
}

/// Settles the channel statistics, measuring them if need be, and writes them into `data`.
///
/// # Errors
/// If no image of the sample can be read, or if ImageNet's statistics are asked for and the values are not in 0..1.
pub fn settle_normalization(
    data: &mut DataSection,
    grid: &PatchGrid,
    seed: u64,
    dataset: &dyn Dataset,
) -> Result<Normalization> {
    // Of plain crops, so that the same images give the same numbers under any augmentation.
    let crop = Transform::center_crop(grid.height(), grid.width());
    let measure = |sample| {
        channel_mean_std(dataset, &crop, sample, seed)
            .context("measuring the channels' mean and standard deviation")
    };
    if let Some(normalization) = data.normalization() {
        if data.normalization == NormalizationSource::Imagenet && dataset.kind() == PixelKind::F32 {
            let ChannelStats { mean, std } = measure(UNITS_SAMPLE)?;
            if !(mean.iter().all(|mean| (0.0..=1.0).contains(mean))
                && std.iter().all(|&std| std <= 1.0))
            {
                bail!(
                    "`data.normalization` is \"imagenet\", for values in 0..1, but some images have mean {mean:?} and \
                     std {std:?}; set data.normalization=auto"
                );
            }
        }
        return Ok(normalization);
    }
    let stats = measure(STATISTICS_SAMPLE)?;
    data.normalization = NormalizationSource::Given;
    data.mean = Some(stats.mean.clone());
    data.std = Some(stats.std.clone());
    Ok(Normalization::new(stats.mean, stats.std))
}

/// Says what lies beside the images of `datasets` and is none of them, and what to know of how these are read; of two
/// parts of one data set once.
pub fn tell_of_images(datasets: &[&dyn Dataset], progress: &Progress) {
    let mut told: Vec<&[LeftOut]> = Vec::new();
    for kinds in datasets.iter().map(|dataset| dataset.left_out()) {
        if !told.contains(&kinds) {
            LeftOut::lines(kinds)
                .iter()
                .for_each(|line| progress.line(line));
            told.push(kinds);
        }
    }
    tell_once(
        datasets.iter().flat_map(|dataset| dataset.notes()),
        progress,
    );
}

/// Says what to know of the labels of `datasets`, likewise.
pub fn tell_of_labels(datasets: &[&dyn Dataset], progress: &Progress) {
    let notes = datasets.iter().filter_map(|dataset| dataset.label_note());
    tell_once(notes, progress);
}

fn tell_once<'a>(notes: impl Iterator<Item = &'a str>, progress: &Progress) {
    let mut told = Vec::new();
    for note in notes {
        if !told.contains(&note) {
            progress.line(note);
            told.push(note);
        }
    }
}

/// Images that are compared between processes.
const COMPARED: usize = 8;

/// Makes sure that all processes have the same images: as many, with the same labels, the same ones here and there.
///
/// # Errors
/// Which process has others, or if one of those looked at cannot be read.
pub fn agree(dataset: &dyn Dataset, world: &World) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    let mut labels = Sha256::new();
    for index in 0..dataset.len() {
        labels.update(dataset.label(index).map_or(-1, i64::from).to_le_bytes());
    }
    let mut text = format!(
        "images = {}\nlabels = {}\n",
        dataset.len(),
        hex(&labels.finalize()[..8])
    );
    for i in 0..COMPARED.min(dataset.len()) {
        let index = i * dataset.len() / COMPARED.min(dataset.len());
        let mut digest = Sha256::new();
        match dataset.image(index).as_ref().map(Image::pixels) {
            Ok(Pixels::U8(values)) => digest.update(values),
            Ok(Pixels::F32(values)) => values.iter().for_each(|v| digest.update(v.to_le_bytes())),
            // A broken image is broken everywhere.
            Err(_) => {}
        }
        text += &format!("image {index} = {}\n", hex(&digest.finalize()[..8]));
    }
    world.agree("images", &text)
}

/// The loader of training batches, or of this process's part of them.
///
/// # Errors
/// If the settings make no batch of these images.
pub fn loader(config: &RunConfig, dataset: Arc<dyn Dataset>, world: &World) -> Result<Loader> {
    Ok(Loader::new(
        dataset,
        LoaderConfig {
            workers: world.workers(config.run.workers),
            prefetch: 2 * config.optim.accumulate,
            drop_last: config.data.drop_last,
            order: Order::Shuffled,
            seed: config.seed,
            max_broken_share: config.data.max_broken_share,
            shard: world.shard(),
            mask_ratio: config.method.mask.ratio,
            sampler: config.method.mask.sampler,
            transform: config.transform(),
            ..LoaderConfig::new(config.grid, config.optim.batch_size)
        },
    )?)
}

//! The images of an evaluation.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use mae_data::{Dataset, Nodata, Split, Subset, hold_out, label_by_name, list_classes};
use mae_train::config::{DataSource, Source, read_begun};
use mae_train::data::parts::{refuse_to_judge, refuse_to_learn};
use mae_train::data::{self, nodata_as_in_training, open_path};
use mae_train::eval::Protocol;
use mae_train::run::checkpoint;
use mae_train::run::progress::Progress;

use super::settings::Settings;

/// The images of an evaluation.
pub(super) struct Images {
    /// Those to learn from.
    pub(super) train: Arc<dyn Dataset>,
    /// Those to judge by.
    pub(super) val: Arc<dyn Dataset>,
    /// What stood for missing values in those to learn from.
    pub(super) nodata: Nodata,
    /// What both are of, each with the name of the file that lists it.
    pub(super) listed: Vec<(&'static str, Arc<dyn Dataset>)>,
}

/// Opens the images to learn from and those to judge by; where labels are needed, by the names of the first ones'
/// classes.
pub(super) fn open(settings: &Settings, channels: usize, progress: &Progress) -> Result<Images> {
    let needs_labels = (settings.protocols()?.iter()).any(Protocol::needs_labels);
    let Some(data) = &settings.data else {
        ensure!(
            settings.val.is_none(),
            "--val is given without --data: give both"
        );
        return of_run(settings, needs_labels, progress);
    };
    let nodata_of = |path: &Path| match settings.config.data.nodata {
        Some(nodata) => Ok(nodata),
        None => nodata_as_in_training(&settings.weights, path),
    };
    let open = |path: &Path, split| open_path(path, split, channels, nodata_of(path)?);
    let nodata = nodata_of(data)?;
    let train = open(data, Split::Train)?;
    if needs_labels {
        refuse_to_learn("--data", train.as_ref(), data)?;
    }
    let val = match (&settings.val, DataSource::of(data)) {
        (Some(val), _) => {
            let images = open(val, Split::Test)?;
            if needs_labels {
                refuse_to_judge(images.as_ref(), val)?;
            }
            images
        }
        (None, DataSource::Cifar10 | DataSource::Cifar100) => open(data, Split::Test)?,
        (None, _) => return held_out(train, nodata, settings),
    };
    beside(train, val, nodata, needs_labels, progress)
}

/// Images to learn from, and others to judge by.
fn beside(
    train: Arc<dyn Dataset>,
    val: Arc<dyn Dataset>,
    nodata: Nodata,
    needs_labels: bool,
    progress: &Progress,
) -> Result<Images> {
    let (val, missing) = match needs_labels {
        true => label_by_name(train.as_ref(), val)?,
        false => (val, Vec::new()),
    };
    if !missing.is_empty() {
        progress.line(&format!(
            "the validation images are of {} of the {} classes, and accuracies of these alone; none is of {}",
            train.classes().len() - missing.len(),
            train.classes().len(),
            list_classes(&missing)
        ));
    }
    Ok(Images {
        listed: vec![
            ("train-images.csv.gz", Arc::clone(&train)),
            ("val-images.csv.gz", Arc::clone(&val)),
        ],
        train,
        val,
        nodata,
    })
}

/// The images of the run that the weights belong to; those that it held out from training are judged by.
fn of_run(settings: &Settings, needs_labels: bool, progress: &Progress) -> Result<Images> {
    let run = checkpoint::run_of(&settings.weights)
        .context("--data is missing: give images to learn from")?;
    let run = read_begun(&Source::File(run.join("config.toml")))?;
    let images = data::open(&run.data, &run.grid, run.seed)?;
    if let Some(path) = run.data.path.as_ref().filter(|_| needs_labels) {
        refuse_to_learn("the run's images", images.as_ref(), path)?;
    }
    let nodata = run.data.nodata;
    if let Some(path) = &run.data.val {
        let val = data::open_val(&run.data, path, run.grid.channels());
        let val = val.context("the run's `data.val`; --data and --val give others")?;
        return beside(images, val, nodata, needs_labels, progress);
    }
    if run.data.val_share > 0.0 {
        let (train, val) = hold_out(Arc::clone(&images), run.data.val_share, run.seed)?;
        return Ok(Images::divided(images, train, val, nodata));
    }
    if (settings.protocols()?).contains(&Protocol::Spectrum) {
        progress.line(
            "the images to judge by are a part of those that the run was trained on, so their loss says nothing of \
             over-training; --data and --val give others",
        );
    }
    held_out(images, nodata, settings)
}

fn held_out(images: Arc<dyn Dataset>, nodata: Nodata, settings: &Settings) -> Result<Images> {
    let config = &settings.config;
    let (train, val) = hold_out(Arc::clone(&images), config.data.val_share, config.seed)?;
    Ok(Images::divided(images, train, val, nodata))
}

impl Images {
    /// Two parts of `images`.
    fn divided(images: Arc<dyn Dataset>, train: Subset, val: Subset, nodata: Nodata) -> Self {
        Self {
            train: Arc::new(train),
            val: Arc::new(val),
            nodata,
            // One image more or less draws other parts, of which nobody could tell which image it was.
            listed: vec![("all-images.csv.gz", images)],
        }
    }
}

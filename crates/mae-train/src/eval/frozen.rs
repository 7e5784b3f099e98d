//! Protocols on features of a frozen encoder, which are extracted once for all of them.

use std::path::Path;

use anyhow::{Context, Result};
use mae_data::{Augmentation, ImageLoader, ImageLoaderConfig, Order, Transform};
use mae_model::VitClassifier;
use mae_model::classifier::ClassifierConfig;
use mae_report::{MetricsWriter, Record, loss_svg, read_metrics};
use tch::Device;

use super::features::{Extraction, Features};
use super::linear::{Linear, Probe, batches_of};
use super::score::Score;
use super::{Evaluation, Start, knn, linear};
use crate::data::batch::labels_of;

/// A frozen encoder and what it makes of the images.
pub(super) struct Frozen {
    model: VitClassifier,
    train: Features,
    val: Features,
}

impl Frozen {
    pub fn new(eval: &Evaluation, start: Start, classes: &[String]) -> Result<Self> {
        let config = ClassifierConfig {
            pooling: eval.config.features.pooling(),
            class_names: classes.to_vec(),
            view: eval.view(),
            ..ClassifierConfig::linear_probe(eval.encoder(), classes.len())
        };
        let model = eval.classifier(&config, start)?;
        let extraction = eval.extraction(&model, eval.val_transform());
        let features = |dataset| -> Result<Features> {
            let features = match &eval.cache {
                Some(cache) => {
                    extraction.features(dataset, cache, eval.world, eval.interrupt, eval.progress)
                }
                None => extraction.extract(dataset, eval.world, eval.interrupt, eval.progress),
            };
            Ok(features?.to_device(eval.device))
        };
        let (train, val) = (features(&eval.train)?, features(&eval.val)?);
        Ok(Self { model, train, val })
    }

    pub fn knn(&self, eval: &Evaluation, classes: usize) -> Vec<(String, Score)> {
        knn::knn(&self.train, &self.val, &eval.config.knn.k, classes)
            .into_iter()
            .map(|(k, score)| (format!("knn k={k}"), score))
            .collect()
    }

    /// Every process trains the same probe; the first alone has a `folder` for its curves.
    pub fn linear(&self, eval: &Evaluation, folder: Option<&Path>) -> Result<(Score, Linear)> {
        let settings = &eval.config.linear;
        let batch = settings.batch_size.min(self.train.len() as usize);
        let augmented = match settings.augment {
            true => Some(Augmented::new(eval, &self.model, batch)?),
            false => None,
        };
        let seed = eval.config.seed;
        let epoch = |epoch| -> linear::EpochOfBatches {
            match &augmented {
                Some(augmented) => augmented.epoch(epoch),
                None => Box::new(batches_of(&self.train, batch, seed, epoch)),
            }
        };
        let probe = Probe {
            epoch: &epoch,
            steps_per_epoch: self.train.len() as u64 / batch as u64,
            batch,
            val: &self.val,
            classes: self.model.config().classes,
            seed,
        };
        let path = match folder {
            Some(folder) => {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("creating {}", folder.display()))?;
                Some(folder.join("metrics.jsonl"))
            }
            None => None,
        };
        let mut metrics = path.as_deref().map(MetricsWriter::create).transpose()?;
        let bar = eval.progress.start(0, settings.epochs);
        let (score, head) =
            linear::linear_probe(&probe, settings, eval.interrupt, &mut |record| {
                if let Some(metrics) = &mut metrics {
                    metrics.write(&record)?;
                }
                if let Record::Accuracy { top1, .. } = record {
                    bar.advance();
                    bar.message(&format!("linear probe  top-1 {:.2} %", 100.0 * top1));
                }
                Ok(())
            })?;
        if let Some(path) = path {
            let curves = path.with_file_name("loss.svg");
            loss_svg(&curves, &read_metrics(&path)?, "linear probe")?;
        }
        Ok((score, head))
    }

    /// Writes the encoder with `head` as a classifier.
    pub fn save(&self, head: &Linear, path: &Path) -> Result<()> {
        self.model.set_head(&head.weight, &head.bias)?;
        Ok(self.model.save(path)?)
    }
}

/// Random crops and flips through the frozen encoder, as published for linear probing.
struct Augmented<'a> {
    extraction: Extraction<'a>,
    loader: ImageLoader,
    device: Device,
}

impl<'a> Augmented<'a> {
    fn new(eval: &'a Evaluation, model: &'a VitClassifier, batch: usize) -> Result<Self> {
        /// The smallest and largest share of the image in a crop: the usual one of supervised training.
        const SCALE: [f64; 2] = [0.08, 1.0];
        let transform = Transform {
            augmentation: Augmentation::RandomResizedCrop {
                scale: SCALE,
                ratio: Augmentation::RATIO,
            },
            hflip: true,
            ..eval.val_transform()
        };
        let config = ImageLoaderConfig {
            order: Order::Shuffled,
            drop_last: true,
            ..ImageLoaderConfig::new(transform.clone(), batch)
        };
        Ok(Self {
            extraction: eval.extraction(model, transform),
            loader: eval.loader(&eval.train, config)?,
            device: eval.device,
        })
    }

    fn epoch(&self, epoch: u64) -> linear::EpochOfBatches<'_> {
        Box::new(self.loader.epoch(epoch, 0).map(|batch| {
            let batch = batch?;
            let labels = labels_of(&batch)?.to_device(self.device);
            Ok((self.extraction.encode(&batch)?, labels))
        }))
    }
}

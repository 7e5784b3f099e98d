//! Protocols on features of a frozen encoder, which are extracted once for all of them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use mae_data::{
    Augmentation, Dataset, ImageBatch, ImageLoader, ImageLoaderConfig, Order, Transform,
};
use mae_model::VitClassifier;
use mae_model::classifier::ClassifierConfig;
use tch::{Device, Tensor};

use super::attentive::attentive_probe;
use super::features::{Extraction, Features, Rows};
use super::linear::{Linear, linear_probe};
use super::probe::{Batches, Probe, in_order, shuffled, with_curves};
use super::score::{Score, rows_at_once};
use super::{Evaluation, Start, knn, neighbours};
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

    /// Writes the picture of a few images with their nearest neighbours.
    pub fn draw_neighbours(&self, eval: &Evaluation, path: &Path) -> Result<()> {
        let picture = neighbours::draw(eval, &self.model, &self.train, &self.val)?;
        mae_report::write_atomic(path, &picture.png()?)?;
        Ok(())
    }

    /// Every process trains the same probe; the first alone has a `folder` for its curves.
    pub fn linear(&self, eval: &Evaluation, folder: Option<&Path>) -> Result<(Score, Linear)> {
        /// Images that are judged at once.
        const VAL_BATCH: i64 = 8192;
        let settings = &eval.config.linear;
        let batch = settings.batch_size.min(self.train.len() as usize);
        let augmented = match settings.augment {
            true => Some(Encoded::augmented(eval, &self.model, batch)?),
            false => None,
        };
        let seed = eval.config.seed;
        let classes = self.model.config().classes;
        let probe = Probe {
            epoch: &|epoch| match &augmented {
                Some(augmented) => augmented.epoch(epoch),
                None => Box::new(shuffled(&self.train, batch, seed, epoch)),
            },
            steps_per_epoch: self.train.len() as u64 / batch as u64,
            batch,
            val: &|| Box::new(in_order(&self.val, rows_at_once(VAL_BATCH, classes))),
            classes,
            seed,
            device: eval.device,
        };
        let dim = self.model.config().encoder.embed_dim;
        let (progress, epochs) = (eval.progress, settings.epochs);
        with_curves(folder, "linear probe", epochs, progress, |record| {
            linear_probe(&probe, dim, settings, eval.interrupt, record)
        })
    }

    /// Writes the encoder with `head` as a classifier.
    pub fn save(&self, head: &Linear, path: &Path) -> Result<()> {
        self.model.set_head(&head.weight, &head.bias)?;
        Ok(self.model.save(path)?)
    }
}

/// Judges the patch tokens by the attentive probe; every process trains the same, and the first alone has a `folder` for
/// its curves.
///
/// The tokens are kept in memory if they take `room` bytes at most, and else made anew in each epoch.
pub(super) fn attentive(
    eval: &Evaluation,
    start: Start,
    classes: usize,
    folder: Option<&Path>,
    room: i64,
) -> Result<Score> {
    /// Images that are judged at once.
    const VAL_BATCH: i64 = 256;
    let settings = &eval.config.attentive;
    let encoder = eval.encoder();
    let model = eval.classifier(
        &ClassifierConfig::linear_probe(encoder.clone(), classes),
        start,
    )?;
    let extraction = eval.extraction(&model, eval.val_transform());
    let (images, val_images) = (eval.train.len(), eval.val.len());
    let batch = settings.batch_size.min(images);
    let (patches, dim) = (encoder.grid()?.patches() as i64, encoder.embed_dim as i64);
    let bytes = 4 * patches * dim * (images + val_images) as i64;
    let kept = match bytes <= room {
        false => None,
        true => {
            let encode = |batch: &ImageBatch| patch_tokens(&extraction, batch);
            let tokens = |dataset: &Arc<dyn Dataset>| -> Result<Features> {
                let size = [patches, dim];
                let rows = Rows::new(&extraction, dataset, &size, &encode);
                let tokens = rows.with_labels(eval.world, eval.interrupt, eval.progress)?;
                Ok(tokens.to_device(eval.device))
            };
            Some((tokens(&eval.train)?, tokens(&eval.val)?))
        }
    };
    let anew = match &kept {
        Some(_) => None,
        None => Some([
            Encoded::patches(eval, &eval.train, &model, batch, Order::Shuffled)?,
            Encoded::patches(
                eval,
                &eval.val,
                &model,
                VAL_BATCH as usize,
                Order::Sequential,
            )?,
        ]),
    };
    let seed = eval.config.seed;
    let images = kept
        .as_ref()
        .map_or(images as u64, |(train, _)| train.len() as u64);
    let probe = Probe {
        epoch: &|epoch| match (&kept, &anew) {
            (Some((train, _)), _) => Box::new(shuffled(train, batch, seed, epoch)),
            (None, Some([train, _])) => train.epoch(epoch),
            (None, None) => unreachable!("tokens are kept or made"),
        },
        steps_per_epoch: images / batch as u64,
        batch,
        val: &|| match (&kept, &anew) {
            (Some((_, val)), _) => Box::new(in_order(val, VAL_BATCH)),
            (None, Some([_, val])) => val.epoch(0),
            (None, None) => unreachable!("tokens are kept or made"),
        },
        classes,
        seed,
        device: eval.device,
    };
    let size = [encoder.embed_dim, encoder.num_heads];
    let (progress, epochs) = (eval.progress, settings.epochs);
    with_curves(folder, "attentive probe", epochs, progress, |record| {
        attentive_probe(&probe, size, settings, eval.interrupt, record)
    })
}

/// The most bytes of tokens that are kept in memory.
pub(super) const ROOM: i64 = 4 << 30;

/// `[batch, patches, embed_dim]`, after the last norm.
fn patch_tokens(extraction: &Extraction, batch: &ImageBatch) -> Result<Tensor> {
    let tokens = extraction.encode_tokens(batch)?;
    Ok(tokens.narrow(1, 1, tokens.size()[1] - 1))
}

/// Images that go through the frozen encoder in every epoch.
struct Encoded<'a> {
    extraction: Extraction<'a>,
    loader: ImageLoader,
    device: Device,
    encode: fn(&Extraction, &ImageBatch) -> Result<Tensor>,
}

impl<'a> Encoded<'a> {
    /// Features of random crops and flips, as published for linear probing.
    fn augmented(eval: &'a Evaluation, model: &'a VitClassifier, batch: usize) -> Result<Self> {
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
            encode: |extraction, batch| extraction.encode(batch),
        })
    }

    /// Patch tokens of `dataset`.
    fn patches(
        eval: &'a Evaluation,
        dataset: &Arc<dyn Dataset>,
        model: &'a VitClassifier,
        batch: usize,
        order: Order,
    ) -> Result<Self> {
        let transform = eval.val_transform();
        let config = ImageLoaderConfig {
            order,
            drop_last: order == Order::Shuffled,
            ..ImageLoaderConfig::new(transform.clone(), batch)
        };
        Ok(Self {
            extraction: eval.extraction(model, transform),
            loader: eval.loader(dataset, config)?,
            device: eval.device,
            encode: patch_tokens,
        })
    }

    fn epoch(&self, epoch: u64) -> Batches<'_> {
        Box::new(self.loader.epoch(epoch, 0).map(|batch| {
            let batch = batch?;
            let labels = labels_of(&batch)?.to_device(self.device);
            Ok(((self.encode)(&self.extraction, &batch)?, labels))
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::distributed::World;
    use crate::eval::config::EvalConfig;
    use crate::run::interrupt::Interrupt;
    use crate::run::progress::Progress;
    use crate::train::precision::Precision;
    use mae_data::{Nodata, SyntheticDataset};
    use mae_model::{MaeConfig, Normalization};
    use mae_report::{Record, read_metrics};

    #[test]
    fn tokens_that_are_made_anew_teach_the_same_as_those_that_are_kept() {
        let scenes = |count, seed| -> Arc<dyn Dataset> {
            Arc::new(SyntheticDataset::new(count, 16, 16, 3, seed).unwrap())
        };
        let mut config = EvalConfig::default();
        // One update has all images, so that their order does not matter.
        config.attentive.batch_size = 40;
        (config.attentive.epochs, config.attentive.warmup_epochs) = (20, 0.0);
        config.attentive.base_lr = 0.1;
        config.run.workers = 1;
        let encoder = MaeConfig {
            embed_dim: 32,
            depth: 2,
            num_heads: 4,
            patch_size: 4,
            ..MaeConfig::tiny(16)
        };
        let world = Rc::new(World::alone());
        let eval = Evaluation {
            config: &config,
            device: Device::Cpu,
            precision: Precision::Fp32,
            encoder,
            normalization: Normalization::IMAGENET,
            weights: "unused".into(),
            train: scenes(40, 0),
            val: scenes(20, 1),
            nodata: Nodata::Auto,
            out: None,
            world: &world,
            cache: None,
            interrupt: &Interrupt::default(),
            progress: &Progress::hidden(),
        };
        let folder = tempfile::tempdir().unwrap();
        let losses = |name: &str, room| {
            let folder = folder.path().join(name);
            let score = attentive(&eval, Start::Random, 10, Some(&folder), room).unwrap();
            assert_eq!(score.confusion.images(), 20);
            let records = read_metrics(&folder.join("metrics.jsonl")).unwrap();
            let losses = records.into_iter().filter_map(|record| match record {
                Record::Epoch { loss, .. } => Some(loss),
                _ => None,
            });
            losses.collect::<Vec<_>>()
        };
        let (kept, anew) = (losses("kept", ROOM), losses("anew", 0));
        assert_eq!(kept.len(), 20);
        assert!(kept[19] < 0.8 * kept[0], "{kept:?}");
        for (kept, anew) in kept.iter().zip(&anew) {
            assert!((kept - anew).abs() < 1e-4, "{kept} {anew}");
        }
    }
}

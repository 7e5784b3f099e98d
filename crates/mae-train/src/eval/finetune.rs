//! Full and partial fine-tuning: an encoder with a head learns from labels.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use anyhow::Result;
use mae_data::{ImageBatch, ImageLoader, SampleKey, Transform};
use mae_model::classifier::Pass;
use mae_model::{VitClassifier, patchify};
use mae_report::Record;
use tch::{Tensor, no_grad};

use super::CLASSIFIER;
use super::config::FinetuneSection;
use super::ema::Ema;
use super::erase::erase;
use super::layer_decay::param_group;
use super::mix::{MixConfig, smooth_one_hot, soft_cross_entropy};
use super::score::{Score, Tally};
use crate::config::RunSection;
use crate::data::batch::{images_to_device, labels_of};
use crate::distributed::World;
use crate::error::Stopped;
use crate::run::checkpoint::Saved;
use crate::run::folder::RunDir;
use crate::run::interrupt::Interrupt;
use crate::run::journal::Journal;
use crate::run::progress::Progress;
use crate::train::optim::Optimizer;
use crate::train::precision::Precision;
use crate::train::trainer::Trainer;
use crate::train_loop::{Batches, Outcome, Task, train};

/// What is fine-tuned, on what.
pub struct FineTuning<'a> {
    /// The classifier, with the weights to start from.
    pub model: VitClassifier,
    /// How much trains: only the last blocks, as [`VitClassifier::trainable_keys`] counts them; `None` is all.
    pub partial: Option<f64>,
    /// How it trains.
    pub settings: &'a FinetuneSection,
    /// Precision of matrix products.
    pub precision: Precision,
    /// Seed of mixing, erasing and drop path.
    pub seed: u64,
    /// Training images, in an order of each epoch's own, as `settings.transform` makes them.
    pub train: ImageLoader,
    /// The number of training images.
    pub images: usize,
    /// What `train` does to images.
    pub train_transform: Transform,
    /// Images to judge by.
    pub val: ImageLoader,
    /// What `val` does to images.
    pub val_transform: Transform,
    /// The processes that share the work.
    pub world: &'a Rc<World>,
}

/// Fine-tunes from the latest checkpoint in `run_dir`, or from the start if there is none.
///
/// All processes of the world call this; the first alone has a `run_dir`.
/// Each epoch is judged; the weights of the best one are `best.safetensors` in `run_dir`.
/// The result is the score after the last epoch, not the best one's, which was chosen by these images: it is that of
/// [`CLASSIFIER`] in `run_dir`.
///
/// # Errors
/// If images or files cannot be read or written, or training diverges; or, as [`Stopped`], after a signal, when it can
/// be resumed.
///
/// Source: He et al. 2021, appendix A.1, table 9, and section 4.3 for partial fine-tuning.
pub fn finetune(
    task: FineTuning,
    run: &RunSection,
    run_dir: Option<&RunDir>,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Score> {
    let mut state = State::new(&task, run_dir)?;
    let batches = Batches {
        per_epoch: task.train.batches_per_epoch(),
        images: task.images,
        epoch: &|epoch, first_batch| task.train.epoch(epoch, first_batch),
        broken: &|| task.train.broken().len(),
    };
    let optim = task.settings.optim();
    match train(
        &mut state, &batches, &optim, run, run_dir, interrupt, progress,
    )? {
        Outcome::Interrupted { .. } => Err(Stopped.into()),
        Outcome::Finished { .. } => {
            state.save_judged(CLASSIFIER)?;
            match state.last.take() {
                Some(score) => Ok(score),
                // It had ended before.
                None => state.judge(),
            }
        }
    }
}

struct State<'a> {
    task: &'a FineTuning<'a>,
    trainer: Trainer,
    ema: Option<Ema>,
    /// Blocks before the first that trains: they run without gradients or drop path.
    frozen_blocks: usize,
    /// Top-1 of the best epoch, f64.
    best: Tensor,
    run_dir: Option<&'a RunDir>,
    last: Option<Score>,
}

impl<'a> State<'a> {
    fn new(task: &'a FineTuning, run_dir: Option<&'a RunDir>) -> Result<Self> {
        let (model, settings) = (&task.model, task.settings);
        let depth = model.config().encoder.depth;
        let mut frozen_blocks = 0;
        if let Some(partial) = task.partial {
            let trains = model.trainable_keys(partial)?;
            for (key, parameter) in model.parameters() {
                let _ = parameter.set_requires_grad(trains.contains(&key));
            }
            frozen_blocks = depth - partial.ceil() as usize;
        }
        let optimizer = Optimizer::with_groups(
            &model.parameters(),
            |key, tensor| {
                param_group(
                    key,
                    tensor,
                    depth,
                    settings.layer_decay,
                    settings.weight_decay,
                )
            },
            settings.betas,
        );
        Ok(Self {
            trainer: Trainer::new(
                optimizer,
                task.precision,
                settings.clip_grad,
                model.device(),
                task.world,
            )?,
            ema: (settings.ema > 0.0).then(|| Ema::new(&model.parameters(), settings.ema)),
            frozen_blocks,
            best: Tensor::from(-1.0f64),
            run_dir,
            last: None,
            task,
        })
    }

    /// The accuracy of the weights, or of their moving average if there is one.
    fn judge(&self) -> Result<Score> {
        self.with_judged_weights(|| {
            let (model, device) = (&self.task.model, self.task.model.device());
            let patch_size = model.config().encoder.patch_size;
            let mut tally = Tally::default();
            for batch in self.task.val.epoch(0, 0) {
                let batch = batch?;
                if batch.is_empty() {
                    // Other processes have the images.
                    continue;
                }
                let images = images_to_device(&batch, &self.task.val_transform, device);
                let logits = no_grad(|| {
                    torch_ext::autocast(device, self.task.precision.kind(), || {
                        model.forward(&patchify(&images, patch_size)?, Pass::Eval)
                    })
                })??;
                tally.add(&logits, &labels_of(&batch)?);
            }
            tally.sum(self.task.world)?;
            Ok(tally.score())
        })
    }

    /// Writes the weights that are judged into the run's folder, if there is one.
    fn save_judged(&self, name: &str) -> Result<()> {
        let Some(run_dir) = self.run_dir else {
            return Ok(());
        };
        let path = run_dir.path().join(name);
        self.with_judged_weights(|| Ok(self.task.model.save(&path)?))
    }

    /// Puts the average into the model while `body` runs, if there is one.
    fn with_judged_weights<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(ema) = &self.ema else { return body() };
        let parameters = self.task.model.parameters();
        let copy = |from: &BTreeMap<String, Tensor>| -> Result<()> {
            no_grad(|| {
                for (key, mut parameter) in self.task.model.parameters() {
                    parameter.f_copy_(&from[&key])?;
                }
                Ok(())
            })
        };
        let trained = parameters
            .iter()
            .map(|(key, tensor)| (key.clone(), tensor.detach().copy()))
            .collect();
        copy(ema.parameters())?;
        let result = body();
        copy(&trained)?;
        result
    }
}

/// The loss of one batch: normalised, erased, mixed, cut into patches, classified.
fn loss(
    task: &FineTuning,
    batch: &ImageBatch,
    epoch: u64,
    pass: u64,
    frozen: usize,
) -> Result<Tensor> {
    let (model, settings) = (&task.model, task.settings);
    let device = model.device();
    let images = images_to_device(batch, &task.train_transform, device);
    // Noise and mixtures are of normalised pixels; the model normalises what it is given.
    let mut images = model.normalization().normalize(&images)?;
    let keys: Vec<SampleKey> = batch
        .indices
        .iter()
        .map(|&index| SampleKey {
            seed: task.seed,
            epoch,
            index: index as u64,
        })
        .collect();
    erase(&mut images, &keys, &settings.erasing())?;

    let labels = labels_of(batch)?.to_device(device);
    let mut targets = smooth_one_hot(&labels, model.config().classes, settings.label_smoothing);
    if let Some(mixing) = mixing(settings) {
        let (height, width) = (images.size()[1], images.size()[2]);
        let mix = mixing.sample(height, width, task.seed, pass);
        (images, targets) = (mix.images(&images), mix.targets(&targets));
    }
    let images = model.normalization().denormalize(&images)?;
    let patches = patchify(&images, model.config().encoder.patch_size)?;
    let pass = Pass::Train {
        seed: task.seed,
        // The mixture is of all processes, but what is dropped each one's own.
        step: pass * task.world.size() as u64 + task.world.rank() as u64,
    };
    let logits = if frozen > 0 {
        model.forward_from(&model.tokens_after(&patches, frozen)?, frozen, pass)?
    } else {
        model.forward(&patches, pass)?
    };
    Ok(soft_cross_entropy(&logits, &targets))
}

/// Mixup and CutMix, or the one of them that is on.
fn mixing(settings: &FinetuneSection) -> Option<MixConfig> {
    let switch_prob = match (settings.mixup > 0.0, settings.cutmix > 0.0) {
        (true, true) => 0.5,
        (true, false) => 0.0,
        (false, true) => 1.0,
        (false, false) => return None,
    };
    Some(MixConfig {
        mixup_alpha: settings.mixup,
        cutmix_alpha: settings.cutmix,
        switch_prob,
    })
}

impl Saved for State<'_> {
    fn save_model(&self, path: &Path) -> mae_model::Result<()> {
        self.task.model.save(path)
    }

    fn load_model(&self, path: &Path) -> mae_model::Result<()> {
        self.task.model.load_weights(path)
    }

    fn weights(&self) -> Vec<Tensor> {
        self.task.model.parameters().into_values().collect()
    }

    fn trainer_tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = self.trainer.tensors();
        tensors.insert("best.top1".into(), self.best.shallow_clone());
        for (key, average) in self.ema.iter().flat_map(Ema::parameters) {
            tensors.insert(format!("ema.{key}"), average.shallow_clone());
        }
        tensors
    }
}

impl Task for State<'_> {
    type Batch = ImageBatch;

    fn update(&mut self, group: &[ImageBatch], lr: f64, step: u64) -> Result<usize> {
        let accumulate = self.task.settings.accumulate;
        let per_epoch = self.task.train.batches_per_epoch().div_ceil(accumulate);
        let epoch = step / per_epoch as u64;
        let images: Vec<usize> = group.iter().map(ImageBatch::len).collect();
        let (task, frozen) = (self.task, self.frozen_blocks);
        let images = self.trainer.update(&images, lr, |batch| {
            let pass = step * accumulate as u64 + batch as u64;
            loss(task, &group[batch], epoch, pass, frozen)
        })?;
        if let Some(ema) = &mut self.ema {
            ema.follow(&task.model.parameters());
        }
        Ok(images)
    }

    fn trainer(&mut self) -> &mut Trainer {
        &mut self.trainer
    }

    fn flops_per_image(&self) -> Result<u64> {
        let config = self.task.model.config();
        Ok(config.training_flops(config.encoder.depth - self.frozen_blocks))
    }

    fn end_epoch(&mut self, epoch: u64, step: u64, journal: &mut Journal) -> Result<String> {
        let score = self.judge()?;
        journal.record(&Record::Accuracy {
            epoch,
            step,
            protocol: "fine-tuning".into(),
            top1: score.top1,
            top5: score.top5,
        })?;
        if score.top1 > self.best.double_value(&[]) {
            let _ = self.best.fill_(score.top1);
            self.save_judged("best.safetensors")?;
        }
        let words = format!("  top-1 {:.2} %", 100.0 * score.top1);
        self.last = Some(score);
        Ok(words)
    }
}

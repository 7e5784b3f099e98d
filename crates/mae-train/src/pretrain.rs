//! Pre-training: what happens around the loop.

pub mod learned_target;
mod state;

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result};
use mae_data::{Dataset, MaskedBatch, hold_out, shared_classes};
use mae_model::MaskedAutoencoderViT;
use mae_model::checkpoint::Part;
use mae_report::Record;
use tch::Tensor;

use crate::config::{RunConfig, Source, read_as};
use crate::data::prepare::{Prepared, prepare};
use crate::distributed::World;
use crate::error::Error;
use crate::eval::config::EvalConfig;
use crate::eval::held_out::HeldOut;
use crate::eval::score::Score;
use crate::eval::{Evaluation, evaluate_frozen};
use crate::run::checkpoint::{self, Saved};
use crate::run::folder::RunDir;
use crate::run::interrupt::Interrupt;
use crate::run::journal::Journal;
use crate::run::progress::Progress;
use crate::train::trainer::Trainer;
use crate::train_loop::{Batches, Outcome, Task, is_due, train};
use crate::{config::recipes, data, device, reconstruct, run::manifest};

pub use state::TrainState;

/// Trains from the latest checkpoint in `run_dir`, or from the start if there is none.
///
/// All processes of `world` call this, under the same configuration but for the device; the first alone has a
/// `run_dir`.
///
/// # Errors
/// If the data or the run's files cannot be read or written, training diverges, or another process is gone or
/// has other images.
pub fn pretrain(
    config: RunConfig,
    run_dir: Option<&RunDir>,
    world: &Rc<World>,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Outcome, Error> {
    Ok(run(config, run_dir, world, interrupt, progress)?)
}

fn run(
    mut config: RunConfig,
    run_dir: Option<&RunDir>,
    world: &Rc<World>,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Outcome> {
    device::prefer_speed(config.device)?;
    let Prepared {
        dataset,
        normalization,
        is_new,
    } = prepare(&mut config, run_dir, world, progress)?;
    let all = dataset;
    let Divided {
        train: dataset,
        val,
    } = divide(&config, &all)?;
    let loader = data::loader(&config, dataset.clone(), world)?;
    let samples = reconstruct::pick(&config, dataset.clone())?;
    let probing = match config.run.eval_every {
        0 => None,
        _ => Some(Probing::new(&dataset, &config, world)?),
    };
    let state = TrainState::new(&config, &normalization, world)?;
    let held_out = match &val {
        Some(val) => {
            data::agree(val.as_ref(), world)?;
            let loading = (config.run.workers, config.data.max_broken_share);
            let (mask, seed) = (&config.method.mask, config.seed);
            let held_out = HeldOut::new(val, &state.model, mask, seed, loading, world);
            let held_out = held_out.context("the images that are held out")?;
            // What cannot be read is told now, not after an epoch that nothing was saved of. By all processes, of which
            // the first alone knows whether the run is new.
            (held_out.loss(&state.model, config.precision, world))
                .context("the images that are held out")?;
            Some(held_out)
        }
        None => None,
    };
    // The others are given what the first process starts from.
    if let Some(run_dir) = run_dir {
        if let Some(init) = config.run.init.as_ref().filter(|_| is_new) {
            start_from(&state.model, init, progress).context("`run.init`")?;
        }
        if !run_dir.config().exists() {
            run_dir.write_config("pretrain", &config.to_toml())?;
        }
        if let Some(val) = &val {
            let remedy = "or begin a new run with another --out";
            (manifest::check(&run_dir.val_images(), val.as_ref(), remedy)).context("`data.val`")?;
        }
        if is_new {
            manifest::write(&run_dir.images(), all.as_ref())?;
            learned_target::prepare(&config, &dataset, &state.model, progress)?;
        }
    }

    let mut task = Pretraining {
        probing,
        held_out,
        world: Rc::clone(world),
        run_dir,
        state,
        samples,
        config: &config,
    };
    let batches = Batches {
        per_epoch: loader.batches_per_epoch(),
        images: dataset.len(),
        epoch: &|epoch, first_batch| loader.epoch(epoch, first_batch),
        broken: &|| loader.broken().len(),
    };
    train(
        &mut task,
        &batches,
        &config.optim,
        &config.run,
        run_dir,
        interrupt,
        progress,
    )
}

/// Starts from weights that are there already, and says what came of it.
fn start_from(model: &MaskedAutoencoderViT, path: &Path, progress: &Progress) -> Result<()> {
    let file = checkpoint::find_model(path)?;
    let start = model.start_from(&file)?;
    progress.line(&match start.part {
        Part::Whole => format!("starting from encoder and decoder of {}", file.display()),
        Part::Encoder => format!(
            "starting from the encoder of {}, which has no decoder: the decoder starts fresh",
            file.display()
        ),
    });
    if start.normalization != *model.normalization() {
        let theirs = start.normalization;
        progress.line(&format!(
            "its weights were trained on pixels of mean {:?} and std {:?}, this run has {:?} and {:?}; \
             data.normalization=given with data.mean and data.std keeps the former",
            theirs.mean,
            theirs.std,
            model.normalization().mean,
            model.normalization().std
        ));
    }
    Ok(())
}

struct Pretraining<'a> {
    config: &'a RunConfig,
    state: TrainState,
    /// What the pictures show.
    samples: MaskedBatch,
    probing: Option<Probing>,
    held_out: Option<HeldOut>,
    world: Rc<World>,
    /// `None` in processes that do not write.
    run_dir: Option<&'a RunDir>,
}

/// The images to train on, and those that `data.val` and `data.val_share` hold out.
struct Divided {
    train: Arc<dyn Dataset>,
    val: Option<Arc<dyn Dataset>>,
}

fn divide(config: &RunConfig, all: &Arc<dyn Dataset>) -> Result<Divided> {
    if let Some(path) = &config.data.val {
        let val = data::open_val(&config.data, path, config.grid.channels());
        return Ok(Divided {
            train: Arc::clone(all),
            val: Some(val.context("`data.val`")?),
        });
    }
    if config.data.val_share == 0.0 {
        return Ok(Divided {
            train: Arc::clone(all),
            val: None,
        });
    }
    let (train, val) = hold_out(Arc::clone(all), config.data.val_share, config.seed)?;
    Ok(Divided {
        train: Arc::new(train),
        val: Some(Arc::new(val)),
    })
}

/// What `run.eval_every` measures by.
struct Probing {
    config: EvalConfig,
    train: Arc<dyn Dataset>,
    val: Arc<dyn Dataset>,
    /// None where there are no labels.
    classes: Vec<String>,
}

impl Probing {
    fn new(dataset: &Arc<dyn Dataset>, config: &RunConfig, world: &World) -> Result<Self> {
        let recipe = Source::Recipe("finetune_cifar10".into());
        let mut eval: EvalConfig = read_as(&recipe, recipes::EVAL, &[], |_| Ok(()))?;
        eval.seed = config.seed;
        eval.run.workers = world.workers(config.run.workers);
        eval.run.kernels = config.run.kernels;
        let (train, val) = hold_out(Arc::clone(dataset), eval.data.val_share, config.seed)
            .context("`run.eval_every` needs images to hold out from its probe")?;
        let classes = match dataset.classes() {
            // Nothing to tell apart.
            [] | [_] => Vec::new(),
            _ => (shared_classes(&train, &val).context("`run.eval_every`")?).to_vec(),
        };
        Ok(Self {
            config: eval,
            train: Arc::new(train),
            val: Arc::new(val),
            classes,
        })
    }
}

impl Pretraining<'_> {
    /// Measures what the encoder has learned so far. Returns words for the epoch's line.
    fn probe(
        &self,
        probing: &Probing,
        epoch: u64,
        step: u64,
        journal: &mut Journal,
    ) -> Result<String> {
        let folder = self.run_dir.map(|run_dir| run_dir.path().join("eval"));
        let weights = folder
            .as_ref()
            .map(|folder| folder.join("model.safetensors"));
        let weights = weights.unwrap_or_default();
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder)?;
            self.state.model.save(&weights)?;
        }
        let evaluation = Evaluation {
            config: &probing.config,
            device: self.config.device,
            precision: self.config.precision,
            encoder: self.config.method.model.clone(),
            normalization: self.state.model.normalization().clone(),
            weights: weights.clone(),
            train: Arc::clone(&probing.train),
            val: Arc::clone(&probing.val),
            nodata: self.config.data.nodata,
            out: folder.as_deref(),
            world: &self.world,
            cache: None,
            // A signal is for the loop, which then saves.
            interrupt: &Interrupt::default(),
            progress: &Progress::hidden(),
        };
        let found = evaluate_frozen(&evaluation, &probing.classes);
        if let Some(folder) = &folder {
            std::fs::remove_file(&weights)?;
            // Without a probe there is nothing to keep in it.
            let _ = std::fs::remove_dir(folder);
        }
        let (spectra, scores) = found?;
        let mut words = format!("  RankMe {:.1}", spectra.mean_patch.rank_me);
        for (tokens, spectrum) in [("cls", spectra.class_token), ("mean", spectra.mean_patch)] {
            journal.record(&Record::Spectrum {
                epoch,
                step,
                tokens: tokens.into(),
                rank_me: spectrum.rank_me,
                effective_rank: spectrum.effective_rank,
                alpha: spectrum.alpha,
            })?;
        }
        for (protocol, Score { top1, top5, .. }) in scores {
            words += &format!("  {protocol} {:.2} %", 100.0 * top1);
            journal.record(&Record::Accuracy {
                epoch,
                step,
                protocol,
                top1,
                top5,
            })?;
        }
        Ok(words)
    }
}

impl Saved for Pretraining<'_> {
    fn save_model(&self, path: &Path) -> mae_model::Result<()> {
        self.state.model.save(path)
    }

    fn load_model(&self, path: &Path) -> mae_model::Result<()> {
        self.state.model.load_weights(path)
    }

    fn weights(&self) -> Vec<Tensor> {
        self.state.model.parameters().into_values().collect()
    }

    fn note_loaded(&self) {
        self.state.model.note_loaded();
    }

    fn trainer_tensors(&self) -> BTreeMap<String, Tensor> {
        self.state.trainer.tensors()
    }
}

impl Task for Pretraining<'_> {
    type Batch = MaskedBatch;

    fn update(&mut self, group: &[MaskedBatch], lr: f64, _step: u64) -> Result<usize> {
        self.state.update(group, lr)
    }

    fn trainer(&mut self) -> &mut Trainer {
        &mut self.state.trainer
    }

    fn flops_per_image(&self) -> Result<u64> {
        Ok(self.config.method.flops()?.training())
    }

    fn end_epoch(&mut self, epoch: u64, step: u64, journal: &mut Journal) -> Result<String> {
        let every = self.config.run.reconstruct_every;
        if is_due(every, epoch, self.config.optim.epochs) {
            let draw = || reconstruct::draw(&self.state.model, &self.samples);
            journal.picture(draw, epoch, step)?;
        }
        let mut words = String::new();
        if let Some(held_out) = &self.held_out {
            let val_loss = held_out.loss(&self.state.model, self.config.precision, &self.world)?;
            journal.record(&Record::Validation {
                epoch,
                step,
                val_loss,
            })?;
            words += &format!("  val_loss {val_loss:.4}");
        }
        match &self.probing {
            Some(probing)
                if is_due(self.config.run.eval_every, epoch, self.config.optim.epochs) =>
            {
                words += &self.probe(probing, epoch, step, journal)?;
            }
            _ => {}
        }
        Ok(words)
    }
}

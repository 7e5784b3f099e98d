//! What a pre-trained encoder learned: nearest neighbours, linear probing, partial and full fine-tuning; and without
//! labels, the spectrum of its features.
//!
//! [`evaluate`] runs the protocols and writes their results; each is a module that stands alone.
//! [`probe`] trains heads, of [`linear`] and [`attentive`]; [`features`] extracts what [`knn`], [`linear`] and [`spectrum`] use; [`finetune`](mod@finetune) uses [`mix`], [`erase`](mod@erase),
//! [`layer_decay`] and [`ema`].
//!
//! Source: He et al. 2021, arXiv 2111.06377, section 4.3 and appendix A.1, tables 9 and 10.

pub mod attentive;
pub mod config;
pub mod ema;
pub mod erase;
pub mod features;
pub mod finetune;
mod frozen;
pub mod held_out;
pub mod knn;
pub mod lars;
pub mod layer_decay;
pub mod linear;
pub mod mix;
mod neighbours;
pub mod probe;
mod random;
pub mod report;
pub mod score;
pub mod spectrum;

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use mae_data::{
    Dataset, ImageLoader, ImageLoaderConfig, Nodata, Order, PixelKind, Transform, shared_classes,
};
use mae_model::classifier::{ClassifierConfig, HeadInit, View, check_partial};
use mae_model::{MaeConfig, MaskedAutoencoderViT, ModelError, Normalization, VitClassifier};
use tch::Device;

use crate::config::RunKeys;
use crate::data;
use crate::distributed::World;
use crate::error::{Error, Stopped};
use crate::run::folder::RunDir;
use crate::run::interrupt::Interrupt;
use crate::run::progress::Progress;
use crate::train::precision::Precision;
use config::EvalConfig;
use features::{Extraction, FeatureCache};
use finetune::FineTuning;
use frozen::Frozen;
use held_out::HeldOut;
use report::{Report, Row, Unlabelled};
use score::Score;
use spectrum::{Looks, Spectra};

/// One way to judge an encoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Protocol {
    /// Nearest neighbours.
    Knn,
    /// A linear head on frozen features.
    Linear,
    /// A query that gathers patch tokens, and a linear head.
    Attentive,
    /// Only the last blocks are trained.
    Partial(f64),
    /// Everything is trained.
    Finetune,
    /// The directions that features use; needs no labels.
    Spectrum,
}

impl Protocol {
    /// Whether it needs labelled images.
    pub fn needs_labels(&self) -> bool {
        *self != Self::Spectrum
    }
}

impl FromStr for Protocol {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.split_once(':') {
            None if text == "knn" => Self::Knn,
            None if text == "linear" => Self::Linear,
            None if text == "attentive" => Self::Attentive,
            None if text == "finetune" => Self::Finetune,
            None if text == "spectrum" => Self::Spectrum,
            Some(("partial", blocks)) => match blocks.parse::<f64>() {
                Ok(blocks) if blocks >= 0.0 => Self::Partial(blocks),
                _ => bail!("{text:?}: expected a number of blocks, as in partial:0.5 or partial:4"),
            },
            _ => bail!(
                "{text:?} is no protocol: expected knn, linear, attentive, finetune, partial:BLOCKS or spectrum"
            ),
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Knn => f.write_str("knn"),
            Self::Linear => f.write_str("linear"),
            Self::Attentive => f.write_str("attentive"),
            Self::Partial(blocks) => write!(f, "partial:{blocks}"),
            Self::Finetune => f.write_str("finetune"),
            Self::Spectrum => f.write_str("spectrum"),
        }
    }
}

/// What an encoder starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The checkpoint's weights.
    Pretrained,
    /// Fresh weights: what the same protocol gives without pre-training.
    Random,
}

impl Start {
    /// As the report names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pretrained => "pre-trained",
            Self::Random => "random",
        }
    }
}

/// An encoder, images, and how to judge the one by the other.
pub struct Evaluation<'a> {
    /// Checked by [`EvalConfig::resolve`].
    pub config: &'a EvalConfig,
    /// Where it runs.
    pub device: Device,
    /// Precision of matrix products.
    pub precision: Precision,
    /// The encoder's dimensions, as pre-trained.
    pub encoder: MaeConfig,
    /// The encoder's channel statistics.
    pub normalization: Normalization,
    /// The checkpoint's `model.safetensors`.
    pub weights: PathBuf,
    /// Images to learn from.
    pub train: Arc<dyn Dataset>,
    /// Images to judge by.
    pub val: Arc<dyn Dataset>,
    /// What stood for missing values in the images to learn from, for the classifiers to remember.
    pub nodata: Nodata,
    /// The folder of the results; `None` in processes that do not write.
    pub out: Option<&'a Path>,
    /// The processes that share the work.
    pub world: &'a Rc<World>,
    /// Where features are kept; `None` keeps none.
    pub cache: Option<FeatureCache>,
    /// Whether it was asked to stop.
    pub interrupt: &'a Interrupt,
    /// What a person sees.
    pub progress: &'a Progress,
}

/// The file in an evaluation's folder that says what it is of, so that `mae-train eval --resume` need not be told.
pub const SETTINGS: &str = "eval.toml";

/// The file in an evaluation's folder that holds its [`Report`].
pub const REPORT: &str = "eval.json";

/// The file in a protocol's folder that holds the classifier which was judged: see `mae-train predict`.
pub const CLASSIFIER: &str = "classifier.safetensors";

/// The picture in the folder of kNN that shows a few images with their nearest neighbours.
pub const NEIGHBOURS: &str = "neighbours.png";

/// Judges the encoder by each protocol from each start.
///
/// Writes `eval.json` anew after each protocol, its curves (`loss.svg`), its confusion matrix (`confusion.svg`),
/// [`NEIGHBOURS`], and,
/// but for nearest neighbours and the attentive probe, what it learned ([`CLASSIFIER`]) in a folder `PROTOCOL-START`.
/// `None` if a signal stopped it; called again with the same folder, it goes on there, and keeps the rows that are there.
///
/// # Errors
/// If the data sets have no or different labels, or a protocol fails.
pub fn evaluate(
    eval: &Evaluation,
    protocols: &[Protocol],
    starts: &[Start],
) -> Result<Option<Report>, Error> {
    match judge(eval, protocols, starts) {
        Err(error) if error.is::<Stopped>() => Ok(None),
        judged => Ok(judged.map(Some)?),
    }
}

fn judge(eval: &Evaluation, protocols: &[Protocol], starts: &[Start]) -> Result<Report> {
    let needs_labels = protocols.iter().any(Protocol::needs_labels);
    let classes = match needs_labels {
        true => shared_classes(eval.train.as_ref(), eval.val.as_ref())?.to_vec(),
        false => Vec::new(),
    };
    ensure!(
        classes.len() != 1,
        "the images have one class, {:?}: there is nothing to tell apart",
        classes[0]
    );
    for protocol in protocols {
        if let Protocol::Partial(blocks) = protocol {
            check_partial(*blocks, eval.encoder.depth)?;
        }
    }
    let trains =
        |protocol: &Protocol| matches!(protocol, Protocol::Partial(_) | Protocol::Finetune);
    let (channels, values) = (eval.train.channels(), eval.train.kind());
    ensure!(
        eval.config.finetune.rand_augment == 0.0
            || !protocols.iter().any(trains)
            || (matches!(channels, 1 | 3) && values == PixelKind::U8),
        "`finetune.rand_augment` is {}, which is for 8-bit images in RGB or grey, but these have {channels} channels of \
         {} values; set finetune.rand_augment=0",
        eval.config.finetune.rand_augment,
        values.name()
    );
    let mut report = Report {
        checkpoint: eval.weights.display().to_string(),
        config: eval.config.clone(),
        train_images: eval.train.len(),
        val_images: eval.val.len(),
        classes,
        rows: Vec::new(),
        unlabelled: Vec::new(),
    };
    let both = [eval.train.as_ref(), eval.val.as_ref()];
    data::tell_of_images(&both, eval.progress);
    if needs_labels {
        data::tell_of_labels(&both, eval.progress);
    }
    if protocols.contains(&Protocol::Knn) {
        let images = eval.train.len();
        for k in eval.config.knn.k.iter().filter(|k| **k > images as i64) {
            eval.progress.line(&format!(
                "knn k={k}: there are only {images} images to learn from, and all of them are neighbours"
            ));
        }
    }
    if let Some(out) = eval.out {
        report.go_on_from(&out.join(REPORT))?;
        std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    }
    // The first process alone has the report.
    let finished = eval
        .world
        .from_first(|| Ok(serde_json::to_string(&report.finished())?))?;
    let finished: Vec<(String, String)> = serde_json::from_str(&finished)?;
    for &start in starts {
        let mut frozen = None;
        for protocol in protocols {
            let mut names = report.names(protocol).into_iter();
            if names.all(|name| finished.contains(&(name, start.name().into()))) {
                continue;
            }
            let started = Instant::now();
            let folder = eval.out.map(|out| {
                out.join(format!(
                    "{}-{}",
                    protocol.to_string().replace(':', "-"),
                    start.name()
                ))
            });
            let folder = folder.as_deref();
            let classes = report.classes.as_slice();
            let scores = match protocol {
                Protocol::Spectrum => {
                    let (spectra, val_loss) = unlabelled(eval, start)?;
                    report.put_unlabelled(Unlabelled {
                        start: start.name().into(),
                        spectra,
                        val_loss,
                        seconds: started.elapsed().as_secs_f64(),
                    });
                    Vec::new()
                }
                Protocol::Knn | Protocol::Linear => {
                    let features = match frozen.take() {
                        Some(features) => features,
                        None => Frozen::new(eval, start, classes)?,
                    };
                    let scores = match protocol {
                        Protocol::Knn => {
                            if let Some(folder) = folder {
                                std::fs::create_dir_all(folder)
                                    .with_context(|| format!("creating {}", folder.display()))?;
                                features.draw_neighbours(eval, &folder.join(NEIGHBOURS))?;
                            }
                            features.knn(eval, classes.len())
                        }
                        _ => {
                            let (score, head) = features.linear(eval, folder)?;
                            if let Some(folder) = folder {
                                features.save(&head, &folder.join(CLASSIFIER))?;
                            }
                            vec![("linear".into(), score)]
                        }
                    };
                    frozen = Some(features);
                    scores
                }
                Protocol::Attentive => {
                    let score =
                        frozen::attentive(eval, start, classes.len(), folder, frozen::ROOM)?;
                    vec![(protocol.to_string(), score)]
                }
                Protocol::Partial(_) | Protocol::Finetune => {
                    let partial = match protocol {
                        Protocol::Partial(blocks) => Some(*blocks),
                        _ => None,
                    };
                    let score = fine_tune(eval, start, classes, partial, folder)?;
                    vec![(protocol.to_string(), score)]
                }
            };
            let seconds = started.elapsed().as_secs_f64();
            for (name, score) in scores {
                if let Some(folder) = folder {
                    report.draw_confusion(folder, &name, start, &score)?;
                }
                report.put(Row {
                    protocol: name,
                    start: start.name().into(),
                    top1: score.top1,
                    top5: score.top5,
                    seconds,
                    confusion: score.confusion,
                });
            }
            if let Some(out) = eval.out {
                report.write(&out.join(REPORT))?;
            }
        }
    }
    Ok(report)
}

/// Judges the pre-trained encoder by the cheap protocols: the spectrum without LiDAR, and where there are `classes`, kNN
/// and linear; writes nothing but the probe's curves into `eval.out`.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_frozen(
    eval: &Evaluation,
    classes: &[String],
) -> Result<(Spectra, Vec<(String, Score)>)> {
    let looks = Looks {
        views: 0,
        ..eval.config.spectrum.looks()
    };
    let spectra = eval.spectra(Start::Pretrained, looks)?;
    if classes.is_empty() {
        return Ok((spectra, Vec::new()));
    }
    let frozen = Frozen::new(eval, Start::Pretrained, classes)?;
    let mut scores = frozen.knn(eval, classes.len());
    let (score, _) = frozen.linear(eval, eval.out)?;
    scores.push(("linear".into(), score));
    Ok((spectra, scores))
}

/// What can be said without labels: the spectra, and of the checkpoint's weights the loss of the validation images, if
/// there is a decoder.
fn unlabelled(eval: &Evaluation, start: Start) -> Result<(Spectra, Option<f64>)> {
    let spectra = eval.spectra(start, eval.config.spectrum.looks())?;
    let model = match start {
        Start::Random => return Ok((spectra, None)),
        Start::Pretrained => MaskedAutoencoderViT::load(&eval.weights, eval.device),
    };
    let model = match model {
        Err(ModelError::EncoderOnly { .. }) => return Ok((spectra, None)),
        model => model?,
    };
    let (mask, seed) = data::mask_of(&eval.weights)?;
    let EvalConfig { data, run, .. } = eval.config;
    let loading = (run.workers, data.max_broken_share);
    let held_out = HeldOut::new(&eval.val, &model, &mask, seed, loading, eval.world)?;
    let loss = held_out.loss(&model, eval.precision, eval.world)?;
    Ok((spectra, Some(loss)))
}

impl Evaluation<'_> {
    /// The encoder's dimensions for the images that it is judged by.
    fn encoder(&self) -> MaeConfig {
        let mut encoder = self.encoder.clone().without_target();
        if let Some(size) = self.config.data.image_size {
            (encoder.image_height, encoder.image_width) = (size, size);
        }
        encoder
    }

    fn classifier(&self, config: &ClassifierConfig, start: Start) -> Result<VitClassifier> {
        let mut model =
            VitClassifier::new(config, &self.normalization, self.device, self.config.seed)?;
        model.set_kernels(self.config.run.kernels);
        if start == Start::Pretrained && self.world.is_first() {
            model.load_encoder(&self.weights)?;
        }
        let parameters: Vec<_> = model.parameters().into_values().collect();
        self.world.copy_from_first(&parameters)?;
        Ok(model)
    }

    /// The spectra of the images to learn from.
    fn spectra(&self, start: Start, looks: Looks) -> Result<Spectra> {
        let config = ClassifierConfig::linear_probe(self.encoder(), 1);
        let model = self.classifier(&config, start)?;
        spectrum::measure(
            &self.extraction(&model, self.val_transform()),
            &self.train,
            looks,
            self.world,
            self.interrupt,
            self.progress,
        )
    }

    /// What a classifier has to remember of how images are prepared.
    fn view(&self) -> View {
        View {
            crop_share: self.config.data.val_crop,
            nodata: self.nodata.to_string(),
        }
    }

    fn val_transform(&self) -> Transform {
        let encoder = self.encoder();
        self.config
            .val_transform(encoder.image_height, encoder.image_width)
    }

    fn loader(&self, dataset: &Arc<dyn Dataset>, config: ImageLoaderConfig) -> Result<ImageLoader> {
        let config = ImageLoaderConfig {
            workers: self.world.workers(self.config.run.workers),
            max_broken_share: self.config.data.max_broken_share,
            seed: self.config.seed,
            ..config
        };
        Ok(ImageLoader::new(Arc::clone(dataset), config)?)
    }

    fn extraction<'a>(&'a self, model: &'a VitClassifier, transform: Transform) -> Extraction<'a> {
        Extraction {
            model,
            precision: self.precision,
            transform,
            workers: self.world.workers(self.config.run.workers),
            max_broken_share: self.config.data.max_broken_share,
        }
    }
}

fn fine_tune(
    eval: &Evaluation,
    start: Start,
    classes: &[String],
    partial: Option<f64>,
    folder: Option<&Path>,
) -> Result<Score> {
    /// Images that are judged at once.
    const VAL_BATCH: usize = 128;
    let (settings, encoder) = (&eval.config.finetune, eval.encoder());
    let config = ClassifierConfig {
        drop_path: settings.drop_path,
        head_init: match start {
            Start::Pretrained => HeadInit::FineTune,
            Start::Random => HeadInit::Scratch,
        },
        class_names: classes.to_vec(),
        view: eval.view(),
        ..ClassifierConfig::fine_tune(encoder.clone(), classes.len())
    };
    let train_transform = settings.transform(encoder.image_height, encoder.image_width);
    let train = ImageLoaderConfig {
        order: Order::Shuffled,
        drop_last: eval.train.len() >= settings.batch_size,
        shard: eval.world.shard(),
        ..ImageLoaderConfig::new(train_transform.clone(), settings.batch_size)
    };
    let val_transform = eval.val_transform();
    let val = ImageLoaderConfig {
        shard: eval.world.shard(),
        ..ImageLoaderConfig::new(val_transform.clone(), VAL_BATCH * eval.world.size())
    };
    let task = FineTuning {
        model: eval.classifier(&config, start)?,
        partial,
        settings,
        precision: eval.precision,
        seed: eval.config.seed,
        train: eval.loader(&eval.train, train)?,
        images: eval.train.len(),
        train_transform,
        val: eval.loader(&eval.val, val)?,
        val_transform,
        world: eval.world,
    };
    let run_dir = folder
        .map(|folder| {
            RunDir::open_or_create(folder, &eval.config.to_toml(), |begun| {
                toml::from_str(begun).is_ok_and(|begun| eval.config.continues(&begun))
            })
        })
        .transpose()?;
    finetune::finetune(
        task,
        &eval.config.run.for_loop(),
        run_dir.as_ref(),
        eval.interrupt,
        eval.progress,
    )
}

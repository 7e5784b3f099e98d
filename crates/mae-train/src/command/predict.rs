//! `mae-train predict`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mae_data::{Dataset, Nodata, list_classes};
use mae_report::confusion_svg;
use mae_train::data::{nodata_as_in_others, open_path_or_image};
use mae_train::device;
use mae_train::distributed::World;
use mae_train::predict::{ClassScore, Classifier, Judgement, Summary, find, predict};
use mae_train::run::interrupt::Interrupt;

use super::images::{CifarSplit, Products};
use super::{lies_in, start_progress, tell_of_broken};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train predict --from runs/eval photos
  mae-train predict --from runs/eval/finetune-pre-trained photos --top 5 --out photos.csv
  mae-train predict --from runs/eval/linear-pre-trained photos --probabilities photos.npy
  mae-train predict --from best.safetensors cat.jpg

--from is what mae-train eval wrote: its folder, a protocol's folder in it, or a classifier's file. A protocol's folder
holds classifier.safetensors, whose accuracy eval prints, and after fine-tuning best.safetensors of the best epoch.
The file knows its classes and how images are prepared; nothing has to be said again.
Where the images have labels, accuracy is printed, and precision, recall and F1 of each class; a picture beside the CSV
file shows what was taken for what. A broken image is left out of all files, and named.
Stopped or killed, the same command goes on where it was, and the files become the same to the byte.";

/// Which images, by whom, and where to.
#[derive(Args)]
pub struct PredictArgs {
    /// An image, or several: a folder, CIFAR's binary files, a packed file or tar shards
    #[arg(value_name = "IMAGE|PATH")]
    data: PathBuf,
    /// An evaluation's folder, a protocol's folder in it, or a classifier's file
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// The CSV file to write
    #[arg(long, value_name = "FILE", default_value = "predictions.csv")]
    out: PathBuf,
    /// How many classes to name of each image, the likeliest first
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    top: usize,
    /// Also writes the probabilities of all classes, as a NumPy array: [images, classes]
    #[arg(long, value_name = "FILE.npy")]
    probabilities: Option<PathBuf>,
    /// What stands for a value that was not measured, in TIFF, PNG and Netpbm files and arrays: a number, nan, auto for
    /// what each file says, or none [default: as in the images that were learned from]
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    nodata: Option<Nodata>,
    /// Which images of CIFAR's binary files
    #[arg(long, value_name = "SPLIT", default_value = "test")]
    split: CifarSplit,
    /// Threads that load images; 0 is one a core
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,
    /// Where it runs: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// Precision of matrix products: fp32, bf16 or fp16
    #[arg(long, value_name = "PRECISION", default_value = "fp32")]
    precision: Products,
    /// Share of broken images to leave out before giving up
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    max_broken_share: f64,
    /// Replaces the files that are there, and begins anew what is unfinished of another model, images or settings
    #[arg(long)]
    overwrite: bool,
}

impl PredictArgs {
    /// Classifies the images and says how well, where that is known.
    pub fn run(&self) -> Result<ExitCode> {
        let progress = start_progress(&World::alone())?;
        let device = device::find("--device", &self.device)?;
        let weights = find(&self.from).context("--from")?;
        self.check_names(&weights)?;
        let mut classifier = Classifier::on_device(&weights, device)?;
        classifier.top = self.top;
        classifier.precision = self.precision.into();
        classifier.workers = self.workers;
        classifier.max_broken_share = self.max_broken_share;
        classifier.overwrite = self.overwrite;
        classifier.progress = progress;
        let classes = classifier.model().config().classes;
        ensure!(
            (1..=classes).contains(&self.top),
            "--top {}: expected 1 to {classes}, the classes that the model knows",
            self.top
        );
        let images = self.images(&classifier)?;
        classifier.interrupt = Interrupt::catch()?;
        eprintln!(
            "classifying {} by {}, on {} in {}",
            count(images.len()),
            weights.display(),
            device::name(device),
            classifier.precision.name()
        );
        match predict(
            &classifier,
            &images,
            &self.out,
            self.probabilities.as_deref(),
        )? {
            Some(summary) => {
                self.tell(&summary, &classifier.model().class_names())?;
                Ok(ExitCode::SUCCESS)
            }
            None => {
                println!("stopped and saved; go on with the same command");
                let signal = classifier.interrupt.signal().unwrap_or(2);
                Ok(ExitCode::from(128 + signal as u8))
            }
        }
    }

    /// Refuses to write over what is read.
    fn check_names(&self, weights: &Path) -> Result<()> {
        let written = [Some(&self.out), self.probabilities.as_ref()];
        for written in written.into_iter().flatten() {
            for read in [weights, &self.data] {
                ensure!(
                    !lies_in(written, read),
                    "{} is of what is to be read, {}: give another name",
                    written.display(),
                    read.display()
                );
            }
        }
        let picture = self.picture();
        ensure!(
            self.overwrite || self.out.exists() || !picture.exists(),
            "{} is there already, which is the picture beside --out: replace it with --overwrite, or give another name",
            picture.display()
        );
        Ok(())
    }

    /// What was taken for what.
    fn picture(&self) -> PathBuf {
        self.out.with_extension("confusion.svg")
    }

    fn images(&self, classifier: &Classifier) -> Result<Arc<dyn Dataset>> {
        let nodata = match self.nodata {
            Some(nodata) => nodata,
            None => nodata_as_in_others(classifier.nodata(), &self.data)?,
        };
        open_path_or_image(&self.data, self.split.into(), classifier.channels(), nodata)
    }

    fn tell(&self, summary: &Summary, names: &[String]) -> Result<()> {
        println!("wrote {}, {}", self.out.display(), count(summary.images));
        if let Some(path) = &self.probabilities {
            println!(
                "wrote {}, [{}, {}] in f32, a column for each of {}",
                path.display(),
                summary.images,
                names.len(),
                list_classes(names)
            );
        }
        if let Some(judgement) = &summary.judgement {
            self.tell_of_labels(judgement, names)?;
        }
        tell_of_broken(&summary.broken);
        Ok(())
    }

    fn tell_of_labels(&self, judgement: &Judgement, names: &[String]) -> Result<()> {
        let unknown = &judgement.unknown;
        if !unknown.is_empty() {
            println!(
                "the model does not know {} of the data's classes, whose images are not judged: {}; it knows {}",
                unknown.len(),
                list_classes(unknown),
                list_classes(names)
            );
        }
        if judgement.images == 0 {
            return Ok(());
        }
        let score = &judgement.score;
        let top5 = match names.len() {
            // Five of five classes are always right.
            0..=5 => String::new(),
            _ => format!(", {:.2} % among the first five", 100.0 * score.top5),
        };
        println!(
            "\n{:.2} % of {} labelled images are right (top-1){top5}",
            100.0 * score.top1,
            judgement.images
        );
        print!("{}", table(&judgement.classes(names.len()), names));
        let picture = self.picture();
        let title = format!("predictions: {:.2} % top-1", 100.0 * score.top1);
        confusion_svg(&picture, names, &score.confusion, &title)?;
        println!("\nwhat was taken for what: {}", picture.display());
        Ok(())
    }
}

fn count(images: usize) -> String {
    match images {
        1 => "1 image".into(),
        _ => format!("{images} images"),
    }
}

/// Precision, recall and F1 of the classes that occur; of many, those that are told worst.
fn table(scores: &[ClassScore], names: &[String]) -> String {
    const SHOWN: usize = 40;
    let mut rows: Vec<(&ClassScore, &String)> = (scores.iter().zip(names))
        .filter(|(score, _)| score.images > 0)
        .collect();
    let all = rows.len();
    if all > SHOWN {
        rows.sort_by(|(a, _), (b, _)| a.f1.total_cmp(&b.f1));
        rows.truncate(SHOWN);
    }
    let width = rows.iter().map(|(_, name)| name.chars().count()).max();
    let width = width.unwrap_or(0).max("class".len());
    let mut table = format!(
        "\n{:width$}   images  precision %  recall %    F1 %\n",
        "class"
    );
    for (score, name) in rows {
        let percent = |share: f64| match share.is_nan() {
            true => "-".to_string(),
            false => format!("{:.2}", 100.0 * share),
        };
        table += &format!(
            "{name:width$}  {:>7}  {:>11}  {:>8}  {:>6}\n",
            score.images,
            percent(score.precision),
            percent(score.recall),
            percent(score.f1)
        );
    }
    if all > SHOWN {
        table += &format!("these are the {SHOWN} of {all} classes with the lowest F1\n");
    }
    table
}

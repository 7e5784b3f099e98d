//! `mae-train embed`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mae_data::Dataset;
use mae_train::data::{nodata_as_in_training, open_own, open_path};
use mae_train::distributed::World;
use mae_train::embed::map::{self, draw_map};
use mae_train::embed::{Embedding, Summary, Tokens, embed};
use mae_train::run::interrupt::Interrupt;
use mae_train::{device, run::checkpoint};

use super::images::{CifarSplit, NodataArgs, Products};
use super::{lies_in, start_progress, tell_of_broken};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train embed --from runs/photos photos --out features.npy
  mae-train embed --from runs/photos photos --out features.safetensors --tokens patches
  mae-train embed --from runs/photos photos --map map.html
  mae-train embed --from model.safetensors cifar-10-batches-bin --split test --out test.npy

A .npy holds one array of floats: [images, embed_dim], or [images, patches, embed_dim] for --tokens patches. A .safetensors
holds it as `features`, with `indices`, `labels` if there are any, and as metadata what made it. A .csv file of the same
name has index, path and label of each row. Images are resized and their centre is cropped to the size that the model was
trained on, as eval does. A broken image is left out of all files, and named.
A map has 10 to 20,000 images, coloured by class where there are labels; a page has the pictures of up to 2,000. It is
the same every time.
Stopped or killed, the same command goes on where it was, and the files become the same to the byte.";

/// Whose view of which images, and where to.
#[derive(Args)]
pub struct EmbedArgs {
    /// The images: a folder, CIFAR's binary files, a packed file or tar shards [default: the run's own]
    data: Option<PathBuf>,
    /// A run's folder, a checkpoint's folder, or its model.safetensors
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// The file to write: .npy or .safetensors [default with --map: beside it, with the ending .npy]
    #[arg(long, value_name = "FILE", required_unless_present = "map")]
    out: Option<PathBuf>,
    /// Also draws the images in two dimensions, by t-SNE: a page that shows an image under the pointer (.html), or a
    /// picture (.png)
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// What to take of an image: `cls`, the class token; `mean`, of the patch tokens; or `patches`, each of them. All
    /// after the encoder's last norm. eval judges the mean, unless told otherwise
    #[arg(long, value_name = "WHICH", default_value_t)]
    tokens: Tokens,
    #[command(flatten)]
    nodata: NodataArgs,
    /// Which images of CIFAR's binary files
    #[arg(long, value_name = "SPLIT", default_value = "train", requires = "data")]
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

impl EmbedArgs {
    /// Embeds the images and says what is where.
    pub fn run(&self) -> Result<ExitCode> {
        let progress = start_progress(&World::alone())?;
        let device = device::find("--device", &self.device)?;
        let weights = checkpoint::find_model(&self.from).context("--from")?;
        let out = self.out(&weights)?;
        let mut embedding = Embedding::on_device(&weights, self.tokens, device)?;
        embedding.precision = self.precision.into();
        embedding.workers = self.workers;
        embedding.max_broken_share = self.max_broken_share;
        embedding.overwrite = self.overwrite;
        embedding.progress = progress;
        let images = self.images(&embedding)?;
        if let Some(map) = &self.map {
            map::check(map, images.len()).context("--map")?;
        }
        embedding.interrupt = Interrupt::catch()?;
        eprintln!(
            "embedding {} images by {}, on {} in {}",
            images.len(),
            weights.display(),
            device::name(device),
            embedding.precision.name()
        );
        match embed(&embedding, &images, &out)? {
            Some(summary) => {
                tell(&out, &summary);
                if let Some(file) = &self.map {
                    let map = draw_map(&embedding, &images, &out, &summary, file)?;
                    println!("wrote {}, {}", file.display(), map.title);
                }
                Ok(ExitCode::SUCCESS)
            }
            None => {
                println!("stopped and saved; go on with the same command");
                let signal = embedding.interrupt.signal().unwrap_or(2);
                Ok(ExitCode::from(128 + signal as u8))
            }
        }
    }

    fn images(&self, embedding: &Embedding) -> Result<Arc<dyn Dataset>> {
        let split = self.split.into();
        match &self.data {
            Some(data) => {
                let nodata = match self.nodata.nodata {
                    Some(nodata) => nodata,
                    None => nodata_as_in_training(embedding.weights(), data)?,
                };
                open_path(data, split, embedding.channels(), nodata)
            }
            None => open_own(embedding.weights()).context(
                "the images are missing, and a run's own cannot be had: give a folder, for example",
            ),
        }
    }

    /// Where the vectors go, if neither file is to be read or to be kept.
    fn out(&self, weights: &Path) -> Result<PathBuf> {
        let beside = |map: &PathBuf| map.with_extension("npy");
        let out = self.out.clone().or_else(|| self.map.as_ref().map(beside));
        let out = out.context("--out is missing")?;
        for (option, written) in [("--out", Some(&out)), ("--map", self.map.as_ref())] {
            let Some(written) = written else { continue };
            for read in [Some(weights), self.data.as_deref()].into_iter().flatten() {
                ensure!(
                    !lies_in(written, read),
                    "{option} {} is of what is to be read, {}: give another name",
                    written.display(),
                    read.display()
                );
            }
        }
        if let Some(map) = &self.map {
            ensure!(
                self.tokens != Tokens::Patches,
                "--map needs one vector an image: give --tokens cls or mean"
            );
            ensure!(
                self.overwrite || !map.exists(),
                "--map {} is there already: replace it with --overwrite, or give another name",
                map.display()
            );
        }
        Ok(out)
    }
}

fn tell(out: &Path, summary: &Summary) {
    let sides: Vec<String> = (std::iter::once(&summary.images).chain(&summary.shape))
        .map(usize::to_string)
        .collect();
    println!(
        "wrote {}, [{}] in f32; index, path and label of each row are in {}",
        out.display(),
        sides.join(", "),
        summary.csv.display()
    );
    tell_of_broken(&summary.broken);
}

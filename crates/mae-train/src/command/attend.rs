//! `mae-train attend`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use mae_model::classifier::Pooling;
use mae_model::{FileKind, VitClassifier};
use mae_train::attend::{Heads, attend};
use mae_train::device;
use mae_train::distributed::World;

use super::picture::PictureArgs;
use super::{find_weights, start_progress};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train attend --from runs/photos cat.jpg
  mae-train attend --from runs/photos photos/test --images 12 --heads --out heads.png
  mae-train attend --from runs/eval/finetune-pre-trained photos/test
  mae-train attend --from runs/quickstart                     images that the run was trained on

A row of the picture is: the image, brought to the model's size by its centre; how much the class token heeds each patch in
the last block; and the first three principal components of the patch tokens as red, green and blue, as they are and less
the mean of their place over all images. The components are found over all images of the picture, so that one colour means
the same in each.

Pre-training as a Masked Autoencoder gives the class token no task of its own, so that its attention shows less than that of
DINO; nor does fine-tuning, which looks at the mean of the patches. The components show what the encoder takes for alike; where it knows above all where a patch is,
they show the place, and what is less place shows the rest, the better the more images there are (--images).";

/// Whose view of which images.
#[derive(Args)]
pub struct AttendArgs {
    /// A run's folder, a checkpoint's folder, or its model.safetensors; or what an evaluation learned: its folder, a
    /// protocol's folder in it, or a classifier's file
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// Also draws the attention of each head
    #[arg(long)]
    heads: bool,
    #[command(flatten)]
    picture: PictureArgs,
}

impl AttendArgs {
    /// Draws the picture, and prints what it shows.
    pub fn run(&self) -> Result<ExitCode> {
        let _progress = start_progress(&World::alone())?;
        let weights = find_weights(&self.from)?;
        let out = self.picture.out("attend", &[&weights])?;
        // Where it was trained does not matter.
        let device = device::find("run.device", "auto")?;
        let (model, kind) = VitClassifier::open(&weights, Pooling::ClassToken, device)?;
        let config = model.config();
        let nodata = match kind {
            FileKind::Classifier => Some(config.view.nodata.parse().unwrap_or_default()),
            _ => None,
        };
        let dataset = (self.picture).dataset(&weights, config.encoder.channels, nodata)?;
        let attended = attend(&model, &dataset, self.picture.images, self.picture.seed)?;
        let names: Vec<String> = (attended.indices.iter())
            .map(|&index| self.picture.name(dataset.as_ref(), index))
            .collect();
        let heads = match self.heads {
            true => Heads::Each,
            false => Heads::Mean,
        };
        let picture = attended.picture(heads, &names)?;
        let png = picture.png().context("encoding the picture")?;
        mae_report::write_atomic(&out, &png)?;
        for note in attended.notes() {
            println!("{note}");
        }
        println!("picture: {}", out.display());
        Ok(ExitCode::SUCCESS)
    }
}

//! `mae-train export`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mae_train::distributed::World;
use mae_train::export::{Exported, Verified};
use mae_train::predict::{self, is_of_evaluation};
use mae_train::run::checkpoint;

use super::{lies_in, start_progress};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train export --from runs/photos --torchscript encoder.pt
  mae-train export --from model.safetensors --torchscript encoder.pt --image cat.jpg
  mae-train export --from runs/eval/finetune-pre-trained --torchscript classifier.pt

The file is loaded by torch.jit.load in Python and torch::jit::load in C++, without this program; it is made of operations
that PyTorch has had since 2.1, and was tried in 2.13. It takes images
[batch, channels, height, width], any number of them, of the size that the model was trained on, in float32: from 0 to 1 where
the files have 8 bits (as torchvision's ToTensor makes them) or 16 unsigned ones, else in the files' own units, as those of
float arrays. It normalises them itself; integers from 0 to 255 are not scaled. After .to(torch.bfloat16) the images must
be bfloat16, too. An encoder returns the tokens after its last norm, [batch, 1 + patches, embed_dim]: the class token at
[:, 0], the patches row by row from 1 on. A classifier that mae-train eval wrote returns logits, [batch, classes].
Weights are parameters under the checkpoint's keys, none of them training. Strings are attributes of the module:
`normalization`, `input`, `output`, and an encoder's `config`, or a classifier's `classifier` and `classes`, a list of
their names in JSON.";

/// What to write, and for whom.
#[derive(Args)]
pub struct ExportArgs {
    /// A run's folder, a checkpoint's folder, or its model.safetensors; or what an evaluation learned: its folder, a
    /// protocol's folder in it, or a classifier's file
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// The TorchScript file to write
    #[arg(long, value_name = "FILE")]
    torchscript: PathBuf,
    /// The image to verify the file with [default: one of the run's own, or a drawn scene if they are not there]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Replaces the file that is there
    #[arg(long)]
    overwrite: bool,
}

impl ExportArgs {
    /// Writes the file, verifies it and says how to use it.
    pub fn run(&self) -> Result<ExitCode> {
        let _progress = start_progress(&World::alone())?;
        let weights = match is_of_evaluation(&self.from) {
            true => predict::find(&self.from),
            false => checkpoint::find_model(&self.from),
        };
        let weights = weights.context("--from")?;
        for read in [Some(&weights), self.image.as_ref()].into_iter().flatten() {
            ensure!(
                !lies_in(&self.torchscript, read),
                "--torchscript {} is what is to be read, {}: give another name",
                self.torchscript.display(),
                read.display()
            );
        }
        ensure!(
            self.overwrite || !self.torchscript.exists(),
            "{} is there already: replace it with --overwrite, or give another name",
            self.torchscript.display()
        );
        let model = Exported::open(&weights)?;
        let (images, what) = model.images(self.image.as_deref())?;
        let is_classifier = model.is_classifier();
        let verified = model.torchscript(&images, &self.torchscript)?;
        self.tell(
            &weights.display().to_string(),
            what,
            &verified,
            is_classifier,
        );
        Ok(ExitCode::SUCCESS)
    }

    fn tell(&self, weights: &str, what: &str, verified: &Verified, is_classifier: bool) {
        let [one, several] = verified.batches;
        let shape: Vec<String> = verified.shape.iter().map(i64::to_string).collect();
        let shape = shape.join(", ");
        let (part, usage) = match is_classifier {
            true => (
                "classifier",
                format!(
                    "logits = classifier(images)  # [batch, {shape}]; json.loads(classifier.classes) has their names"
                ),
            ),
            false => (
                "encoder",
                format!(
                    "tokens = encoder(images)  # [batch, {shape}]: the class token is tokens[:, 0]"
                ),
            ),
        };
        println!(
            "wrote {}, the {part} of {weights}\n\
             verified with {what} ({}): in batches of {one} and {several} it differs from the model by at most \
             {:.1e}, of numbers up to {:.2}\n\
             \n\
             in Python, with images [batch, channels, height, width] in float32, from 0 to 1 where the files have 8 or \
             16 unsigned bits, else in the files' own units:\n\
             \n  \
             {part} = torch.jit.load({:?})\n  \
             {usage}",
            self.torchscript.display(),
            verified.image,
            verified.difference,
            verified.largest,
            self.torchscript.display().to_string(),
        );
    }
}

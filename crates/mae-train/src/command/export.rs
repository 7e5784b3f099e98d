//! `mae-train export`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{ArgGroup, Args};
use mae_train::distributed::World;
use mae_train::export::{Exported, Verified, onnx_weights};

use super::{find_weights, lies_in, start_progress};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train export --from runs/photos --torchscript encoder.pt
  mae-train export --from runs/photos --onnx encoder.onnx
  mae-train export --from model.safetensors --torchscript encoder.pt --image cat.jpg
  mae-train export --from runs/eval/finetune-pre-trained --torchscript classifier.pt --onnx classifier.onnx

Both kinds of file take images [batch, channels, height, width], any number of them, of the size that the model was
trained on, in float32: from 0 to 1 where the files have 8 bits (as torchvision's ToTensor makes them) or 16 unsigned
ones, else in the files' own units, as those of float arrays. They normalise them; integers from 0 to 255 are not scaled.
An encoder returns the tokens after its last norm, [batch, 1 + patches, embed_dim]: the class token at [:, 0], the patches
row by row from 1 on. A classifier that mae-train eval wrote returns logits, [batch, classes]. Both kinds keep strings:
`normalization`, `input`, `output`, and an encoder's `config`, or a classifier's `classifier` and `classes`, a list of
their names in JSON.

TorchScript is loaded by torch.jit.load in Python and torch::jit::load in C++, without this program, from PyTorch 2.1 on;
it was tried in 2.1, 2.4 and 2.13. Weights are parameters under the checkpoint's keys, none of them training; the strings
are attributes. After .to(torch.bfloat16) the images must be bfloat16, too.

ONNX is loaded by ONNX Runtime 1.12 and newer and what else knows operators of version 17. The input is called `images`,
the output `tokens` or `logits`; the strings are metadata. Weights of 2 GB and more go to a second file, FILE.data, which
has to stay beside the first.";

/// What to write, and for whom.
#[derive(Args)]
#[command(group = ArgGroup::new("format").required(true).multiple(true))]
pub struct ExportArgs {
    /// A run's folder, a checkpoint's folder, or its model.safetensors; or what an evaluation learned: its folder, a
    /// protocol's folder in it, or a classifier's file
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// A TorchScript file to write
    #[arg(long, value_name = "FILE", group = "format")]
    torchscript: Option<PathBuf>,
    /// An ONNX file to write
    #[arg(long, value_name = "FILE", group = "format")]
    onnx: Option<PathBuf>,
    /// The image to verify what is written with [default: one of the run's own, or a drawn scene if they are not there]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Replaces files that are there
    #[arg(long)]
    overwrite: bool,
}

impl ExportArgs {
    /// Writes the files, verifies them and says how to use them.
    pub fn run(&self) -> Result<ExitCode> {
        let _progress = start_progress(&World::alone())?;
        let weights = find_weights(&self.from)?;
        self.check(&weights)?;
        let model = Exported::open(&weights)?;
        let (images, what) = model.images(self.image.as_deref())?;
        let part = match model.is_classifier() {
            true => "classifier",
            false => "encoder",
        };
        let tell = |file: &Path, verified: &Verified, usage: [String; 2]| {
            let [one, several] = verified.batches;
            println!(
                "wrote {}, the {part} of {}\n\
                 verified with {what} ({}): in batches of {one} and {several} it differs from the model by at most \
                 {:.1e}, of numbers up to {:.2}\n\
                 \n\
                 in Python, with images [batch, channels, height, width] in float32, from 0 to 1 where the files have 8 \
                 or 16 unsigned bits, else in the files' own units:\n\
                 \n  \
                 {}\n",
                file.display(),
                weights.display(),
                verified.image,
                verified.difference,
                verified.largest,
                usage.join("\n  ")
            );
        };
        if let Some(file) = &self.onnx {
            let verified = model.onnx(&images, file)?;
            tell(file, &verified, onnx_usage(file, part, &verified.shape));
        }
        if let Some(file) = &self.torchscript {
            let verified = model.torchscript(&images, file)?;
            tell(
                file,
                &verified,
                torchscript_usage(file, part, &verified.shape),
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    /// That nothing is overwritten which should not be.
    fn check(&self, weights: &Path) -> Result<()> {
        let read = [Some(weights), self.image.as_deref()];
        let beside = self.onnx.as_deref().map(onnx_weights);
        let written = [
            ("--torchscript", self.torchscript.as_ref()),
            ("--onnx", self.onnx.as_ref()),
            (
                "--onnx, which may need the file beside it:",
                beside.as_ref(),
            ),
        ];
        for (option, file) in written {
            let Some(file) = file else { continue };
            for read in read.into_iter().flatten() {
                ensure!(
                    !lies_in(file, read),
                    "{option} {} is what is to be read, {}: give another name",
                    file.display(),
                    read.display()
                );
            }
            ensure!(
                self.overwrite || !file.exists(),
                "{} is there already: replace it with --overwrite, or give another name",
                file.display()
            );
        }
        ensure!(
            self.torchscript.is_none() || self.torchscript != self.onnx,
            "--torchscript and --onnx name the same file: give two names"
        );
        Ok(())
    }
}

/// How to use a TorchScript file in Python.
fn torchscript_usage(file: &Path, part: &str, shape: &[i64]) -> [String; 2] {
    let loaded = format!("{part} = torch.jit.load({:?})", file.display().to_string());
    let used = match *shape {
        [classes] => format!(
            "logits = {part}(images)  # [batch, {classes}]; json.loads({part}.classes) has their names"
        ),
        _ => format!("tokens = {part}(images)  # {}", tokens(shape)),
    };
    [loaded, used]
}

/// How to use an ONNX file in Python.
fn onnx_usage(file: &Path, part: &str, shape: &[i64]) -> [String; 2] {
    let name = file.display().to_string();
    let loaded = format!("{part} = onnxruntime.InferenceSession({name:?})");
    let run = format!("{part}.run(None, {{\"images\": images}})");
    let used = match *shape {
        [classes] => format!(
            "logits, = {run}  # [batch, {classes}]; \
             json.loads({part}.get_modelmeta().custom_metadata_map[\"classes\"]) has their names"
        ),
        _ => format!("tokens, = {run}  # {}", tokens(shape)),
    };
    [loaded, used]
}

fn tokens(shape: &[i64]) -> String {
    let shape: Vec<String> = shape.iter().map(i64::to_string).collect();
    format!(
        "[batch, {}]: the class token is tokens[:, 0]",
        shape.join(", ")
    )
}

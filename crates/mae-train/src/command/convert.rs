//! `mae-train convert`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use mae_model::checkpoint::Part;
use mae_model::formats::{
    Adapt, Format, ReadOptions, Weights, is_of_others, read, write_classifier,
};
use mae_model::tensor_file::read_tensors;
use mae_model::{FileKind, Normalization, VitClassifier};
use mae_train::predict::{self, is_of_evaluation};
use mae_train::run::checkpoint::find_model;
use tch::Device;

use super::write_stdout;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train convert runs/quickstart vit-mae --format huggingface    what a run has learned, for transformers
  mae-train convert runs/quickstart encoder --format timm           its encoder, for timm
  mae-train convert runs/eval classifier --format timm              what an evaluation fine-tuned
  mae-train convert vit-mae-base base.safetensors                   a folder of Hugging Face, for this program
  mae-train convert mae_pretrain_vit_base.pth encoder.safetensors --num-heads 12 --normalization imagenet
  mae-train convert base.safetensors grey.safetensors --channels 1 --adapt mean
  mae-train pretrain --data photos --recipe imagenet_vit_b16 --set run.init=base.safetensors

The format of FROM is recognised by its content. Files of torch.save are read without running what is in them.";

/// What to convert, and what FROM does not say.
#[derive(Args)]
pub struct ConvertArgs {
    /// A run, its model.safetensors, what an evaluation learned, a .pth of any program, a folder of Hugging Face or timm,
    /// a safetensors file, one of its shards or their index
    from: PathBuf,
    /// The file to write in the native format, or the folder in another
    to: PathBuf,
    /// The format to write [default: native if TO ends in .safetensors]
    #[arg(long)]
    format: Option<FormatArg>,
    /// Writes the encoder alone
    #[arg(long, value_name = "PART")]
    part: Option<PartArg>,
    /// Of several models in FROM, the one under this name, for example model_ema [default: the trained one]
    #[arg(long, value_name = "KEY")]
    weights_key: Option<String>,
    /// Attention heads of the encoder, where FROM does not say
    #[arg(long, value_name = "N")]
    num_heads: Option<usize>,
    /// Attention heads of the decoder, where FROM does not say
    #[arg(long, value_name = "N")]
    decoder_num_heads: Option<usize>,
    /// Whether patches normalised by their own mean and variance are predicted, where FROM does not say
    #[arg(long, value_name = "BOOL")]
    norm_pix_loss: Option<bool>,
    /// Size of images, where FROM does not say: the side of a square, or HEIGHTxWIDTH
    #[arg(long, value_name = "PIXELS", value_parser = image_size)]
    image_size: Option<(usize, usize)>,
    /// Channel statistics of a published data set, in place of FROM's
    #[arg(long, value_name = "NAME", conflicts_with_all = ["mean", "std"])]
    normalization: Option<NormalizationArg>,
    /// Mean of each channel, for example 0.5,0.5,0.5, in place of FROM's
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "std")]
    mean: Vec<f32>,
    /// Standard deviation of each channel, in place of FROM's
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "mean")]
    std: Vec<f32>,
    /// Makes it a model for images of N channels
    #[arg(long, value_name = "N", requires = "adapt")]
    channels: Option<usize>,
    /// How new channels get their weights: each the mean of the old ones, or these in turn
    #[arg(long, value_name = "HOW", requires = "channels")]
    adapt: Option<AdaptArg>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum FormatArg {
    /// One safetensors file, which this program trains from, evaluates and exports
    Native,
    /// A folder for ViTMAEForPreTraining, of an encoder for ViTMAEModel, of a classifier for
    /// AutoModelForImageClassification
    #[value(name = "huggingface")]
    HuggingFace,
    /// A folder for timm.create_model: the encoder, or the classifier
    Timm,
}

#[derive(Clone, Copy, ValueEnum)]
enum PartArg {
    /// The encoder
    Encoder,
}

#[derive(Clone, Copy, ValueEnum)]
enum NormalizationArg {
    /// ImageNet's, which most published models have
    Imagenet,
}

#[derive(Clone, Copy, ValueEnum)]
enum AdaptArg {
    /// Each the mean of the old ones
    Mean,
    /// The old ones in turn, again and again
    Repeat,
}

impl ConvertArgs {
    /// Converts, and says what was read and written.
    pub fn run(&self) -> Result<ExitCode> {
        let format = self.format()?;
        self.check_to(format)?;
        let source = self.source()?;
        if is_classifier(&source) {
            return self.classifier(&source, format);
        }
        let weights = read(&source, &self.options())?;
        say(source_text(&weights), &weights.notes)?;
        let notes = weights.write(&self.to, format)?;
        let is_encoder = weights.part == Part::Encoder || format == Format::Timm;
        let written = match is_encoder {
            true => "the encoder",
            false => "encoder and decoder",
        };
        say(format!("wrote {written} to {}", self.to.display()), &notes)?;
        say(
            format!("load it: {}", self.loading(format, weights.part)),
            &[],
        )
    }

    /// Converts what an evaluation learned.
    fn classifier(&self, source: &Path, format: Format) -> Result<ExitCode> {
        ensure!(
            self.options() == ReadOptions::default(),
            "{} is a classifier, which is converted as it is: leave out all flags but --format",
            source.display()
        );
        let model = VitClassifier::load(source, Device::Cpu)?;
        let notes = write_classifier(&model, &self.to, format)?;
        let names = model.class_names();
        say(
            format!(
                "read {}: a classifier of {} classes, images {} x {} of {} channels",
                source.display(),
                names.len(),
                model.config().encoder.image_height,
                model.config().encoder.image_width,
                model.config().encoder.channels
            ),
            &[],
        )?;
        say(format!("wrote it to {}", self.to.display()), &notes)?;
        let path = self.to.display();
        say(
            match format {
                Format::Timm => format!(
                    "load it: import timm; model = timm.create_model(\"local-dir:{path}\", pretrained=True)"
                ),
                _ => format!(
                    "load it: from transformers import pipeline; classify = pipeline(\"image-classification\", \"{path}\")"
                ),
            },
            &[],
        )
    }

    fn format(&self) -> Result<Format> {
        let is_file = self
            .to
            .extension()
            .is_some_and(|extension| extension == "safetensors");
        match self.format {
            None if is_file => Ok(Format::Native),
            None => bail!(
                "{}: which format? Give --format huggingface or --format timm for a folder, or a name that ends in .safetensors for this program's",
                self.to.display()
            ),
            Some(FormatArg::Native) => {
                ensure!(
                    is_file,
                    "{}: the native format is a file whose name ends in .safetensors",
                    self.to.display()
                );
                Ok(Format::Native)
            }
            Some(other) => {
                ensure!(
                    !is_file,
                    "{}: --format {} writes a folder; give a name without .safetensors",
                    self.to.display(),
                    other
                        .to_possible_value()
                        .expect("no format is hidden")
                        .get_name()
                );
                Ok(match other {
                    FormatArg::Timm => Format::Timm,
                    _ => Format::HuggingFace,
                })
            }
        }
    }

    fn check_to(&self, format: Format) -> Result<()> {
        let is_empty_folder = format != Format::Native
            && std::fs::read_dir(&self.to).is_ok_and(|mut entries| entries.next().is_none());
        ensure!(
            is_empty_folder || self.to.symlink_metadata().is_err(),
            "{} is there already: give another name",
            self.to.display()
        );
        let folder = match self.to.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder).with_context(|| {
            format!(
                "cannot make the folder {}; check that the one above may be written to, or give another name",
                folder.display()
            )
        })
    }

    /// The model in a run's folder; other folders say themselves what they are.
    fn source(&self) -> Result<PathBuf> {
        match is_of_others(&self.from) {
            true => Ok(self.from.clone()),
            false if is_of_evaluation(&self.from) => predict::find(&self.from),
            false => find_model(&self.from),
        }
    }

    fn options(&self) -> ReadOptions {
        let normalization = match self.normalization {
            Some(NormalizationArg::Imagenet) => Some(Normalization::IMAGENET),
            None if self.mean.is_empty() => None,
            None => Some(Normalization::new(self.mean.clone(), self.std.clone())),
        };
        let adapt = self.adapt.map(|adapt| match adapt {
            AdaptArg::Mean => Adapt::Mean,
            AdaptArg::Repeat => Adapt::Repeat,
        });
        ReadOptions {
            part: self.part.map(|PartArg::Encoder| Part::Encoder),
            weights_key: self.weights_key.clone(),
            num_heads: self.num_heads,
            decoder_num_heads: self.decoder_num_heads,
            norm_pix_loss: self.norm_pix_loss,
            image_size: self.image_size,
            normalization,
            channels: self.channels.zip(adapt),
        }
    }

    /// What a reader does with it, in Python; with an encoder of our own, on the command line.
    fn loading(&self, format: Format, part: Part) -> String {
        let path = self.to.display();
        match (format, part) {
            (Format::HuggingFace, Part::Whole) => format!(
                "from transformers import ViTMAEForPreTraining; model = ViTMAEForPreTraining.from_pretrained(\"{path}\")"
            ),
            (Format::HuggingFace, Part::Encoder) => format!(
                "from transformers import ViTMAEModel; model = ViTMAEModel.from_pretrained(\"{path}\", mask_ratio=0.0)"
            ),
            (Format::Timm, _) => format!(
                "import timm; model = timm.create_model(\"local-dir:{path}\", pretrained=True)"
            ),
            (Format::Native | Format::Authors, _) => {
                format!("from safetensors.torch import load_file; weights = load_file(\"{path}\")")
            }
        }
    }
}

/// Whether it is a file that an evaluation wrote; what cannot be read is said by whoever reads it.
fn is_classifier(source: &Path) -> bool {
    let is_ours = source
        .extension()
        .is_some_and(|ending| ending == "safetensors");
    let metadata = is_ours.then(|| read_tensors(source).ok()).flatten();
    metadata.is_some_and(|(_, metadata)| FileKind::of(&metadata) == FileKind::Classifier)
}

/// Prints a line, and notes below it.
fn say(line: String, notes: &[String]) -> Result<ExitCode> {
    write_stdout(|stdout| {
        writeln!(stdout, "{line}")?;
        notes
            .iter()
            .try_for_each(|note| writeln!(stdout, "  {note}"))
    })
}

fn source_text(weights: &Weights) -> String {
    let config = &weights.config;
    let what = match weights.format {
        Format::Native => "this program's model",
        Format::Authors => "a file of torch.save",
        Format::HuggingFace => "Hugging Face's Vision Transformer",
        Format::Timm => "a plain Vision Transformer",
    };
    let decoder = match weights.part {
        Part::Whole => format!(
            "decoder {} x {} of {} heads, norm_pix_loss {}",
            config.decoder_embed_dim,
            config.decoder_depth,
            config.decoder_num_heads,
            config.norm_pix_loss
        ),
        Part::Encoder => "no decoder".into(),
    };
    format!(
        "read {}: {what}, {:.1} M parameters\n  encoder {} x {} of {} heads; {decoder}\n  images {} x {} of {} channels in patches of {}; mean {:?}, std {:?}",
        weights.path.display(),
        weights.parameters() as f64 / 1e6,
        config.embed_dim,
        config.depth,
        config.num_heads,
        config.image_height,
        config.image_width,
        config.channels,
        config.patch_size,
        weights.normalization.mean,
        weights.normalization.std,
    )
}

/// `224` or `192x256`.
fn image_size(text: &str) -> Result<(usize, usize), String> {
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    match (height.parse(), width.parse()) {
        (Ok(height), Ok(width)) if height > 0 && width > 0 => Ok((height, width)),
        _ => Err("expected the side of a square, as 224, or HEIGHTxWIDTH, as 192x256".into()),
    }
}

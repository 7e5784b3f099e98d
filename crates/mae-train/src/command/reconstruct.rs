//! `mae-train reconstruct`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use mae_data::{Image, Mask, MaskSampler, PatchGrid};
use mae_model::tensor_file::read_tensors;
use mae_model::{FileKind, MaskedAutoencoderViT, PatchStatistics};
use mae_train::config::{Source, TrainConfig, read};
use mae_train::distributed::World;
use mae_train::reconstruct::{Masking, Samples};
use mae_train::{device, run::checkpoint};

use super::picture::PictureArgs;
use super::start_progress;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train reconstruct --from runs/photos cat.jpg
  mae-train reconstruct --from runs/photos photos/test --images 4 --mask-ratio 0.9 --out nine-tenths.png
  mae-train reconstruct --from runs/photos cat.jpg --mask mask.png
  mae-train reconstruct --from runs/quickstart                images that the run was trained on

A row of the picture is: the image, brought to the model's size by its centre; what is visible of it; what the model
predicts; and its predictions beside what was visible.

--mask is an image in black and white of any size, stretched over what the model sees: a patch is hidden if more than
half of it is white.

A model of norm_pix_loss, the default of pre-training, predicts patches without their mean and deviation. --statistics
says where the picture takes them from, and the picture says so, too:
  visible  from the visible patches of the same image, each weighted by 1 / d^4, d being the distance in patches
  oracle   from the true patches, which gives their brightness and contrast away: judge the structure only
  raw      from nowhere: each patch has the mean and deviation that the model's channels have over all images
All other models predict pixels as they are, which is raw.";

/// What to hide of which images, and what to show.
#[derive(Args)]
pub struct ReconstructArgs {
    /// A run's folder, a checkpoint's folder, or its model.safetensors
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    #[command(flatten)]
    picture: PictureArgs,
    /// Share of the patches to hide [default: the run's own, or 0.75]
    #[arg(long, value_name = "SHARE", conflicts_with = "mask")]
    mask_ratio: Option<f64>,
    /// How the hidden patches are chosen [default: the run's own, or random]
    #[arg(long, value_name = "SAMPLER", value_parser = sampler(), conflicts_with = "mask")]
    sampler: Option<MaskSampler>,
    /// Hides what is white in this image, of all images the same
    #[arg(long, value_name = "IMAGE")]
    mask: Option<PathBuf>,
    /// For models of norm_pix_loss: where mean and deviation of patches come from [default: all three, side by side]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    statistics: Vec<Statistics>,
}

fn sampler() -> impl TypedValueParser<Value = MaskSampler> {
    PossibleValuesParser::new(MaskSampler::NAMES).try_map(|name| name.parse::<MaskSampler>())
}

#[derive(Clone, Copy, ValueEnum)]
enum Statistics {
    /// From the visible patches
    Visible,
    /// From the true patches, hidden ones included
    Oracle,
    /// From nowhere
    Raw,
}

impl ReconstructArgs {
    /// Draws the picture, and prints how far off each image is.
    pub fn run(&self) -> Result<ExitCode> {
        let _progress = start_progress(&World::alone())?;
        let file = checkpoint::find_model(&self.from).context("--from")?;
        check_decoder(&file)?;
        // Where the run was trained does not matter.
        let device = device::find("run.device", "auto")?;
        let model = MaskedAutoencoderViT::load(&file, device)?;
        let grid = model.config().grid()?;
        let run = match checkpoint::run_of(&file) {
            Some(run) => Some(read(&Source::File(run.join("config.toml")), None, &[])?),
            None => None,
        };
        let own = run.as_ref().and_then(|run| run.data.path.as_deref());
        let own = own.filter(|_| self.picture.data.is_none());
        let read: Vec<&Path> = own.into_iter().chain(self.mask.as_deref()).collect();
        let out = self.picture.out("reconstruct", &read)?;
        let statistics = self.statistics(&model)?;
        let (masking, how) = self.masking(run.as_ref(), &grid)?;
        let dataset = self.picture.dataset(&file, grid.channels(), None)?;

        let samples = Samples::choose(
            &dataset,
            self.picture.images,
            self.picture.seed,
            &grid,
            &masking,
            model.device(),
        )?;
        let found = samples.reconstruct(&model, &statistics)?;
        let names: Vec<String> = (samples.indices().iter())
            .map(|&index| self.picture.name(dataset.as_ref(), index))
            .collect();
        let labels: Vec<String> = (names.iter().zip(&found.losses))
            .map(|(name, loss)| format!("loss {loss:.3}  {name}"))
            .collect();
        let picture = found.picture(&labels)?;
        mae_report::write_atomic(&out, &picture.png()?)?;

        println!(
            "{} of {} patches hidden, {how}; {}:",
            samples.hidden(),
            grid.patches(),
            found.loss_name()
        );
        for (name, loss) in names.iter().zip(&found.losses) {
            println!("{loss:8.4}  {name}");
        }
        if names.len() > 1 {
            let mean = found.losses.iter().sum::<f64>() / names.len() as f64;
            println!("{mean:8.4}  mean of {} images", names.len());
        }
        println!("picture: {}", out.display());
        Ok(ExitCode::SUCCESS)
    }

    fn statistics(&self, model: &MaskedAutoencoderViT) -> Result<Vec<PatchStatistics>> {
        let asked: Vec<PatchStatistics> = (self.statistics.iter())
            .map(|statistics| match statistics {
                Statistics::Visible => PatchStatistics::Visible,
                Statistics::Oracle => PatchStatistics::Oracle,
                Statistics::Raw => PatchStatistics::Raw,
            })
            .collect();
        for statistics in &asked {
            ensure!(
                model.statistics().contains(statistics),
                "--statistics {}: {} predicts patches that are not normalised (norm_pix_loss = false), \
                 and can be shown as they are only; leave --statistics out",
                statistics.name(),
                self.from.display()
            );
        }
        Ok(match asked.is_empty() {
            true => model.statistics().to_vec(),
            false => asked,
        })
    }

    /// What is hidden, and how that came about, in words.
    fn masking(&self, run: Option<&TrainConfig>, grid: &PatchGrid) -> Result<(Masking, String)> {
        if let Some(path) = &self.mask {
            let name = path.display().to_string();
            let content = std::fs::read(path).with_context(|| format!("--mask: reading {name}"))?;
            let image = Image::decode(&content, 1, &name).context("--mask")?;
            let (height, width) = (image.height(), image.width());
            let luma = image.into_pixels().into_f32();
            let mask = Mask::from_drawing(&luma, height, width, grid)
                .with_context(|| {
                    format!("--mask {name}: black is visible, and a patch is hidden if more than half of it is white")
                })?;
            return Ok((
                Masking::Drawn(mask),
                format!("those more than half white in {name}"),
            ));
        }
        let section = run.map(|run| run.mask.clone()).unwrap_or_default();
        let ratio = self.mask_ratio.unwrap_or(section.ratio);
        let sampler = self.sampler.unwrap_or(section.sampler);
        (sampler.kept(grid, ratio)).context(match (self.mask_ratio, self.sampler) {
            (Some(_), _) => "--mask-ratio",
            (None, Some(_)) => "--sampler; --mask-ratio gives another share",
            (None, None) => "the run's `mask`; --mask-ratio gives another share",
        })?;
        let masking = Masking::Sampled {
            sampler,
            ratio,
            seed: self.picture.seed,
        };
        Ok((masking, format!("by sampler {sampler}")))
    }
}

/// Refuses files that have no decoder, which is what predicts.
fn check_decoder(file: &Path) -> Result<()> {
    let found = match FileKind::of(&read_tensors(file)?.1) {
        // What these hold instead is said where they are loaded.
        FileKind::MaskedAutoencoder | FileKind::Embeddings | FileKind::Foreign => return Ok(()),
        FileKind::Encoder => "an encoder alone",
        FileKind::Classifier => "a classifier",
        FileKind::Tokenizer => "a tokenizer",
    };
    bail!(
        "--from {} holds {found}: there is no decoder in it that could predict what is hidden; \
         give the checkpoint of a pre-training run",
        file.display()
    )
}

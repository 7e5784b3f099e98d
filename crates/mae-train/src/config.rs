//! What the user wrote, and what the program runs on.
//!
//! [`TrainConfig`] is a TOML file or recipe, every key optional; [`TrainConfig::resolve`] checks it, fills it
//! in and gives a [`RunConfig`], whose own TOML is again a valid and complete file.

mod data;
mod read;
pub mod recipes;
mod run;
mod tokenizer;

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use mae_data::MaskSampler;
use mae_model::{Flops, Kernels, LossRegion, MaeConfig, Target, TokenizerConfig};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::device;
use crate::run::folder::RunDir;
use crate::train::precision::Precision;
use crate::train::schedule::Schedule;

pub use data::{AugmentationKind, DataSection, DataSource, NormalizationSource};
pub use read::{ON_CPU, Source, read, read_as, read_begun, read_run};
pub use run::{Method, Run, RunKeys};

use recipes::Recipe;

/// What the user wrote: sections and keys of a TOML file. Absent keys take the defaults given here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of weights, order, crops and masks. Default 0.
    pub seed: u64,
    /// The network.
    pub model: ModelSection,
    /// The images.
    pub data: DataSection,
    /// What is hidden of an image.
    pub mask: MaskSection,
    /// Batch, learning rate and length of training.
    pub optim: OptimSection,
    /// Where and how it runs, and what it writes.
    pub run: RunSection,
}

/// `[model]`: a preset, and any of its dimensions changed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSection {
    /// `tiny`, `small`, `base`, `large` or `huge`. Default `tiny`.
    pub preset: Option<String>,
    /// Side of a square image, pixels. Default 224.
    pub image_size: Option<usize>,
    /// Image height, pixels; instead of `image_size`.
    pub image_height: Option<usize>,
    /// Image width, pixels; instead of `image_size`.
    pub image_width: Option<usize>,
    /// Side of a patch, pixels. Default: the preset's.
    pub patch_size: Option<usize>,
    /// 3 for colour, 1 for grey, or what the files have: 2 or 4 with alpha, up to 1024 bands of a TIFF file or an
    /// array. Default 3.
    pub channels: Option<usize>,
    /// Width of the encoder. Default: the preset's.
    pub embed_dim: Option<usize>,
    /// Blocks of the encoder. Default: the preset's.
    pub depth: Option<usize>,
    /// Attention heads of the encoder. Default: the preset's.
    pub num_heads: Option<usize>,
    /// Width of the decoder. Default: the preset's.
    pub decoder_embed_dim: Option<usize>,
    /// Blocks of the decoder. Default: the preset's.
    pub decoder_depth: Option<usize>,
    /// Attention heads of the decoder. Default: the preset's.
    pub decoder_num_heads: Option<usize>,
    /// Hidden width of an MLP over its token width. Default 4.
    pub mlp_ratio: Option<f64>,
    /// Added to variances in layer norms. Default 1e-6.
    pub layer_norm_eps: Option<f64>,
    /// Predict patches normalised by their own mean and variance. Default true; false if `target` is not pixels.
    pub norm_pix_loss: Option<bool>,
    /// What the decoder predicts of a patch: `pixels`, the default; `pca`, its coefficients of the principal components
    /// of 1024 images' patches; `tokens`, its token of `data.tokenizer`.
    pub target: Option<Target>,
    /// Which patches the loss is over: `masked`, the default, or `all`.
    pub loss_region: Option<LossRegion>,
    /// Give the encoder a mask token for each hidden patch, and the decoder none of its own. Default false.
    pub encoder_mask_tokens: Option<bool>,
    /// Principal components for `target = "pca"`, at most the numbers of a patch. Default 96.
    pub pca_components: Option<usize>,
    /// Filled in from the file of `data.tokenizer`.
    pub tokenizer: Option<TokenizerConfig>,
}

/// `[mask]`: what is hidden of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskSection {
    /// Share of the patches that is hidden. Default 0.75.
    pub ratio: f64,
    /// How the hidden patches are chosen: `random`, the default, one by one; `block`, in rectangles;
    /// `grid`, all but one of every four, which needs a ratio of 0.75 and even numbers of rows and columns of patches.
    pub sampler: MaskSampler,
}

impl Default for MaskSection {
    fn default() -> Self {
        Self {
            ratio: 0.75,
            sampler: MaskSampler::Random,
        }
    }
}

/// `[optim]`: batch, learning rate and length of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimSection {
    /// Passes over the images. Default 100.
    pub epochs: u64,
    /// Epochs of linear warm-up; may be a fraction. Default 5.
    pub warmup_epochs: f64,
    /// Images that go through the model at once. Default 64.
    pub batch_size: usize,
    /// Batches whose gradients make one update. Default 1.
    pub accumulate: usize,
    /// Learning rate for 256 images an update; scaled by `batch_size * accumulate / 256`. Default 1.5e-4.
    pub base_lr: f64,
    /// Learning rate at the end. Default 0.
    pub min_lr: f64,
    /// AdamW's decay of parameters of two or more dimensions. Default 0.05.
    pub weight_decay: f64,
    /// AdamW's momentum decays. Default 0.9, 0.95.
    pub betas: [f64; 2],
    /// Largest gradient norm; larger ones are scaled down to it. 0, the default, clips nothing.
    pub clip_grad: f64,
}

impl Default for OptimSection {
    fn default() -> Self {
        Self {
            epochs: 100,
            warmup_epochs: 5.0,
            batch_size: 64,
            accumulate: 1,
            base_lr: 1.5e-4,
            min_lr: 0.0,
            weight_decay: 0.05,
            betas: [0.9, 0.95],
            clip_grad: 0.0,
        }
    }
}

/// `[run]`: where and how it runs, and what it writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSection {
    /// Weights to start from: a run, or a file of `mae-train convert`. Read when a run starts, not when it is resumed;
    /// with an encoder alone, the decoder starts fresh. Absent by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`. Default `auto`.
    pub device: String,
    /// `fp32`, `bf16` or `fp16`. Default: fp32 on the CPU; on CUDA bf16 where the hardware has it, else fp16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// What computes transformer blocks. On a CPU in fp32 `fused` and `fused-mkl` do so a block at once, with matrix
    /// products by the gemm crate or by MKL, or again by gemm where libtorch has no MKL; `auto`, the default, takes
    /// the one that suits the processor a run begins on. `plain`, and all of them elsewhere: libtorch, operation by operation.
    pub kernels: Kernels,
    /// Threads that load images; 0, the default, is one a core.
    pub workers: usize,
    /// Steps between lines of metrics. Default 10.
    pub log_every: u64,
    /// Epochs between pictures of reconstructions; 0 for none but the last. Default 1.
    pub reconstruct_every: u64,
    /// Epochs between measurements of what was learned: the ranks of `mae-train eval --protocols spectrum`, and where the
    /// images have labels, kNN and a linear probe on a tenth of them. 0, the default, for none.
    pub eval_every: u64,
    /// Epochs between checkpoints; 0 for none but the last. Default 1.
    pub checkpoint_every: u64,
    /// Minutes between checkpoints, besides those of `checkpoint_every`; 0 for none. Default 30.
    pub checkpoint_minutes: f64,
    /// How many of the latest checkpoints stay. Default 2.
    pub keep_checkpoints: usize,
}

impl Default for RunSection {
    fn default() -> Self {
        Self {
            init: None,
            device: "auto".into(),
            precision: None,
            kernels: Kernels::default(),
            workers: 0,
            log_every: 10,
            reconstruct_every: 1,
            eval_every: 0,
            checkpoint_every: 1,
            checkpoint_minutes: 30.0,
            keep_checkpoints: 2,
        }
    }
}

/// Pre-training of a Masked Autoencoder, as a run does it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MaskedAutoencoding {
    /// The network.
    pub model: MaeConfig,
    /// What is hidden of an image.
    pub mask: MaskSection,
}

impl MaskedAutoencoding {
    /// The operations of one image.
    ///
    /// # Errors
    /// If the mask leaves no patch, or all.
    pub fn flops(&self) -> mae_model::Result<Flops> {
        self.model.flops(self.mask.ratio)
    }
}

/// What a pre-training run is made of. Only [`TrainConfig::resolve`] makes one.
pub type RunConfig = Run<MaskedAutoencoding>;

impl Method for MaskedAutoencoding {
    const COMMAND: &'static str = "pretrain";
    const RECIPE: &'static str = "quickstart";
    const RECIPES: &'static [Recipe] = recipes::PRETRAIN;
    type Written = TrainConfig;
    type Keys = RunSection;

    fn resolve(written: TrainConfig) -> Result<RunConfig> {
        written.resolve()
    }

    fn begin_anew(run_dir: &RunDir) -> String {
        format!(
            "or begin a new run from its weights with --set run.init={} and another --out",
            run_dir.path().display()
        )
    }
}

impl TrainConfig {
    /// Checks every key and the combinations, and fills in what depends on others or on the machine.
    ///
    /// # Errors
    /// With the key, its value, and what it can be.
    pub fn resolve(mut self) -> Result<RunConfig> {
        let (tokenizer, normalization) =
            tokenizer::find_tokenizer(&self.model, &self.data)?.unzip();
        let model = self.model.resolve(tokenizer)?;
        let grid = model.grid().context("`model` makes no grid of patches")?;
        (self.mask.sampler.kept(&grid, self.mask.ratio))
            .context("`mask` does not fit the patches of an image")?;
        if let Some(normalization) = normalization.flatten() {
            self.data.share_normalization(normalization)?;
        }
        let method = MaskedAutoencoding {
            model,
            mask: self.mask,
        };
        Run::complete(self.seed, method, grid, self.data, self.optim, self.run)
    }
}

impl ModelSection {
    fn resolve(&self, tokenizer: Option<TokenizerConfig>) -> Result<MaeConfig> {
        let name = self.preset.as_deref().unwrap_or("tiny");
        let (image_height, image_width) =
            image_sides(self.image_size, self.image_height, self.image_width)?;
        let preset = MaeConfig::preset(name, image_height).ok_or_else(|| {
            anyhow!("`model.preset` is {name:?}, expected \"tiny\", \"small\", \"base\", \"large\" or \"huge\"")
        })?;
        let channels = self.channels.unwrap_or(preset.channels);
        check_channels(channels)?;
        let target = self.target.unwrap_or(preset.target);
        let norm_pix_loss = preset.norm_pix_loss && target == Target::Pixels;
        let pca_components = match target {
            Target::Pca => Some(self.pca_components.unwrap_or(96)),
            Target::Pixels | Target::Tokens => self.pca_components,
        };
        let model = MaeConfig {
            image_height,
            image_width,
            patch_size: self.patch_size.unwrap_or(preset.patch_size),
            channels,
            embed_dim: self.embed_dim.unwrap_or(preset.embed_dim),
            depth: self.depth.unwrap_or(preset.depth),
            num_heads: self.num_heads.unwrap_or(preset.num_heads),
            decoder_embed_dim: self.decoder_embed_dim.unwrap_or(preset.decoder_embed_dim),
            decoder_depth: self.decoder_depth.unwrap_or(preset.decoder_depth),
            decoder_num_heads: self.decoder_num_heads.unwrap_or(preset.decoder_num_heads),
            mlp_ratio: self.mlp_ratio.unwrap_or(preset.mlp_ratio),
            layer_norm_eps: self.layer_norm_eps.unwrap_or(preset.layer_norm_eps),
            norm_pix_loss: self.norm_pix_loss.unwrap_or(norm_pix_loss),
            target,
            loss_region: self.loss_region.unwrap_or(preset.loss_region),
            encoder_mask_tokens: (self.encoder_mask_tokens).unwrap_or(preset.encoder_mask_tokens),
            pca_components,
            tokenizer,
        };
        model.validate().context("`model` cannot be built")?;
        Ok(model)
    }
}

/// Height and width of images, by default 224: from the side of a square, or from both.
pub(crate) fn image_sides(
    size: Option<usize>,
    height: Option<usize>,
    width: Option<usize>,
) -> Result<(usize, usize)> {
    match (size, height, width) {
        (size, None, None) => Ok((size.unwrap_or(224), size.unwrap_or(224))),
        (None, Some(height), Some(width)) => Ok((height, width)),
        (Some(_), ..) => bail!(
            "`model.image_size` is for square images: give it, or `image_height` and `image_width`"
        ),
        (None, ..) => {
            bail!("`model.image_height` and `model.image_width` go together: one is missing")
        }
    }
}

pub(crate) fn check_channels(channels: usize) -> Result<()> {
    ensure!(
        (1..=1024).contains(&channels),
        "`model.channels` is {channels}, expected 3 (colour), 1 (grey) or what the files have, up to 1024"
    );
    Ok(())
}

impl RunSection {
    /// Checks every key. Returns the device and the precision that it names.
    ///
    /// # Errors
    /// With the key, its value, and what it can be.
    pub(crate) fn check(&self) -> Result<(Device, Precision)> {
        let device = device::find("run.device", &self.device)?;
        let precision = match self.precision {
            Some(precision) => precision,
            None => Precision::default_for(device)?,
        };
        ensure!(
            self.log_every >= 1,
            "`run.log_every` is 0, expected at least 1 step"
        );
        ensure!(
            self.keep_checkpoints >= 1,
            "`run.keep_checkpoints` is 0, expected at least 1"
        );
        number("run.checkpoint_minutes", self.checkpoint_minutes, 0.0..=1e6)?;
        Ok((device, precision))
    }
}

impl OptimSection {
    /// Images of one update.
    pub fn effective_batch(&self) -> usize {
        self.batch_size * self.accumulate
    }

    /// The learning rate of each update, for a run of `steps_per_epoch` updates an epoch.
    ///
    /// Source of the scaling: Goyal et al. 2017, "linear scaling rule"; He et al. 2021, appendix A.1.
    pub fn schedule(&self, steps_per_epoch: u64) -> Schedule {
        Schedule {
            peak_lr: self.base_lr * self.effective_batch() as f64 / 256.0,
            min_lr: self.min_lr,
            warmup_steps: self.warmup_epochs * steps_per_epoch as f64,
            total_steps: (self.epochs * steps_per_epoch) as f64,
        }
    }

    /// Checks every key, named as in `section`.
    ///
    /// # Errors
    /// With the key, its value, and what it can be.
    pub(crate) fn check_as(&self, section: &str) -> Result<()> {
        for (key, value) in [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size as u64),
            ("accumulate", self.accumulate as u64),
        ] {
            ensure!(value >= 1, "`{section}.{key}` is 0, expected at least 1");
        }
        for (key, value, range) in [
            ("base_lr", self.base_lr, 1e-30..=1e3),
            ("min_lr", self.min_lr, 0.0..=1e3),
            ("weight_decay", self.weight_decay, 0.0..=1e3),
            ("clip_grad", self.clip_grad, 0.0..=1e30),
            ("warmup_epochs", self.warmup_epochs, 0.0..=1e9),
        ] {
            number(&format!("{section}.{key}"), value, range)?;
        }
        for beta in self.betas {
            ensure!(
                (0.0..1.0).contains(&beta),
                "`{section}.betas` has {beta}, expected two numbers in [0, 1)"
            );
        }
        ensure!(
            self.warmup_epochs < self.epochs as f64,
            "`{section}.warmup_epochs` is {}, expected fewer than `{section}.epochs` = {}: set it, too, 0 for none",
            self.warmup_epochs,
            self.epochs
        );
        let peak_lr = self.base_lr * self.effective_batch() as f64 / 256.0;
        ensure!(
            self.min_lr <= peak_lr,
            "`{section}.min_lr` is {}, above the peak of {peak_lr} that base_lr and the batch give",
            self.min_lr
        );
        Ok(())
    }
}

pub(crate) fn number(key: &str, value: f64, range: std::ops::RangeInclusive<f64>) -> Result<()> {
    let (low, high) = (range.start(), range.end());
    let expected = match *low > 0.0 && *low < 1e-4 {
        true => format!("above 0, at most {high}"),
        false => format!("{low} to {high}"),
    };
    ensure!(
        range.contains(&value),
        "`{key}` is {value}, expected {expected}"
    );
    Ok(())
}

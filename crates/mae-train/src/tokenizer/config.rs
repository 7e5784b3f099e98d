//! How a tokenizer is trained: what the user wrote, and what the program runs on.

use std::f64::consts::PI;

use anyhow::{Context, Result, ensure};
use mae_model::tokenizer::Relaxation;
use mae_model::{Kernels, TokenizerConfig};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::config::recipes::{self, Recipe};
use crate::config::{
    DataSection, Method, OptimSection, Run, RunKeys, RunSection, check_channels, image_sides,
    number,
};
use crate::device;
use crate::train::precision::Precision;

/// What the user wrote: sections and keys of a TOML file. Absent keys take the defaults given here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerTraining {
    /// Seed of weights, order, crops and noise. Default 0.
    pub seed: u64,
    /// The network.
    pub model: TokenizerSection,
    /// How the choice of a token is relaxed in training.
    pub relaxation: RelaxationSection,
    /// The images.
    pub data: DataSection,
    /// Batch, learning rate and length of training.
    pub optim: OptimSection,
    /// Where and how it runs, and what it writes.
    pub run: TokenizerRunSection,
}

/// `[model]`: the network and its vocabulary.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerSection {
    /// Side of a square image, pixels. Default 224.
    pub image_size: Option<usize>,
    /// Image height, pixels; instead of `image_size`.
    pub image_height: Option<usize>,
    /// Image width, pixels; instead of `image_size`.
    pub image_width: Option<usize>,
    /// Side of the patch that a token stands for, pixels, as of the Masked Autoencoder that predicts it. Default 16.
    pub patch_size: usize,
    /// 3 for colour, 1 for grey, or what the files have, up to 1024. Default 3.
    pub channels: usize,
    /// Number of different tokens. Default 512, for small images (DALL-E: 8192, for patches of 8).
    pub vocabulary: usize,
    /// Channels of the feature maps with one position a patch; finer ones have fewer. Default 64.
    pub width: usize,
    /// Residual blocks at each size of feature maps. Default 1.
    pub blocks: usize,
}

impl Default for TokenizerSection {
    fn default() -> Self {
        Self {
            image_size: None,
            image_height: None,
            image_width: None,
            patch_size: 16,
            channels: 3,
            vocabulary: 512,
            width: 64,
            blocks: 1,
        }
    }
}

/// `[relaxation]`: how the choice of a token is relaxed in training.
///
/// Source of the schedules: Ramesh et al. 2021, arXiv 2102.12092, appendix A.2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelaxationSection {
    /// Temperature of the Gumbel-softmax at the start. Default 1, as in DALL-E.
    pub temperature_start: f64,
    /// Temperature that half a cosine ends at. Default 1/16, as in DALL-E.
    pub temperature_end: f64,
    /// Share of the run that the temperature falls for. Default 1: all of it.
    pub temperature_share: f64,
    /// Weight of the divergence of the vocabulary's use from a uniform one, which keeps all tokens in use.
    /// It is per value of a patch, as the squared error is, whose weight is 1. Default 1.
    pub kl_weight: f64,
    /// Share of the run in which half a cosine takes the weight up from 0. Default 0: it is there from the start,
    /// for a vocabulary that has collapsed comes back slowly.
    pub kl_share: f64,
}

impl Default for RelaxationSection {
    fn default() -> Self {
        Self {
            temperature_start: 1.0,
            temperature_end: 1.0 / 16.0,
            temperature_share: 1.0,
            kl_weight: 1.0,
            kl_share: 0.0,
        }
    }
}

/// `[run]`: where and how it runs, and what it writes; the keys of pre-training that mean something here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerRunSection {
    /// `auto`, `cpu`, `cuda` or `cuda:N`. Default `auto`.
    pub device: String,
    /// `fp32`, `bf16` or `fp16`. Default: as for pre-training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Threads that load images; 0, the default, is one a core.
    pub workers: usize,
    /// Steps between lines of metrics. Default 10.
    pub log_every: u64,
    /// Epochs between pictures of reconstructions; 0 for none but the last. Default 1.
    pub reconstruct_every: u64,
    /// Epochs between checkpoints; 0 for none but the last. Default 1.
    pub checkpoint_every: u64,
    /// Minutes between checkpoints, besides those of `checkpoint_every`; 0 for none. Default 30.
    pub checkpoint_minutes: f64,
    /// How many of the latest checkpoints stay. Default 2.
    pub keep_checkpoints: usize,
}

impl Default for TokenizerRunSection {
    fn default() -> Self {
        let run = RunSection::default();
        Self {
            device: run.device,
            precision: run.precision,
            workers: run.workers,
            log_every: run.log_every,
            reconstruct_every: run.reconstruct_every,
            checkpoint_every: run.checkpoint_every,
            checkpoint_minutes: run.checkpoint_minutes,
            keep_checkpoints: run.keep_checkpoints,
        }
    }
}

/// Training of a tokenizer, as a run does it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiscreteAutoencoding {
    /// The network.
    pub model: TokenizerConfig,
    /// How the choice of a token is relaxed.
    pub relaxation: RelaxationSection,
}

/// What a tokenizer's run is made of.
pub type TokenizerRun = Run<DiscreteAutoencoding>;

impl Method for DiscreteAutoencoding {
    const COMMAND: &'static str = "tokenizer";
    const RECIPE: &'static str = "tokenizer";
    const RECIPES: &'static [Recipe] = recipes::TOKENIZER;
    type Written = TokenizerTraining;
    type Keys = TokenizerRunSection;

    fn resolve(written: TokenizerTraining) -> Result<TokenizerRun> {
        let model = written.model.resolve()?;
        let grid = model.grid()?;
        written.relaxation.check()?;
        ensure!(
            written.data.tokenizer.is_none(),
            "`data.tokenizer` has no effect on the training of a tokenizer: leave it out"
        );
        ensure!(
            written.data.val.is_none() && written.data.val_share == 0.0,
            "`data.val` and `data.val_share` have no effect on the training of a tokenizer: leave them out"
        );
        let method = Self {
            model,
            relaxation: written.relaxation,
        };
        Run::complete(
            written.seed,
            method,
            grid,
            written.data,
            written.optim,
            written.run,
        )
    }
}

impl TokenizerSection {
    fn resolve(&self) -> Result<TokenizerConfig> {
        let (image_height, image_width) =
            image_sides(self.image_size, self.image_height, self.image_width)?;
        check_channels(self.channels)?;
        let config = TokenizerConfig {
            image_height,
            image_width,
            patch_size: self.patch_size,
            channels: self.channels,
            vocabulary: self.vocabulary,
            width: self.width,
            blocks: self.blocks,
        };
        config.validate().context("`model` cannot be built")?;
        Ok(config)
    }
}

impl RelaxationSection {
    /// The relaxation at `progress` of the run, from 0 at its start to 1 at its end.
    pub fn at(&self, progress: f64) -> Relaxation {
        let falling = half_cosine(progress, self.temperature_share);
        let rising = 1.0 - half_cosine(progress, self.kl_share);
        Relaxation {
            temperature: self.temperature_end
                + (self.temperature_start - self.temperature_end) * falling,
            kl_weight: self.kl_weight * rising,
        }
    }

    fn check(&self) -> Result<()> {
        for (key, value, range) in [
            ("temperature_start", self.temperature_start, 1e-3..=1e3),
            ("temperature_end", self.temperature_end, 1e-3..=1e3),
            ("temperature_share", self.temperature_share, 0.0..=1.0),
            ("kl_weight", self.kl_weight, 0.0..=1e6),
            ("kl_share", self.kl_share, 0.0..=1.0),
        ] {
            number(&format!("relaxation.{key}"), value, range)?;
        }
        ensure!(
            self.temperature_end <= self.temperature_start,
            "`relaxation.temperature_end` is {}, expected at most `relaxation.temperature_start` = {}",
            self.temperature_end,
            self.temperature_start
        );
        Ok(())
    }
}

/// From 1 down to 0 while `progress` goes from 0 to `share`, then 0.
fn half_cosine(progress: f64, share: f64) -> f64 {
    if progress >= share {
        return 0.0;
    }
    0.5 * (1.0 + (PI * progress / share).cos())
}

impl RunKeys for TokenizerRunSection {
    /// No transformer block is computed, so no threads are kept for one.
    fn for_loop(&self) -> RunSection {
        RunSection {
            init: None,
            device: self.device.clone(),
            precision: self.precision,
            kernels: Kernels::Plain,
            workers: self.workers,
            log_every: self.log_every,
            reconstruct_every: self.reconstruct_every,
            eval_every: 0,
            checkpoint_every: self.checkpoint_every,
            checkpoint_minutes: self.checkpoint_minutes,
            keep_checkpoints: self.keep_checkpoints,
        }
    }

    fn settle(&mut self, device: Device, precision: Precision) {
        self.device = device::name(device);
        self.precision = Some(precision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn recipe(overrides: &[&str]) -> Result<TokenizerRun> {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        let source = Source::Recipe("tokenizer".into());
        TokenizerRun::read(&source, None, &overrides)
    }

    #[test]
    fn the_recipe_resolves_and_its_toml_reads_back_as_itself() {
        let run = recipe(&[]).unwrap();
        let again: TokenizerTraining = toml::from_str(&run.to_toml()).unwrap();
        assert_eq!(DiscreteAutoencoding::resolve(again).unwrap(), run);
    }

    #[test]
    fn temperature_falls_and_the_weight_rises() {
        let section = RelaxationSection {
            temperature_start: 2.0,
            temperature_end: 0.5,
            temperature_share: 0.5,
            kl_weight: 3.0,
            kl_share: 0.2,
        };
        let close = |progress, temperature: f64, kl_weight: f64| {
            let found = section.at(progress);
            assert!(
                (found.temperature - temperature).abs() < 1e-12
                    && (found.kl_weight - kl_weight).abs() < 1e-12,
                "at {progress}: {found:?}"
            );
        };
        close(0.0, 2.0, 0.0);
        close(0.1, 0.5 + 1.5 * 0.5 * (1.0 + (0.2 * PI).cos()), 1.5);
        close(0.25, 1.25, 3.0);
        close(0.5, 0.5, 3.0);
        close(1.0, 0.5, 3.0);
        let constant = RelaxationSection {
            temperature_share: 0.0,
            kl_share: 0.0,
            ..section
        };
        let at = constant.at(0.0);
        assert_eq!((at.temperature, at.kl_weight), (0.5, 3.0), "no schedule");
    }

    #[test]
    fn mistakes_name_key_value_and_remedy() {
        for (pair, expected) in [
            ("model.vocabulary=1", "`vocabulary` is 1"),
            ("model.patch_size=1", "`patch_size` is 1"),
            ("model.patch_size=5", "5"),
            ("model.channels=0", "`model.channels` is 0"),
            ("model.image_height=32", "go together"),
            ("model.vocabluary=5", "did you mean `model.vocabulary`?"),
            (
                "relaxation.temperature_end=2",
                "`relaxation.temperature_end` is 2",
            ),
            ("relaxation.temperature_start=0", "0.001 to 1000"),
            ("relaxation.kl_share=1.5", "`relaxation.kl_share` is 1.5"),
            ("relaxation.kl_weight=-1", "`relaxation.kl_weight` is -1"),
            ("run.kernels=plain", "no key `run.kernels`"),
            ("run.log_every=0", "`run.log_every` is 0"),
            ("optim.epochs=0", "`optim.epochs` is 0"),
        ] {
            let message = format!("{:#}", recipe(&[pair]).expect_err(pair));
            assert!(message.contains(expected), "--set {pair} says: {message}");
        }
    }
}

//! `mae-train tokenizer`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use mae_train::config::{DataSection, Source, read_run};
use mae_train::interrupt::Interrupt;
use mae_train::precision::Precision;
use mae_train::recipes;
use mae_train::tokenizer::config::{TokenizerRun, TokenizerTraining};
use mae_train::tokenizer::train_tokenizer;
use tch::Device;

use super::run::{RunArgs, RunConfiguration, report};
use super::start_progress;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train tokenizer --data photos                                 512 tokens for patches of 4 x 4 at 32 x 32
  mae-train tokenizer --data photos --set model.image_size=64 --set model.patch_size=8
  mae-train tokenizer --data photos --set model.vocabulary=1024 --set model.width=128
  mae-train config --recipe tokenizer                               all keys
  mae-train tokenizer --resume --out runs/tokenizer                 go on where it stopped";

/// A run to start or to go on with.
#[derive(Args)]
pub struct TokenizerArgs {
    #[command(flatten)]
    run: RunArgs,
}

impl TokenizerArgs {
    /// Runs it and says how it ended.
    pub fn run(&self) -> Result<ExitCode> {
        self.run.processes.run(|world| {
            let progress = start_progress(world)?;
            let (config, run_dir) = self.run.start::<TokenizerRun>(world)?;
            let interrupt = Interrupt::catch()?;
            let outcome = train_tokenizer(config, run_dir.as_ref(), world, &interrupt, &progress)?;
            Ok(report::<TokenizerRun>(outcome, run_dir.as_ref()))
        })
    }
}

impl RunConfiguration for TokenizerRun {
    const COMMAND: &'static str = "tokenizer";
    const RECIPE: &'static str = "tokenizer";

    fn read(source: &Source, data: Option<&Path>, overrides: &[String]) -> Result<Self> {
        let config: TokenizerTraining = read_run(source, recipes::TOKENIZER, data, overrides)?;
        config.resolve()
    }

    fn to_toml(&self) -> String {
        self.to_toml()
    }

    fn data(&mut self) -> &mut DataSection {
        &mut self.data
    }

    fn copy_run(&mut self, from: &Self) {
        let precision = self.run.precision;
        self.run = from.run.clone();
        self.run.precision = precision;
    }

    fn device(&self) -> (Device, Precision) {
        (self.device, self.precision)
    }

    fn set_device(&mut self, device: Device) {
        self.device = device;
    }
}

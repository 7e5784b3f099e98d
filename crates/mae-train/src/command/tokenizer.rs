//! `mae-train tokenizer`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use mae_train::run::interrupt::Interrupt;
use mae_train::tokenizer::config::DiscreteAutoencoding;
use mae_train::tokenizer::train_tokenizer;

use super::run::{RunArgs, report};
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
            let (config, run_dir) = self.run.start::<DiscreteAutoencoding>(world)?;
            let interrupt = Interrupt::catch()?;
            let outcome = train_tokenizer(config, run_dir.as_ref(), world, &interrupt, &progress)?;
            Ok(report::<DiscreteAutoencoding>(outcome, run_dir.as_ref()))
        })
    }
}

//! `mae-train pretrain`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use mae_train::config::MaskedAutoencoding;
use mae_train::pretrain::pretrain;
use mae_train::run::interrupt::Interrupt;

use super::run::{RunArgs, report};
use super::start_progress;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train pretrain                                      the quickstart, on drawn scenes
  mae-train pretrain --data photos                        the quickstart's model on your images
  mae-train pretrain --recipe imagenet_vit_b16 --data imagenet/train --set optim.epochs=300
  mae-train pretrain --data photos.mae                    on images that `mae-train pack` has made ready
  mae-train pretrain --data 'shards-{0000..0012}.tar'     on tar files in WebDataset's layout
  mae-train pretrain --resume --out runs/quickstart       go on where it stopped";

/// A run to start or to go on with.
#[derive(Args)]
pub struct PretrainArgs {
    #[command(flatten)]
    run: RunArgs,
}

impl PretrainArgs {
    /// Runs it and says how it ended.
    pub fn run(&self) -> Result<ExitCode> {
        self.run.processes.run(|world| {
            let progress = start_progress(world)?;
            let (config, run_dir) = self.run.start::<MaskedAutoencoding>(world)?;
            let interrupt = Interrupt::catch()?;
            let outcome = pretrain(config, run_dir.as_ref(), world, &interrupt, &progress)?;
            Ok(report::<MaskedAutoencoding>(outcome, run_dir.as_ref()))
        })
    }
}

//! `cargo xtask launch`: one run by several processes of this machine.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::Args;

use crate::train;

/// Set libtorch up if needed, build mae-train and run it in several processes that share each batch
///
/// They run on this machine; torchrun and srun start them on several. Ctrl-C reaches all of them, and when one fails
/// the others end.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask launch --nproc 2 -- pretrain --data photos
  cargo xtask launch --nproc 8 -- pretrain --recipe imagenet_vit_b16 --data imagenet/train
  cargo xtask launch --nproc 2 -- eval --from runs/photos --data photos/train --val photos/test")]
pub struct Arguments {
    /// The number of processes
    #[arg(long, value_name = "N")]
    nproc: u32,
    /// mae-train's arguments
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

/// Runs `cargo xtask launch`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let count = ["--nproc".into(), arguments.nproc.to_string().into()];
    let mut all = arguments.arguments.clone();
    all.extend(count);
    train::run(&all)
}

//! Pre-trains a Masked Autoencoder (He et al. 2021, arXiv 2111.06377): the program and its parts.
//!
//! ```no_run
//! use std::rc::Rc;
//!
//! use mae_train::config::{Source, read};
//! use mae_train::distributed::World;
//! use mae_train::interrupt::Interrupt;
//! use mae_train::pretrain::pretrain;
//! use mae_train::progress::Progress;
//! use mae_train::run_dir::RunDir;
//!
//! let overrides = ["optim.epochs=2".to_string()];
//! let config = read(&Source::Recipe("quickstart".into()), None, &overrides)?.resolve()?;
//! let run_dir = RunDir::create("runs/two-epochs".as_ref())?;
//! let world = Rc::new(World::alone());
//! pretrain(config, Some(&run_dir), &world, &Interrupt::catch()?, &Progress::hidden())?;
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! [`pretrain`](mod@pretrain) is what happens around the [`train_loop`], [`state`] what it changes,
//! [`config`] what it is told; [`eval`] judges the encoder; [`tokenizer`] learns tokens of images;
//! [`embed`](mod@embed) and [`export`] take what was learned elsewhere; [`distributed`] is for several processes.

pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod device;
pub mod digest;
pub mod display;
pub mod distributed;
pub mod doctor;
pub mod embed;
pub mod eval;
pub mod export;
pub mod inspect;
pub mod interrupt;
pub mod journal;
pub mod manifest;
pub mod optim;
mod picture;
pub mod precision;
pub mod pretrain;
pub mod progress;
pub mod recipes;
pub mod reconstruct;
pub mod run_dir;
pub mod scaling;
pub mod schedule;
pub mod shell;
pub mod tokenizer;
pub mod totals;
pub mod train_loop;
pub mod trainer;

#![doc = include_str!("../README.md")]
//!
//! # The floors
//!
//! Modules stand on those above them in this list and know nothing of those below; `tests/floors.rs` holds them to it.
//!
//! | floor | modules |
//! |---|---|
//! | what a run is | [`device`], [`run`]: folder, checkpoints, metrics, progress; [`distributed`]: several processes |
//! | one update | [`train`]: optimizer, schedule, precision |
//! | what it is told | [`config`], [`data`] |
//! | many updates | [`train_loop`] |
//! | what comes of it | [`eval`], [`embed`](mod@embed), [`predict`](mod@predict), [`reconstruct`], [`attend`](mod@attend), [`export`] |
//! | what is trained | [`pretrain`](mod@pretrain), [`tokenizer`] |
//! | what looks at it | [`inspect`], [`doctor`] |
//!
//! The program's commands stand on all of them.

pub mod device;
mod error;
mod picture;
pub mod run;

pub mod distributed;

pub mod train;

pub mod config;
pub mod data;

pub mod train_loop;

pub mod attend;
pub mod embed;
pub mod eval;
pub mod export;
pub mod predict;
pub mod reconstruct;
mod rows;

pub mod pretrain;
pub mod tokenizer;

pub mod doctor;
pub mod inspect;

pub use error::{Diverged, Error, Lost, Stopped};

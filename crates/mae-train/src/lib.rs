#![doc = include_str!("../README.md")]
//!
//! # The modules
//!
//! [`pretrain`](mod@pretrain) is what happens around the [`train_loop`], [`trainer`] what one update is,
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

#![doc = include_str!("../README.md")]
//!
//! # The modules
//!
//! [`mae`] is the method, read top down; [`vit`] what it is built from; [`classifier`] what the encoder is
//! judged by, and what [`onnx`] files are made of; [`pca`] and [`tokenizer`] are what it can predict in place of pixels; [`formats`] are
//! weights of other programs.

pub mod checkpoint;
mod checksums;
pub mod classifier;
mod config;
mod content;
pub mod drop_path;
mod error;
mod file_kind;
mod flops;
pub mod formats;
mod fused;
mod init;
mod kernels;
pub mod mae;
mod memory;
mod metadata;
mod normalization;
pub mod onnx;
mod patchify;
pub mod pca;
pub mod pos_embed;
mod start;
mod statistics;
mod target;
pub mod tensor_file;
pub mod tokenizer;
pub mod vit;

pub use checksums::CHECKSUMS;
pub use classifier::VitClassifier;
pub use config::{LossRegion, MaeConfig, Target};
pub use error::ModelError;
pub use file_kind::{EMBEDDINGS, FileKind};
pub use flops::Flops;
pub use kernels::{Kernels, LibtorchThreads};
pub use mae::MaskedAutoencoderViT;
pub use memory::{Computation, ParameterCount, TrainingMemory};
pub use normalization::{Normalization, in_units};
pub use patchify::{patchify, unpatchify};
pub use pca::Pca;
pub use start::StartedFrom;
pub use statistics::PatchStatistics;
pub use target::unshuffle;
pub use tokenizer::{Tokenizer, TokenizerConfig};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, ModelError>;

//! The Masked Autoencoder of He et al. 2021 (arXiv 2111.06377): a ViT encoder that sees only the
//! visible patches, and a light decoder that predicts the pixels of the masked ones.
//!
//! ```
//! use mae_data::{MaskSampler, SampleKey};
//! use mae_model::{MaeConfig, MaskedAutoencoderViT, Normalization};
//! use tch::{Device, Kind, Tensor};
//!
//! // A ViT-Tiny for 32 x 32 RGB images in patches of 4 x 4.
//! let config = MaeConfig { patch_size: 4, ..MaeConfig::tiny(32) };
//! let model = MaskedAutoencoderViT::new(&config, &Normalization::IMAGENET, Device::Cpu, 0)?;
//!
//! // One image of u8 pixels, already split: 16 of its 64 patches visible, 48 masked.
//! let grid = config.grid()?;
//! let mask = MaskSampler::Random.sample(&grid, 0.75, SampleKey { seed: 0, epoch: 0, index: 0 })?;
//! let visible = Tensor::zeros([1, 16, 48], (Kind::Uint8, Device::Cpu));
//! let masked = Tensor::zeros([1, 48, 48], (Kind::Uint8, Device::Cpu));
//! let ids: Vec<i64> = mask.ids_shuffle().iter().map(|&id| id as i64).collect();
//! let ids_shuffle = Tensor::from_slice(&ids).unsqueeze(0);
//!
//! let loss = model.forward(&visible, &masked, &ids_shuffle)?;
//! loss.backward();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`mae`] is the method, read top down; [`vit`] what it is built from; [`classifier`] what the encoder is
//! judged by; [`pca`] and [`tokenizer`] are what it can predict in place of pixels; [`formats`] are
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
mod normalization;
mod patchify;
pub mod pca;
pub mod pos_embed;
mod start;
mod statistics;
mod target;
pub mod tokenizer;
pub mod vit;

pub use checksums::CHECKSUMS;
pub use classifier::VitClassifier;
pub use config::{LossRegion, MaeConfig, Target};
pub use error::ModelError;
pub use file_kind::{EMBEDDINGS, FileKind, guess};
pub use flops::Flops;
pub use kernels::{Kernels, LibtorchThreads};
pub use mae::MaskedAutoencoderViT;
pub use memory::{Computation, ParameterCount, TrainingMemory};
pub use normalization::{Normalization, in_units};
pub use patchify::{patchify, unpatchify};
pub use pca::Pca;
pub use start::Start;
pub use statistics::PatchStatistics;
pub use target::unshuffle;
pub use tokenizer::{Tokenizer, TokenizerConfig};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, ModelError>;

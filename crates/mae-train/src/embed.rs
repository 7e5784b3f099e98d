//! What an encoder makes of whole images, as files for other programs.
//!
//! ```no_run
//! use mae_data::{Nodata, Split};
//! use mae_train::data::open_path;
//! use mae_train::embed::{Embedding, Tokens, embed};
//!
//! let embedding = Embedding::new("runs/photos/checkpoints/step-00001000/model.safetensors", Tokens::Mean)?;
//! let images = open_path("photos".as_ref(), Split::Train, embedding.channels(), Nodata::Auto)?;
//! let summary = embed(&embedding, &images, "features.npy".as_ref())?.expect("nothing interrupts it");
//! println!("{} vectors of {:?} numbers", summary.images, summary.shape);
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! [`Embedding::encode`] gives the same numbers of a batch as tensors.

pub mod map;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use mae_data::{ImageBatch, Transform};
use mae_model::VitClassifier;
use mae_model::classifier::Pooling;
use tch::{Device, Tensor};

use crate::eval::features::Extraction;
use crate::run::interrupt::Interrupt;
use crate::run::progress::Progress;
use crate::train::precision::Precision;

pub use write::{Summary, embed};

/// What is taken of an image's tokens, all after the encoder's last norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tokens {
    /// The class token: `[embed_dim]`.
    Class,
    /// The mean of the patch tokens: `[embed_dim]`. What `eval` judges by default.
    #[default]
    Mean,
    /// Every patch token, row by row: `[patches, embed_dim]`.
    Patches,
}

impl FromStr for Tokens {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "cls" => Self::Class,
            "mean" => Self::Mean,
            "patches" => Self::Patches,
            _ => bail!("{text:?}: expected cls, mean or patches"),
        })
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Class => "cls",
            Self::Mean => "mean",
            Self::Patches => "patches",
        })
    }
}

/// An encoder, and how images go through it.
#[derive(Debug)]
pub struct Embedding {
    model: VitClassifier,
    weights: PathBuf,
    tokens: Tokens,
    /// Precision of matrix products. At first f32.
    pub precision: Precision,
    /// Threads that load images; 0, as at first, is one a core. The results do not depend on it.
    pub workers: usize,
    /// Share of broken images to leave out before giving up. At first 0.01.
    pub max_broken_share: f64,
    /// Replaces what is there already. At first false.
    pub overwrite: bool,
    /// Whether it was asked to stop.
    pub interrupt: Interrupt,
    /// What a person sees. At first nothing.
    pub progress: Progress,
}

impl Embedding {
    /// The encoder of `weights`, a model.safetensors that need not hold a decoder, on the CPU.
    ///
    /// # Errors
    /// If the file is not whole, or is no Masked Autoencoder's.
    pub fn new(weights: impl AsRef<Path>, tokens: Tokens) -> Result<Self> {
        Self::on_device(weights, tokens, Device::Cpu)
    }

    /// [`new`](Self::new) on another device.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on_device(weights: impl AsRef<Path>, tokens: Tokens, device: Device) -> Result<Self> {
        let pooling = match tokens {
            Tokens::Mean => Pooling::NormThenMean,
            Tokens::Class | Tokens::Patches => Pooling::ClassToken,
        };
        let weights = weights.as_ref().to_owned();
        Ok(Self {
            model: VitClassifier::open_encoder(&weights, pooling, device)?,
            weights,
            tokens,
            precision: Precision::Fp32,
            workers: 0,
            max_broken_share: 0.01,
            overwrite: false,
            interrupt: Interrupt::default(),
            progress: Progress::hidden(),
        })
    }

    /// The file that the encoder was read from.
    pub fn weights(&self) -> &Path {
        &self.weights
    }

    /// The encoder.
    pub fn model(&self) -> &VitClassifier {
        &self.model
    }

    /// Channels of the images that it takes.
    pub fn channels(&self) -> usize {
        self.model.config().encoder.channels
    }

    /// The shape of what one image becomes: `[embed_dim]`, or `[patches, embed_dim]`.
    pub fn shape(&self) -> Vec<usize> {
        let encoder = &self.model.config().encoder;
        let patches =
            encoder.image_height / encoder.patch_size * (encoder.image_width / encoder.patch_size);
        match self.tokens {
            Tokens::Class | Tokens::Mean => vec![encoder.embed_dim],
            Tokens::Patches => vec![patches, encoder.embed_dim],
        }
    }

    /// How images are loaded and encoded: brought to the model's size by a centre crop.
    pub fn extraction(&self) -> Extraction<'_> {
        let encoder = &self.model.config().encoder;
        Extraction {
            model: &self.model,
            precision: self.precision,
            transform: Transform::center_crop(encoder.image_height, encoder.image_width),
            workers: self.workers,
            max_broken_share: self.max_broken_share,
        }
    }

    /// What a batch of images becomes: `[batch, embed_dim]` or `[batch, patches, embed_dim]`, f32 on the model's device.
    ///
    /// # Errors
    /// If the images are of another size than the model's.
    pub fn encode(&self, batch: &ImageBatch) -> Result<Tensor> {
        let extraction = self.extraction();
        match self.tokens {
            Tokens::Class | Tokens::Mean => extraction.encode(batch),
            Tokens::Patches => {
                let tokens = extraction.encode_tokens(batch)?;
                Ok(tokens.narrow(1, 1, tokens.size()[1] - 1))
            }
        }
    }
}

//! An encoder or a classifier for other programs, verified against the model that it comes from.

mod sample;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use mae_data::Dataset;
use mae_model::classifier::{Output, Pass, Pooling};
use mae_model::{FileKind, VitClassifier, patchify};
use mae_report::{write_atomic, write_atomic_with};
use tch::{CModule, Device, no_grad};

use crate::error::Error;
use sample::Sample;

/// How close a written model is to the one that it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// What a message calls the image that both were given.
    pub image: String,
    /// The numbers of images that were given at once.
    pub batches: [i64; 2],
    /// The largest difference between two numbers.
    pub difference: f64,
    /// The largest number, without its sign.
    pub largest: f64,
    /// Shape of what is made of an image: `[1 + patches, embed_dim]`, or `[classes]`.
    pub shape: Vec<i64>,
}

/// A model to be written for other programs.
#[derive(Debug)]
pub struct Exported {
    model: VitClassifier,
    weights: PathBuf,
    is_classifier: bool,
}

impl Exported {
    /// The encoder of a Masked Autoencoder's model.safetensors, or the classifier that an evaluation wrote.
    ///
    /// # Errors
    /// If the file is not whole, or holds something else.
    pub fn open(weights: &Path) -> Result<Self, Error> {
        Ok(Self::read(weights)?)
    }

    fn read(weights: &Path) -> Result<Self> {
        let (model, kind) = VitClassifier::open(weights, Pooling::ClassToken, Device::Cpu)?;
        Ok(Self {
            model,
            weights: weights.into(),
            is_classifier: kind == FileKind::Classifier,
        })
    }

    /// Whether it tells classes, and not tokens.
    pub fn is_classifier(&self) -> bool {
        self.is_classifier
    }

    /// Images to verify with, and in words what they are: the one of `file`, or the run's own if they are there, or else
    /// a drawn scene.
    ///
    /// # Errors
    /// If `file` cannot be read, or no scene of the encoder's size can be drawn.
    pub fn images(&self, file: Option<&Path>) -> Result<(Arc<dyn Dataset>, &'static str), Error> {
        let encoder = &self.model.config().encoder;
        Ok(sample::images_for(file, &self.weights, encoder)?)
    }

    /// Writes it as a TorchScript module: see [`VitClassifier::save_torchscript`] and
    /// [`VitClassifier::save_torchscript_classifier`] for what it takes and returns.
    ///
    /// Before the file takes its place it is loaded again and given an image of `images`, and must make of it what the
    /// model makes of the pixels.
    ///
    /// # Errors
    /// If no image can be read, the file cannot be written, or what was written gives other numbers.
    pub fn torchscript(self, images: &Arc<dyn Dataset>, out: &Path) -> Result<Verified, Error> {
        Ok(self.write_torchscript(images, out)?)
    }

    fn write_torchscript(mut self, images: &Arc<dyn Dataset>, out: &Path) -> Result<Verified> {
        let sample = self.sample(images)?;
        // What happened, unless the file could not be written: that, `write_atomic_with` says.
        let mut outcome = None;
        let written = write_atomic_with(out, |temporary| {
            // Where that is impossible, the system says it better than libtorch.
            File::create(temporary)?;
            let verified = match self.is_classifier {
                true => self.model.save_torchscript_classifier(temporary),
                false => self.model.save_torchscript(temporary),
            };
            let verified = verified.map_err(Into::into).and_then(|()| {
                let module = CModule::load(temporary)?;
                sample.compare(|images| Ok(no_grad(|| module.forward_ts(&[images]))?))
            });
            let is_whole = verified.is_ok();
            outcome = Some(verified);
            is_whole
                .then_some(())
                .ok_or_else(|| io::Error::other("not exported"))
        });
        match outcome {
            Some(Err(error)) => {
                Err(error).with_context(|| format!("exporting to {}", out.display()))
            }
            Some(Ok(verified)) => Ok(written.map(|()| verified)?),
            None => Err(written.map_or_else(Into::into, |()| unreachable!("it was not called"))),
        }
    }

    /// Writes it as an ONNX file: see [`VitClassifier::to_onnx`] for what it takes and returns.
    ///
    /// Weights of 2 GB and more go to a second file, [`onnx_weights`].
    /// Before, what is to be written is read again and given an image of `images`, and must make of it what the model
    /// makes of the pixels; that is computed here, not by ONNX Runtime.
    ///
    /// # Errors
    /// As [`torchscript`](Self::torchscript).
    pub fn onnx(&self, images: &Arc<dyn Dataset>, out: &Path) -> Result<Verified, Error> {
        Ok(self.write_onnx(images, out)?)
    }

    fn write_onnx(&self, images: &Arc<dyn Dataset>, out: &Path) -> Result<Verified> {
        let output = match self.is_classifier {
            true => Output::Logits,
            false => Output::Tokens,
        };
        let beside = onnx_weights(out);
        let name = beside.file_name().unwrap_or_default().to_string_lossy();
        let files = self.model.to_onnx(output, &name)?;
        let verified = (self.sample(images)?)
            .compare(|images| Ok(files.compute(images)?))
            .with_context(|| format!("exporting to {}", out.display()))?;
        if let Some(weights) = &files.weights {
            write_atomic(&beside, weights)?;
        }
        write_atomic(out, &files.model)?;
        Ok(verified)
    }

    /// An image of `images` and what is to be made of it, by the kernels that everything else uses.
    fn sample(&self, images: &Arc<dyn Dataset>) -> Result<Sample> {
        let encoder = &self.model.config().encoder;
        Sample::new(images, encoder, |pixels| {
            let patches = patchify(pixels, encoder.patch_size)?;
            Ok(match self.is_classifier {
                true => no_grad(|| self.model.forward(&patches, Pass::Eval))?,
                false => self.model.tokens(&patches)?,
            })
        })
    }
}

/// The file beside an ONNX file that has its weights, if they are too large for one: `NAME.data`.
pub fn onnx_weights(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".data");
    name.into()
}

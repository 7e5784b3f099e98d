//! What a classifier takes images for.
//!
//! ```no_run
//! use mae_data::{Nodata, Split};
//! use mae_train::data::open_path;
//! use mae_train::predict::{Classifier, predict};
//!
//! let classifier = Classifier::open("runs/eval/finetune-pre-trained/classifier.safetensors")?;
//! let images = open_path("photos".as_ref(), Split::Test, classifier.channels(), Nodata::Auto)?;
//! let summary = predict(&classifier, &images, "predictions.csv".as_ref(), None)?.expect("nothing interrupts it");
//! println!("{} images", summary.images);
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! [`Classifier::probabilities`] gives the same numbers of a batch as a tensor.

mod find;
mod judgement;
mod write;

use std::path::{Path, PathBuf};

use anyhow::Result;
use mae_data::{Augmentation, ImageBatch, Nodata, Transform};
use mae_model::VitClassifier;
use tch::{Device, Kind, Tensor};

use crate::eval::features::Extraction;
use crate::run::interrupt::Interrupt;
use crate::run::progress::Progress;
use crate::train::precision::Precision;

pub use find::{find, is_of_evaluation};
pub use judgement::{ClassScore, Judgement};
pub use write::{Summary, predict};

/// A classifier, and how images go through it.
#[derive(Debug)]
pub struct Classifier {
    model: VitClassifier,
    weights: PathBuf,
    /// Classes to name of each image, the likeliest first; at least 1, as at first.
    pub top: usize,
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

impl Classifier {
    /// The classifier in `weights`, which an evaluation wrote, on the CPU.
    ///
    /// # Errors
    /// If the file is not whole, or holds something else.
    pub fn open(weights: impl AsRef<Path>) -> Result<Self> {
        Self::on_device(weights, Device::Cpu)
    }

    /// [`open`](Self::open) on another device.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn on_device(weights: impl AsRef<Path>, device: Device) -> Result<Self> {
        let weights = weights.as_ref().to_owned();
        Ok(Self {
            model: VitClassifier::load(&weights, device)?,
            weights,
            top: 1,
            precision: Precision::Fp32,
            workers: 0,
            max_broken_share: 0.01,
            overwrite: false,
            interrupt: Interrupt::default(),
            progress: Progress::hidden(),
        })
    }

    /// The file that it was read from.
    pub fn weights(&self) -> &Path {
        &self.weights
    }

    /// The model.
    pub fn model(&self) -> &VitClassifier {
        &self.model
    }

    /// Channels of the images that it takes.
    pub fn channels(&self) -> usize {
        self.model.config().encoder.channels
    }

    /// What stood for missing values in the images that it learned from.
    pub fn nodata(&self) -> Nodata {
        self.model.config().view.nodata.parse().unwrap_or_default()
    }

    /// How images are loaded and classified: resized and cropped as those that it was judged by.
    pub fn extraction(&self) -> Extraction<'_> {
        let config = self.model.config();
        let (height, width) = (config.encoder.image_height, config.encoder.image_width);
        let mut transform = Transform::center_crop(height, width);
        let crop_share = config.view.crop_share;
        if crop_share != 1.0 {
            transform.augmentation = Augmentation::CenterCrop { crop_share };
        }
        Extraction {
            model: &self.model,
            precision: self.precision,
            transform,
            workers: self.workers,
            max_broken_share: self.max_broken_share,
        }
    }

    /// How likely each class is, `[batch, classes]`, f32 on the model's device; a row's sum is 1.
    ///
    /// # Errors
    /// If the images are of another size than the model's.
    pub fn probabilities(&self, batch: &ImageBatch) -> Result<Tensor> {
        Ok(self.extraction().classify(batch)?.softmax(-1, Kind::Float))
    }
}

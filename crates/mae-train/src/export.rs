//! An encoder or a classifier for other programs, verified against the model that it comes from.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use mae_data::{
    DataError, Dataset, Image, ImageLoader, ImageLoaderConfig, SyntheticDataset, Transform,
};
use mae_model::classifier::{Pass, Pooling};
use mae_model::tensor_file::read_tensors;
use mae_model::{FileKind, MaeConfig, VitClassifier, patchify};
use tch::{CModule, Device, Kind, Tensor, no_grad};

use crate::data::batch::images_to_device;
use crate::data::open_own;
use crate::error::Error;

/// How close a written module is to the model that it was recorded from.
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

/// The largest difference that is taken for rounding, as a share of the largest number.
const TOLERANCE: f64 = 1e-4;

impl Exported {
    /// The encoder of a Masked Autoencoder's model.safetensors, or the classifier that an evaluation wrote.
    ///
    /// # Errors
    /// If the file is not whole, or holds something else.
    pub fn open(weights: &Path) -> Result<Self, Error> {
        Ok(Self::read(weights)?)
    }

    fn read(weights: &Path) -> Result<Self> {
        let (_, metadata) = read_tensors(weights)?;
        let is_classifier = FileKind::of(&metadata) == FileKind::Classifier;
        let model = match is_classifier {
            true => VitClassifier::load(weights, Device::Cpu)?,
            false => VitClassifier::open_encoder(weights, Pooling::ClassToken, Device::Cpu)?,
        };
        Ok(Self {
            model,
            weights: weights.into(),
            is_classifier,
        })
    }

    /// Whether it tells classes, and not tokens.
    pub fn is_classifier(&self) -> bool {
        self.is_classifier
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
        Ok(self.write(images, out)?)
    }

    /// What the module is to make of patches.
    fn forward(&self, patches: &Tensor) -> Result<Tensor> {
        Ok(match self.is_classifier {
            true => no_grad(|| self.model.forward(patches, Pass::Eval))?,
            false => self.model.tokens(patches)?,
        })
    }

    fn write(mut self, images: &Arc<dyn Dataset>, out: &Path) -> Result<Verified> {
        let (name, pixels) = first_image(images, &self.model.config().encoder)?;
        // One image, and three that differ.
        let batches = [
            pixels.shallow_clone(),
            Tensor::cat(&[&pixels, &pixels.flip([2]), &pixels.flip([1])], 0),
        ];
        // By the kernels that everything else uses.
        let patch_size = self.model.config().encoder.patch_size;
        let make = |batch: &Tensor| self.forward(&patchify(batch, patch_size)?);
        let expected = [make(&batches[0])?, make(&batches[1])?];

        // What happened, unless the file could not be written: that, `write_atomic_with` says.
        let mut outcome = None;
        let written = mae_report::write_atomic_with(out, |temporary| {
            // Where that is impossible, the system says it better than libtorch.
            File::create(temporary)?;
            let verified = match self.is_classifier {
                true => self.model.save_torchscript_classifier(temporary),
                false => self.model.save_torchscript(temporary),
            };
            let verified = (verified.map_err(Into::into))
                .and_then(|()| verify(temporary, &name, &batches, &expected));
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
}

/// Compares the module at `path` with what the model made of `batches`, `[batch, height, width, channels]`.
fn verify(
    path: &Path,
    image: &str,
    batches: &[Tensor; 2],
    expected: &[Tensor; 2],
) -> Result<Verified> {
    let module = CModule::load(path)?;
    let (mut difference, mut largest, mut shape) = (0.0f64, 0.0f64, Vec::new());
    for (batch, expected) in batches.iter().zip(expected) {
        let images = batch.permute([0, 3, 1, 2]);
        let images = match images.kind() {
            Kind::Uint8 => images.to_kind(Kind::Float) / 255.0,
            _ => images,
        };
        let found = no_grad(|| module.forward_ts(&[images]))?;
        ensure!(
            found.size() == expected.size(),
            "the written module makes {:?} of {} images, the model {:?}",
            found.size(),
            batch.size()[0],
            expected.size()
        );
        let values = |tensor: &Tensor| tensor.abs().max().f_double_value(&[]);
        difference = difference.max(values(&(found - expected))?);
        largest = largest.max(values(expected)?);
        shape = expected.size()[1..].to_vec();
    }
    // Not the other way round: a number that is none compares with nothing.
    ensure!(
        difference <= TOLERANCE * largest,
        "the written module gives other numbers than the model: by up to {difference:.2e}, where {:.2e} is rounding; \
         this is a bug, please report it",
        TOLERANCE * largest
    );
    Ok(Verified {
        image: image.into(),
        batches: batches.each_ref().map(|batch| batch.size()[0]),
        difference,
        largest,
        shape,
    })
}

impl Exported {
    /// Images to verify with, and in words what they are: the one of `file`, or the run's own if they are there, or else
    /// a drawn scene.
    ///
    /// # Errors
    /// If `file` cannot be read, or no scene of the encoder's size can be drawn.
    pub fn images(&self, file: Option<&Path>) -> Result<(Arc<dyn Dataset>, &'static str), Error> {
        Ok(images_for(
            file,
            &self.weights,
            &self.model.config().encoder,
        )?)
    }
}

fn images_for(
    file: Option<&Path>,
    weights: &Path,
    encoder: &MaeConfig,
) -> Result<(Arc<dyn Dataset>, &'static str)> {
    if let Some(path) = file {
        let image = OneImage::open(path, encoder.channels)?;
        return Ok((Arc::new(image), "the image that was given"));
    }
    let own = open_own(weights)
        .ok()
        .filter(|own| !own.is_empty() && own.channels() == encoder.channels);
    if let Some(own) = own {
        return Ok((own, "one of the run's own images"));
    }
    let scenes = SyntheticDataset::new(
        1,
        encoder.image_height,
        encoder.image_width,
        encoder.channels,
        0,
    );
    let scenes = scenes.context("no scene can be drawn for this encoder: give --image")?;
    let what = "a drawn scene, as the run's own images are not there";
    Ok((Arc::new(scenes), what))
}

/// The first image that can be read, `[1, height, width, channels]` on the CPU.
fn first_image(images: &Arc<dyn Dataset>, encoder: &MaeConfig) -> Result<(String, Tensor)> {
    let transform = Transform::center_crop(encoder.image_height, encoder.image_width);
    let config = ImageLoaderConfig {
        workers: 1,
        prefetch: 1,
        max_broken_share: 1.0,
        ..ImageLoaderConfig::new(transform.clone(), 1)
    };
    let loader = ImageLoader::new(Arc::clone(images), config)?;
    let batch = loader.epoch(0, 0).next().with_context(|| {
        let reasons: Vec<String> = (loader.broken().into_iter().take(3))
            .map(|(name, reason)| format!("{name}: {reason}"))
            .collect();
        format!(
            "no image to verify with can be read: {}",
            reasons.join("; ")
        )
    })??;
    let name = images.name(batch.indices[0]);
    Ok((name, images_to_device(&batch, &transform, Device::Cpu)))
}

/// A file as a data set.
struct OneImage {
    path: PathBuf,
    content: Vec<u8>,
    channels: usize,
}

impl OneImage {
    fn open(path: &Path, channels: usize) -> Result<Self> {
        let content = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self {
            path: path.into(),
            content,
            channels,
        })
    }
}

impl Dataset for OneImage {
    fn len(&self) -> usize {
        1
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        Image::decode(&self.content, self.channels, &self.name(index))
    }

    fn name(&self, _index: usize) -> String {
        self.path.display().to_string()
    }
}

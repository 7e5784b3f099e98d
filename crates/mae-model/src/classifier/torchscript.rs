//! The encoder or the classifier as a TorchScript module, for PyTorch and C++.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Kind, Tensor};
use torch_ext::{Traced, save_traced};

use super::{Pass, VitClassifier};
use crate::metadata::{CLASSIFIER, CONFIG, NORMALIZATION, json};
use crate::{Result, patchify};

/// What the module takes, as its attribute `input` says.
pub(super) const INPUT: &str = "images [batch, channels, height, width], of the weights' dtype; 0 to 1 where the files have 8 or 16 \
                     unsigned bits, else in the files' own units; normalised inside";
/// What an encoder gives, as its attribute `output` says.
pub(super) const TOKENS: &str =
    "tokens [batch, 1 + patches, embed_dim] after the last norm; the class token is first";
/// What a classifier gives.
pub(super) const LOGITS: &str =
    "logits [batch, classes], whose softmax is how likely each class is; `classes` has their names";

impl VitClassifier {
    /// Writes the encoder as a TorchScript module: `torch.jit.load` and `torch::jit::load` read it.
    ///
    /// It is recorded from the code here, with [`Kernels::Plain`](crate::Kernels::Plain) and attention of plain
    /// operations, which PyTorch has had since 2.1, and takes any number of images.
    /// The weights are parameters under their native keys, the normalisation's numbers buffers, so that the module can
    /// be moved and converted; none requires a gradient.
    /// `config`, `normalization` (both JSON), `input` and `output` are strings that it has as attributes.
    ///
    /// Afterwards no weight of this model trains, and it computes as was recorded.
    ///
    /// # Shapes
    /// - the module takes `[batch, channels, height, width]`, f32 pixels in the units of the normalisation: 0..1 for
    ///   images
    /// - it returns `[batch, 1 + patches, embed_dim]`, class token first: [`tokens`](Self::tokens) of these images
    ///
    /// # Errors
    /// [`ModelError::Config`](crate::ModelError::Config) if the pooling comes before the norm,
    /// [`ModelError::Torch`](crate::ModelError::Torch) if the file cannot be written.
    pub fn save_torchscript(&mut self, path: &Path) -> Result<()> {
        let mut parameters = self.parameters();
        parameters.retain(|key, _| !key.starts_with("head."));
        let attributes = [
            (CONFIG, json(&self.config.encoder)),
            ("output", TOKENS.into()),
        ];
        let module = ("MaskedAutoencoderEncoder", parameters, attributes.into());
        self.record(path, module, Self::tokens)
    }

    /// [`save_torchscript`](Self::save_torchscript), of the whole classifier: it returns `[batch, classes]`, logits.
    ///
    /// The strings `classifier` and `classes`, the names (both JSON), take the place of `config`.
    ///
    /// # Errors
    /// [`ModelError::Torch`](crate::ModelError::Torch) if the file cannot be written.
    pub fn save_torchscript_classifier(&mut self, path: &Path) -> Result<()> {
        let attributes = [
            (CLASSIFIER, json(&self.config)),
            ("classes", json(&self.class_names())),
            ("output", LOGITS.into()),
        ];
        let module = ("ViTClassifier", self.parameters(), attributes.into());
        self.record(path, module, |model, patches| {
            model.forward(patches, Pass::Eval)
        })
    }

    /// Writes what `network` makes of patches, `[batch, patches, patch_dim]`.
    fn record(
        &mut self,
        path: &Path,
        (class_name, parameters, mut attributes): (
            &'static str,
            BTreeMap<String, Tensor>,
            BTreeMap<&'static str, String>,
        ),
        network: impl Fn(&Self, &Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        self.vs.freeze();
        let _ = self.encoder.pos_embed().set_requires_grad(false);
        self.encoder.prepare_recording();
        let encoder = &self.config.encoder;
        let size = [
            2,
            encoder.channels,
            encoder.image_height,
            encoder.image_width,
        ];
        let images = Tensor::zeros(size.map(|n| n as i64), (Kind::Float, self.device()));
        let forward = |images: &Tensor| network(self, &self.patches_of_images(images)?);
        // What can be refused is refused before the recording, which knows no errors.
        let _ = forward(&images)?;

        attributes.insert(NORMALIZATION, json(&self.normalization));
        attributes.insert("input", INPUT.into());
        let buffers = self.pixels.tensors();
        let buffers = buffers.map(|(name, tensor)| (format!("pixels.{name}"), tensor));
        let module = Traced {
            class_name,
            parameters,
            buffers: buffers.into(),
            attributes,
        };
        Ok(save_traced(path, &module, &images, |images| {
            forward(images).expect("the same images were given before")
        })?)
    }

    /// `[batch, channels, height, width]`, f32 in the units of the normalisation, to `[batch, patches, patch_dim]`.
    fn patches_of_images(&self, images: &Tensor) -> Result<Tensor> {
        let encoder = &self.config.encoder;
        let size = [encoder.channels, encoder.image_height, encoder.image_width];
        // These change nothing, but a recording of them refuses another size, and says which it expects.
        let mut images = images.shallow_clone();
        for (dim, size) in (1..).zip(size) {
            images = images.f_unflatten(dim, [size as i64])?;
        }
        patchify(&images.permute([0, 2, 3, 1]), encoder.patch_size)
    }
}

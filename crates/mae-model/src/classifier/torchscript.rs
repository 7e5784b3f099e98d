//! The encoder as a TorchScript module, for PyTorch and C++.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Kind, Tensor};
use torch_ext::{Traced, save_traced};

use super::VitClassifier;
use crate::metadata::{CONFIG, NORMALIZATION, json};
use crate::{Kernels, Result, patchify};

/// What the module takes, as its attribute `input` says.
const INPUT: &str = "images [batch, channels, height, width], of the weights' dtype; 0 to 1 where the files have 8 or 16 \
                     unsigned bits, else in the files' own units; normalised inside";
/// What it gives, as its attribute `output` says.
const OUTPUT: &str =
    "tokens [batch, 1 + patches, embed_dim] after the last norm; the class token is first";

impl VitClassifier {
    /// Writes the encoder as a TorchScript module: `torch.jit.load` and `torch::jit::load` read it.
    ///
    /// It is recorded from the code here, with [`Kernels::Plain`], and takes any number of images.
    /// The weights are parameters under their native keys, the normalisation's numbers buffers, so that the module can
    /// be moved and converted; none requires a gradient.
    /// `config`, `normalization` (both JSON), `input` and `output` are strings that it has as attributes.
    ///
    /// Afterwards no weight of this model trains, and its kernels are plain.
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
        self.vs.freeze();
        let _ = self.encoder.pos_embed().set_requires_grad(false);
        self.set_kernels(Kernels::Plain);
        let encoder = &self.config.encoder;
        let size = [
            2,
            encoder.channels,
            encoder.image_height,
            encoder.image_width,
        ];
        let images = Tensor::zeros(size.map(|n| n as i64), (Kind::Float, self.device()));
        // What can be refused is refused before the recording, which knows no errors.
        let _ = self.tokens_of_images(&images)?;

        let mut parameters = self.parameters();
        parameters.retain(|key, _| !key.starts_with("head."));
        let buffers = self.pixels.tensors();
        let buffers = buffers.map(|(name, tensor)| (format!("pixels.{name}"), tensor));
        let module = Traced {
            class_name: "MaskedAutoencoderEncoder",
            parameters,
            buffers: buffers.into(),
            attributes: BTreeMap::from([
                (CONFIG, json(encoder)),
                (NORMALIZATION, json(&self.normalization)),
                ("input", INPUT.into()),
                ("output", OUTPUT.into()),
            ]),
        };
        Ok(save_traced(path, &module, &images, |images| {
            self.tokens_of_images(images)
                .expect("the same images were encoded before")
        })?)
    }

    /// `[batch, channels, height, width]`, f32 in the units of the normalisation, to `[batch, 1 + patches, embed_dim]`.
    fn tokens_of_images(&self, images: &Tensor) -> Result<Tensor> {
        let encoder = &self.config.encoder;
        let size = [encoder.channels, encoder.image_height, encoder.image_width];
        // These change nothing, but a recording of them refuses another size, and says which it expects.
        let mut images = images.shallow_clone();
        for (dim, size) in (1..).zip(size) {
            images = images.f_unflatten(dim, [size as i64])?;
        }
        let patches = patchify(&images.permute([0, 2, 3, 1]), encoder.patch_size)?;
        self.tokens(&patches)
    }
}

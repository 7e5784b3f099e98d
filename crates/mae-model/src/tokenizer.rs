//! A discrete variational autoencoder: an image becomes one token of a vocabulary for each of its patches.
//!
//! Its token ids can be what a Masked Autoencoder predicts in place of pixels.
//! In training a token is not one entry of the codebook but a mixture, whose weights are the Gumbel-softmax
//! relaxation of a choice: the lower the temperature, the nearer to one entry.
//!
//! Source: Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation", arXiv 2102.12092, section 2.1 and appendix A;
//! Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax", arXiv 1611.01144;
//! as a target, He et al. 2021, arXiv 2111.06377, table 1d.

mod config;
mod file;
mod layers;

use std::collections::BTreeMap;

use tch::nn::{self, Path};
use tch::{Device, Kind, Tensor, no_grad};

use crate::error::shape;
use crate::normalization::PixelScale;
use crate::{Normalization, Result, init, patchify, unpatchify};

pub use config::TokenizerConfig;
pub use file::read_config;
use layers::{Down, Up};

/// A discrete variational autoencoder with one token a patch. It owns its parameters.
#[derive(Debug)]
pub struct Tokenizer {
    config: TokenizerConfig,
    normalization: Normalization,
    pixels: PixelScale,
    vs: nn::VarStore,
    encoder: Vec<Down>,
    norm: nn::LayerNorm,
    logits: nn::Linear,
    codebook: Tensor,
    decoder: Vec<Up>,
}

/// Standard deviation of fresh logits; that of Gumbel noise is 1.28.
const LOGITS_STD: f64 = 2.5;

/// How a training pass relaxes the choice of a token, and what it makes of the choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Relaxation {
    /// Temperature of the Gumbel-softmax, above 0; towards 0 a mixture becomes one entry of the codebook.
    pub temperature: f64,
    /// Weight of the divergence of the vocabulary's use from a uniform one; 0 is none.
    pub kl_weight: f64,
}

/// The loss of a training pass and its parts, scalars in f32.
#[derive(Debug)]
pub struct TokenizerLoss {
    /// `mse + kl_weight * kl / patch_dim`: both parts per number that describes an image.
    pub loss: Tensor,
    /// Mean squared error of normalised pixels.
    pub mse: Tensor,
    /// Divergence of the batch's mean distribution of tokens from the uniform one, nats.
    pub kl: Tensor,
}

impl Tokenizer {
    /// A tokenizer with fresh weights, the same for a `seed` on every device.
    ///
    /// # Errors
    /// [`ModelError::Config`](crate::ModelError::Config) or [`ModelError::Grid`](crate::ModelError::Grid) if
    /// `config` or `normalization` cannot be built.
    pub fn new(
        config: &TokenizerConfig,
        normalization: &Normalization,
        device: Device,
        seed: u64,
    ) -> Result<Self> {
        config.validate()?;
        normalization.validate(config.channels)?;
        let vs = nn::VarStore::new(device);
        let root: Path = vs.root();
        let stages = config.stages();
        let (width, vocabulary) = (config.width as i64, config.vocabulary as i64);
        let encoder = stages.iter().enumerate();
        let decoder = stages.iter().rev().enumerate();
        let tokenizer = Self {
            pixels: PixelScale::new(normalization, 1, device),
            encoder: encoder
                .map(|(i, stage)| Down::new(&(&root / "encoder" / i), stage, config.blocks))
                .collect(),
            norm: nn::layer_norm(&root / "norm", vec![width], nn::LayerNormConfig::default()),
            logits: crate::vit::linear(&(&root / "logits"), width, vocabulary),
            codebook: root.zeros("codebook", &[vocabulary, width]),
            decoder: decoder
                .map(|(i, stage)| Up::new(&(&root / "decoder" / i), stage, config.blocks))
                .collect(),
            config: config.clone(),
            normalization: normalization.clone(),
            vs,
        };
        for (key, mut parameter) in tokenizer.parameters() {
            match key.as_str() {
                // Entries of unit variance, so that the decoder tells them apart from the first step on.
                "codebook" => init::initialize_head(&key, &mut parameter, 1.0, seed),
                // Logits as far apart as the noise, and more: from the first step on a token says something.
                "logits.weight" => {
                    let std = LOGITS_STD / (config.width as f64).sqrt();
                    init::initialize_head(&key, &mut parameter, std, seed);
                }
                _ => init::initialize(&key, &mut parameter, seed),
            }
        }
        Ok(tokenizer)
    }

    /// The dimensions it was built with.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// The channel statistics that pixels are normalised with.
    pub fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.vs.device()
    }

    /// Every parameter by its native key, in the keys' order. The tensors are shared.
    pub fn parameters(&self) -> BTreeMap<String, Tensor> {
        self.vs.variables().into_iter().collect()
    }

    /// Takes its parameters out of training: no gradient is computed for them any more.
    pub fn freeze(&mut self) {
        for parameter in self.parameters().values_mut() {
            let _ = parameter.set_requires_grad(false);
        }
    }

    /// The token of each patch, in the image's order: the likeliest, so the same every time.
    ///
    /// In f32, whatever autocast is around it, and without a gradient.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, image_height, image_width]`, normalised f32
    /// - returns `[batch, patches]`, i64, in `0..vocabulary`
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if the images are of another size or dtype.
    pub fn encode(&self, images: &Tensor) -> Result<Tensor> {
        self.in_full_precision(|| Ok(self.forward_encoder(images)?.argmax(-1, false)))
    }

    /// The token of each patch of images that are cut into patches already.
    ///
    /// # Shapes
    /// - `patches`: `[batch, patches, patch_dim]` in the image's order, u8, or f32 in the units of mean and
    ///   standard deviation
    /// - returns `[batch, patches]`, i64
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if the patches do not make images of this tokenizer's size.
    pub fn encode_patches(&self, patches: &Tensor) -> Result<Tensor> {
        self.encode(&self.images_of(patches)?)
    }

    /// As [`encode_patches`](Self::encode_patches), of patches that are normalised already.
    pub(crate) fn encode_normalized_patches(&self, patches: &Tensor) -> Result<Tensor> {
        let images = unpatchify(patches, &self.config.grid()?)?;
        self.encode(&images.permute([0, 3, 1, 2]))
    }

    /// The images that tokens stand for.
    ///
    /// In f32, whatever autocast is around it, and without a gradient.
    ///
    /// # Shapes
    /// - `ids`: `[batch, patches]`, i64, in `0..vocabulary`
    /// - returns `[batch, channels, image_height, image_width]`, normalised f32
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if `ids` has another shape or dtype,
    /// [`ModelError::Config`](crate::ModelError::Config) if an id is not in the vocabulary.
    pub fn decode(&self, ids: &Tensor) -> Result<Tensor> {
        let (patches, vocabulary) = (self.patches(), self.config.vocabulary as i64);
        let size = ids.size();
        if size.len() != 2 || size[1] != patches || ids.kind() != Kind::Int64 {
            let expected = format!("[batch, {patches}] of i64");
            return Err(shape("ids", ids, expected));
        }
        let beyond = ids.lt(0).logical_or(&ids.ge(vocabulary)).any();
        if beyond.f_int64_value(&[])? != 0 {
            let found = format!("{} to {}", ids.min(), ids.max());
            let expected = format!("0 to {}", vocabulary - 1);
            return Err(crate::error::invalid("ids", found, expected));
        }
        self.in_full_precision(|| {
            let entries = self.codebook.index_select(0, &ids.reshape([-1]));
            Ok(self.forward_decoder(&entries.view([size[0], patches, -1])))
        })
    }

    /// The loss of a batch, whose tokens are mixtures of codebook entries.
    ///
    /// The published divergence is that of each patch's distribution from the uniform one.
    /// It is the sum of what the token says of the patch and of the divergence of the mean distribution;
    /// only the second is in the loss, for it keeps the vocabulary in use and the first is what tokens are for.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, image_height, image_width]`, normalised f32
    /// - `noise`: `[batch, patches, vocabulary]`, f32, from [`gumbel_noise`]
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if they disagree with each other or the tokenizer.
    ///
    /// Source: Ramesh et al. 2021, section 2.1, with the squared error of a Gaussian in place of their likelihood;
    /// Hoffman and Johnson 2016, "ELBO surgery", for the two parts.
    pub fn forward(
        &self,
        images: &Tensor,
        noise: &Tensor,
        relaxation: Relaxation,
    ) -> Result<TokenizerLoss> {
        let logits = self.forward_encoder(images)?.to_kind(Kind::Float);
        if noise.size() != logits.size() {
            let expected = format!("{:?}", logits.size());
            return Err(shape("noise", noise, expected));
        }
        let mixture = ((&logits + noise) / relaxation.temperature).softmax(-1, Kind::Float);
        let reconstruction = self.forward_decoder(&mixture.matmul(&self.codebook));
        let mse = (reconstruction.to_kind(Kind::Float) - images)
            .square()
            .mean(Kind::Float);

        // KL(q || uniform) = log(vocabulary) - entropy(q)
        let q = logits
            .softmax(-1, Kind::Float)
            .mean_dim([0i64, 1].as_slice(), false, Kind::Float);
        let negative_entropy = q.xlogy(&q).sum(Kind::Float);
        let kl = negative_entropy + (self.config.vocabulary as f64).ln();
        let patch_dim = self.config.patch_size * self.config.patch_size * self.config.channels;
        let loss = &mse + &kl * (relaxation.kl_weight / patch_dim as f64);
        Ok(TokenizerLoss { loss, mse, kl })
    }

    /// How likely each token is for each patch, as logits.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, image_height, image_width]`, normalised f32
    /// - returns `[batch, patches, vocabulary]`
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if the images are of another size or dtype.
    pub fn forward_encoder(&self, images: &Tensor) -> Result<Tensor> {
        let TokenizerConfig {
            image_height: height,
            image_width: width,
            channels,
            ..
        } = self.config;
        let size = images.size();
        let fits = size.len() == 4 && size[1..] == [channels, height, width].map(|n| n as i64);
        if !fits || images.kind() != Kind::Float {
            let expected = format!("[batch, {channels}, {height}, {width}] of f32");
            return Err(shape("images", images, expected));
        }
        let features = self
            .encoder
            .iter()
            .fold(images.shallow_clone(), |x, stage| stage.forward(&x));
        let tokens = features.flatten(2, 3).transpose(1, 2);
        Ok(tokens.apply(&self.norm).apply(&self.logits))
    }

    /// Mixtures of codebook entries, `[batch, patches, width]`, to images.
    fn forward_decoder(&self, tokens: &Tensor) -> Tensor {
        let rows = (self.config.image_height / self.config.patch_size) as i64;
        let features = tokens.transpose(1, 2).unflatten(2, [rows, -1]);
        self.decoder
            .iter()
            .fold(features, |x, stage| stage.forward(&x))
    }

    /// Normalised images of patches in the image's order.
    ///
    /// # Shapes
    /// - `patches`: `[batch, patches, patch_dim]`, u8, or f32 in the units of mean and standard deviation
    /// - returns `[batch, channels, image_height, image_width]`, f32
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if they do not make images of this tokenizer's size.
    pub fn images_of(&self, patches: &Tensor) -> Result<Tensor> {
        self.normalize(&unpatchify(patches, &self.config.grid()?)?)
    }

    /// Patches of images, in the image's order.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, image_height, image_width]`
    /// - returns `[batch, patches, patch_dim]`
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if the patch size does not divide the images' sides.
    pub fn patches_of(&self, images: &Tensor) -> Result<Tensor> {
        if images.dim() != 4 {
            let expected = "[batch, channels, image_height, image_width]".into();
            return Err(shape("images", images, expected));
        }
        patchify(&images.permute([0, 2, 3, 1]), self.config.patch_size)
    }

    /// Normalises pixels and brings channels to the front.
    ///
    /// # Shapes
    /// - `images`: `[batch, height, width, channels]`, u8, or f32 in the units of mean and standard deviation
    /// - returns `[batch, channels, height, width]`, f32
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if `images` has another number of dimensions or channels.
    pub fn normalize(&self, images: &Tensor) -> Result<Tensor> {
        let channels = self.config.channels as i64;
        if images.dim() != 4 || images.size()[3] != channels {
            let expected = format!("[batch, height, width, {channels}]");
            return Err(shape("images", images, expected));
        }
        Ok(self.pixels.normalize(images).permute([0, 3, 1, 2]))
    }

    /// Normalised images as pixel values in the units of mean and standard deviation (0..1 for usual images), not
    /// clamped: the inverse of [`normalize`](Self::normalize).
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`, f32
    /// - returns `[batch, height, width, channels]`, f32
    pub fn to_pixels(&self, images: &Tensor) -> Tensor {
        self.pixels.denormalize(&images.permute([0, 2, 3, 1]))
    }

    fn patches(&self) -> i64 {
        let p = self.config.patch_size;
        (self.config.image_height / p * (self.config.image_width / p)) as i64
    }

    fn in_full_precision(&self, body: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        no_grad(|| torch_ext::autocast(self.device(), Kind::Float, body))?
    }
}

/// Gumbel noise of one training pass: a function of `seed` and `step` on one kind of device.
///
/// # Shapes
/// - returns `size`, f32
///
/// # Errors
/// [`ModelError::Torch`](crate::ModelError::Torch) if `size` or `device` is none that libtorch draws for.
pub fn gumbel_noise(size: &[i64], seed: u64, step: u64, device: Device) -> Result<Tensor> {
    use rand_chacha::rand_core::Rng;
    let seed = init::generator("gumbel", seed, step).next_u64();
    let exponential = torch_ext::exponential(size, seed, device)?;
    // An exponential may round to 0, whose logarithm is not finite.
    Ok(-exponential.clamp_min(f64::from(f32::MIN_POSITIVE)).log())
}

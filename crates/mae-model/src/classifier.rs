//! A ViT that classifies: the Masked Autoencoder's encoder on all patches, pooled, and a linear head.
//!
//! This is how an encoder is judged: fine-tuned, partially fine-tuned, or frozen under a linear probe.
//! The keys are those of timm's ViT: the encoder's as in a Masked Autoencoder, `fc_norm` and `head`.
//!
//! Source: He et al. 2021, arXiv 2111.06377, section 4.3 and appendices A.1 and A.2.

mod config;
mod onnx;
mod pretrained;
mod torchscript;

use std::collections::BTreeMap;

use tch::nn;
use tch::{Device, Tensor, no_grad};

use crate::drop_path::{DropPath, drop_path_rates};
use crate::error::{invalid, shape};
use crate::init::initialize_head;
use crate::kernels::Kernels;
use crate::mae::check_patches;
use crate::normalization::PixelScale;
use crate::vit::{VisionTransformer, initialize, linear};
use crate::{MaeConfig, Normalization, Result};

pub use config::{ClassifierConfig, HeadInit, Pooling, View};
pub use onnx::Output;
pub(crate) use pretrained::resize_positions;

/// Whether a forward pass drops residual branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// None: the same logits every time.
    Eval,
    /// At the configured rate. Equal `seed` and `step` drop the same; give each pass a step of its own.
    Train {
        /// Seed of the run.
        seed: u64,
        /// Number of the pass.
        step: u64,
    },
}

/// A ViT with a classification head. It owns its parameters.
///
/// Positions train as the other parameters do, as in the authors' fine-tuning; they start as sine-cosine.
#[derive(Debug)]
pub struct VitClassifier {
    config: ClassifierConfig,
    normalization: Normalization,
    vs: nn::VarStore,
    encoder: VisionTransformer,
    head: nn::Linear,
    pixels: PixelScale,
    drop_path_rates: Vec<f64>,
}

impl VitClassifier {
    /// A classifier with fresh weights, the same for a `seed` on every device.
    ///
    /// # Errors
    /// [`ModelError::Config`](crate::ModelError::Config) or [`ModelError::Grid`](crate::ModelError::Grid)
    /// if `config` or `normalization` cannot be built.
    pub fn new(
        config: &ClassifierConfig,
        normalization: &Normalization,
        device: Device,
        seed: u64,
    ) -> Result<Self> {
        config.validate()?;
        let encoder_config = &config.encoder;
        normalization.validate(encoder_config.channels)?;
        let vs = nn::VarStore::new(device);
        let norm_key = match config.pooling {
            Pooling::MeanThenNorm => "fc_norm",
            Pooling::NormThenMean | Pooling::ClassToken => "norm",
        };
        let encoder = VisionTransformer::with_norm_key(&vs.root(), encoder_config, norm_key);
        let (dim, classes) = (encoder_config.embed_dim as i64, config.classes as i64);
        let mut head = linear(&(vs.root() / "head"), dim, classes);
        initialize(&vs, seed);
        match config.head_init {
            HeadInit::FineTune => initialize_head("head.weight", &mut head.ws, 2e-5, seed),
            HeadInit::LinearProbe => initialize_head("head.weight", &mut head.ws, 0.01, seed),
            HeadInit::Scratch => {}
        }
        // After the weights are drawn: positions are no weights to draw.
        let _ = encoder.pos_embed().set_requires_grad(true);
        let pixels_per_patch = encoder_config.patch_size * encoder_config.patch_size;
        Ok(Self {
            config: config.clone(),
            normalization: normalization.clone(),
            encoder,
            head,
            pixels: PixelScale::new(normalization, pixels_per_patch, device),
            drop_path_rates: drop_path_rates(encoder_config.depth, config.drop_path),
            vs,
        })
    }

    /// What it was built from.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// The channel statistics that patches are normalised with.
    pub fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.vs.device()
    }

    /// What the classes are called, in label order: their numbers where they have no names.
    pub fn class_names(&self) -> Vec<String> {
        match self.config.class_names.is_empty() {
            true => (0..self.config.classes)
                .map(|class| class.to_string())
                .collect(),
            false => self.config.class_names.clone(),
        }
    }

    /// Chooses the code that computes the transformer blocks; [`Kernels::Auto`] at first.
    pub fn set_kernels(&mut self, kernels: Kernels) {
        self.encoder.set_kernels(kernels);
    }

    /// Every parameter by its native key, in the keys' order. The tensors are shared.
    pub fn parameters(&self) -> BTreeMap<String, Tensor> {
        self.vs.variables().into_iter().collect()
    }

    /// Class scores of whole images.
    ///
    /// # Shapes
    /// - `patches`: `[batch, patches, patch_dim]`, u8, or f32 in the units of mean and standard deviation
    /// - returns `[batch, classes]`, logits
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if they are not the patches of whole images.
    ///
    /// Source: He et al. 2021, section 3: "the encoder is applied to uncorrupted images".
    pub fn forward(&self, patches: &Tensor, pass: Pass) -> Result<Tensor> {
        self.forward_from(&self.embed(patches)?, 0, pass)
    }

    /// What the head would be given: pooled features of whole images, without gradient.
    ///
    /// # Shapes
    /// - `patches`: `[batch, patches, patch_dim]`, u8, or f32 in the units of mean and standard deviation
    /// - returns `[batch, embed_dim]`
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if they are not the patches of whole images.
    pub fn features(&self, patches: &Tensor) -> Result<Tensor> {
        let tokens = self.tokens_after(patches, self.depth())?;
        Ok(no_grad(|| self.pool(&tokens)))
    }

    /// All tokens of whole images after the encoder's last norm, without gradient.
    ///
    /// # Shapes
    /// - `patches`: `[batch, patches, patch_dim]`, u8 pixels or normalised f32
    /// - returns `[batch, 1 + patches, embed_dim]`, class token first
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if they are not the patches of whole images,
    /// [`ModelError::Config`](crate::ModelError::Config) if the pooling comes before the norm.
    pub fn tokens(&self, patches: &Tensor) -> Result<Tensor> {
        if self.config.pooling == Pooling::MeanThenNorm {
            let expected = "a pooling that comes after the encoder's norm".into();
            return Err(invalid("pooling", "mean_then_norm", expected));
        }
        let tokens = self.tokens_after(patches, self.depth())?;
        Ok(no_grad(|| self.encoder.norm(&tokens)))
    }

    /// What the class token heeds in the last block, without gradient.
    ///
    /// # Shapes
    /// - `patches`: `[batch, patches, patch_dim]`, u8, or f32 in the units of mean and standard deviation
    /// - returns `[batch, num_heads, 1 + patches]`, the shares of its own value and of each patch's, which sum up to 1
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if they are not the patches of whole images.
    ///
    /// Source: Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers", arXiv 2104.14294,
    /// figure 1.
    pub fn class_attention(&self, patches: &Tensor) -> Result<Tensor> {
        let last = self.depth() - 1;
        let tokens = self.tokens_after(patches, last)?;
        Ok(no_grad(|| self.encoder.attention_of_first(&tokens, last)))
    }

    /// The tokens that the first `blocks` blocks make, without gradient or drop path: a frozen prefix.
    ///
    /// # Shapes
    /// - `patches`: `[batch, patches, patch_dim]`, u8, or f32 in the units of mean and standard deviation
    /// - returns `[batch, 1 + patches, embed_dim]`, to give [`forward_from`](Self::forward_from)
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if they are not the patches of whole images,
    /// [`ModelError::Config`](crate::ModelError::Config) if there are fewer blocks.
    pub fn tokens_after(&self, patches: &Tensor, blocks: usize) -> Result<Tensor> {
        self.check_block("blocks", blocks)?;
        no_grad(|| {
            let tokens = self.embed(patches)?;
            Ok(self.encoder.forward_blocks(tokens, 0..blocks, None))
        })
    }

    /// Class scores from the tokens before block `first_block`.
    ///
    /// # Shapes
    /// - `tokens`: `[batch, 1 + patches, embed_dim]`, class token first
    /// - returns `[batch, classes]`, logits
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if the tokens are another model's,
    /// [`ModelError::Config`](crate::ModelError::Config) if there is no such block.
    pub fn forward_from(&self, tokens: &Tensor, first_block: usize, pass: Pass) -> Result<Tensor> {
        self.check_block("first_block", first_block)?;
        let (size, n, dim) = (tokens.size(), 1 + self.patches(), self.embed_dim());
        if size.len() != 3 || size[1..] != [n, dim] {
            return Err(shape("tokens", tokens, format!("[batch, {n}, {dim}]")));
        }
        let drop_path =
            match pass {
                Pass::Train { seed, step } if self.config.drop_path > 0.0 => Some(
                    DropPath::sample(&self.drop_path_rates, size[0], seed, step, self.device()),
                ),
                _ => None,
            };
        let blocks = first_block..self.depth();
        let tokens =
            self.encoder
                .forward_blocks(tokens.shallow_clone(), blocks, drop_path.as_ref());
        Ok(self.pool(&tokens).apply(&self.head))
    }

    /// The keys that train when only the last `partial` blocks do; all others are to be frozen.
    ///
    /// 0 is the head alone, as in linear probing; 0.5 adds the last norm and the MLP half of the last block;
    /// 1 to `depth` the last norm and that many whole blocks.
    ///
    /// # Errors
    /// [`ModelError::Config`](crate::ModelError::Config) if `partial` is none of these.
    ///
    /// Source: He et al. 2021, section 4.3, "Partial fine-tuning".
    pub fn trainable_keys(&self, partial: f64) -> Result<Vec<String>> {
        let depth = self.depth();
        check_partial(partial, depth)?;
        let mut prefixes = vec!["head.".to_string()];
        if partial > 0.0 {
            prefixes.extend(["norm.".into(), "fc_norm.".into()]);
        }
        if partial == 0.5 {
            let last = depth - 1;
            prefixes.extend([
                format!("blocks.{last}.norm2."),
                format!("blocks.{last}.mlp."),
            ]);
        } else {
            prefixes.extend((depth - partial as usize..depth).map(|i| format!("blocks.{i}.")));
        }
        let trains = |key: &String| prefixes.iter().any(|prefix| key.starts_with(prefix));
        Ok(self.parameters().into_keys().filter(trains).collect())
    }

    fn embed(&self, patches: &Tensor) -> Result<Tensor> {
        check_patches(&self.config.encoder, "patches", patches)?;
        let expected = self.patches();
        if patches.size()[1] != expected {
            let expected = format!("[batch, {expected}, patch_dim], all patches of an image");
            return Err(shape("patches", patches, expected));
        }
        Ok(self.encoder.embed(&self.pixels.normalize(patches)))
    }

    /// `[batch, 1 + patches, embed_dim]` to `[batch, embed_dim]`.
    fn pool(&self, tokens: &Tensor) -> Tensor {
        let mean = |tokens: &Tensor| {
            tokens
                .narrow(1, 1, self.patches())
                .mean_dim(1i64, false, None)
        };
        match self.config.pooling {
            Pooling::MeanThenNorm => self.encoder.norm(&mean(tokens)),
            Pooling::NormThenMean => mean(&self.encoder.norm(tokens)),
            Pooling::ClassToken => self.encoder.norm(&tokens.select(1, 0)),
        }
    }

    fn depth(&self) -> usize {
        self.config.encoder.depth
    }

    fn embed_dim(&self) -> i64 {
        self.config.encoder.embed_dim as i64
    }

    fn patches(&self) -> i64 {
        let (rows, columns) = rows_and_columns(&self.config.encoder);
        (rows * columns) as i64
    }

    fn check_block(&self, key: &'static str, block: usize) -> Result<()> {
        if block > self.depth() {
            return Err(invalid(key, block, format!("at most {}", self.depth())));
        }
        Ok(())
    }
}

/// Checks that an encoder of `depth` blocks has the part that `partial` names: 0, 0.5 or 1 to `depth` blocks.
///
/// # Errors
/// [`ModelError::Config`](crate::ModelError::Config) if it has not.
pub fn check_partial(partial: f64, depth: usize) -> Result<()> {
    let whole = partial.fract() == 0.0 && (0.0..=depth as f64).contains(&partial);
    if !whole && partial != 0.5 {
        let expected = format!("0, 0.5 or a whole number up to the depth of {depth}");
        return Err(invalid("partial", partial, expected));
    }
    Ok(())
}

fn rows_and_columns(config: &MaeConfig) -> (usize, usize) {
    let p = config.patch_size;
    (config.image_height / p, config.image_width / p)
}

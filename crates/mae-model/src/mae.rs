//! The Masked Autoencoder: encode the visible patches, decode all of them, compare the masked ones.
//!
//! Everything here runs in *shuffled* order: a mask is a permutation `ids_shuffle` of the image's patches
//! of which the first `kept` are visible. Attention does not care for the order of its tokens, only for their
//! positions, so the decoder takes the visible latents, appends mask tokens, adds the positions of
//! `ids_shuffle`, and the masked patches are the last rows: nothing is gathered back.
//! [`MaskedAutoencoderViT::predict`] unshuffles, for those who want a picture.
//!
//! Source: He et al. 2021, arXiv 2111.06377, section 3.

use std::collections::BTreeMap;
use tch::nn::{self, Path};
use tch::{Device, Kind, Tensor};

use crate::kernels::Kernels;
use crate::normalization::PixelScale;
use crate::vit::{
    Block, BlockShape, VisionTransformer, gather_positions, initialize, layer_norm, linear,
    positions,
};
use crate::{MaeConfig, ModelError, Normalization, Result};

/// A Masked Autoencoder with a ViT encoder and decoder. It owns its parameters.
#[derive(Debug)]
pub struct MaskedAutoencoderViT {
    config: MaeConfig,
    normalization: Normalization,
    vs: nn::VarStore,
    encoder: VisionTransformer,
    decoder: Decoder,
    pixels: PixelScale,
}

impl MaskedAutoencoderViT {
    /// A model with fresh weights, the same for a `seed` on every device.
    ///
    /// # Errors
    /// [`ModelError::Config`] or [`ModelError::Grid`] if `config` or `normalization` cannot be built.
    pub fn new(
        config: &MaeConfig,
        normalization: &Normalization,
        device: Device,
        seed: u64,
    ) -> Result<Self> {
        config.validate()?;
        normalization.validate(config.channels)?;
        let vs = nn::VarStore::new(device);
        let encoder = VisionTransformer::new(&vs.root(), config);
        let decoder = Decoder::new(&vs.root(), config);
        initialize(&vs, seed);
        let pixels = PixelScale::new(normalization, config.patch_size * config.patch_size, device);
        Ok(Self {
            config: config.clone(),
            normalization: normalization.clone(),
            vs,
            encoder,
            decoder,
            pixels,
        })
    }

    /// The dimensions it was built with.
    pub fn config(&self) -> &MaeConfig {
        &self.config
    }

    /// The channel statistics that u8 patches are normalised with.
    pub fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.vs.device()
    }

    /// Chooses the code that computes the transformer blocks; [`Kernels::Fused`] at first.
    pub fn set_kernels(&mut self, kernels: Kernels) {
        self.encoder.set_kernels(kernels);
        (self.decoder.blocks.iter_mut()).for_each(|block| block.kernels = kernels);
    }

    /// Every parameter and fixed position by its native key, in the keys' order. The tensors are shared.
    pub fn parameters(&self) -> BTreeMap<String, Tensor> {
        self.vs.variables().into_iter().collect()
    }

    /// Mean loss over the masked patches of a batch.
    ///
    /// # Shapes
    /// - `visible`: `[batch, kept, patch_dim]`, u8 pixels or normalised f32
    /// - `masked`: `[batch, patches - kept, patch_dim]`, likewise
    /// - `ids_shuffle`: `[batch, patches]`, i64; the first `kept` are the visible patches' places
    /// - returns a scalar, f32
    ///
    /// # Errors
    /// [`ModelError::Shape`] if they disagree with each other or the model.
    pub fn forward(
        &self,
        visible: &Tensor,
        masked: &Tensor,
        ids_shuffle: &Tensor,
    ) -> Result<Tensor> {
        let kept = visible.size().get(1).copied().unwrap_or(0);
        check_ids(&self.config, "ids_shuffle", ids_shuffle, None)?;
        let latent = self.forward_encoder(
            visible,
            &ids_shuffle.narrow(1, 0, kept.min(ids_shuffle.size()[1])),
        )?;
        let pred = self.forward_decoder(&latent, ids_shuffle)?;
        self.forward_loss(masked, &pred)
    }

    /// Encodes the visible patches only.
    ///
    /// # Shapes
    /// - `visible`: `[batch, kept, patch_dim]`, u8 pixels or normalised f32
    /// - `ids_keep`: `[batch, kept]`, i64
    /// - returns `[batch, 1 + kept, embed_dim]`, class token first
    ///
    /// # Errors
    /// [`ModelError::Shape`] if `visible` and `ids_keep` disagree.
    ///
    /// Source: He et al. 2021, section 3, "MAE encoder".
    pub fn forward_encoder(&self, visible: &Tensor, ids_keep: &Tensor) -> Result<Tensor> {
        check_patches(&self.config, "visible", visible)?;
        check_ids(
            &self.config,
            "ids_keep",
            ids_keep,
            Some(&visible.size()[..2]),
        )?;
        Ok(self
            .encoder
            .forward(&self.pixels.normalize(visible), ids_keep))
    }

    /// Predicts the masked patches, in the order of `ids_shuffle[kept..]`.
    ///
    /// The decoder's last block and its head compute nothing for the visible patches.
    ///
    /// # Shapes
    /// - `latent`: `[batch, 1 + kept, embed_dim]`
    /// - `ids_shuffle`: `[batch, patches]`, i64
    /// - returns `[batch, patches - kept, patch_dim]`
    ///
    /// # Errors
    /// [`ModelError::Shape`] if they disagree.
    ///
    /// Source: He et al. 2021, section 3, "MAE decoder".
    pub fn forward_decoder(&self, latent: &Tensor, ids_shuffle: &Tensor) -> Result<Tensor> {
        self.check_latent(latent, ids_shuffle)?;
        Ok(self
            .decoder
            .forward_from(latent, ids_shuffle, latent.size()[1]))
    }

    /// Predicts every patch, visible ones too, in the image's order.
    ///
    /// # Shapes
    /// - `latent`: `[batch, 1 + kept, embed_dim]`
    /// - `ids_shuffle`: `[batch, patches]`, i64
    /// - returns `[batch, patches, patch_dim]`
    ///
    /// # Errors
    /// [`ModelError::Shape`] if they disagree.
    pub fn predict(&self, latent: &Tensor, ids_shuffle: &Tensor) -> Result<Tensor> {
        self.check_latent(latent, ids_shuffle)?;
        let shuffled = self.decoder.forward_from(latent, ids_shuffle, 1);
        let ids_restore = ids_shuffle
            .argsort(1, false)
            .unsqueeze(-1)
            .expand_as(&shuffled);
        Ok(shuffled.gather(1, &ids_restore, false))
    }

    /// Mean squared error on the masked patches, in f32 whatever autocast does.
    ///
    /// # Shapes
    /// - `masked`: `[batch, patches - kept, patch_dim]`, u8 pixels or normalised f32
    /// - `pred`: the same shape
    /// - returns a scalar, f32
    ///
    /// # Errors
    /// [`ModelError::Shape`] if they disagree.
    ///
    /// Source: He et al. 2021, section 3, "Reconstruction target".
    pub fn forward_loss(&self, masked: &Tensor, pred: &Tensor) -> Result<Tensor> {
        check_patches(&self.config, "masked", masked)?;
        if masked.size() != pred.size() {
            return Err(shape(
                "masked",
                masked,
                format!("{:?}, as the prediction", pred.size()),
            ));
        }
        let target = self.target(masked).0;
        Ok((pred.to_kind(Kind::Float) - target)
            .square()
            .mean(Kind::Float))
    }

    /// Predictions as pixel values 0..255, not clamped.
    ///
    /// Under `norm_pix_loss` a prediction lacks its patch's mean and variance;
    /// they are taken from `patches`, the true ones, which no predictor would have.
    ///
    /// # Shapes
    /// - `pred`, `patches`: `[.., patch_dim]`, the same shape; `patches` u8 or normalised f32
    /// - returns the same shape, f32
    pub fn to_pixels(&self, pred: &Tensor, patches: &Tensor) -> Tensor {
        let pred = pred.to_kind(Kind::Float);
        match self.target(patches).1 {
            Some((mean, std)) => self.pixels.denormalize(&(pred * std + mean)),
            None => self.pixels.denormalize(&pred),
        }
    }

    /// What the decoder should predict, and under `norm_pix_loss` the mean and deviation taken out of it.
    fn target(&self, patches: &Tensor) -> (Tensor, Option<(Tensor, Tensor)>) {
        let pixels = self.pixels.normalize(patches);
        if !self.config.norm_pix_loss {
            return (pixels, None);
        }
        let mean = pixels.mean_dim(-1i64, true, Kind::Float);
        let std = (pixels.var_dim(-1i64, true, true) + 1e-6).sqrt();
        ((pixels - &mean) / &std, Some((mean, std)))
    }

    fn check_latent(&self, latent: &Tensor, ids_shuffle: &Tensor) -> Result<()> {
        check_ids(&self.config, "ids_shuffle", ids_shuffle, None)?;
        let (size, dim) = (latent.size(), self.config.embed_dim as i64);
        let [batch, patches] = ids_shuffle.size()[..] else {
            unreachable!("checked above")
        };
        if size.len() != 3
            || size[0] != batch
            || !(2..=patches).contains(&size[1])
            || size[2] != dim
        {
            return Err(shape(
                "latent",
                latent,
                format!("[{batch}, 1 + kept, {dim}] with 0 < kept < {patches}"),
            ));
        }
        Ok(())
    }
}

/// Mask tokens where patches are hidden, positions on all tokens, a few blocks, a linear head to pixels.
#[derive(Debug)]
struct Decoder {
    embed: nn::Linear,
    mask_token: Tensor,
    pos_embed: Tensor,
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
    pred: nn::Linear,
}

impl Decoder {
    fn new(path: &Path, config: &MaeConfig) -> Self {
        let (dim, p) = (config.decoder_embed_dim as i64, config.patch_size);
        let block = BlockShape::decoder(config);
        Self {
            embed: linear(&(path / "decoder_embed"), config.embed_dim as i64, dim),
            mask_token: path.zeros("mask_token", &[1, 1, dim]),
            pos_embed: positions(path, "decoder_pos_embed", config, config.decoder_embed_dim),
            blocks: (0..config.decoder_depth)
                .map(|i| Block::new(&(path / "decoder_blocks" / i), &block))
                .collect(),
            norm: layer_norm(&(path / "decoder_norm"), &block),
            pred: linear(
                &(path / "decoder_pred"),
                dim,
                (p * p * config.channels) as i64,
            ),
        }
    }

    /// Predictions for the tokens from `first` on, in shuffled order; token 0 is the class token.
    fn forward_from(&self, latent: &Tensor, ids_shuffle: &Tensor, first: i64) -> Tensor {
        let [batch, patches] = ids_shuffle.size()[..] else {
            unreachable!("ids_shuffle is [batch, patches]")
        };
        let visible = latent.apply(&self.embed);
        let masked = 1 + patches - visible.size()[1];
        let mask_tokens = self.mask_token.expand([batch, masked, -1], false);
        let cls_position = self
            .pos_embed
            .narrow(1, 0, 1)
            .expand([batch, -1, -1], false);
        let position = Tensor::cat(
            &[cls_position, gather_positions(&self.pos_embed, ids_shuffle)],
            1,
        );
        let tokens = Tensor::cat(&[visible, mask_tokens], 1) + position;

        let (last, blocks) = self
            .blocks
            .split_last()
            .expect("a valid config has a decoder block");
        let tokens = blocks
            .iter()
            .fold(tokens, |tokens, block| block.forward(&tokens));
        last.forward_from(&tokens, first)
            .apply(&self.norm)
            .apply(&self.pred)
    }
}

pub(crate) fn check_patches(
    config: &MaeConfig,
    name: &'static str,
    patches: &Tensor,
) -> Result<()> {
    let patch_dim = (config.patch_size * config.patch_size * config.channels) as i64;
    let size = patches.size();
    if size.len() != 3 || size[2] != patch_dim || size[1] == 0 {
        return Err(shape(
            name,
            patches,
            format!("[batch, patches, {patch_dim}]"),
        ));
    }
    if !matches!(patches.kind(), Kind::Uint8 | Kind::Float) {
        return Err(shape(
            name,
            patches,
            format!("dtype u8 or f32, not {:?}", patches.kind()),
        ));
    }
    Ok(())
}

/// Checks ids of patches: `expected` is their shape, or `[any, patches]`.
fn check_ids(
    config: &MaeConfig,
    name: &'static str,
    ids: &Tensor,
    expected: Option<&[i64]>,
) -> Result<()> {
    let patches =
        (config.image_height / config.patch_size * (config.image_width / config.patch_size)) as i64;
    let size = ids.size();
    let fits = match expected {
        Some(expected) => size == expected,
        None => size.len() == 2 && size[1] == patches,
    };
    if !fits || ids.kind() != Kind::Int64 {
        let expected = expected.map_or(format!("[batch, {patches}]"), |e| format!("{e:?}"));
        return Err(shape(name, ids, format!("{expected} of i64")));
    }
    Ok(())
}

pub(crate) fn shape(name: &'static str, tensor: &Tensor, expected: String) -> ModelError {
    ModelError::Shape {
        name,
        found: tensor.size(),
        expected,
    }
}

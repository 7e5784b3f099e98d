//! The Masked Autoencoder: encode the visible patches, decode all of them, compare the masked ones.
//!
//! Everything here runs in *shuffled* order: a mask is a permutation `ids_shuffle` of the image's patches
//! of which the first `kept` are visible. Attention does not care for the order of its tokens, only for their
//! positions, so the decoder takes the visible latents, appends mask tokens, adds the positions of
//! `ids_shuffle`, and the masked patches are the last rows: nothing is gathered back.
//! [`MaskedAutoencoderViT::predict`] unshuffles, for those who want a picture.
//!
//! Source: He et al. 2021, arXiv 2111.06377, section 3.

use std::cell::Cell;
use std::collections::BTreeMap;
use tch::nn::{self, Path};
use tch::{Device, Kind, Tensor};

#[cfg(doc)]
use crate::ModelError;
use crate::error::{invalid, shape};
use crate::kernels::Kernels;
use crate::normalization::PixelScale;
use crate::pca::Pca;
use crate::statistics::Gaps;
use crate::target::{Objective, unshuffle};
use crate::vit::{
    Block, BlockShape, VisionTransformer, gather_positions, initialize, layer_norm, linear,
    positions,
};
use crate::{LossRegion, MaeConfig, Normalization, PatchStatistics, Result, Target, Tokenizer};

/// A Masked Autoencoder with a ViT encoder and decoder. It owns its parameters.
#[derive(Debug)]
pub struct MaskedAutoencoderViT {
    config: MaeConfig,
    normalization: Normalization,
    vs: nn::VarStore,
    encoder: VisionTransformer,
    /// What the encoder sees in place of a hidden patch, if it sees anything.
    encoder_mask_token: Option<Tensor>,
    decoder: Decoder,
    objective: Objective,
    /// Whether the objective has what it must have learned beforehand.
    objective_is_set: Cell<bool>,
    pixels: PixelScale,
}

impl MaskedAutoencoderViT {
    /// A model with fresh weights, the same for a `seed` on every device.
    ///
    /// What its target must have learned beforehand is still to be given, by [`set_pca`](Self::set_pca),
    /// [`set_tokenizer`](Self::set_tokenizer) or a checkpoint; pixels need nothing.
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
        let encoder_mask_token = (config.encoder_mask_tokens)
            .then(|| (vs.root()).zeros("encoder_mask_token", &[1, 1, config.embed_dim as i64]));
        let decoder = Decoder::new(&vs.root(), config);
        initialize(&vs, seed);
        let pixels = PixelScale::new(normalization, config.patch_size * config.patch_size, device);
        Ok(Self {
            config: config.clone(),
            normalization: normalization.clone(),
            vs,
            encoder,
            encoder_mask_token,
            decoder,
            objective: Objective::new(config, normalization, device)?,
            objective_is_set: Cell::new(config.target == Target::Pixels),
            pixels,
        })
    }

    /// The dimensions it was built with.
    pub fn config(&self) -> &MaeConfig {
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

    /// Chooses the code that computes the transformer blocks; [`Kernels::Auto`] at first.
    pub fn set_kernels(&mut self, kernels: Kernels) {
        self.encoder.set_kernels(kernels);
        (self.decoder.blocks.iter_mut()).for_each(|block| block.kernels = kernels);
    }

    /// Every parameter by its native key, in the keys' order, with what does not train: positions, and under
    /// `target.` what the target learned beforehand. The tensors are shared.
    pub fn parameters(&self) -> BTreeMap<String, Tensor> {
        let mut parameters: BTreeMap<_, _> = self.vs.variables().into_iter().collect();
        parameters.extend(self.objective.tensors());
        parameters
    }

    /// Gives the principal components whose coefficients are predicted.
    ///
    /// # Errors
    /// [`ModelError::Config`] if the target is another, [`ModelError::Shape`] if they are of other patches or more or
    /// fewer than [`MaeConfig::pca_components`].
    pub fn set_pca(&self, pca: &Pca) -> Result<()> {
        self.objective.set_pca(&self.config, pca)?;
        self.objective_is_set.set(true);
        Ok(())
    }

    /// Gives the tokenizer whose tokens are predicted; its weights are copied.
    ///
    /// # Errors
    /// [`ModelError::Config`] if the target is another, or the tokenizer is not that of [`MaeConfig::tokenizer`] with
    /// the normalisation of this model.
    pub fn set_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        self.objective.set_tokenizer(&self.config, tokenizer)?;
        self.objective_is_set.set(true);
        Ok(())
    }

    /// Notes that all of [`parameters`](Self::parameters) were filled, from a checkpoint or by another process.
    pub fn note_loaded(&self) {
        self.objective_is_set.set(true);
    }

    /// Mean loss of a batch over the patches of [`MaeConfig::loss_region`].
    ///
    /// # Shapes
    /// - `visible`: `[batch, kept, patch_dim]`, u8, or f32 in the units of mean and standard deviation
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
        let latent = self.forward_encoder(visible, ids_shuffle)?;
        let first = match self.config.loss_region {
            LossRegion::Masked => visible.size()[1],
            LossRegion::All => 0,
        };
        let pred = self.forward_decoder(&latent, ids_shuffle, first)?;
        let target = self.target(visible, masked, ids_shuffle)?;
        self.check_pred(&pred, &target)?;
        Ok(self.objective.loss(&pred, &target, Gaps::of(masked)))
    }

    /// Encodes the visible patches only; under [`MaeConfig::encoder_mask_tokens`] with mask tokens in place of the
    /// hidden ones.
    ///
    /// # Shapes
    /// - `visible`: `[batch, kept, patch_dim]`, u8, or f32 in the units of mean and standard deviation
    /// - `ids_shuffle`: `[batch, patches]`, i64; the first `kept` are the visible patches' places
    /// - returns `[batch, 1 + kept, embed_dim]`, class token first; with mask tokens `[batch, 1 + patches, embed_dim]`
    ///
    /// # Errors
    /// [`ModelError::Shape`] if they disagree.
    ///
    /// Source: He et al. 2021, section 3, "MAE encoder".
    pub fn forward_encoder(&self, visible: &Tensor, ids_shuffle: &Tensor) -> Result<Tensor> {
        check_patches(&self.config, "visible", visible)?;
        let [batch, patches] = check_ids(&self.config, ids_shuffle)?;
        let kept = visible.size()[1];
        if visible.size()[0] != batch || kept > patches {
            let expected = format!("[{batch}, kept, patch_dim] with 0 < kept <= {patches}");
            return Err(shape("visible", visible, expected));
        }
        let ids = match self.encoder_mask_token {
            Some(_) => ids_shuffle.shallow_clone(),
            None => ids_shuffle.narrow(1, 0, kept),
        };
        let visible = self.pixels.normalize(visible);
        Ok(self
            .encoder
            .forward(&visible, &ids, self.encoder_mask_token.as_ref()))
    }

    /// Predicts patches from one on, in shuffled order: those at `ids_shuffle[first..]`.
    ///
    /// With the number of visible patches as `first` these are the masked ones, with 0 all.
    /// The decoder's last block and its head compute nothing for the others.
    ///
    /// # Shapes
    /// - `latent`: `[batch, 1 + kept, embed_dim]`, or what else [`forward_encoder`](Self::forward_encoder) gave
    /// - `ids_shuffle`: `[batch, patches]`, i64
    /// - returns `[batch, patches - first, target_dim]`, see [`MaeConfig::target_dim`]
    ///
    /// # Errors
    /// [`ModelError::Shape`] if they disagree, [`ModelError::Config`] if there is no patch `first`.
    ///
    /// Source: He et al. 2021, section 3, "MAE decoder".
    pub fn forward_decoder(
        &self,
        latent: &Tensor,
        ids_shuffle: &Tensor,
        first: i64,
    ) -> Result<Tensor> {
        let patches = self.check_latent(latent, ids_shuffle)?;
        if !(0..patches).contains(&first) {
            let expected = format!("a patch, from 0 to {}", patches - 1);
            return Err(invalid("first", first, expected));
        }
        // The class token comes before the patches.
        Ok(self.decoder.forward_from(latent, ids_shuffle, 1 + first))
    }

    /// Predicts every patch, visible ones too, in the image's order.
    ///
    /// # Shapes
    /// - `latent`: `[batch, 1 + kept, embed_dim]`, or what else [`forward_encoder`](Self::forward_encoder) gave
    /// - `ids_shuffle`: `[batch, patches]`, i64
    /// - returns `[batch, patches, target_dim]`
    ///
    /// # Errors
    /// [`ModelError::Shape`] if they disagree.
    pub fn predict(&self, latent: &Tensor, ids_shuffle: &Tensor) -> Result<Tensor> {
        let shuffled = self.forward_decoder(latent, ids_shuffle, 0)?;
        Ok(unshuffle(&shuffled, ids_shuffle))
    }

    /// What the decoder should predict of the patches of [`MaeConfig::loss_region`], in shuffled order.
    ///
    /// Where values are missing (NaN), pixels of the target are NaN, too. Under `norm_pix_loss` a patch's mean and
    /// deviation are of the values that it has. Coefficients and tokens are of the patch with the channels' means in the
    /// gaps, or NaN and -100 where a patch has no value at all.
    ///
    /// # Shapes
    /// - `visible`: `[batch, kept, patch_dim]`, u8, or f32 in the units of mean and standard deviation
    /// - `masked`: `[batch, patches - kept, patch_dim]`, likewise
    /// - `ids_shuffle`: `[batch, patches]`, i64
    /// - returns `[batch, n, target_dim]` in f32, or token ids `[batch, n]`; `n` is `patches - kept`, or `patches` if
    ///   the loss is over all
    ///
    /// # Errors
    /// [`ModelError::Shape`] if they disagree with each other or the model,
    /// [`ModelError::Config`] if the target lacks what it must have learned beforehand.
    ///
    /// Source: He et al. 2021, section 3, "Reconstruction target".
    pub fn target(
        &self,
        visible: &Tensor,
        masked: &Tensor,
        ids_shuffle: &Tensor,
    ) -> Result<Tensor> {
        self.check_objective()?;
        check_patches(&self.config, "visible", visible)?;
        check_patches(&self.config, "masked", masked)?;
        let [batch, patches] = check_ids(&self.config, ids_shuffle)?;
        let hidden = patches - visible.size()[1];
        if visible.size()[0] != batch || masked.size()[..2] != [batch, hidden] {
            let expected = format!("[{batch}, {hidden}, {}]", self.config.patch_dim());
            return Err(shape("masked", masked, expected));
        }
        let gaps = Gaps::of(masked);
        let (visible, masked) = (
            self.pixels.normalize_known(visible),
            self.pixels.normalize_known(masked),
        );
        let region = self.config.loss_region;
        self.objective
            .target(&visible, &masked, ids_shuffle, region, gaps)
    }

    /// Mean squared error, or for tokens cross-entropy in nats; in f32 whatever autocast does.
    ///
    /// What the target lacks is left out: pixels that are NaN, coefficients and tokens (-100) of patches without any
    /// value. The loss is the mean over images of each one's mean over the rest, or 0 where there is no rest; with
    /// nothing missing that is the mean over all.
    ///
    /// # Shapes
    /// - `pred`: `[batch, n, target_dim]`; `target`: the same shape, or token ids `[batch, n]`
    /// - returns a scalar, f32
    ///
    /// # Errors
    /// [`ModelError::Shape`] if they disagree.
    pub fn forward_loss(&self, pred: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.check_pred(pred, target)?;
        Ok(self.objective.loss(pred, target, Gaps::Nan))
    }

    fn check_pred(&self, pred: &Tensor, target: &Tensor) -> Result<()> {
        let (size, width) = (pred.size(), self.config.target_dim() as i64);
        let expected = match target.size()[..] {
            [batch, n] if self.config.target == Target::Tokens => vec![batch, n, width],
            _ => target.size(),
        };
        if size != expected || size.last() != Some(&width) {
            let expected = format!("{expected:?}, as the target");
            return Err(shape("pred", pred, expected));
        }
        Ok(())
    }

    /// The ways in which its predictions can be made pixels, for [`to_pixels`](Self::to_pixels): all of them under
    /// `norm_pix_loss`, else as they are.
    pub fn statistics(&self) -> &'static [PatchStatistics] {
        match self.config.norm_pix_loss {
            true => &PatchStatistics::ALL,
            false => &[PatchStatistics::Raw],
        }
    }

    /// Predictions as pixel values in the units of mean and standard deviation (0..1 for usual images), not clamped.
    ///
    /// Under `norm_pix_loss` a prediction lacks its patch's mean and deviation; `statistics` says where they come from.
    /// The likeliest tokens of hidden patches are decoded beside the true ones of visible patches.
    ///
    /// # Shapes
    /// - `pred`: `[batch, patches, target_dim]`, in the image's order
    /// - `patches`: `[batch, patches, patch_dim]`, the true ones, likewise; u8, or f32 in the units of mean and standard
    ///   deviation. Hidden ones are looked at by [`PatchStatistics::Oracle`] alone
    /// - `ids_keep`: `[batch, kept]`, i64; the visible patches' places
    /// - returns `[batch, patches, patch_dim]`, f32
    ///
    /// # Errors
    /// [`ModelError::Shape`] if they disagree with each other or the model,
    /// [`ModelError::Config`] if the target lacks what it must have learned beforehand, or if `statistics` is not among
    /// [`statistics`](Self::statistics).
    pub fn to_pixels(
        &self,
        pred: &Tensor,
        patches: &Tensor,
        ids_keep: &Tensor,
        statistics: PatchStatistics,
    ) -> Result<Tensor> {
        self.check_objective()?;
        self.check_statistics(statistics)?;
        check_patches(&self.config, "patches", patches)?;
        let [batch, n] = [patches.size()[0], patches.size()[1]];
        if n != self::patches(&self.config) {
            let [all, dim] = [self::patches(&self.config), patches.size()[2]];
            let expected = format!("[batch, {all}, {dim}], all patches of an image");
            return Err(shape("patches", patches, expected));
        }
        let width = self.config.target_dim() as i64;
        if pred.size() != [batch, n, width] {
            return Err(shape("pred", pred, format!("[{batch}, {n}, {width}]")));
        }
        if ids_keep.dim() != 2 || ids_keep.size()[0] != batch {
            return Err(shape("ids_keep", ids_keep, format!("[{batch}, kept]")));
        }
        let gaps = Gaps::of(patches);
        let patches = self.pixels.normalize_known(patches);
        let columns = (self.config.image_width / self.config.patch_size) as i64;
        let pixels = self
            .objective
            .to_pixels(pred, &patches, ids_keep, columns, statistics, gaps)?;
        Ok(self.pixels.denormalize(&pixels))
    }

    fn check_statistics(&self, statistics: PatchStatistics) -> Result<()> {
        if self.statistics().contains(&statistics) {
            return Ok(());
        }
        let expected = format!(
            "\"raw\": this model predicts {}, which lack no mean and deviation",
            match self.config.target {
                Target::Pixels => "pixels that are not normalised by their patch",
                Target::Pca => "principal components",
                Target::Tokens => "tokens",
            }
        );
        let found = format!("{:?}", statistics.name());
        Err(invalid("statistics", found, expected))
    }

    fn check_objective(&self) -> Result<()> {
        if self.objective_is_set.get() {
            return Ok(());
        }
        let (key, expected) = match self.config.target {
            Target::Tokens => ("tokenizer", "`set_tokenizer` or a checkpoint before"),
            Target::Pixels | Target::Pca => ("pca", "`set_pca` or a checkpoint before"),
        };
        Err(invalid(key, "not set", expected.into()))
    }

    /// Checks what the decoder is given; returns the number of patches.
    fn check_latent(&self, latent: &Tensor, ids_shuffle: &Tensor) -> Result<i64> {
        let [batch, patches] = check_ids(&self.config, ids_shuffle)?;
        let (size, dim) = (latent.size(), self.config.embed_dim as i64);
        let (tokens, expected) = match self.config.encoder_mask_tokens {
            true => (
                1 + patches..=1 + patches,
                format!("[{batch}, {}, {dim}]", 1 + patches),
            ),
            false => (
                2..=patches,
                format!("[{batch}, 1 + kept, {dim}] with 0 < kept < {patches}"),
            ),
        };
        if size.len() != 3 || size[0] != batch || !tokens.contains(&size[1]) || size[2] != dim {
            return Err(shape("latent", latent, expected));
        }
        Ok(patches)
    }
}

/// Mask tokens where patches are hidden, positions on all tokens, a few blocks, a linear head.
#[derive(Debug)]
struct Decoder {
    embed: nn::Linear,
    /// None where the encoder has seen mask tokens.
    mask_token: Option<Tensor>,
    pos_embed: Tensor,
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
    pred: nn::Linear,
}

impl Decoder {
    fn new(path: &Path, config: &MaeConfig) -> Self {
        let dim = config.decoder_embed_dim as i64;
        let block = BlockShape::decoder(config);
        Self {
            embed: linear(&(path / "decoder_embed"), config.embed_dim as i64, dim),
            mask_token: (!config.encoder_mask_tokens)
                .then(|| path.zeros("mask_token", &[1, 1, dim])),
            pos_embed: positions(path, "decoder_pos_embed", config, config.decoder_embed_dim),
            blocks: (0..config.decoder_depth)
                .map(|i| Block::new(&(path / "decoder_blocks" / i), &block))
                .collect(),
            norm: layer_norm(&(path / "decoder_norm"), &block),
            pred: linear(&(path / "decoder_pred"), dim, config.target_dim() as i64),
        }
    }

    /// Predictions for the tokens from `first` on, in shuffled order; token 0 is the class token.
    fn forward_from(&self, latent: &Tensor, ids_shuffle: &Tensor, first: i64) -> Tensor {
        let [batch, patches] = ids_shuffle.size()[..] else {
            unreachable!("ids_shuffle is [batch, patches]")
        };
        let mut tokens = latent.apply(&self.embed);
        if let Some(mask_token) = &self.mask_token {
            let masked = 1 + patches - tokens.size()[1];
            let mask_tokens = mask_token.expand([batch, masked, -1], false);
            tokens = Tensor::cat(&[tokens, mask_tokens], 1);
        }
        let cls_position = self
            .pos_embed
            .narrow(1, 0, 1)
            .expand([batch, -1, -1], false);
        let position = Tensor::cat(
            &[cls_position, gather_positions(&self.pos_embed, ids_shuffle)],
            1,
        );
        let tokens = tokens + position;

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

/// The patches of an image.
fn patches(config: &MaeConfig) -> i64 {
    let side = config.patch_size;
    (config.image_height / side * (config.image_width / side)) as i64
}

pub(crate) fn check_patches(
    config: &MaeConfig,
    name: &'static str,
    patches: &Tensor,
) -> Result<()> {
    let patch_dim = config.patch_dim() as i64;
    let size = patches.size();
    if size.len() != 3 || size[2] != patch_dim || size[1] == 0 {
        let expected = format!("[batch, patches, {patch_dim}]");
        return Err(shape(name, patches, expected));
    }
    if !matches!(patches.kind(), Kind::Uint8 | Kind::Float) {
        let expected = format!("dtype u8 or f32, not {:?}", patches.kind());
        return Err(shape(name, patches, expected));
    }
    Ok(())
}

/// Checks that `ids_shuffle` has all patches of each image, and returns its shape.
fn check_ids(config: &MaeConfig, ids_shuffle: &Tensor) -> Result<[i64; 2]> {
    let patches = patches(config);
    match ids_shuffle.size()[..] {
        [batch, n] if n == patches && ids_shuffle.kind() == Kind::Int64 => Ok([batch, n]),
        _ => {
            let expected = format!("[batch, {patches}] of i64");
            Err(shape("ids_shuffle", ids_shuffle, expected))
        }
    }
}

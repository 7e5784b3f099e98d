//! A Vision Transformer that can be given any subset of an image's patches.
//!
//! Source: Dosovitskiy et al. 2021, arXiv 2010.11929; pre-norm blocks, fused q/k/v, exact GELU.

use std::ops::Range;

use mae_kernels::MatrixProduct;
use tch::nn::{self, Module, Path};
use tch::{Kind, Tensor};

use crate::drop_path::DropPath;
use crate::fused::fused_block;
use crate::kernels::Kernels;
use crate::pos_embed::sincos_2d;
use crate::{MaeConfig, init};

/// The encoder: patches to tokens, positions and a class token added, blocks, a norm.
#[derive(Debug)]
pub struct VisionTransformer {
    patch_embed: PatchEmbed,
    cls_token: Tensor,
    pos_embed: Tensor,
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
}

impl VisionTransformer {
    /// Creates the parameters under `path`: `patch_embed`, `cls_token`, `pos_embed`, `blocks.N`, `norm`.
    ///
    /// `config` must have passed [`MaeConfig::validate`].
    pub fn new(path: &Path, config: &MaeConfig) -> Self {
        Self::with_norm_key(path, config, "norm")
    }

    /// [`new`](Self::new) with the last norm under another key: `fc_norm` where it comes after pooling.
    pub(crate) fn with_norm_key(path: &Path, config: &MaeConfig, norm_key: &str) -> Self {
        let dim = config.embed_dim as i64;
        let shape = BlockShape::encoder(config);
        Self {
            patch_embed: PatchEmbed::new(&(path / "patch_embed"), config),
            cls_token: path.zeros("cls_token", &[1, 1, dim]),
            pos_embed: positions(path, "pos_embed", config, config.embed_dim),
            blocks: (0..config.depth)
                .map(|i| Block::new(&(path / "blocks" / i), &shape))
                .collect(),
            norm: layer_norm(&(path / norm_key), &shape),
        }
    }

    /// Chooses the code that computes the blocks.
    pub fn set_kernels(&mut self, kernels: Kernels) {
        (self.blocks.iter_mut()).for_each(|block| block.kernels = kernels);
    }

    /// From now on computes by operations that PyTorch has had since 2.1, so that what is recorded can be loaded there.
    pub(crate) fn prepare_recording(&mut self) {
        for block in &mut self.blocks {
            block.kernels = Kernels::Plain;
            block.attn.is_recorded = true;
        }
    }

    /// Encodes the patches it is given; for each further place a `mask_token`, if there is one, and else nothing.
    ///
    /// # Shapes
    /// - `patches`: `[batch, kept, patch_dim]`, normalised f32
    /// - `ids`: `[batch, n]`, i64: where in the image each patch is, and then each mask token;
    ///   `n` is `kept` without a `mask_token`
    /// - `mask_token`: `[1, 1, embed_dim]`
    /// - returns `[batch, 1 + n, embed_dim]`, class token first
    pub fn forward(&self, patches: &Tensor, ids: &Tensor, mask_token: Option<&Tensor>) -> Tensor {
        let (batch, kept) = (patches.size()[0], patches.size()[1]);
        let mut tokens = self.patch_embed.forward(patches);
        if let Some(mask_token) = mask_token {
            let mask_tokens = mask_token.expand([batch, ids.size()[1] - kept, -1], false);
            tokens = Tensor::cat(&[tokens, mask_tokens], 1);
        }
        let tokens = tokens + gather_positions(&self.pos_embed, ids);
        let cls_token =
            (&self.cls_token + self.pos_embed.narrow(1, 0, 1)).expand([batch, -1, -1], false);
        let tokens = Tensor::cat(&[cls_token, tokens], 1);
        let tokens = self.forward_blocks(tokens, 0..self.blocks.len(), None);
        self.norm(&tokens)
    }

    /// The tokens of whole images, before the first block: no gather, as no patch is missing.
    ///
    /// `[batch, patches, patch_dim]`, normalised f32, to `[batch, 1 + patches, embed_dim]`.
    pub(crate) fn embed(&self, patches: &Tensor) -> Tensor {
        let tokens = self.patch_embed.forward(patches);
        // Expanded as the tokens are, not to a number of images: a recording of it takes any number.
        let cls_token = self.cls_token.expand_as(&tokens.narrow(1, 0, 1));
        Tensor::cat(&[cls_token, tokens], 1) + &self.pos_embed
    }

    /// Applies some of the blocks: `[batch, n, embed_dim]` to the same shape.
    pub(crate) fn forward_blocks(
        &self,
        tokens: Tensor,
        range: Range<usize>,
        drop_path: Option<&DropPath>,
    ) -> Tensor {
        range.fold(tokens, |tokens, i| {
            match drop_path.and_then(|drop_path| drop_path.scales(i)) {
                Some(scales) => self.blocks[i].forward_scaled(&tokens, scales),
                None => self.blocks[i].forward(&tokens),
            }
        })
    }

    /// How much the first token heeds each token in block `block`, whose input `tokens` is:
    /// `[batch, n, embed_dim]` to `[batch, heads, n]`, which sum up to 1.
    pub(crate) fn attention_of_first(&self, tokens: &Tensor, block: usize) -> Tensor {
        let Block { norm1, attn, .. } = &self.blocks[block];
        attn.shares_of_first(&tokens.apply(norm1))
    }

    /// The last norm, of any `[.., embed_dim]`.
    pub(crate) fn norm(&self, tokens: &Tensor) -> Tensor {
        tokens.apply(&self.norm)
    }

    /// The positions, `[1, 1 + patches, embed_dim]`; the tensor is shared.
    pub(crate) fn pos_embed(&self) -> &Tensor {
        &self.pos_embed
    }
}

/// Positions of the patches `ids`, one row each.
///
/// # Shapes
/// - `pos_embed`: `[1, 1 + patches, dim]`; `ids`: `[batch, n]`, i64
/// - returns `[batch, n, dim]`
pub(crate) fn gather_positions(pos_embed: &Tensor, ids: &Tensor) -> Tensor {
    let size = ids.size();
    let rows = pos_embed.get(0).narrow(0, 1, pos_embed.size()[1] - 1);
    rows.index_select(0, &ids.reshape([-1]))
        .view([size[0], size[1], -1])
}

/// Fixed positions, kept beside the weights as the public checkpoints keep them.
pub(crate) fn positions(path: &Path, key: &str, config: &MaeConfig, dim: usize) -> Tensor {
    let (rows, columns) = (
        config.image_height / config.patch_size,
        config.image_width / config.patch_size,
    );
    let values = sincos_2d(rows, columns, dim);
    let mut buffer = path.zeros_no_train(key, &values.size());
    buffer.copy_(&values);
    buffer
}

/// Linear projection of flattened patches, stored as the convolution `[dim, channels, p, p]` that it equals.
#[derive(Debug)]
struct PatchEmbed {
    weight: Tensor,
    bias: Tensor,
}

impl PatchEmbed {
    fn new(path: &Path, config: &MaeConfig) -> Self {
        let path = path / "proj";
        let (dim, p) = (config.embed_dim as i64, config.patch_size as i64);
        Self {
            weight: path.zeros("weight", &[dim, config.channels as i64, p, p]),
            bias: path.zeros("bias", &[dim]),
        }
    }

    fn forward(&self, patches: &Tensor) -> Tensor {
        // A patch row is (row, column, channel), the kernel (channel, row, column).
        let weight = self.weight.permute([0, 2, 3, 1]).flatten(1, 3);
        patches.linear(&weight, Some(&self.bias))
    }
}

/// The dimensions of one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockShape {
    dim: i64,
    heads: i64,
    hidden: i64,
    eps: f64,
}

impl BlockShape {
    pub fn encoder(config: &MaeConfig) -> Self {
        Self::new(config.embed_dim, config.num_heads, config)
    }

    pub fn decoder(config: &MaeConfig) -> Self {
        Self::new(config.decoder_embed_dim, config.decoder_num_heads, config)
    }

    fn new(dim: usize, heads: usize, config: &MaeConfig) -> Self {
        let hidden = (dim as f64 * config.mlp_ratio) as i64;
        Self {
            dim: dim as i64,
            heads: heads as i64,
            hidden,
            eps: config.layer_norm_eps,
        }
    }
}

/// A pre-norm transformer block.
#[derive(Debug)]
pub(crate) struct Block {
    norm1: nn::LayerNorm,
    attn: Attention,
    norm2: nn::LayerNorm,
    mlp: Mlp,
    eps: f64,
    pub kernels: Kernels,
}

impl Block {
    pub fn new(path: &Path, shape: &BlockShape) -> Self {
        Self {
            norm1: layer_norm(&(path / "norm1"), shape),
            attn: Attention::new(&(path / "attn"), shape),
            norm2: layer_norm(&(path / "norm2"), shape),
            mlp: Mlp::new(&(path / "mlp"), shape),
            eps: shape.eps,
            kernels: Kernels::default(),
        }
    }

    /// `[batch, n, dim]` to the same shape.
    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        self.forward_from(tokens, 0)
    }

    /// The block's results for the tokens from `first` on: `[batch, n - first, dim]`.
    ///
    /// The earlier tokens are attended to, and nothing else is computed for them.
    pub fn forward_from(&self, tokens: &Tensor, first: i64) -> Tensor {
        if let Some(product) = self.kernels.product(tokens) {
            return self.fused(product, tokens, first, None);
        }
        let attended = self.attention_branch(tokens, first);
        let tokens = tokens.narrow(1, first, tokens.size()[1] - first) + attended;
        &tokens + self.mlp_branch(&tokens)
    }

    /// [`forward`](Self::forward) with each residual branch scaled, for every image by a factor of its own.
    pub fn forward_scaled(&self, tokens: &Tensor, scales: &[Tensor; 2]) -> Tensor {
        if let Some(product) = self.kernels.product(tokens) {
            return self.fused(product, tokens, 0, Some(scales));
        }
        let [attn, mlp] = scales;
        let tokens = tokens + self.attention_branch(tokens, 0) * attn;
        &tokens + self.mlp_branch(&tokens) * mlp
    }

    fn fused(
        &self,
        product: &'static dyn MatrixProduct,
        tokens: &Tensor,
        first: i64,
        scales: Option<&[Tensor; 2]>,
    ) -> Tensor {
        let heads = self.attn.heads;
        fused_block(
            product,
            tokens,
            self.weights(),
            heads,
            self.eps,
            first,
            scales,
        )
    }

    /// The parameters in the order of a checkpoint's keys.
    fn weights(&self) -> [&Tensor; 12] {
        let Self {
            norm1,
            attn,
            norm2,
            mlp,
            ..
        } = self;
        [
            norm1.ws.as_ref(),
            norm1.bs.as_ref(),
            Some(&attn.qkv.ws),
            attn.qkv.bs.as_ref(),
            Some(&attn.proj.ws),
            attn.proj.bs.as_ref(),
            norm2.ws.as_ref(),
            norm2.bs.as_ref(),
            Some(&mlp.fc1.ws),
            mlp.fc1.bs.as_ref(),
            Some(&mlp.fc2.ws),
            mlp.fc2.bs.as_ref(),
        ]
        .map(|weight| weight.expect("every layer of a block has a bias"))
    }

    fn attention_branch(&self, tokens: &Tensor, first: i64) -> Tensor {
        self.attn.forward_from(&tokens.apply(&self.norm1), first)
    }

    fn mlp_branch(&self, tokens: &Tensor) -> Tensor {
        tokens.apply(&self.norm2).apply(&self.mlp)
    }
}

/// Multi-head self-attention with q, k and v in one matrix.
#[derive(Debug)]
struct Attention {
    qkv: nn::Linear,
    proj: nn::Linear,
    heads: i64,
    /// Does without libtorch's own attention, which has another signature in every few versions.
    is_recorded: bool,
}

impl Attention {
    fn new(path: &Path, shape: &BlockShape) -> Self {
        Self {
            qkv: linear(&(path / "qkv"), shape.dim, 3 * shape.dim),
            proj: linear(&(path / "proj"), shape.dim, shape.dim),
            heads: shape.heads,
            is_recorded: false,
        }
    }

    /// `[batch, n, dim]` to what the tokens from `first` on gather: `[batch, n - first, dim]`.
    fn forward_from(&self, tokens: &Tensor, first: i64) -> Tensor {
        let (n, dim) = (tokens.size()[1], tokens.size()[2]);
        let [q, k, v] = if first == 0 {
            self.split_heads(&tokens.apply(&self.qkv))
        } else {
            let queries = tokens.narrow(1, first, n - first);
            let [q] = self.split_heads(&self.project_rows(&queries, 0, dim));
            let [k, v] = self.split_heads(&self.project_rows(tokens, dim, 2 * dim));
            [q, k, v]
        };
        let attended = match self.is_recorded {
            true => shares(&q, &k).matmul(&v),
            false => Tensor::scaled_dot_product_attention::<&Tensor>(
                &q, &k, &v, None, 0.0, false, None, false,
            ),
        };
        attended.transpose(1, 2).flatten(2, 3).apply(&self.proj)
    }

    /// `[batch, n, dim]` to how much the first token heeds each: `[batch, heads, n]`.
    fn shares_of_first(&self, tokens: &Tensor) -> Tensor {
        let [q, k, _] = self.split_heads(&tokens.apply(&self.qkv));
        shares(&q.narrow(2, 0, 1), &k).squeeze_dim(2)
    }

    /// Applies `rows` rows of the q/k/v matrix, from `start` on.
    fn project_rows(&self, tokens: &Tensor, start: i64, rows: i64) -> Tensor {
        let bias = self.qkv.bs.as_ref().map(|bias| bias.narrow(0, start, rows));
        tokens.linear(&self.qkv.ws.narrow(0, start, rows), bias.as_ref())
    }

    /// `[batch, n, PARTS * dim]` to `PARTS` of `[batch, heads, n, dim / heads]`.
    fn split_heads<const PARTS: usize>(&self, x: &Tensor) -> [Tensor; PARTS] {
        let x = x
            .unflatten(2, [PARTS as i64, self.heads, -1])
            .permute([2, 0, 3, 1, 4]);
        x.unbind(0)
            .try_into()
            .expect("the first dimension is PARTS")
    }
}

/// How much each query heeds each key: `[batch, heads, m, d]` and `[batch, heads, n, d]` to `[batch, heads, m, n]`.
fn shares(q: &Tensor, k: &Tensor) -> Tensor {
    let scale = (q.size()[3] as f64).sqrt().recip();
    let scores = (q * scale).matmul(&k.transpose(2, 3));
    scores.softmax(-1, None::<Kind>)
}

/// Two linear layers with an exact GELU between.
#[derive(Debug)]
struct Mlp {
    fc1: nn::Linear,
    fc2: nn::Linear,
}

impl Mlp {
    fn new(path: &Path, shape: &BlockShape) -> Self {
        Self {
            fc1: linear(&(path / "fc1"), shape.dim, shape.hidden),
            fc2: linear(&(path / "fc2"), shape.hidden, shape.dim),
        }
    }
}

impl Module for Mlp {
    fn forward(&self, tokens: &Tensor) -> Tensor {
        tokens.apply(&self.fc1).gelu("none").apply(&self.fc2)
    }
}

/// A linear layer of zeros: [`init::initialize`] fills every parameter once all exist.
pub(crate) fn linear(path: &Path, inputs: i64, outputs: i64) -> nn::Linear {
    let zeros = nn::Init::Const(0.0);
    nn::linear(
        path,
        inputs,
        outputs,
        nn::LinearConfig {
            ws_init: zeros,
            bs_init: Some(zeros),
            bias: true,
        },
    )
}

pub(crate) fn layer_norm(path: &Path, shape: &BlockShape) -> nn::LayerNorm {
    let config = nn::LayerNormConfig {
        eps: shape.eps,
        ..Default::default()
    };
    nn::layer_norm(path, vec![shape.dim], config)
}

/// Fills the trainable parameters of `vs`.
pub(crate) fn initialize(vs: &nn::VarStore, seed: u64) {
    for (key, mut parameter) in vs.variables() {
        if parameter.requires_grad() {
            debug_assert_eq!(parameter.kind(), Kind::Float);
            init::initialize(&key, &mut parameter, seed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// Against libtorch's own attention, which tells nobody its shares.
    #[test]
    fn what_the_first_token_heeds_is_what_it_gathers() {
        let vs = nn::VarStore::new(Device::Cpu);
        let attention = Attention::new(&vs.root(), &BlockShape::encoder(&MaeConfig::tiny(32)));
        initialize(&vs, 1);
        let tokens = Tensor::randn([2, 5, 192], (Kind::Float, Device::Cpu)) * 3.0;
        let shares = attention.shares_of_first(&tokens);
        assert_eq!(shares.size(), [2, 3, 5]);
        let [_, _, v] = attention.split_heads(&tokens.apply(&attention.qkv));
        let gathered = shares.unsqueeze(2).matmul(&v).flatten(1, 3);
        let expected = attention.forward_from(&tokens, 0).select(1, 0);
        let found = gathered.apply(&attention.proj);
        assert!(found.allclose(&expected, 1e-5, 1e-5, false));
        // Else any shares would do.
        assert!(
            shares
                .amax([-1i64].as_slice(), false)
                .min()
                .double_value(&[])
                > 0.25
        );
    }

    #[test]
    fn each_images_branches_are_scaled_by_its_factors() {
        let vs = nn::VarStore::new(Device::Cpu);
        let block = Block::new(&vs.root(), &BlockShape::encoder(&MaeConfig::tiny(32)));
        initialize(&vs, 1);
        let tokens = (Tensor::arange(2 * 3 * 192, (Kind::Float, Device::Cpu)) * 0.7)
            .sin()
            .view([2, 3, 192]);
        let factors = |values: [f32; 2]| Tensor::from_slice(&values).view([2, 1, 1]);
        let scaled = |attn, mlp| block.forward_scaled(&tokens, &[factors(attn), factors(mlp)]);
        let close = |a: &Tensor, b: &Tensor| ((a - b).norm() / b.norm()).double_value(&[]) < 1e-5;

        assert!(close(&scaled([1.0; 2], [1.0; 2]), &block.forward(&tokens)));
        assert_eq!(scaled([0.0; 2], [0.0; 2]), tokens);
        let mixed = scaled([2.0, 0.0], [0.0, 3.0]);
        let attention = block.attention_branch(&tokens, 0);
        let mlp = block.mlp_branch(&tokens);
        assert!(close(
            &(mixed.get(0) - tokens.get(0)),
            &(attention.get(0) * 2.0)
        ));
        assert!(close(&(mixed.get(1) - tokens.get(1)), &(mlp.get(1) * 3.0)));
    }
}

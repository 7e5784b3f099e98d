//! A pre-norm transformer block: what it computes, and the gradients of all that goes in.
//!
//! Forward, for every token `x` and those of them that are *queries*:
//!
//! ```text
//! q, k, v = norm1(x) Wqkv^T + bqkv
//! x1      = x + attention(q, k, v) Wproj^T + bproj
//! y       = x1 + gelu(norm2(x1) W1^T + b1) W2^T + b2
//! ```
//!
//! With [`BranchScales`] what is added to `x` and `x1` is first multiplied by a factor of the image.
//!
//! The images of a batch are divided among the threads in *chunks*, and a chunk goes through the whole block
//! while it is in the cache. Only the results of matrix products are kept for the way back;
//! what is cheap (norms, GELU, the softmax from its scores) is computed again there.
//! The gradients of the weights are sums over all tokens: after as many chunks as there are threads, each thread adds
//! to some rows of each.

use crate::layer_norm::LayerNorm;
use crate::matrix::Matrix;
use crate::scratch::{split, split_mut};

/// The sizes of a block and of the batch that it is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockShape {
    /// Images of the batch.
    pub images: usize,
    /// Tokens per image.
    pub tokens: usize,
    /// Results are computed for the tokens from this one on; the others are only attended to.
    pub first_query: usize,
    /// Width of a token.
    pub dim: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Width between the two layers of the MLP.
    pub hidden: usize,
    /// Added to the variance under the root of both norms.
    pub eps: f32,
}

/// The parameters of a block, or their gradients, each contiguous and shaped as in public ViT checkpoints.
#[derive(Clone, Debug)]
pub struct BlockWeights<T> {
    /// `[dim]`
    pub norm1_weight: T,
    /// `[dim]`
    pub norm1_bias: T,
    /// `[3 * dim, dim]`: queries, keys, values.
    pub qkv_weight: T,
    /// `[3 * dim]`
    pub qkv_bias: T,
    /// `[dim, dim]`
    pub proj_weight: T,
    /// `[dim]`
    pub proj_bias: T,
    /// `[dim]`
    pub norm2_weight: T,
    /// `[dim]`
    pub norm2_bias: T,
    /// `[hidden, dim]`
    pub fc1_weight: T,
    /// `[hidden]`
    pub fc1_bias: T,
    /// `[dim, hidden]`
    pub fc2_weight: T,
    /// `[dim]`
    pub fc2_bias: T,
}

/// What each image's branches are multiplied by before they are added to its tokens, `[images]` each.
#[derive(Clone, Copy, Debug)]
pub struct BranchScales<'a> {
    /// Of attention.
    pub attention: &'a [f32],
    /// Of the MLP.
    pub mlp: &'a [f32],
}

impl<'a> BranchScales<'a> {
    pub(crate) fn check(&self, shape: &BlockShape) {
        assert_eq!(self.attention.len(), shape.images, "scales of attention");
        assert_eq!(self.mlp.len(), shape.images, "scales of the MLP");
    }

    /// The scales of every chunk.
    pub(crate) fn chunks(scales: Option<Self>, shape: &BlockShape) -> Vec<Option<Self>> {
        let Some(scales) = scales else {
            return shape.chunk_sizes(shape.images).map(|_| None).collect();
        };
        let attention = shape.chunks(scales.attention, [1]);
        let mlp = shape.chunks(scales.mlp, [1]);
        let chunks = attention.into_iter().zip(mlp);
        chunks
            .map(|([attention], [mlp])| Some(Self { attention, mlp }))
            .collect()
    }
}

impl BlockShape {
    /// Values of the input: `[images, tokens, dim]`.
    pub fn input_len(&self) -> usize {
        self.images * self.tokens * self.dim
    }

    /// Values of the result: `[images, tokens - first_query, dim]`.
    pub fn output_len(&self) -> usize {
        self.images * self.queries() * self.dim
    }

    /// Values that [`forward`](crate::forward) keeps for [`backward`](crate::backward).
    pub fn saved_len(&self) -> usize {
        self.images * self.saved_lens().iter().sum::<usize>()
    }

    /// Values of the memory that [`backward`](crate::backward) needs while it runs on the current rayon pool.
    pub fn work_len(&self) -> usize {
        self.images_per_group() * self.work_lens().iter().sum::<usize>()
    }

    /// Values of every parameter.
    pub fn weight_lens(&self) -> BlockWeights<usize> {
        let (dim, hidden) = (self.dim, self.hidden);
        BlockWeights {
            norm1_weight: dim,
            norm1_bias: dim,
            qkv_weight: 3 * dim * dim,
            qkv_bias: 3 * dim,
            proj_weight: dim * dim,
            proj_bias: dim,
            norm2_weight: dim,
            norm2_bias: dim,
            fc1_weight: hidden * dim,
            fc1_bias: hidden,
            fc2_weight: dim * hidden,
            fc2_bias: dim,
        }
    }

    pub(crate) fn queries(&self) -> usize {
        self.tokens - self.first_query
    }

    pub(crate) fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// The usual scale of the scores.
    pub(crate) fn scale(&self) -> f32 {
        (self.head_dim() as f32).sqrt().recip()
    }

    /// Per image: q, kv, what attention gathers, its log-sums, x1, the MLP's values before GELU.
    pub(crate) fn saved_lens(&self) -> [usize; 6] {
        let queries = self.queries();
        [
            queries * self.dim,
            self.tokens * 2 * self.dim,
            queries * self.dim,
            queries * self.heads,
            queries * self.dim,
            queries * self.hidden,
        ]
    }

    /// Per image, what the gradients of the weights are made of: norm1's result, and its queries if they are not
    /// all; norm2's; GELU's; and the gradients of the two branches, q, kv and of the values before GELU.
    pub(crate) fn work_lens(&self) -> [usize; 9] {
        let queries = self.queries();
        [
            self.tokens * self.dim,
            if self.first_query == 0 {
                0
            } else {
                queries * self.dim
            },
            queries * self.dim,
            queries * self.hidden,
            queries * self.dim,
            queries * self.dim,
            queries * self.dim,
            self.tokens * 2 * self.dim,
            queries * self.hidden,
        ]
    }

    /// A chunk's share of the gradients of what is added to tokens or scales them:
    /// norm1 (weight, bias), qkv (q, kv), proj, norm2 (weight, bias), fc1, fc2.
    pub(crate) fn sums_lens(&self) -> [usize; 9] {
        let dim = self.dim;
        [dim, dim, dim, 2 * dim, dim, dim, dim, self.hidden, dim]
    }

    /// Enough chunks for all threads, of so many rows that reading the weights takes little beside multiplying by them,
    /// and so few that what is computed of them stays near.
    fn images_per_chunk(&self) -> usize {
        let rows = (self.dim / 2).max(256);
        let chunks = (self.images * self.tokens / rows).max(1);
        let chunks = chunks.next_multiple_of(rayon::current_num_threads());
        self.images.div_ceil(chunks)
    }

    /// The chunks whose gradients of weights are computed at once: so many rows that adding to what is there takes
    /// little.
    pub(crate) fn chunks_per_group(&self) -> usize {
        const ROWS_PER_THREAD: usize = 1024;
        let rows = self.images_per_chunk() * self.tokens;
        ROWS_PER_THREAD.div_ceil(rows) * rayon::current_num_threads()
    }

    /// The images of a group, but for the last, which may have fewer.
    pub(crate) fn images_per_group(&self) -> usize {
        self.images
            .min(self.chunks_per_group() * self.images_per_chunk())
    }

    /// Cuts `data`, which holds `lens` values an image part after part, into chunks of every part.
    pub(crate) fn chunks<'a, const N: usize>(
        &self,
        data: &'a [f32],
        lens: [usize; N],
    ) -> Vec<[&'a [f32]; N]> {
        let mut parts = split(data, lens.map(|len| self.images * len));
        self.chunk_sizes(self.images)
            .map(|images| {
                std::array::from_fn(|i| {
                    let (chunk, rest) = parts[i].split_at(images * lens[i]);
                    parts[i] = rest;
                    chunk
                })
            })
            .collect()
    }

    /// [`chunks`](Self::chunks), to be written.
    pub(crate) fn chunks_mut<'a, const N: usize>(
        &self,
        data: &'a mut [f32],
        lens: [usize; N],
    ) -> Vec<[&'a mut [f32]; N]> {
        self.chunks_of_mut(self.images, data, lens)
    }

    /// [`chunks_mut`](Self::chunks_mut), of as many images.
    pub(crate) fn chunks_of_mut<'a, const N: usize>(
        &self,
        images: usize,
        data: &'a mut [f32],
        lens: [usize; N],
    ) -> Vec<[&'a mut [f32]; N]> {
        let mut parts = split_mut(data, lens.map(|len| images * len));
        self.chunk_sizes(images)
            .map(|images| {
                std::array::from_fn(|i| {
                    let part = std::mem::take(&mut parts[i]);
                    let (chunk, rest) = part.split_at_mut(images * lens[i]);
                    parts[i] = rest;
                    chunk
                })
            })
            .collect()
    }

    /// The images of each chunk of as many.
    fn chunk_sizes(&self, images: usize) -> impl Iterator<Item = usize> {
        let size = self.images_per_chunk();
        (0..images)
            .step_by(size)
            .map(move |first| size.min(images - first))
    }

    /// Checks what indexing could only report as out of bounds.
    pub(crate) fn check(&self) {
        assert!(self.first_query < self.tokens && self.images > 0);
        assert!(self.heads > 0 && self.dim.is_multiple_of(self.heads));
        // More than any part of the block's memory has, in bytes.
        let wide = [self.tokens, self.heads]
            .into_iter()
            .chain([self.dim; 24])
            .chain([self.hidden; 8])
            .try_fold(0_usize, usize::checked_add);
        let bytes = (self.images.checked_mul(self.tokens))
            .and_then(|rows| rows.checked_add(self.dim)?.checked_add(self.hidden))
            .and_then(|rows| rows.checked_mul(wide?)?.checked_mul(size_of::<f32>()));
        assert!(
            bytes.is_some_and(|bytes| bytes <= isize::MAX as usize),
            "{self:?} has more values than memory can hold"
        );
    }

    /// The query tokens of images `[.., tokens, dim]`, one slice an image.
    pub(crate) fn queries_of<'a>(&self, tokens: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
        let first = self.first_query * self.dim;
        tokens
            .chunks_exact(self.tokens * self.dim)
            .map(move |image| &image[first..])
    }

    /// [`queries_of`](Self::queries_of), to be changed.
    pub(crate) fn queries_of_mut<'a>(
        &self,
        tokens: &'a mut [f32],
    ) -> impl Iterator<Item = &'a mut [f32]> {
        let first = self.first_query * self.dim;
        tokens
            .chunks_exact_mut(self.tokens * self.dim)
            .map(move |image| &mut image[first..])
    }
}

impl<'a> BlockWeights<&'a [f32]> {
    pub(crate) fn check(&self, shape: &BlockShape) {
        let lens = shape.weight_lens();
        assert_eq!(
            self.as_array().map(|weight| weight.len()),
            lens.as_array().map(|len| *len)
        );
    }

    /// Those of q, of k and v, of what attention gathers, and of the MLP's two layers: `[outputs, inputs]` each.
    pub(crate) fn matrices(&self, shape: &BlockShape) -> [Matrix<'a>; 5] {
        let BlockShape { dim, hidden, .. } = *shape;
        let (q, kv) = self.qkv_weight.split_at(dim * dim);
        [
            Matrix::new(q, dim, dim),
            Matrix::new(kv, 2 * dim, dim),
            Matrix::new(self.proj_weight, dim, dim),
            Matrix::new(self.fc1_weight, hidden, dim),
            Matrix::new(self.fc2_weight, dim, hidden),
        ]
    }

    pub(crate) fn norm1(&self, shape: &BlockShape) -> LayerNorm<'a> {
        LayerNorm {
            weight: self.norm1_weight,
            bias: self.norm1_bias,
            eps: shape.eps,
        }
    }

    pub(crate) fn norm2(&self, shape: &BlockShape) -> LayerNorm<'a> {
        LayerNorm {
            weight: self.norm2_weight,
            bias: self.norm2_bias,
            eps: shape.eps,
        }
    }
}

impl<T> BlockWeights<T> {
    /// From the parameters in the order of the fields.
    pub fn from_array(weights: [T; 12]) -> Self {
        let [
            norm1_weight,
            norm1_bias,
            qkv_weight,
            qkv_bias,
            proj_weight,
            proj_bias,
            norm2_weight,
            norm2_bias,
            fc1_weight,
            fc1_bias,
            fc2_weight,
            fc2_bias,
        ] = weights;
        Self {
            norm1_weight,
            norm1_bias,
            qkv_weight,
            qkv_bias,
            proj_weight,
            proj_bias,
            norm2_weight,
            norm2_bias,
            fc1_weight,
            fc1_bias,
            fc2_weight,
            fc2_bias,
        }
    }

    /// The parameters in the order of the fields.
    pub fn as_array(&self) -> [&T; 12] {
        [
            &self.norm1_weight,
            &self.norm1_bias,
            &self.qkv_weight,
            &self.qkv_bias,
            &self.proj_weight,
            &self.proj_bias,
            &self.norm2_weight,
            &self.norm2_bias,
            &self.fc1_weight,
            &self.fc1_bias,
            &self.fc2_weight,
            &self.fc2_bias,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "more values than memory can hold")]
    fn sizes_whose_product_wraps_are_refused() {
        let shape = BlockShape {
            images: 1 << 32,
            tokens: 2,
            first_query: 0,
            dim: 1 << 32,
            heads: 1,
            hidden: 1 << 32,
            eps: 1e-6,
        };
        shape.check();
    }
}

//! Attention of one image: head by head, keeping one number a row for the way back.

use crate::block::BlockShape;
use crate::math::{exp, max, sum, vectorized};
use crate::matrix::{Matrix, MatrixMut, MatrixProduct};
use crate::scratch::LINE;

/// Queries, keys and values of one image.
#[derive(Clone, Copy)]
pub struct Qkv<'a> {
    /// `[queries, dim]`
    pub q: &'a [f32],
    /// `[tokens, 2 * dim]`: keys, then values.
    pub kv: &'a [f32],
}

impl<'a> Qkv<'a> {
    /// q, k and v of a head: `[queries, d]`, `[tokens, d]`, `[tokens, d]` for `d = dim / heads`.
    fn head(&self, shape: &BlockShape, head: usize) -> [Matrix<'a>; 3] {
        let (dim, d) = (shape.dim, shape.head_dim());
        let (k, v) = (head * d, dim + head * d);
        [
            Matrix::strided(&self.q[k..], shape.queries(), d, dim),
            Matrix::strided(&self.kv[k..], shape.tokens, d, 2 * dim),
            Matrix::strided(&self.kv[v..], shape.tokens, d, 2 * dim),
        ]
    }
}

/// From one row of scores to the next: whole lines of the cache, and an odd number of them, so that few rows share the
/// places that a line can have there.
pub fn score_stride(shape: &BlockShape) -> usize {
    (shape.tokens.div_ceil(LINE) | 1) * LINE
}

/// What the queries gather: `softmax(q k^T / sqrt(d)) v` in every head.
///
/// # Shapes
/// - `scores`: `[queries, score_stride]`, scratch
/// - `out`: `[queries, dim]`, overwritten
/// - `log_sums`: `[heads, queries]`, overwritten with the logarithm of each softmax's denominator
pub fn forward(
    product: &dyn MatrixProduct,
    shape: &BlockShape,
    qkv: Qkv,
    scores: &mut [f32],
    out: &mut [f32],
    log_sums: &mut [f32],
) {
    let (queries, tokens, d) = (shape.queries(), shape.tokens, shape.head_dim());
    let stride = score_stride(shape);
    for (head, log_sums) in log_sums.chunks_exact_mut(queries).enumerate() {
        let [q, k, v] = qkv.head(shape, head);
        MatrixMut::strided(scores, queries, tokens, stride).set_product(product, q, k.t());
        softmax(scores, tokens, shape.scale(), log_sums);
        MatrixMut::strided(&mut out[head * d..], queries, d, shape.dim).set_product(
            product,
            Matrix::strided(scores, queries, tokens, stride),
            v,
        );
    }
}

/// The gradients of queries, keys and values from that of the result.
///
/// The scores are computed anew.
///
/// # Shapes
/// - `out`, `grad_out`: `[queries, dim]`
/// - `probabilities`, `grad_scores`: `[queries, score_stride]`, scratch
/// - `grad_q`: `[queries, dim]`, overwritten; `grad_kv`: `[tokens, 2 * dim]`, overwritten
///
/// Source: Dao et al. 2022, arXiv 2205.14135, algorithm 4.
#[expect(clippy::too_many_arguments, reason = "all are arrays of one image")]
pub fn backward(
    product: &dyn MatrixProduct,
    shape: &BlockShape,
    qkv: Qkv,
    out: &[f32],
    log_sums: &[f32],
    grad_out: &[f32],
    [probabilities, grad_scores]: [&mut [f32]; 2],
    grad_q: &mut [f32],
    grad_kv: &mut [f32],
) {
    let (dim, queries, tokens) = (shape.dim, shape.queries(), shape.tokens);
    let (d, stride) = (shape.head_dim(), score_stride(shape));
    for (head, log_sums) in log_sums.chunks_exact(queries).enumerate() {
        let (first, value) = (head * d, dim + head * d);
        let [q, k, v] = qkv.head(shape, head);
        let grad = Matrix::strided(&grad_out[first..], queries, d, dim);

        MatrixMut::strided(probabilities, queries, tokens, stride).set_product(product, q, k.t());
        MatrixMut::strided(grad_scores, queries, tokens, stride).set_product(product, grad, v.t());
        softmax_backward(
            [probabilities, grad_scores],
            tokens,
            shape.scale(),
            log_sums,
            |row| {
                let row = row * dim + first..row * dim + first + d;
                (&out[row.clone()], &grad_out[row])
            },
        );

        let probabilities = Matrix::strided(probabilities, queries, tokens, stride);
        let grad_scores = Matrix::strided(grad_scores, queries, tokens, stride);
        MatrixMut::strided(&mut grad_kv[value..], tokens, d, 2 * dim).set_product(
            product,
            probabilities.t(),
            grad,
        );
        MatrixMut::strided(&mut grad_q[first..], queries, d, dim).set_product(
            product,
            grad_scores,
            k,
        );
        MatrixMut::strided(&mut grad_kv[first..], tokens, d, 2 * dim).set_product(
            product,
            grad_scores.t(),
            q,
        );
    }
}

/// The first `tokens` of each row of `scores` to `exp(scale * score - log_sum)`, whose sum is 1.
fn softmax(scores: &mut [f32], tokens: usize, scale: f32, log_sums: &mut [f32]) {
    let stride = scores.len() / log_sums.len();
    vectorized(
        #[inline(always)]
        |fma| {
            for (row, log_sum) in scores.chunks_exact_mut(stride).zip(log_sums) {
                let row = &mut row[..tokens];
                let largest = scale * max(row);
                for score in row.iter_mut() {
                    *score = exp(fma, scale * *score - largest);
                }
                let total = sum(row, row, |p, _| p);
                let inverse = 1.0 / total;
                for p in row {
                    *p *= inverse;
                }
                *log_sum = largest + total.ln();
            }
        },
    );
}

/// The first `tokens` of each row of scores to probabilities, and of their gradients to those of the scores.
///
/// `gathered` gives a row of the result and of its gradient.
fn softmax_backward<'a>(
    [scores, grads]: [&mut [f32]; 2],
    tokens: usize,
    scale: f32,
    log_sums: &[f32],
    gathered: impl Fn(usize) -> (&'a [f32], &'a [f32]),
) {
    let stride = scores.len() / log_sums.len();
    vectorized(
        #[inline(always)]
        |fma| {
            let rows = scores
                .chunks_exact_mut(stride)
                .zip(grads.chunks_exact_mut(stride));
            for (i, ((scores, grads), log_sum)) in rows.zip(log_sums).enumerate() {
                let (out, grad_out) = gathered(i);
                let expected = sum(out, grad_out, |out, grad| out * grad);
                for (score, grad) in scores.iter_mut().zip(grads).take(tokens) {
                    let p = exp(fma, scale * *score - log_sum);
                    *score = p;
                    *grad = p * (*grad - expected) * scale;
                }
            }
        },
    );
}

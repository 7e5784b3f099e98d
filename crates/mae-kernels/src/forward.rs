//! Tokens through the block.

use rayon::prelude::*;

use crate::attention::{self, Qkv};
use crate::block::{BlockShape, BlockWeights, BranchScales};
use crate::math::{gelu, vectorized};
use crate::matrix::{Base, Matrix, MatrixMut, MatrixProduct, Right};
use crate::scratch::with_scratch;

/// Computes the block, on the threads of the current rayon pool, with matrix products by `product`.
///
/// # Shapes
/// - `x`: `[images, tokens, dim]`
/// - `scales`: none leaves the branches as they are
/// - `saved`: [`BlockShape::saved_len`] values, overwritten; for [`backward`](crate::backward)
/// - `y`: `[images, tokens - first_query, dim]`, overwritten
///
/// # Panics
/// If a slice has another length, `heads` does not divide `dim`, or there is no image or no query.
pub fn forward(
    product: &dyn MatrixProduct,
    shape: &BlockShape,
    weights: &BlockWeights<&[f32]>,
    scales: Option<BranchScales>,
    x: &[f32],
    saved: &mut [f32],
    y: &mut [f32],
) {
    shape.check();
    weights.check(shape);
    scales.inspect(|scales| scales.check(shape));
    assert_eq!(x.len(), shape.input_len(), "input");
    assert_eq!(saved.len(), shape.saved_len(), "saved values");
    assert_eq!(y.len(), shape.output_len(), "result");

    let inputs = shape.chunks(x, [shape.tokens * shape.dim]);
    let outputs = shape.chunks_mut(y, [shape.queries() * shape.dim]);
    let saved = shape.chunks_mut(saved, shape.saved_lens());
    let scales = BranchScales::chunks(scales, shape);
    let rights = weights
        .matrices(shape)
        .map(|weight| product.right(weight.t()));
    (scales, inputs, saved, outputs)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|(scales, [x], saved, [y])| {
            forward_chunk(product, shape, weights, &rights, scales, x, saved, y)
        });
}

#[expect(clippy::too_many_arguments, reason = "arrays in and out")]
fn forward_chunk(
    product: &dyn MatrixProduct,
    shape: &BlockShape,
    weights: &BlockWeights<&[f32]>,
    [q_weight, kv_weight, proj_weight, fc1_weight, fc2_weight]: &[Box<dyn Right + '_>; 5],
    scales: Option<BranchScales>,
    x: &[f32],
    [q, kv, attended, log_sums, x1, hidden]: [&mut [f32]; 6],
    y: &mut [f32],
) {
    let BlockShape { dim, tokens, .. } = *shape;
    let queries = shape.queries();
    let query_len = if shape.first_query == 0 { 0 } else { y.len() };
    let scratch = [
        x.len(),
        query_len,
        queries * attention::score_stride(shape),
        hidden.len(),
    ];
    with_scratch(scratch, |[normed, normed_queries, scores, activated]| {
        weights.norm1(shape).forward(x, normed);
        let normed_queries = gather_queries(shape, normed, normed_queries);
        let (q_bias, kv_bias) = weights.qkv_bias.split_at(dim);
        linear(normed_queries, &**q_weight, q_bias, q);
        linear(normed, &**kv_weight, kv_bias, kv);

        let images = (q.chunks_exact(queries * dim))
            .zip(kv.chunks_exact(tokens * 2 * dim))
            .zip(attended.chunks_exact_mut(queries * dim))
            .zip(log_sums.chunks_exact_mut(queries * shape.heads));
        for (((q, kv), attended), log_sums) in images {
            attention::forward(product, shape, Qkv { q, kv }, scores, attended, log_sums);
        }
        linear(attended, &**proj_weight, weights.proj_bias, x1);
        let scale = scales.map(|scales| scales.attention);
        add_residual(x1, shape.queries_of(x), queries * dim, scale);

        let normed = &mut normed[..y.len()];
        weights.norm2(shape).forward(x1, normed);
        linear(normed, &**fc1_weight, weights.fc1_bias, hidden);
        vectorized(
            #[inline(always)]
            |fma| {
                for (activated, hidden) in activated.iter_mut().zip(hidden.iter()) {
                    *activated = gelu(fma, *hidden).0;
                }
            },
        );
        linear(activated, &**fc2_weight, weights.fc2_bias, y);
        let scale = scales.map(|scales| scales.mlp);
        add_residual(y, x1.chunks_exact(queries * dim), queries * dim, scale);
    });
}

/// The query tokens in a row: `all` if they are all, else copied to `gathered`.
pub(crate) fn gather_queries<'a>(
    shape: &BlockShape,
    all: &'a [f32],
    gathered: &'a mut [f32],
) -> &'a [f32] {
    if shape.first_query == 0 {
        return all;
    }
    let len = shape.queries() * shape.dim;
    for (gathered, queries) in gathered.chunks_exact_mut(len).zip(shape.queries_of(all)) {
        gathered.copy_from_slice(queries);
    }
    gathered
}

/// `y = x weight + bias` for `x`: `[rows, inputs]`, `weight`: `[inputs, outputs]`.
fn linear(x: &[f32], weight: &dyn Right, bias: &[f32], y: &mut [f32]) {
    let rows = y.len() / bias.len();
    let x = Matrix::new(x, rows, x.len() / rows);
    weight.multiply(Base::Row(bias), MatrixMut::new(y, rows, bias.len()), x);
}

/// `branch = x + scale branch`, image by image; `branch` is `[images, len]`.
fn add_residual<'a>(
    branch: &mut [f32],
    x: impl Iterator<Item = &'a [f32]>,
    len: usize,
    scales: Option<&[f32]>,
) {
    vectorized(
        #[inline(always)]
        |_| {
            for (i, (branch, x)) in branch.chunks_exact_mut(len).zip(x).enumerate() {
                let scale = scales.map_or(1.0, |scales| scales[i]);
                for (branch, x) in branch.iter_mut().zip(x) {
                    *branch = x + scale * *branch;
                }
            }
        },
    );
}

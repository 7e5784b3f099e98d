//! Gradients back through the block.

use rayon::prelude::*;

use crate::attention::{self, Qkv};
use crate::block::{BlockShape, BlockWeights, BranchScales};
use crate::forward::gather_queries;
use crate::math::{add, add_rows, gelu, vectorized};
use crate::matrix::{Base, Matrix, MatrixMut, MatrixProduct, Right};
use crate::scratch::{split, split_mut, with_scratch};

/// Computes the gradients of the block's input and parameters, on the threads of the current rayon pool, with matrix
/// products by `product`.
///
/// # Shapes
/// - `scales`, `x`: as [`forward`](crate::forward) was given them; `saved`: what it kept
/// - `grad_y`: `[images, tokens - first_query, dim]`
/// - `work`: [`BlockShape::work_len`] values, overwritten
/// - `grad_x`: `[images, tokens, dim]`, overwritten; `grads`: as the parameters, overwritten
///
/// # Panics
/// If a slice has another length.
#[expect(clippy::too_many_arguments, reason = "arrays in and out")]
pub fn backward(
    product: &dyn MatrixProduct,
    shape: &BlockShape,
    weights: &BlockWeights<&[f32]>,
    scales: Option<BranchScales>,
    x: &[f32],
    saved: &[f32],
    grad_y: &[f32],
    work: &mut [f32],
    grad_x: &mut [f32],
    mut grads: BlockWeights<&mut [f32]>,
) {
    shape.check();
    weights.check(shape);
    scales.inspect(|scales| scales.check(shape));
    assert_eq!(x.len(), shape.input_len(), "input");
    assert_eq!(saved.len(), shape.saved_len(), "saved values");
    assert_eq!(grad_y.len(), shape.output_len(), "gradient of the result");
    assert_eq!(work.len(), shape.work_len(), "work");
    assert_eq!(grad_x.len(), shape.input_len(), "gradient of the input");

    let sums_len = shape.sums_lens().iter().sum();
    let query_len = [shape.queries() * shape.dim];
    let rights = weights.matrices(shape).map(|weight| product.right(weight));
    let inputs = shape.chunks(x, [shape.tokens * shape.dim]);
    let saved_chunks = shape.chunks(saved, shape.saved_lens());
    let scales = BranchScales::chunks(scales, shape);
    let grads_y = shape.chunks(grad_y, query_len);
    let mut grads_x = shape.chunks_mut(grad_x, [shape.tokens * shape.dim]);
    let mut sums = vec![0.0; inputs.len() * sums_len];

    let attended_len = query_len[0];
    let [_, _, attended, _, _, _] = split(saved, shape.saved_lens().map(|len| shape.images * len));
    let at_once = shape.chunks_per_group();
    let groups = (scales.chunks(at_once))
        .zip(inputs.chunks(at_once))
        .zip(saved_chunks.chunks(at_once))
        .zip(grads_y.chunks(at_once))
        .zip(grads_x.chunks_mut(at_once))
        .zip(sums.chunks_mut(at_once * sums_len))
        .zip(attended.chunks(shape.images_per_group() * attended_len));
    for (i, ((((((scales, inputs), saved), grads_y), grads_x), sums), attended)) in
        groups.enumerate()
    {
        let images = attended.len() / attended_len;
        let lens = shape.work_lens();
        let work = &mut work[..images * lens.iter().sum::<usize>()];
        (
            scales,
            inputs,
            saved,
            grads_y,
            grads_x,
            shape.chunks_of_mut(images, work, lens),
            sums.par_chunks_mut(sums_len),
        )
            .into_par_iter()
            .with_max_len(1)
            .for_each(|(scales, [x], saved, [grad_y], [grad_x], work, sums)| {
                let sums = split_mut(sums, shape.sums_lens());
                backward_chunk(
                    product, shape, weights, &rights, *scales, x, *saved, grad_y, work, grad_x,
                    sums,
                );
            });
        let base = if i == 0 { Base::Nothing } else { Base::Result };
        let work = split(work, lens.map(|len| images * len));
        weight_grads(product, shape, base, attended, work, &mut grads);
    }
    add_sums(shape, &sums, grads);
}

/// What all but the gradients of the weight matrices need.
#[expect(clippy::too_many_arguments, reason = "arrays in and out")]
fn backward_chunk(
    product: &dyn MatrixProduct,
    shape: &BlockShape,
    weights: &BlockWeights<&[f32]>,
    [q_weight, kv_weight, proj_weight, fc1_weight, fc2_weight]: &[Box<dyn Right + '_>; 5],
    scales: Option<BranchScales>,
    x: &[f32],
    [q, kv, attended, log_sums, x1, hidden]: [&[f32]; 6],
    grad_y: &[f32],
    work: [&mut [f32]; 9],
    grad_x: &mut [f32],
    sums: [&mut [f32]; 9],
) {
    let BlockShape { dim, tokens, .. } = *shape;
    let queries = shape.queries();
    let [
        normed1,
        queries1,
        normed2,
        activated,
        grad_attention,
        grad_mlp,
        grad_q,
        grad_kv,
        grad_hidden,
    ] = work;
    let [
        norm1_weight,
        norm1_bias,
        q_bias,
        kv_bias,
        proj_bias,
        norm2_weight,
        norm2_bias,
        fc1_bias,
        fc2_bias,
    ] = sums;

    let scratch = [
        grad_y.len(),
        grad_y.len(),
        queries * attention::score_stride(shape),
        queries * attention::score_stride(shape),
    ];
    with_scratch(
        scratch,
        |[grad_x1, grad_attended, probabilities, grad_scores]| {
            // The MLP.
            let len = queries * dim;
            scale_images(grad_y, scales.map(|scales| scales.mlp), len, grad_mlp);
            set_product(grad_mlp, dim, &**fc2_weight, grad_hidden);
            gelu_backward(hidden, activated, grad_hidden);
            set_product(grad_hidden, shape.hidden, &**fc1_weight, grad_x1);
            let norm2 = weights.norm2(shape);
            norm2.forward(x1, normed2);
            norm2.backward(x1, grad_x1, norm2_weight, norm2_bias);
            vectorized(
                #[inline(always)]
                |_| add(grad_x1, grad_y),
            );
            add_rows(fc2_bias, grad_mlp);
            add_rows(fc1_bias, grad_hidden);

            // Attention.
            let scale = scales.map(|scales| scales.attention);
            scale_images(grad_x1, scale, len, grad_attention);
            add_rows(proj_bias, grad_attention);
            set_product(grad_attention, dim, &**proj_weight, grad_attended);
            let images = (q.chunks_exact(queries * dim))
                .zip(kv.chunks_exact(tokens * 2 * dim))
                .zip(attended.chunks_exact(queries * dim))
                .zip(log_sums.chunks_exact(queries * shape.heads))
                .zip(grad_attended.chunks_exact(queries * dim))
                .zip(grad_q.chunks_exact_mut(queries * dim))
                .zip(grad_kv.chunks_exact_mut(tokens * 2 * dim));
            for ((((((q, kv), attended), log_sums), grad_attended), grad_q), grad_kv) in images {
                attention::backward(
                    product,
                    shape,
                    Qkv { q, kv },
                    attended,
                    log_sums,
                    grad_attended,
                    [probabilities, grad_scores],
                    grad_q,
                    grad_kv,
                );
            }
            add_rows(q_bias, grad_q);
            add_rows(kv_bias, grad_kv);

            // What attention took of its input, and the input itself.
            set_product(grad_kv, 2 * dim, &**kv_weight, grad_x);
            let grad_queries = grad_attended;
            set_product(grad_q, dim, &**q_weight, grad_queries);
            add_to_queries(shape, grad_x, grad_queries);
            let norm1 = weights.norm1(shape);
            norm1.forward(x, normed1);
            norm1.backward(x, grad_x, norm1_weight, norm1_bias);
            add_to_queries(shape, grad_x, grad_x1);
            gather_queries(shape, normed1, queries1);
        },
    );
}

/// Adds to `base` what a group brings to the gradients of the weight matrices: from what attention gathered, and the
/// group's work.
fn weight_grads(
    product: &dyn MatrixProduct,
    shape: &BlockShape,
    base: Base,
    attended: &[f32],
    work: [&[f32]; 9],
    grads: &mut BlockWeights<&mut [f32]>,
) {
    /// Rows of a gradient that one thread computes are a multiple of it.
    const ROWS: usize = 32;
    let (dim, hidden) = (shape.dim, shape.hidden);
    let [
        normed1,
        queries1,
        normed2,
        activated,
        grad_attention,
        grad_mlp,
        grad_q,
        grad_kv,
        grad_hidden,
    ] = work;
    let queries1 = if shape.first_query == 0 {
        normed1
    } else {
        queries1
    };
    // Of each matrix the gradients of what it gives and, to be multiplied from the left by them, what it is given.
    let factors = [
        (grad_q, dim, queries1, dim),
        (grad_kv, 2 * dim, normed1, dim),
        (grad_attention, dim, attended, dim),
        (grad_hidden, hidden, normed2, dim),
        (grad_mlp, dim, activated, hidden),
    ]
    .map(|(grad, outputs, x, inputs)| {
        let rows = grad.len() / outputs;
        let grad = Matrix::new(grad, rows, outputs).t();
        (grad, product.right(Matrix::new(x, rows, inputs)))
    });

    let (q_weight, kv_weight) = grads.qkv_weight.split_at_mut(dim * dim);
    let weights = [
        (q_weight, dim),
        (kv_weight, dim),
        (&mut *grads.proj_weight, dim),
        (&mut *grads.fc1_weight, dim),
        (&mut *grads.fc2_weight, hidden),
    ];
    let threads = rayon::current_num_threads();
    let tiles: Vec<_> = weights
        .into_iter()
        .enumerate()
        .flat_map(|(i, (weight, inputs))| {
            let outputs = weight.len() / inputs;
            let rows = outputs.div_ceil(threads).next_multiple_of(ROWS);
            (weight.chunks_mut(rows * inputs).enumerate())
                .map(move |(j, weight)| (i, inputs, j * rows, weight))
        })
        .collect();
    tiles
        .into_par_iter()
        .with_max_len(1)
        .for_each(|(i, inputs, first, weight)| {
            let rows = weight.len() / inputs;
            let (grad, x) = &factors[i];
            let weight = MatrixMut::new(weight, rows, inputs);
            x.multiply(base, weight, grad.rows(first, rows));
        });
}

/// The gradients of what is added to tokens or scales them, from those of all chunks.
fn add_sums(shape: &BlockShape, sums: &[f32], grads: BlockWeights<&mut [f32]>) {
    let dim = shape.dim;
    let lens = shape.sums_lens();
    let (q_bias, kv_bias) = grads.qkv_bias.split_at_mut(dim);
    let mut totals = [
        grads.norm1_weight,
        grads.norm1_bias,
        q_bias,
        kv_bias,
        grads.proj_bias,
        grads.norm2_weight,
        grads.norm2_bias,
        grads.fc1_bias,
        grads.fc2_bias,
    ];
    totals.iter_mut().for_each(|total| total.fill(0.0));
    for sums in sums.chunks_exact(lens.iter().sum()) {
        for (total, sums) in totals.iter_mut().zip(split(sums, lens)) {
            add(total, sums);
        }
    }
}

/// `scaled = scale x`, image by image of `len` values.
fn scale_images(x: &[f32], scales: Option<&[f32]>, len: usize, scaled: &mut [f32]) {
    vectorized(
        #[inline(always)]
        |_| {
            let images = x.chunks_exact(len).zip(scaled.chunks_exact_mut(len));
            for (i, (x, scaled)) in images.enumerate() {
                let scale = scales.map_or(1.0, |scales| scales[i]);
                for (x, scaled) in x.iter().zip(scaled) {
                    *scaled = scale * x;
                }
            }
        },
    );
}

/// GELU's values, and the gradient of its result to that of its input.
fn gelu_backward(hidden: &[f32], activated: &mut [f32], grad: &mut [f32]) {
    vectorized(
        #[inline(always)]
        |fma| {
            for ((hidden, activated), grad) in hidden.iter().zip(activated).zip(grad) {
                let (value, slope) = gelu(fma, *hidden);
                *activated = value;
                *grad *= slope;
            }
        },
    );
}

/// Adds the rows of `queries` to those of `all`.
fn add_to_queries(shape: &BlockShape, all: &mut [f32], queries: &[f32]) {
    let queries = queries.chunks_exact(shape.queries() * shape.dim);
    vectorized(
        #[inline(always)]
        |_| {
            for (all, queries) in shape.queries_of_mut(all).zip(queries) {
                add(all, queries);
            }
        },
    );
}

/// `grad_x = grad_y weight` for `grad_y`: `[rows, outputs]`, `weight`: `[outputs, inputs]`.
fn set_product(grad_y: &[f32], outputs: usize, weight: &dyn Right, grad_x: &mut [f32]) {
    let rows = grad_y.len() / outputs;
    let inputs = grad_x.len() / rows;
    let grad_x = MatrixMut::new(grad_x, rows, inputs);
    weight.multiply(Base::Nothing, grad_x, Matrix::new(grad_y, rows, outputs));
}

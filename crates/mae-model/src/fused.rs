//! A transformer block by `mae-kernels`, as an operation in libtorch's graph.

use mae_kernels::{BlockShape, BlockWeights, BranchScales, MatrixProduct, backward, forward};
use tch::{Kind, Tensor};
use torch_ext::{Values, as_slice, with_backward};

use crate::kernels::pool;

/// A block's results for the tokens from `first_query` on, in f32.
///
/// # Shapes
/// - `tokens`: `[batch, n, dim]`
/// - `weights`: in the order of [`BlockWeights`]
/// - `scales`: of attention and MLP, `[batch, 1, 1]` each, without gradient
/// - returns `[batch, n - first_query, dim]`
pub(crate) fn fused_block(
    product: &'static dyn MatrixProduct,
    tokens: &Tensor,
    weights: [&Tensor; 12],
    heads: i64,
    eps: f64,
    first_query: i64,
    scales: Option<&[Tensor; 2]>,
) -> Tensor {
    let tokens = tokens.to_kind(Kind::Float).contiguous();
    let [images, n, dim] = tokens.size()[..] else {
        unreachable!("tokens are [batch, n, dim]")
    };
    let shape = BlockShape {
        images: images as usize,
        tokens: n as usize,
        first_query: first_query as usize,
        dim: dim as usize,
        heads: heads as usize,
        // The first layer of the MLP.
        hidden: weights[8].size()[0] as usize,
        eps: eps as f32,
    };
    let mut saved = Values::new(&[shape.saved_len() as i64]);
    let mut output = Values::new(&[images, n - first_query, dim]);
    let (x, weight_values) = (slice(&tokens), BlockWeights::from_array(weights.map(slice)));
    let (kept, y) = (&mut saved[..], &mut output[..]);
    let branch_scales = scales.map(branch_scales);
    pool().install(|| forward(product, &shape, &weight_values, branch_scales, x, kept, y));
    let inputs: Vec<Tensor> = std::iter::once(&tokens)
        .chain(weights)
        .map(Tensor::shallow_clone)
        .collect();
    let scales = scales.map(|scales| scales.each_ref().map(Tensor::shallow_clone));
    let (output, saved) = (output.into_tensor(), saved.into_tensor());
    with_backward(output, &inputs, &[saved], move |saved, grad| {
        block_gradients(product, &shape, scales.as_ref(), saved, grad)
    })
    .expect("one output of inputs that libtorch made")
}

/// The gradients of tokens and weights, from what [`fused_block`] had saved: tokens, weights, intermediates.
fn block_gradients(
    product: &dyn MatrixProduct,
    shape: &BlockShape,
    scales: Option<&[Tensor; 2]>,
    saved: &[Tensor],
    grad: &Tensor,
) -> Vec<Tensor> {
    let [tokens, weights @ .., intermediates] = saved else {
        unreachable!("fused_block saves fourteen tensors")
    };
    let mut grads: Vec<Values> = saved[..13]
        .iter()
        .map(|input| Values::new(&input.size()))
        .collect();
    let [grad_tokens, grad_weights @ ..] = &mut grads[..] else {
        unreachable!("there are thirteen")
    };
    let grad_weights: &mut [Values; 12] = grad_weights.try_into().expect("tokens and twelve");
    let weights: &[Tensor; 12] = weights.try_into().expect("tokens, twelve, intermediates");
    let weights = BlockWeights::from_array(weights.each_ref().map(slice));
    let grad_weights = BlockWeights::from_array(grad_weights.each_mut().map(|grad| &mut grad[..]));
    let (x, kept, grad) = (slice(tokens), slice(intermediates), slice(grad));
    let grad_x = &mut grad_tokens[..];
    let scales = scales.map(branch_scales);
    pool().install(|| {
        let mut work = Values::new(&[shape.work_len() as i64]);
        backward(
            product,
            shape,
            &weights,
            scales,
            x,
            kept,
            grad,
            &mut work,
            grad_x,
            grad_weights,
        )
    });
    grads.into_iter().map(Values::into_tensor).collect()
}

fn branch_scales([attention, mlp]: &[Tensor; 2]) -> BranchScales<'_> {
    BranchScales {
        attention: slice(attention),
        mlp: slice(mlp),
    }
}

/// Only for what is read and given up before this module returns to its caller.
#[expect(unsafe_code, reason = "borrows what libtorch owns")]
fn slice(tensor: &Tensor) -> &[f32] {
    // SAFETY: tokens, weights, scales and what was saved are changed by the caller's thread alone (optimizer,
    // loading), which is in this module meanwhile.
    unsafe { as_slice(tensor) }.expect("parameters and tokens are contiguous f32 on the CPU")
}

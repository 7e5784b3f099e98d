//! Which code computes a transformer block.

use std::sync::OnceLock;
use std::time::Instant;

use mae_kernels::{BlockShape, BlockWeights, BranchScales, backward, forward};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::{as_mut_slice, as_slice, autocast, is_autocast, with_backward};

/// Which code computes transformer blocks. The results agree to rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernels {
    /// On a CPU in f32 `mae-kernels`, a whole block at once; elsewhere as [`Plain`](Self::Plain).
    #[default]
    Fused,
    /// libtorch, operation by operation: the readable reference.
    Plain,
}

impl Kernels {
    /// Floating-point operations a second of the matrix products that a model with these kernels can be made of:
    /// what a model's own operations a second are a share of ("model FLOPs utilization").
    ///
    /// Measured on the spot, in less than a second; on a CPU by one thread, times their number, so that other work
    /// on the machine hardly spoils it. `precision` is the dtype that products are computed in.
    ///
    /// # Errors
    /// If `device` is neither CPU nor CUDA.
    pub fn matmul_flops(self, device: Device, precision: Kind) -> torch_ext::Result<f64> {
        let plain = plain_matmul_flops(device, precision)?;
        Ok(if self.fuses_on(device, precision) {
            plain.max(pool().current_num_threads() as f64 * mae_kernels::matmul_flops())
        } else {
            plain
        })
    }

    /// Takes most of libtorch's threads from it for as long as the result lives, where these kernels do most of the
    /// work: it keeps a quarter of them, at least one.
    ///
    /// At a barrier libtorch's threads wait by spinning, and so take the cores from the kernels' threads and the
    /// loader's.
    pub fn take_threads(self, device: Device, precision: Kind) -> Option<TakenThreads> {
        if !self.fuses_on(device, precision) {
            return None;
        }
        let threads = pool().current_num_threads() as i32;
        let taken = TakenThreads {
            before: tch::get_num_threads(),
        };
        tch::set_num_threads((threads / 4).max(1));
        Some(taken)
    }

    fn fuses_on(self, device: Device, precision: Kind) -> bool {
        self == Self::Fused && device == Device::Cpu && precision == Kind::Float
    }

    /// Whether tokens like these go through `mae-kernels`.
    pub(crate) fn fuses(self, tokens: &Tensor) -> bool {
        self.fuses_on(tokens.device(), tokens.kind())
            && !is_autocast(Device::Cpu).expect("the CPU has autocast")
    }
}

/// Gives libtorch its threads back when dropped: see [`Kernels::take_threads`].
#[derive(Debug)]
pub struct TakenThreads {
    before: i32,
}

impl Drop for TakenThreads {
    fn drop(&mut self) {
        tch::set_num_threads(self.before);
    }
}

/// A block's results for the tokens from `first_query` on.
///
/// # Shapes
/// - `tokens`: `[batch, n, dim]`
/// - `weights`: in the order of [`BlockWeights`]
/// - `scales`: of attention and MLP, `[batch, 1, 1]` each, without gradient
/// - returns `[batch, n - first_query, dim]`
pub(crate) fn fused_block(
    tokens: &Tensor,
    weights: [&Tensor; 12],
    heads: i64,
    eps: f64,
    first_query: i64,
    scales: Option<&[Tensor; 2]>,
) -> Tensor {
    let tokens = tokens.contiguous();
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
    let mut saved = empty(&[shape.saved_len() as i64]);
    let mut output = empty(&[images, n - first_query, dim]);
    let (x, weight_values) = (slice(&tokens), BlockWeights::from_array(weights.map(slice)));
    let (kept, y) = (mut_slice(&mut saved), mut_slice(&mut output));
    let branch_scales = scales.map(branch_scales);
    pool().install(|| forward(&shape, &weight_values, branch_scales, x, kept, y));
    let inputs: Vec<Tensor> = std::iter::once(&tokens)
        .chain(weights)
        .map(Tensor::shallow_clone)
        .collect();
    let scales = scales.map(|scales| scales.each_ref().map(Tensor::shallow_clone));
    with_backward(output, &inputs, &[saved], move |saved, grad| {
        block_gradients(&shape, scales.as_ref(), saved, grad)
    })
    .expect("one output of inputs that libtorch made")
}

/// The gradients of tokens and weights, from what [`fused_block`] had saved: tokens, weights, intermediates.
fn block_gradients(
    shape: &BlockShape,
    scales: Option<&[Tensor; 2]>,
    saved: &[Tensor],
    grad: &Tensor,
) -> Vec<Tensor> {
    let [tokens, weights @ .., intermediates] = saved else {
        unreachable!("fused_block saves fourteen tensors")
    };
    let mut work = empty(&[shape.work_len() as i64]);
    let mut grads: Vec<Tensor> = saved[..13]
        .iter()
        .map(|input| empty(&input.size()))
        .collect();
    let [grad_tokens, grad_weights @ ..] = &mut grads[..] else {
        unreachable!("there are thirteen")
    };
    let grad_weights: &mut [Tensor; 12] = grad_weights.try_into().expect("tokens and twelve");
    let weights: &[Tensor; 12] = weights.try_into().expect("tokens, twelve, intermediates");
    let weights = BlockWeights::from_array(weights.each_ref().map(slice));
    let grad_weights = BlockWeights::from_array(grad_weights.each_mut().map(mut_slice));
    let (x, kept, grad) = (slice(tokens), slice(intermediates), slice(grad));
    let (work, grad_x) = (mut_slice(&mut work), mut_slice(grad_tokens));
    let scales = scales.map(branch_scales);
    pool().install(|| {
        backward(
            shape,
            &weights,
            scales,
            x,
            kept,
            grad,
            work,
            grad_x,
            grad_weights,
        )
    });
    grads
}

/// The best of some products of two square matrices by libtorch.
fn plain_matmul_flops(device: Device, precision: Kind) -> torch_ext::Result<f64> {
    const ATTEMPTS: usize = 8;
    let (side, synchronize): (i64, fn(i64)) = match device {
        Device::Cuda(_) => (8192, tch::Cuda::synchronize),
        _ => (512, |_| ()),
    };
    let index = match device {
        Device::Cuda(index) => index as i64,
        _ => 0,
    };
    let threads = tch::get_num_threads();
    if device == Device::Cpu {
        tch::set_num_threads(1);
    }
    let matrix = Tensor::ones([side, side], (Kind::Float, device));
    let best = no_grad(|| {
        autocast(device, precision, || {
            (0..ATTEMPTS)
                .map(|_| {
                    synchronize(index);
                    let start = Instant::now();
                    let product = matrix.matmul(&matrix);
                    synchronize(index);
                    drop(product);
                    start.elapsed().as_secs_f64()
                })
                .fold(f64::INFINITY, f64::min)
        })
    });
    let flops = 2.0 * (side as f64).powi(3) / best?;
    if device != Device::Cpu {
        return Ok(flops);
    }
    tch::set_num_threads(threads);
    Ok(f64::from(threads) * flops)
}

/// As many threads as libtorch has, in a pool of their own: libtorch's cannot be borrowed.
fn pool() -> &'static ThreadPool {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    POOL.get_or_init(|| {
        ThreadPoolBuilder::new()
            .num_threads(tch::get_num_threads().max(1) as usize)
            .thread_name(|thread| format!("mae-kernels-{thread}"))
            .build()
            .expect("the system has threads left")
    })
}

fn branch_scales([attention, mlp]: &[Tensor; 2]) -> BranchScales<'_> {
    BranchScales {
        attention: slice(attention),
        mlp: slice(mlp),
    }
}

fn empty(size: &[i64]) -> Tensor {
    Tensor::empty(size, (Kind::Float, Device::Cpu))
}

fn slice(tensor: &Tensor) -> &[f32] {
    as_slice(tensor).expect("parameters and tokens are contiguous f32 on the CPU")
}

fn mut_slice(tensor: &mut Tensor) -> &mut [f32] {
    as_mut_slice(tensor).expect("made contiguous, f32 and on the CPU")
}

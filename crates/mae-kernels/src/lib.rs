//! A pre-norm transformer block on the CPU, of f32 values: forward and backward, fused, without libtorch.
//!
//! What a framework does operation by operation, writing every intermediate tensor to memory and reading it back,
//! is done here chunk by chunk of the batch, on the threads of a rayon pool, with everything between matrix products
//! in loops that the compiler vectorises for the processor at hand. The products are those of a [`MatrixProduct`]:
//! in f32 of the `gemm` crate ([`Gemm`]), with operands rounded to bf16 of AMX or AVX512-BF16 ([`Bf16`]), or your own.
//!
//! ```
//! use mae_kernels::{BlockShape, BlockWeights, Gemm, forward};
//!
//! let shape = BlockShape {
//!     images: 2,
//!     tokens: 5,
//!     first_query: 0,
//!     dim: 8,
//!     heads: 2,
//!     hidden: 16,
//!     eps: 1e-6,
//! };
//! let weights = BlockWeights::from_array(shape.weight_lens().as_array().map(|len| vec![0.1; *len]));
//! let weights = BlockWeights::from_array(weights.as_array().map(|weight| weight.as_slice()));
//! let x = vec![1.0; shape.input_len()];
//! let (mut saved, mut y) = (vec![0.0; shape.saved_len()], vec![0.0; shape.output_len()]);
//! forward(&Gemm, &shape, &weights, None, &x, &mut saved, &mut y);
//! assert!(y.iter().all(|value| value.is_finite()));
//! ```

mod attention;
mod backward;
mod bf16;
mod block;
mod forward;
mod layer_norm;
mod math;
mod matrix;
mod peak;
mod scratch;

pub use backward::backward;
pub use bf16::Bf16;
pub use block::{BlockShape, BlockWeights, BranchScales};
pub use forward::forward;
pub use matrix::{Base, Gemm, Matrix, MatrixMut, MatrixProduct, Right};
pub use peak::matmul_flops;

#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! What a framework does operation by operation, writing every intermediate tensor to memory and reading it back,
//! is done here chunk by chunk of the batch, on the threads of a rayon pool, with everything between matrix products
//! in loops that the compiler vectorises for the processor at hand. The products are those of a [`MatrixProduct`]:
//! in f32 of the `gemm` crate ([`Gemm`]), with operands rounded to bf16 of AMX or AVX512-BF16 ([`Bf16`]), or your own.

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

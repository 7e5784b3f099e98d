#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! Two C++ files hold them, one of them of c10d. All `unsafe` around libtorch is here, but for the slices that
//! [`as_slice`] gives.
//! C++ exceptions come back as [`Error`].

#![expect(unsafe_code, reason = "calls libtorch")]

mod autocast;
mod cuda;
mod distributed;
mod ffi;
mod function;
mod mkl;
mod optim;
mod random;
mod trace;
mod values;
mod version;

pub use autocast::{autocast, autocast_kind};
pub use cuda::{
    MatmulPrecision, cuda_compute_capability, cuda_memory, load_cuda, set_float32_matmul_precision,
};
pub use distributed::{Address, Backend, ProcessGroup, ReduceOp, Reducer, Store, backward};
pub use function::with_backward;
pub use mkl::{Operand, has_mkl, sgemm};
pub use optim::{AdamW, AdamWState, clear_grads, fused_adamw, total_norm, unscale};
pub use random::exponential;
pub use trace::{Traced, save_traced};
pub use values::{Values, as_slice};
pub use version::{check_version, version};

/// What libtorch refused, in its words.
#[derive(Debug, thiserror::Error)]
#[error("libtorch: {0}")]
pub struct Error(String);

/// The result of a call into libtorch.
pub type Result<T> = std::result::Result<T, Error>;

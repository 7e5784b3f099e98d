//! Which code computes transformer blocks, on which threads, and how fast it could be.

use std::sync::OnceLock;
use std::time::Instant;

use mae_kernels::{Base, Bf16, Gemm, Matrix, MatrixMut, MatrixProduct};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::{Operand, autocast, autocast_kind, has_mkl, sgemm};

/// Which code computes transformer blocks. The results agree to rounding.
///
/// All but [`Plain`](Self::Plain) compute a whole block at once by `mae-kernels` on a CPU, and elsewhere as that does.
/// Where autocast asks for bf16 they take [`Bf16`] for the matrix products, or if the processor has no instructions for
/// that, compute as [`Plain`](Self::Plain) does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernels {
    /// Whichever of the fused ones suits this processor: see [`here`](Self::here).
    #[default]
    Auto,
    /// Fused, with matrix products by the `gemm` crate.
    Fused,
    /// Fused, with matrix products by libtorch's MKL; by the `gemm` crate where there is none.
    FusedMkl,
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
        Ok(match self.product_on(device, precision) {
            Some(product) => {
                let one = mae_kernels::matmul_flops(product);
                plain.max(pool().current_num_threads() as f64 * one)
            }
            None => plain,
        })
    }

    /// Takes most of libtorch's threads from it for as long as the result lives, where these kernels do most of the
    /// work: it keeps a quarter of them, at least one.
    ///
    /// At a barrier libtorch's threads wait by spinning, and so take the cores from the kernels' threads and the
    /// loader's.
    pub fn take_threads(self, device: Device, precision: Kind) -> Option<LibtorchThreads> {
        if !self.fuses_on(device, precision) {
            return None;
        }
        let threads = pool().current_num_threads() as i32;
        Some(LibtorchThreads::set((threads / 4).max(1)))
    }

    /// Whether `mae-kernels` computes the blocks there.
    pub(crate) fn fuses_on(self, device: Device, precision: Kind) -> bool {
        self.product_on(device, precision).is_some()
    }

    /// Who multiplies the matrices of transformer blocks there, for a reader.
    pub fn products(self, device: Device, precision: Kind) -> &'static str {
        match (self.here(), precision) {
            _ if !self.fuses_on(device, precision) => "libtorch",
            (_, Kind::BFloat16) => Self::bf16_instructions().unwrap_or("libtorch"),
            (Self::FusedMkl, _) if has_mkl() => "MKL",
            _ => "gemm",
        }
    }

    /// The instructions that this CPU has for fused blocks in bf16.
    pub fn bf16_instructions() -> Option<&'static str> {
        Bf16::here().map(|product| product.instructions())
    }

    /// Who multiplies the matrices of fused blocks there; none where blocks are not fused.
    fn product_on(self, device: Device, precision: Kind) -> Option<&'static dyn MatrixProduct> {
        if device != Device::Cpu {
            return None;
        }
        match (self.here(), precision) {
            (Self::Plain, _) => None,
            (Self::FusedMkl, Kind::Float) if has_mkl() => Some(&Mkl),
            (_, Kind::Float) => Some(&Gemm),
            (_, Kind::BFloat16) => Bf16::here().map(|product| product as _),
            _ => None,
        }
    }

    /// The kernels that [`Auto`](Self::Auto) stands for on this processor; all others stand for themselves.
    ///
    /// MKL has AVX-512 code for Intel's processors alone, and the `gemm` crate for any: so that is taken where another
    /// maker's processor has AVX-512, and MKL elsewhere. What is compared so is in docs/results/performance.md; the
    /// two are too close on some processors for a short measurement to choose the same each time, and so would lose
    /// that the same configuration gives the same losses.
    pub fn here(self) -> Self {
        match self {
            Self::Auto if has_mkl() && mkl_has_the_widest_vectors() => Self::FusedMkl,
            Self::Auto => Self::Fused,
            definite => definite,
        }
    }

    /// The name that a configuration has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fused => "fused",
            Self::FusedMkl => "fused-mkl",
            Self::Plain => "plain",
        }
    }

    /// Who multiplies the matrices of a fused block of tokens like these; none if it is not to be fused.
    pub(crate) fn product(self, tokens: &Tensor) -> Option<&'static dyn MatrixProduct> {
        match autocast_kind(Device::Cpu).expect("the CPU has autocast") {
            // Not in f32, outside of autocast: so is the whole model.
            Kind::Float if tokens.kind() != Kind::Float => None,
            precision => self.product_on(tokens.device(), precision),
        }
    }
}

/// Whether no vectors of this processor are left idle by MKL.
#[cfg(target_arch = "x86_64")]
fn mkl_has_the_widest_vectors() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    let vendor = [leaf.ebx, leaf.edx, leaf.ecx]
        .map(u32::to_le_bytes)
        .concat();
    vendor == b"GenuineIntel" || !std::is_x86_feature_detected!("avx512f")
}

/// Whether no vectors of this processor are left idle by MKL.
#[cfg(not(target_arch = "x86_64"))]
fn mkl_has_the_widest_vectors() -> bool {
    false
}

/// The products of libtorch's MKL.
struct Mkl;

impl MatrixProduct for Mkl {
    fn multiply(&self, base: Base, mut c: MatrixMut, a: Matrix, b: Matrix) {
        let accumulate = c.begin(base);
        let ([m, n], [_, k], c_stride) = (c.size(), a.size(), c.row_stride());
        sgemm(
            [m, n, k],
            accumulate,
            operand(a),
            operand(b),
            c.into_data(),
            c_stride,
        );
    }
}

fn operand(matrix: Matrix<'_>) -> Operand<'_> {
    let [row_stride, col_stride] = matrix.strides();
    let transposed = col_stride != 1;
    Operand {
        data: matrix.data(),
        stride: if transposed { col_stride } else { row_stride },
        transposed,
    }
}

/// Gives libtorch as many threads as it had before when dropped.
#[derive(Debug)]
pub struct LibtorchThreads {
    before: i32,
}

impl LibtorchThreads {
    /// Lends libtorch as many threads as it has had at most, for work that nothing else is done beside.
    pub fn all() -> Self {
        Self::set(pool().current_num_threads() as i32)
    }

    fn set(threads: i32) -> Self {
        let before = tch::get_num_threads();
        tch::set_num_threads(threads);
        Self { before }
    }
}

impl Drop for LibtorchThreads {
    fn drop(&mut self) {
        tch::set_num_threads(self.before);
    }
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
    let one_thread = (device == Device::Cpu).then(|| LibtorchThreads::set(1));
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
    let threads = one_thread.map_or(1, |threads| threads.before);
    Ok(f64::from(threads) * 2.0 * (side as f64).powi(3) / best?)
}

/// As many threads as libtorch has, in a pool of their own: libtorch's cannot be borrowed.
pub(crate) fn pool() -> &'static ThreadPool {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    POOL.get_or_init(|| {
        ThreadPoolBuilder::new()
            .num_threads(tch::get_num_threads().max(1) as usize)
            .thread_name(|thread| format!("mae-kernels-{thread}"))
            .build()
            .expect("the system has threads left")
    })
}

//! Which code computes transformer blocks, on which threads, and how fast it could be.

use std::sync::OnceLock;
use std::time::Instant;

use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::{autocast, is_autocast};

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
        Some(TakenThreads::leave((threads / 4).max(1)))
    }

    /// Whether `mae-kernels` computes the blocks there.
    pub(crate) fn fuses_on(self, device: Device, precision: Kind) -> bool {
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

impl TakenThreads {
    fn leave(threads: i32) -> Self {
        let before = tch::get_num_threads();
        tch::set_num_threads(threads);
        Self { before }
    }
}

impl Drop for TakenThreads {
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
    let one_thread = (device == Device::Cpu).then(|| TakenThreads::leave(1));
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

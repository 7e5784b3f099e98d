//! How fast matrix products can be here.

use std::time::Instant;

use rayon::prelude::*;

use crate::matrix::{Matrix, MatrixMut};

/// Floating-point operations a second of this crate's matrix products, on all threads of the current rayon pool.
///
/// The best of several attempts, which take some tens of milliseconds together; a multiply-add is two operations.
pub fn matmul_flops() -> f64 {
    /// Three such matrices stay in the second-level cache.
    const SIDE: usize = 256;
    const ATTEMPTS: usize = 5;
    const PRODUCTS: usize = 20;
    let threads = rayon::current_num_threads();
    let mut matrices = vec![1.0; threads * 3 * SIDE * SIDE];
    let mut attempt = || {
        let start = Instant::now();
        matrices.par_chunks_mut(3 * SIDE * SIDE).for_each(|three| {
            let (product, factors) = three.split_at_mut(SIDE * SIDE);
            let (a, b) = factors.split_at(SIDE * SIDE);
            for _ in 0..PRODUCTS {
                MatrixMut::new(product, SIDE, SIDE)
                    .set_product(Matrix::new(a, SIDE, SIDE), Matrix::new(b, SIDE, SIDE));
            }
        });
        start.elapsed().as_secs_f64()
    };
    let best = (0..ATTEMPTS)
        .map(|_| attempt())
        .fold(f64::INFINITY, f64::min);
    (threads * PRODUCTS) as f64 * 2.0 * (SIDE as f64).powi(3) / best
}

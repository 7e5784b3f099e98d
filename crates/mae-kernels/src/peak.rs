//! How fast matrix products can be here.

use std::time::Instant;

use crate::matrix::{Matrix, MatrixMut, MatrixProduct};

/// Floating-point operations a second of matrix products by `product`, on one thread.
///
/// The best of some attempts, which take some milliseconds together; a multiply-add is two operations.
pub fn matmul_flops(product: &dyn MatrixProduct) -> f64 {
    /// Three such matrices stay in the second-level cache.
    const SIDE: usize = 256;
    const ATTEMPTS: usize = 40;
    let (a, b) = (vec![1.0; SIDE * SIDE], vec![1.0; SIDE * SIDE]);
    let mut result = vec![0.0; SIDE * SIDE];
    let mut attempt = || {
        let start = Instant::now();
        MatrixMut::new(&mut result, SIDE, SIDE).set_product(
            product,
            Matrix::new(&a, SIDE, SIDE),
            Matrix::new(&b, SIDE, SIDE),
        );
        start.elapsed().as_secs_f64()
    };
    let best = (0..ATTEMPTS)
        .map(|_| attempt())
        .fold(f64::INFINITY, f64::min);
    2.0 * (SIDE as f64).powi(3) / best
}

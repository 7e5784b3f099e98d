//! Matrix products by the MKL that libtorch is linked with.

use crate::ffi::{ext_has_mkl, ext_sgemm};

/// A matrix to be multiplied, in a slice: rows of contiguous values, or if it is transposed, columns.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Values from one row to the next, or from one column to the next.
    pub stride: usize,
    /// Whether it is the transpose of what is stored.
    pub transposed: bool,
}

impl Operand<'_> {
    /// Checks that it has room for `rows` and `cols`. Returns the stride.
    fn check(&self, rows: usize, cols: usize) -> i32 {
        match self.transposed {
            false => check(self.data, rows, cols, self.stride),
            true => check(self.data, cols, rows, self.stride),
        }
    }
}

/// Whether [`sgemm`] is there: this libtorch has MKL, whose functions can be called.
pub fn has_mkl() -> bool {
    // SAFETY: it answers a constant.
    unsafe { ext_has_mkl() }
}

/// `c = a b`, or `c += a b` if `accumulate`, on the calling thread alone.
///
/// `a` is `[m, k]`, `b` `[k, n]`; `c` has `m` rows of `n` values that begin `c_stride` apart.
///
/// # Panics
/// If a matrix is empty, does not fit its slice, or has a side or stride beyond i32; or without [`has_mkl`].
pub fn sgemm(
    [m, n, k]: [usize; 3],
    accumulate: bool,
    a: Operand,
    b: Operand,
    c: &mut [f32],
    c_stride: usize,
) {
    assert!(has_mkl(), "this libtorch has no MKL to call");
    let strides = [a.check(m, k), b.check(k, n), check(c, m, n, c_stride)];
    let beta = if accumulate { 1.0 } else { 0.0 };
    // SAFETY: every element of the three matrices lies in its slice, `c` overlaps neither, and the sides fit i32
    // as the strides do, which are no less.
    unsafe {
        ext_sgemm(
            side(m),
            side(n),
            side(k),
            a.transposed,
            a.data.as_ptr(),
            strides[0],
            b.transposed,
            b.data.as_ptr(),
            strides[1],
            beta,
            c.as_mut_ptr(),
            strides[2],
        );
    }
}

fn check(data: &[f32], rows: usize, cols: usize, stride: usize) -> i32 {
    assert!(
        rows > 0 && cols > 0 && stride >= cols,
        "[{rows}, {cols}] by {stride}"
    );
    let end = (rows - 1)
        .checked_mul(stride)
        .and_then(|last| last.checked_add(cols));
    assert!(
        end.is_some_and(|end| end <= data.len()),
        "a [{rows}, {cols}] matrix by {stride} in {} values",
        data.len()
    );
    side(stride)
}

fn side(len: usize) -> i32 {
    i32::try_from(len).expect("sides of matrices are below 2^31")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin()).collect()
    }

    /// Element (i, j).
    fn at(matrix: &Operand, i: usize, j: usize) -> f32 {
        let (row, col) = if matrix.transposed { (j, i) } else { (i, j) };
        matrix.data[row * matrix.stride + col]
    }

    #[test]
    fn products_of_any_layout_are_those_of_the_definition() {
        if !has_mkl() {
            return;
        }
        let [m, n, k] = [5, 7, 3];
        let (a, b) = (wave(100, 0.7), wave(100, 1.3));
        for (a_transposed, b_transposed, accumulate) in [
            (false, false, false),
            (false, true, true),
            (true, false, false),
            (true, true, true),
        ] {
            let a = Operand {
                data: &a,
                stride: if a_transposed { m } else { k } + 2,
                transposed: a_transposed,
            };
            let b = Operand {
                data: &b,
                stride: if b_transposed { k } else { n } + 1,
                transposed: b_transposed,
            };
            let mut c = vec![0.5; m * 9];
            sgemm([m, n, k], accumulate, a, b, &mut c, 9);
            for (i, row) in c.chunks_exact(9).enumerate() {
                for (j, value) in row.iter().enumerate().take(n) {
                    let product: f32 = (0..k).map(|l| at(&a, i, l) * at(&b, l, j)).sum();
                    let expected = product + if accumulate { 0.5 } else { 0.0 };
                    assert!(
                        (value - expected).abs() < 1e-5,
                        "({i}, {j}): {value} and {expected}"
                    );
                }
                assert_eq!(row[n..], [0.5, 0.5], "what is between rows is left alone");
            }
        }
    }

    #[test]
    #[should_panic(expected = "a [4, 4] matrix by 4 in 15 values")]
    fn a_matrix_beyond_its_slice_is_refused() {
        let short = Operand {
            data: &[0.0; 15],
            stride: 4,
            transposed: true,
        };
        short.check(4, 4);
    }
}

//! Matrix products on views of slices.

use gemm::Parallelism;

/// A matrix in a slice: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `data` as `[rows, cols]`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows of `cols` values that begin `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check(data.len(), rows, cols, row_stride);
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        }
    }

    /// The transpose, of the same data.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix to be written, with contiguous rows.
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// `data` as `[rows, cols]`.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows of `cols` values that begin `row_stride` apart.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check(data.len(), rows, cols, row_stride);
        Self {
            data,
            rows,
            cols,
            row_stride,
        }
    }

    /// Overwrites it with `a b`.
    pub fn set_product(self, a: Matrix, b: Matrix) {
        self.product(false, a, b);
    }

    /// Adds `a b` to it.
    pub fn add_product(self, a: Matrix, b: Matrix) {
        self.product(true, a, b);
    }

    /// On the calling thread alone: the callers are parallel.
    fn product(self, accumulate: bool, a: Matrix, b: Matrix) {
        assert_eq!((self.rows, self.cols), (a.rows, b.cols));
        assert_eq!(a.cols, b.rows);
        // SAFETY: constructors checked that every element of the three views lies in its slice, the shapes
        // agree, and `self` is borrowed mutably, so that it overlaps neither operand.
        unsafe {
            gemm::gemm(
                self.rows,
                self.cols,
                a.cols,
                self.data.as_mut_ptr(),
                1,
                self.row_stride as isize,
                accumulate,
                a.data.as_ptr(),
                a.col_stride as isize,
                a.row_stride as isize,
                b.data.as_ptr(),
                b.col_stride as isize,
                b.row_stride as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

fn check(len: usize, rows: usize, cols: usize, row_stride: usize) {
    assert!(row_stride >= cols, "rows overlap");
    let end = rows
        .checked_sub(1)
        .map_or(0, |last| last * row_stride + cols);
    assert!(end <= len, "a [{rows}, {cols}] matrix in {len} values");
}

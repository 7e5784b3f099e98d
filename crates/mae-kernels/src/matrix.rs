//! Matrix products on views of slices.

use gemm::Parallelism;

/// Who multiplies matrices: what is fastest is a matter of the processor.
pub trait MatrixProduct: Sync {
    /// `c = a b`, or `c += a b` if `accumulate`, on the calling thread alone, for its callers are parallel.
    ///
    /// The shapes agree, and nothing is empty. The rows of `c` are contiguous; of `a` and `b` either the rows or,
    /// if they are transposed, the columns.
    fn multiply(&self, accumulate: bool, c: MatrixMut, a: Matrix, b: Matrix);
}

/// The products of the `gemm` crate, with AVX-512, AVX2 or neither, as the processor has.
#[derive(Clone, Copy, Debug)]
pub struct Gemm;

impl MatrixProduct for Gemm {
    fn multiply(&self, accumulate: bool, c: MatrixMut, a: Matrix, b: Matrix) {
        // SAFETY: constructors checked that every element of the three views lies in its slice,
        // `MatrixMut::product` that the shapes agree, and `c` is borrowed mutably, so that it overlaps neither
        // operand.
        unsafe {
            gemm::gemm(
                c.rows,
                c.cols,
                a.cols,
                c.data.as_mut_ptr(),
                1,
                c.row_stride as isize,
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

    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// The values: element (i, j) is at `i * strides[0] + j * strides[1]`, and one of the strides is 1.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// From one row to the next, and from one column to the next.
    pub fn strides(&self) -> [usize; 2] {
        [self.row_stride, self.col_stride]
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
    pub fn set_product(self, product: &dyn MatrixProduct, a: Matrix, b: Matrix) {
        self.product(product, false, a, b);
    }

    /// Adds `a b` to it.
    pub fn add_product(self, product: &dyn MatrixProduct, a: Matrix, b: Matrix) {
        self.product(product, true, a, b);
    }

    fn product(self, product: &dyn MatrixProduct, accumulate: bool, a: Matrix, b: Matrix) {
        assert_eq!((self.rows, self.cols), (a.rows, b.cols));
        assert_eq!(a.cols, b.rows);
        product.multiply(accumulate, self, a, b);
    }

    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// From one row to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// The values: element (i, j) is at `i * row_stride + j`.
    pub fn into_data(self) -> &'a mut [f32] {
        self.data
    }
}

fn check(len: usize, rows: usize, cols: usize, row_stride: usize) {
    assert!(row_stride >= cols, "rows overlap");
    let end = rows
        .checked_sub(1)
        .map_or(0, |last| last * row_stride + cols);
    assert!(end <= len, "a [{rows}, {cols}] matrix in {len} values");
}

//! Matrix products on views of slices.

use gemm::Parallelism;

/// Who multiplies matrices: what is fastest is a matter of the processor.
pub trait MatrixProduct: Sync {
    /// `c = base + a b`, on the calling thread alone, for its callers are parallel.
    ///
    /// The shapes agree, and nothing is empty. The rows of `c` are contiguous; of `a` and `b` either the rows or,
    /// if they are transposed, the columns.
    fn multiply(&self, base: Base, c: MatrixMut, a: Matrix, b: Matrix);

    /// `b`, to be multiplied by several matrices, in the form that this is fastest with.
    ///
    /// It is made on all threads of the current rayon pool.
    fn right<'a>(&'a self, b: Matrix<'a>) -> Box<dyn Right + 'a> {
        Box::new(AsItIs { product: self, b })
    }
}

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub enum Base<'a> {
    /// Nothing: it overwrites.
    Nothing,
    /// What is there.
    Result,
    /// In every row these values, as many as there are columns; it overwrites, too.
    Row(&'a [f32]),
}

impl<'a> Base<'a> {
    /// That of the columns from `column` on.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn columns_from(self, column: usize) -> Self {
        match self {
            Self::Row(row) => Self::Row(&row[column..]),
            other => other,
        }
    }
}

/// The right operand of several products, made by [`MatrixProduct::right`].
pub trait Right: Send + Sync {
    /// [`MatrixProduct::multiply`] with this as `b`.
    fn multiply(&self, base: Base, c: MatrixMut, a: Matrix);
}

struct AsItIs<'a, P: ?Sized> {
    product: &'a P,
    b: Matrix<'a>,
}

impl<P: MatrixProduct + ?Sized> Right for AsItIs<'_, P> {
    fn multiply(&self, base: Base, c: MatrixMut, a: Matrix) {
        self.product.multiply(base, c, a, self.b);
    }
}

/// The products of the `gemm` crate, with AVX-512, AVX2 or neither, as the processor has.
#[derive(Clone, Copy, Debug)]
pub struct Gemm;

impl MatrixProduct for Gemm {
    #[expect(unsafe_code, reason = "calls `gemm`")]
    fn multiply(&self, base: Base, mut c: MatrixMut, a: Matrix, b: Matrix) {
        assert_eq!([c.rows, c.cols], [a.rows, b.cols]);
        assert_eq!(a.cols, b.rows);
        let accumulate = c.begin(base);
        // SAFETY: constructors checked that every element of the three views lies in its slice, the shapes agree,
        // and `c` is borrowed mutably, so that it overlaps neither operand.
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

    /// `rows` rows from `first` on.
    pub(crate) fn rows(self, first: usize, rows: usize) -> Self {
        assert!(rows > 0 && first + rows <= self.rows);
        Self {
            data: &self.data[first * self.row_stride..],
            rows,
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

    /// Whether its columns are contiguous, and not its rows.
    pub fn transposed(&self) -> bool {
        self.col_stride != 1
    }

    /// Row `row` from column `col` on, of a matrix with contiguous rows; nothing beyond its end.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn row_from(&self, row: usize, col: usize) -> &'a [f32] {
        let first = row * self.row_stride;
        &self.data[first + col.min(self.cols)..first + self.cols]
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
        product.multiply(Base::Nothing, self, a, b);
    }

    /// Makes it what a product is to be added to. Returns whether there is anything to add to.
    pub fn begin(&mut self, base: Base) -> bool {
        if let Base::Row(row) = base {
            assert_eq!(row.len(), self.cols);
            for c in self.data.chunks_mut(self.row_stride).take(self.rows) {
                c[..self.cols].copy_from_slice(row);
            }
        }
        !matches!(base, Base::Nothing)
    }

    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// From one row to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// [`into_data`](Self::into_data), borrowed.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn data_mut(&mut self) -> &mut [f32] {
        self.data
    }

    /// The values: element (i, j) is at `i * row_stride + j`.
    pub fn into_data(self) -> &'a mut [f32] {
        self.data
    }
}

fn check(len: usize, rows: usize, cols: usize, row_stride: usize) {
    assert!(row_stride >= cols, "rows overlap");
    let end = match rows.checked_sub(1) {
        Some(last) => (last.checked_mul(row_stride)).and_then(|last| last.checked_add(cols)),
        None => Some(0),
    };
    assert!(
        end.is_some_and(|end| end <= len),
        "a [{rows}, {cols}] matrix in {len} values"
    );
}

//! Large products from small ones, in an order that keeps what is read again in the cache.

use std::cell::Cell;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::Bf16;
use super::kernel::{BLOCK, Instructions};
use super::tile::{self, DEPTH, Pair, SIDE};
use crate::matrix::{Base, Matrix, MatrixMut, MatrixProduct, Right};

/// At most as many pairs of tiles are summed over at once.
const DEPTH_AT_ONCE: usize = 16;

/// At most as many rows of the left operand are prepared at once: 1 MiB with [`DEPTH_AT_ONCE`], half the second-level
/// cache of a processor that has AMX.
const ROWS_AT_ONCE: usize = 1024;

/// As many columns of the right operand are prepared at once: enough that its rows are read in long pieces.
const COLUMNS_AT_ONCE: usize = 256;

thread_local! {
    static SCRATCH: Cell<Vec<MaybeUninit<Pair>>> = const { Cell::new(Vec::new()) };
}

impl MatrixProduct for Bf16 {
    fn multiply(&self, base: Base, c: MatrixMut, a: Matrix, b: Matrix) {
        multiply(self.0, base, c, a, Columns::Of(b));
    }

    fn right<'a>(&'a self, b: Matrix<'a>) -> Box<dyn Right + 'a> {
        let [depth, columns] = b.size();
        let (depth, blocks) = (depth.div_ceil(DEPTH), columns.div_ceil(BLOCK));
        let at_once = (blocks.div_ceil(rayon::current_num_threads())).min(COLUMNS_AT_ONCE / BLOCK);
        let mut pairs = Box::new_uninit_slice(depth * blocks);
        pairs
            .par_chunks_mut(depth * at_once)
            .enumerate()
            .for_each(|(i, pairs)| {
                prepare_right(&b, [0, i * at_once * BLOCK], depth, pairs);
            });
        Box::new(Prepared {
            instructions: self.0,
            depth,
            // SAFETY: all blocks were prepared.
            pairs: unsafe { pairs.assume_init() },
        })
    }
}

/// A right operand in tiles, 32 columns after 32.
struct Prepared {
    instructions: Instructions,
    depth: usize,
    pairs: Box<[Pair]>,
}

impl Right for Prepared {
    fn multiply(&self, base: Base, c: MatrixMut, a: Matrix) {
        multiply(self.instructions, base, c, a, Columns::In(self));
    }
}

/// Where the columns of a right operand come from.
#[derive(Clone, Copy)]
enum Columns<'a> {
    Of(Matrix<'a>),
    In(&'a Prepared),
}

fn multiply(instructions: Instructions, base: Base, mut c: MatrixMut, a: Matrix, b: Columns) {
    let ([rows, columns], depth) = (c.size(), a.size()[1].div_ceil(DEPTH));
    let stride = c.row_stride();
    let depth_at_once = evenly(depth, DEPTH_AT_ONCE);
    let rows_at_once = BLOCK * evenly(rows.div_ceil(BLOCK), ROWS_AT_ONCE / BLOCK);

    let mut scratch = SCRATCH.take();
    let lens = [rows_at_once, COLUMNS_AT_ONCE].map(|lines| lines / BLOCK * depth_at_once);
    scratch.resize(scratch.len().max(lens[0] + lens[1]), MaybeUninit::uninit());
    let (left, right) = scratch.split_at_mut(lens[0]);
    // SAFETY: whoever has instructions has them of `Instructions::here`.
    let kernel = unsafe { instructions.begin() };
    for first in (0..depth).step_by(depth_at_once) {
        let at_once = depth_at_once.min(depth - first);
        let base = if first == 0 { base } else { Base::Result };
        for row in (0..rows).step_by(rows_at_once) {
            let blocks = rows_at_once.min(rows - row).div_ceil(BLOCK);
            let left = &mut left[..blocks * at_once];
            let left = prepare_left(&a, [row, first * DEPTH], at_once, left);
            for column in (0..columns).step_by(COLUMNS_AT_ONCE) {
                let last = columns.min(column + COLUMNS_AT_ONCE);
                let right = match b {
                    Columns::In(b) => &b.pairs[column / BLOCK * b.depth..],
                    Columns::Of(b) => {
                        let right = &mut right[..(last - column).div_ceil(BLOCK) * at_once];
                        prepare_right(&b, [first * DEPTH, column], at_once, right)
                    }
                };
                for (block, left) in left.chunks_exact(at_once).enumerate() {
                    let row = row + block * BLOCK;
                    for (i, column) in (column..last).step_by(BLOCK).enumerate() {
                        let right = match b {
                            Columns::In(b) => &right[i * b.depth + first..][..at_once],
                            Columns::Of(_) => &right[i * at_once..][..at_once],
                        };
                        let base = base.columns_from(column);
                        let c = &mut c.data_mut()[row * stride + column..];
                        kernel.multiply(
                            base,
                            c,
                            stride,
                            [rows - row, columns - column],
                            left,
                            right,
                        );
                    }
                }
            }
        }
    }
    drop(kernel);
    SCRATCH.set(scratch);
}

/// Into how many at once `count` are divided, at most `limit`, so that all parts are about as large.
fn evenly(count: usize, limit: usize) -> usize {
    count.div_ceil(count.div_ceil(limit))
}

/// Fills `blocks`, each of `depth` pairs, with the rows from `first[0]` on.
///
/// What is stored side by side is read in one go, as far as blocks go.
fn prepare_left<'a>(
    matrix: &Matrix,
    first: [usize; 2],
    depth: usize,
    blocks: &'a mut [MaybeUninit<Pair>],
) -> &'a [Pair] {
    prepare(depth, matrix.transposed(), blocks, |block, i| {
        let tile = |j| {
            let row = first[0] + block * BLOCK + j * SIDE;
            // SAFETY: `Bf16::here` saw these instructions.
            unsafe { tile::left(matrix, [row, first[1] + i * DEPTH]) }
        };
        [tile(0), tile(1)]
    })
}

/// [`prepare_left`], with the columns from `first[1]` on.
fn prepare_right<'a>(
    matrix: &Matrix,
    first: [usize; 2],
    depth: usize,
    blocks: &'a mut [MaybeUninit<Pair>],
) -> &'a [Pair] {
    prepare(depth, !matrix.transposed(), blocks, |block, i| {
        let tile = |j| {
            let column = first[1] + block * BLOCK + j * SIDE;
            // SAFETY: `Bf16::here` saw these instructions.
            unsafe { tile::right(matrix, [first[0] + i * DEPTH, column]) }
        };
        [tile(0), tile(1)]
    })
}

/// Fills `blocks`, either block by block, or the first pair of each, and then the next.
fn prepare(
    depth: usize,
    across: bool,
    blocks: &mut [MaybeUninit<Pair>],
    pair: impl Fn(usize, usize) -> Pair,
) -> &[Pair] {
    let count = blocks.len() / depth;
    let mut fill = |block: usize, i: usize| {
        blocks[block * depth + i].write(pair(block, i));
    };
    if across {
        (0..depth).for_each(|i| (0..count).for_each(|block| fill(block, i)));
    } else {
        (0..count).for_each(|block| (0..depth).for_each(|i| fill(block, i)));
    }
    // SAFETY: every one was written.
    unsafe { blocks.assume_init_ref() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Gemm;

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin()).collect()
    }

    /// Rounded to bf16: the nearest, of two as near the even one.
    fn rounded(values: &[f32]) -> Vec<f32> {
        values
            .iter()
            .map(|value| {
                let bits = value.to_bits();
                f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
            })
            .collect()
    }

    fn matrix(data: &[f32], rows: usize, cols: usize, transposed: bool) -> Matrix<'_> {
        if transposed {
            Matrix::strided(data, cols, rows, rows + 3).t()
        } else {
            Matrix::strided(data, rows, cols, cols + 3)
        }
    }

    #[test]
    fn equals_the_product_of_the_rounded_matrices() {
        let Some(&Bf16(fastest)) = Bf16::here() else {
            return;
        };
        let sizes = [
            [1, 1, 1],
            [17, 17, 64],
            [65, 33, 31],
            [32, 64, 96],
            [50, 130, 1100],
            [1100, 40, 70],
        ];
        for instructions in [fastest, Instructions::Avx512Bf16] {
            let product = Bf16(instructions);
            for [m, n, k] in sizes {
                let row = wave(n, 0.3);
                for i in 0..12 {
                    let transposed = [i & 1 > 0, i & 2 > 0];
                    let base = [Base::Nothing, Base::Result, Base::Row(&row)][i / 4];
                    let (a, b) = (wave((m + 3) * (k + 3), 0.7), wave((k + 3) * (n + 3), 1.3));
                    let stride = n + 2;
                    let mut found = vec![0.25; m * stride];
                    let mut expected = found.clone();
                    let views = |a, b| {
                        (
                            matrix(a, m, k, transposed[0]),
                            matrix(b, k, n, transposed[1]),
                        )
                    };
                    let (left, right) = views(&a, &b);
                    product.multiply(
                        base,
                        MatrixMut::strided(&mut found, m, n, stride),
                        left,
                        right,
                    );
                    let (exact_a, exact_b) = (rounded(&a), rounded(&b));
                    let (exact_left, exact_right) = views(&exact_a, &exact_b);
                    Gemm.multiply(
                        base,
                        MatrixMut::strided(&mut expected, m, n, stride),
                        exact_left,
                        exact_right,
                    );
                    let what = format!("{instructions:?}, [{m}, {n}, {k}], {transposed:?}");
                    let bound = 1e-6 * (k as f32).max(8.0);
                    for (found, expected) in found.iter().zip(&expected) {
                        assert!(
                            (found - expected).abs() < bound,
                            "{what}: {found}, {expected}"
                        );
                    }

                    let mut prepared = vec![0.25; m * stride];
                    let right = product.right(right);
                    right.multiply(base, MatrixMut::strided(&mut prepared, m, n, stride), left);
                    assert_eq!(prepared, found, "{what}: prepared");
                }
            }
        }
    }

    #[test]
    fn a_nan_stays_one() {
        let Some(product) = Bf16::here() else {
            return;
        };
        let (mut a, b) = (vec![1.0; 32 * 32], vec![1.0; 32 * 32]);
        a[40] = f32::from_bits(0x7f80_0001);
        let mut c = vec![0.0; 32 * 32];
        product.multiply(
            Base::Nothing,
            MatrixMut::new(&mut c, 32, 32),
            Matrix::new(&a, 32, 32),
            Matrix::new(&b, 32, 32),
        );
        assert!(c[32..64].iter().all(|value| value.is_nan()));
        assert!(c[..32].iter().chain(&c[64..]).all(|value| *value == 32.0));
    }
}

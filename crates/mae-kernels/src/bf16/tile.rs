//! Tiles of bf16: what the processor multiplies at once, made of f32.
//!
//! A tile is 16 lines of 64 bytes. For the left operand line `i` is row `i`, 32 values along what is summed over. For
//! the right one line `i` holds rows `2 i` and `2 i + 1` of 16 columns, in pairs: what AMX and AVX512-BF16 read.

use std::arch::x86_64::*;

use crate::matrix::Matrix;

/// Rows of a left tile and columns of a right one.
pub const SIDE: usize = 16;
/// What is summed over, of both.
pub const DEPTH: usize = 32;

/// 16 lines.
pub type Tile = [__m512i; 16];

/// Two tiles side by side, or one above the other.
pub type Pair = [Tile; 2];

/// Rows from `first[0]` and columns from `first[1]` on of `matrix`, rounded to the nearest: as a tile of a left operand.
/// Zero beyond its end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub fn left(matrix: &Matrix, first: [usize; 2]) -> Tile {
    match matrix.transposed() {
        false => along_rows(matrix, first),
        true => transpose(pairs_of_rows(&matrix.t(), [first[1], first[0]])),
    }
}

/// [`left`], of a right operand.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub fn right(matrix: &Matrix, first: [usize; 2]) -> Tile {
    match matrix.transposed() {
        false => pairs_of_rows(matrix, first),
        true => transpose(along_rows(&matrix.t(), [first[1], first[0]])),
    }
}

/// 16 rows of 32 values each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn along_rows(matrix: &Matrix, [row, col]: [usize; 2]) -> Tile {
    let mut lines = [_mm512_setzero_si512(); 16];
    let rows = matrix.size()[0].saturating_sub(row).min(SIDE);
    for (i, line) in lines.iter_mut().enumerate().take(rows) {
        let values = matrix.row_from(row + i, col);
        let (low, high) = (load(values), load(values.get(SIDE..).unwrap_or(&[])));
        *line = to_bf16(low, high);
    }
    lines
}

/// 32 rows of 16 values each, two rows a line, value beside value.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pairs_of_rows(matrix: &Matrix, [row, col]: [usize; 2]) -> Tile {
    let order: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
    // SAFETY: both are 64 bytes of integers.
    let order: __m512i = unsafe { std::mem::transmute(order) };
    let mut lines = [_mm512_setzero_si512(); 16];
    let rows = matrix.size()[0];
    for (i, line) in lines.iter_mut().enumerate() {
        let row = row + 2 * i;
        if row >= rows {
            break;
        }
        let low = load(matrix.row_from(row, col));
        let high = match row + 1 < rows {
            true => load(matrix.row_from(row + 1, col)),
            false => _mm512_setzero_ps(),
        };
        *line = _mm512_permutexvar_epi16(order, to_bf16(low, high));
    }
    lines
}

/// The first 16 values, and zeros where there are fewer.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[f32]) -> __m512 {
    let mask = match values.len() {
        len @ 0..SIDE => (1 << len) - 1,
        _ => u16::MAX,
    };
    // SAFETY: what the mask leaves out is not read.
    unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn to_bf16(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 64 bytes, of which every value is one.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// The transpose of 16 lines of 16 pairs.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(lines: Tile) -> Tile {
    let mut a = lines;
    for i in (0..16).step_by(2) {
        a[i] = _mm512_unpacklo_epi32(lines[i], lines[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(lines[i], lines[i + 1]);
    }
    // b[4 i + j]: column j of each quarter, of lines 4 i to 4 i + 3.
    let mut b = a;
    for i in (0..16).step_by(4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    let mut c = b;
    for j in 0..4 {
        let [low02, low13] = even_and_odd(b[j], b[4 + j]);
        let [high02, high13] = even_and_odd(b[8 + j], b[12 + j]);
        [c[j], c[8 + j]] = even_and_odd(low02, high02);
        [c[4 + j], c[12 + j]] = even_and_odd(low13, high13);
    }
    c
}

/// Quarters 0 and 2 of both, and quarters 1 and 3.
#[inline]
#[target_feature(enable = "avx512f")]
fn even_and_odd(a: __m512i, b: __m512i) -> [__m512i; 2] {
    [
        _mm512_shuffle_i32x4::<0x88>(a, b),
        _mm512_shuffle_i32x4::<0xdd>(a, b),
    ]
}

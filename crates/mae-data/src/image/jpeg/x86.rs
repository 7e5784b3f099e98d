//! The loops that touch every pixel, in AVX2: several times as fast as what compilers make of them.
//!
//! Each gives, to the bit, what its portable twin gives, and is tested against it.

#![expect(unsafe_code, reason = "vector instructions of the processor")]

use std::arch::x86_64::*;

use super::header::BLOCK;
use super::idct::{BETWEEN, EVEN, FRACTION, ODD, PIXEL_FRACTION};
use super::resample::{CHUNK, COLOUR_FRACTION, COLOUR_WEIGHTS, PIXEL_SHIFT, SUM_MAX};

/// `idct::inverse`.
#[target_feature(enable = "avx2")]
pub(super) fn inverse(coefficients: &[i16; BLOCK], pixels: &mut [i16], stride: usize) {
    let rows: [__m128i; 8] = std::array::from_fn(|row| {
        let row = &coefficients[row * 8..][..8];
        // SAFETY: the slice holds 16 bytes.
        unsafe { _mm_loadu_si128(row.as_ptr().cast()) }
    });
    let between = pass::<{ FRACTION - BETWEEN }>(rows);
    let columns = pass::<{ FRACTION + BETWEEN + 3 }>(transpose(between));
    for (x, column) in columns.into_iter().enumerate() {
        let column = _mm_adds_epi16(column, _mm_set1_epi16(128));
        let column = _mm_min_epi16(
            _mm_max_epi16(column, _mm_setzero_si128()),
            _mm_set1_epi16(255),
        );
        let out = &mut pixels[x * stride..][..8];
        // SAFETY: the slice holds 16 bytes.
        unsafe {
            _mm_storeu_si128(
                out.as_mut_ptr().cast(),
                _mm_slli_epi16::<PIXEL_FRACTION>(column),
            )
        };
    }
}

/// `idct::pass` of each of eight lanes, saturated to 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn pass<const SHIFT: i32>(s: [__m128i; 8]) -> [__m128i; 8] {
    let s04 = pairs(s[0], s[4]);
    let s26 = pairs(s[2], s[6]);
    let s13 = pairs(s[1], s[3]);
    let s57 = pairs(s[5], s[7]);
    let one = 1 << FRACTION;
    let half = _mm256_set1_epi32(1 << (SHIFT - 1));
    let sum = _mm256_add_epi32(dot(s04, one, one), half);
    let difference = _mm256_add_epi32(dot(s04, one, -one), half);
    let [side0, side1] = EVEN
        .map(|[a, b]| [a, b])
        .map(|[a, b]| dot(s26, a.into(), b.into()));
    let even = [
        _mm256_add_epi32(sum, side0),
        _mm256_add_epi32(difference, side1),
        _mm256_sub_epi32(difference, side1),
        _mm256_sub_epi32(sum, side0),
    ];
    let mut out = [_mm_setzero_si128(); 8];
    for (i, [a, b, c, d]) in ODD.into_iter().enumerate() {
        let odd = _mm256_add_epi32(dot(s13, a.into(), b.into()), dot(s57, c.into(), d.into()));
        let first = _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(even[i], odd));
        let last = _mm256_srai_epi32::<SHIFT>(_mm256_sub_epi32(even[i], odd));
        // Packing works on halves of a register, which leaves the quarters out of order.
        let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(first, last));
        out[i] = _mm256_castsi256_si128(both);
        out[7 - i] = _mm256_extracti128_si256::<1>(both);
    }
    out
}

/// The values of `a` and `b` in turn.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs(a: __m128i, b: __m128i) -> __m256i {
    _mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b))
}

/// `a` times the first of each pair plus `b` times the second; both fit in 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn dot(pairs: __m256i, a: i32, b: i32) -> __m256i {
    _mm256_madd_epi16(pairs, _mm256_set1_epi32(b << 16 | a & 0xffff))
}

/// `transpose::transpose`.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m128i; 8]) -> [__m128i; 8] {
    let mut rows = rows;
    for _ in 0..3 {
        let [a, b, c, d, e, f, g, h] = rows;
        rows = [
            _mm_unpacklo_epi16(a, e),
            _mm_unpackhi_epi16(a, e),
            _mm_unpacklo_epi16(b, f),
            _mm_unpackhi_epi16(b, f),
            _mm_unpacklo_epi16(c, g),
            _mm_unpackhi_epi16(c, g),
            _mm_unpacklo_epi16(d, h),
            _mm_unpackhi_epi16(d, h),
        ];
    }
    rows
}

/// `resample::transpose_tile`.
#[target_feature(enable = "avx2")]
pub(super) fn transpose_tile(from: &[i16], from_stride: usize, to: &mut [i16], to_stride: usize) {
    let rows: [__m128i; 8] = std::array::from_fn(|i| {
        let row = &from[i * from_stride..][..8];
        // SAFETY: the slice holds 16 bytes.
        unsafe { _mm_loadu_si128(row.as_ptr().cast()) }
    });
    for (i, row) in transpose(rows).into_iter().enumerate() {
        let out = &mut to[i * to_stride..][..8];
        // SAFETY: the slice holds 16 bytes.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), row) };
    }
}

/// `resample::sum`.
#[target_feature(enable = "avx2")]
pub(super) fn sum(lines: &[i16], stride: usize, weights: &[i16], out: &mut [i16]) {
    const REGISTERS: usize = CHUNK / 16;
    let max = _mm256_set1_epi16(SUM_MAX);
    for (at, chunk) in (0..).step_by(CHUNK).zip(out.chunks_exact_mut(CHUNK)) {
        let mut sums = [_mm256_setzero_si256(); REGISTERS];
        for (i, &weight) in weights.iter().enumerate() {
            let line = &lines[i * stride + at..][..CHUNK];
            let weight = _mm256_set1_epi16(weight);
            for (sum, values) in sums.iter_mut().zip(line.chunks_exact(16)) {
                // SAFETY: the slice holds 32 bytes.
                let values = unsafe { _mm256_loadu_si256(values.as_ptr().cast()) };
                *sum = _mm256_add_epi16(*sum, _mm256_mulhrs_epi16(values, weight));
            }
        }
        for (sum, out) in sums.into_iter().zip(chunk.chunks_exact_mut(16)) {
            let sum = _mm256_min_epi16(_mm256_max_epi16(sum, _mm256_setzero_si256()), max);
            // SAFETY: the slice holds 32 bytes.
            unsafe {
                _mm256_storeu_si256(
                    out.as_mut_ptr().cast(),
                    _mm256_slli_epi16::<PIXEL_SHIFT>(sum),
                )
            };
        }
    }
}

/// `resample::ycbcr_to_rgb` of as many pixels as it returns, at least all but 15.
#[target_feature(enable = "avx2")]
pub(super) fn ycbcr_to_rgb([y, cb, cr]: [&[i16]; 3], out: &mut [u8]) -> usize {
    let [red_cr, green_cb, green_cr, blue_cb] =
        COLOUR_WEIGHTS.map(|weight| _mm256_set1_epi16(weight));
    let middle = _mm256_set1_epi16(128 << PIXEL_FRACTION);
    let half = _mm256_set1_epi16(1 << (COLOUR_FRACTION - 1));
    let mut done = 0;
    for out in out.chunks_exact_mut(48) {
        let [y, cb, cr] = [y, cb, cr].map(|row| {
            let values = &row[done..done + 16];
            // SAFETY: the slice holds 32 bytes.
            unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
        });
        let (cb, cr) = (_mm256_sub_epi16(cb, middle), _mm256_sub_epi16(cr, middle));
        let y = _mm256_add_epi16(_mm256_srai_epi16::<1>(y), half);
        let green = _mm256_add_epi16(y, _mm256_mulhrs_epi16(cb, green_cb));
        let colours = [
            _mm256_add_epi16(y, _mm256_mulhrs_epi16(cr, red_cr)),
            _mm256_add_epi16(green, _mm256_mulhrs_epi16(cr, green_cr)),
            _mm256_add_epi16(y, _mm256_mulhrs_epi16(cb, blue_cb)),
        ];
        let colours = colours.map(|values| {
            let values = _mm256_srai_epi16::<COLOUR_FRACTION>(values);
            let (low, high) = (
                _mm256_castsi256_si128(values),
                _mm256_extracti128_si256::<1>(values),
            );
            _mm_packus_epi16(low, high)
        });
        for (masks, out) in INTERLEAVE.iter().zip(out.chunks_exact_mut(16)) {
            let mut bytes = _mm_setzero_si128();
            for (colour, mask) in colours.into_iter().zip(masks) {
                // SAFETY: the array holds 16 bytes.
                let mask = unsafe { _mm_loadu_si128(mask.as_ptr().cast()) };
                bytes = _mm_or_si128(bytes, _mm_shuffle_epi8(colour, mask));
            }
            // SAFETY: the slice holds 16 bytes.
            unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), bytes) };
        }
        done += 16;
    }
    done
}

/// For each third of 16 RGB pixels and each colour, the pixel that a byte takes; 128 for none.
const INTERLEAVE: [[[u8; 16]; 3]; 3] = {
    let mut masks = [[[128; 16]; 3]; 3];
    let mut i = 0;
    while i < 48 {
        masks[i / 16][i % 3][i % 16] = (i / 3) as u8;
        i += 1;
    }
    masks
};

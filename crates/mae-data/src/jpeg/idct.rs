//! The inverse cosine transform of 8 x 8 blocks, in integers of 13 fractional bits.
//!
//! Every number is that of libjpeg's accurate integer transform.
//!
//! Source: Loeffler, Ligtenberg and Moschytz 1989, "Practical fast 1-D DCT algorithms with 11
//! multiplications".

use super::header::BLOCK;
use super::transpose::transpose;

/// Fractional bits of the constants.
const FRACTION: i32 = 13;
/// Fractional bits between the two passes.
const BETWEEN: i32 = 2;
/// Pixels are given out times 2 to the power of this.
pub(super) const PIXEL_FRACTION: i32 = 7;

/// A value of each of eight columns; the arithmetic wraps, as only damaged files need more bits.
type Lanes = [i32; 8];

/// Transforms dequantised coefficients `[vertical, horizontal frequency]` to eight columns of
/// pixels, each `stride` values after the one before.
///
/// # Shapes
/// - `coefficients`: `[8, 8]`
/// - `pixels`: 8 values at each of the columns, from 0 to 255, times 2 to the
///   [`PIXEL_FRACTION`]
#[inline(always)]
pub(super) fn inverse(coefficients: &[i16; BLOCK], pixels: &mut [i16], stride: usize) {
    let mut rows = [[0; 8]; 8];
    for (row, coefficients) in rows.iter_mut().zip(coefficients.chunks_exact(8)) {
        for (value, &coefficient) in row.iter_mut().zip(coefficients) {
            *value = i32::from(coefficient);
        }
    }
    let rows = pass::<{ FRACTION - BETWEEN }>(rows);
    let columns = pass::<{ FRACTION + BETWEEN + 3 }>(transpose(rows));
    for (x, column) in columns.iter().enumerate() {
        let out = &mut pixels[x * stride..][..8];
        for (out, &value) in out.iter_mut().zip(column) {
            *out = pixel(value);
        }
    }
}

/// [`inverse`] of a block that is all of one colour.
#[inline(always)]
pub(super) fn inverse_flat(dc: i16, pixels: &mut [i16], stride: usize) {
    let value = pixel((i32::from(dc) + 4) >> 3);
    for x in 0..8 {
        pixels[x * stride..][..8].fill(value);
    }
}

#[inline(always)]
fn pixel(value: i32) -> i16 {
    ((value.wrapping_add(128)).clamp(0, 255) << PIXEL_FRACTION) as i16
}

/// A one-dimensional transform of each lane, rounded to `SHIFT` bits fewer.
#[inline(always)]
fn pass<const SHIFT: i32>(input: [Lanes; 8]) -> [Lanes; 8] {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = input;

    let both = times(plus(s2, s6), fixed(0.541_196_100));
    let t2 = plus(both, times(s6, -fixed(1.847_759_065)));
    let t3 = plus(both, times(s2, fixed(0.765_366_865)));
    // The rounding of the last step goes along with the only path that reaches every output.
    let half = 1 << (SHIFT - 1);
    let t0 = scaled_up(plus(s0, s4), half);
    let t1 = scaled_up(minus(s0, s4), half);
    let even = [plus(t0, t3), plus(t1, t2), minus(t1, t2), minus(t0, t3)];

    let (a, b, c, d) = (plus(s7, s1), plus(s5, s3), plus(s7, s3), plus(s5, s1));
    let all = times(plus(c, d), fixed(1.175_875_602));
    let a = times(a, -fixed(0.899_976_223));
    let b = times(b, -fixed(2.562_915_447));
    let c = plus(times(c, -fixed(1.961_570_560)), all);
    let d = plus(times(d, -fixed(0.390_180_644)), all);
    let odd = [
        plus(times(s1, fixed(1.501_321_110)), plus(a, d)),
        plus(times(s3, fixed(3.072_711_026)), plus(b, c)),
        plus(times(s5, fixed(2.053_119_869)), plus(b, d)),
        plus(times(s7, fixed(0.298_631_336)), plus(a, c)),
    ];

    let mut output = [[0; 8]; 8];
    for i in 0..4 {
        output[i] = scaled_down::<SHIFT>(plus(even[i], odd[i]));
        output[7 - i] = scaled_down::<SHIFT>(minus(even[i], odd[i]));
    }
    output
}

const fn fixed(value: f64) -> i32 {
    (value * (1 << FRACTION) as f64 + 0.5) as i32
}

#[inline(always)]
fn scaled_up(mut a: Lanes, half: i32) -> Lanes {
    a.iter_mut()
        .for_each(|value| *value = (*value << FRACTION).wrapping_add(half));
    a
}

#[inline(always)]
fn scaled_down<const SHIFT: i32>(mut a: Lanes) -> Lanes {
    a.iter_mut().for_each(|value| *value >>= SHIFT);
    a
}

#[inline(always)]
fn plus(mut a: Lanes, b: Lanes) -> Lanes {
    for (a, b) in a.iter_mut().zip(b) {
        *a = a.wrapping_add(b);
    }
    a
}

#[inline(always)]
fn minus(mut a: Lanes, b: Lanes) -> Lanes {
    for (a, b) in a.iter_mut().zip(b) {
        *a = a.wrapping_sub(b);
    }
    a
}

#[inline(always)]
fn times(mut a: Lanes, factor: i32) -> Lanes {
    a.iter_mut()
        .for_each(|value| *value = value.wrapping_mul(factor));
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition of T.81, A.3.3, in floating point.
    fn exact(coefficients: &[i16; BLOCK], x: usize, y: usize) -> f64 {
        let basis = |position: usize, frequency: usize| {
            let scale = if frequency == 0 { 0.5_f64.sqrt() } else { 1.0 };
            let angle = (2 * position + 1) as f64 * frequency as f64 * std::f64::consts::PI / 16.0;
            scale * angle.cos()
        };
        let sum: f64 = (0..BLOCK)
            .map(|i| f64::from(coefficients[i]) * basis(y, i / 8) * basis(x, i % 8))
            .sum();
        (sum / 4.0 + 128.0).clamp(0.0, 255.0)
    }

    proptest! {
        #[test]
        fn pixels_are_those_of_the_definition(
            dc in -1024_i16..1024,
            ac in proptest::collection::vec(-200_i16..200, BLOCK - 1),
            kept in 0_usize..BLOCK,
        ) {
            let mut coefficients = [0; BLOCK];
            coefficients[0] = dc;
            coefficients[1..=kept.min(BLOCK - 1)].copy_from_slice(&ac[..kept]);
            let mut pixels = [0; BLOCK];
            inverse(&coefficients, &mut pixels, 8);
            for (i, pixel) in pixels.into_iter().enumerate() {
                let found = f64::from(pixel) / f64::from(1 << PIXEL_FRACTION);
                let expected = exact(&coefficients, i / 8, i % 8);
                prop_assert!((found - expected).abs() <= 1.0, "{found} for {expected}");
            }
            if kept == 0 {
                let mut flat = [0; BLOCK];
                inverse_flat(dc, &mut flat, 8);
                prop_assert_eq!(flat, pixels);
            }
        }

        #[test]
        fn no_coefficients_panic(coefficients in proptest::array::uniform32(any::<[i16; 2]>())) {
            let coefficients = std::array::from_fn(|i| coefficients[i / 2][i % 2]);
            inverse(&coefficients, &mut [0; BLOCK], 8);
        }
    }
}

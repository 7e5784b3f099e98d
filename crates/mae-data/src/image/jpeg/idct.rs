//! The inverse cosine transform of 8 x 8 blocks, in integers.
//!
//! Every number is that of libjpeg's accurate integer transform.
//!
//! Source: Loeffler, Ligtenberg and Moschytz 1989, "Practical fast 1-D DCT algorithms with 11
//! multiplications".

use super::header::BLOCK;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// Fractional bits of the constants.
pub(super) const FRACTION: i32 = 13;
/// Fractional bits between the two passes.
pub(super) const BETWEEN: i32 = 2;
/// Pixels are given out times 2 to the power of this.
pub(super) const PIXEL_FRACTION: i32 = 7;

/// What the frequencies 2 and 6 add to the first two of four even outputs; the others mirror it.
pub(super) const EVEN: [[i16; 2]; 2] = [[10703, 4433], [4433, -10704]];
/// What the frequencies 1, 3, 5 and 7 add to the first four outputs, and take from the last.
///
/// Square roots of 2 times cosines, with 13 fractional bits; sums of rounded constants, as in
/// libjpeg, which is why some differ by 1.
pub(super) const ODD: [[i16; 4]; 4] = [
    [11363, 9633, 6437, 2260],
    [9633, -2259, -11362, -6436],
    [6437, -11362, 2261, 9633],
    [2260, -6436, 9633, -11363],
];

/// Transforms dequantised coefficients `[vertical, horizontal frequency]` to eight columns of
/// pixels, each `stride` values after the one before.
///
/// # Shapes
/// - `coefficients`: `[8, 8]`
/// - `pixels`: 8 values at each of the columns, from 0 to 255, times 2 to the
///   [`PIXEL_FRACTION`]
#[inline(always)]
pub(super) fn inverse(coefficients: &[i16; BLOCK], pixels: &mut [i16], stride: usize) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        #[expect(unsafe_code, reason = "the processor was asked for the instructions")]
        return unsafe { x86::inverse(coefficients, pixels, stride) };
    }
    inverse_portable(coefficients, pixels, stride);
}

fn inverse_portable(coefficients: &[i16; BLOCK], pixels: &mut [i16], stride: usize) {
    let mut between = [0; BLOCK];
    for column in 0..8 {
        let input = std::array::from_fn(|row| i32::from(coefficients[row * 8 + column]));
        for (row, value) in pass(input, FRACTION - BETWEEN).into_iter().enumerate() {
            // Only damaged files need more bits.
            between[row * 8 + column] = value.clamp(i16::MIN.into(), i16::MAX.into());
        }
    }
    for (y, row) in between.chunks_exact(8).enumerate() {
        let input = std::array::from_fn(|column| row[column]);
        for (x, value) in pass(input, FRACTION + BETWEEN + 3).into_iter().enumerate() {
            pixels[x * stride + y] = pixel(value);
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
    ((value + 128).clamp(0, 255) << PIXEL_FRACTION) as i16
}

/// A one-dimensional transform, rounded to `shift` bits fewer.
///
/// The arithmetic wraps as that of vectors does.
fn pass(input: [i32; 8], shift: i32) -> [i32; 8] {
    let dot = |weights: &[i16], values: &[i32]| {
        (weights.iter().zip(values)).fold(0_i32, |sum, (&weight, &value)| {
            sum.wrapping_add(i32::from(weight).wrapping_mul(value))
        })
    };
    let half = 1 << (shift - 1);
    let sum = ((input[0] + input[4]) << FRACTION).wrapping_add(half);
    let difference = ((input[0] - input[4]) << FRACTION).wrapping_add(half);
    let sides = EVEN.map(|weights| dot(&weights, &[input[2], input[6]]));
    let even = [
        sum.wrapping_add(sides[0]),
        difference.wrapping_add(sides[1]),
        difference.wrapping_sub(sides[1]),
        sum.wrapping_sub(sides[0]),
    ];
    let odd = ODD.map(|weights| dot(&weights, &[input[1], input[3], input[5], input[7]]));
    std::array::from_fn(|i| match i {
        0..4 => even[i].wrapping_add(odd[i]) >> shift,
        _ => even[7 - i].wrapping_sub(odd[7 - i]) >> shift,
    })
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

        /// Any coefficients, as damaged files have them.
        #[test]
        fn every_processor_gives_the_same(coefficients in proptest::array::uniform32(any::<[i16; 2]>())) {
            let coefficients = std::array::from_fn(|i| coefficients[i / 2][i % 2]);
            let mut pixels = [[0; BLOCK]; 2];
            inverse(&coefficients, &mut pixels[0], 8);
            inverse_portable(&coefficients, &mut pixels[1], 8);
            prop_assert_eq!(pixels[0], pixels[1]);
        }
    }
}

//! From planes of pixels to the crop at its final size, and to RGB.

use super::idct::PIXEL_FRACTION;
use super::kernel::{Kernel, WEIGHT_FRACTION};
use super::scan::Plane;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// Lines of values are padded to a multiple of this.
pub(super) const CHUNK: usize = 32;
/// Fractional bits of a sum: those of pixel and weight, less the 15 that [`product`] drops.
const SUM_FRACTION: i32 = PIXEL_FRACTION + WEIGHT_FRACTION - 15;
/// Greatest sum that is a pixel.
pub(super) const SUM_MAX: i16 = 255 << SUM_FRACTION;
/// From a sum to a pixel with [`PIXEL_FRACTION`] bits.
pub(super) const PIXEL_SHIFT: i32 = PIXEL_FRACTION - SUM_FRACTION;

/// The upper 17 bits of the product, rounded: a single instruction on vectors.
#[inline(always)]
fn product(a: i16, b: i16) -> i16 {
    ((i32::from(a) * i32::from(b) + (1 << 14)) >> 15) as i16
}

/// Resamples planes; keeps its memory from image to image.
#[derive(Default)]
pub(super) struct Resampler {
    /// Column after column.
    columns: Vec<i16>,
    /// The same, row after row.
    rows: [Vec<i16>; 3],
    /// One row of the result.
    row: [Vec<i16>; 3],
}

impl Resampler {
    /// Writes the crop.
    ///
    /// # Shapes
    /// - `planes`: one or three
    /// - `across`, `down`: the kernels of luma and of chroma
    /// - `out`: `[down.len(), across.len(), channels]`
    #[inline(always)]
    pub(super) fn resample(
        &mut self,
        planes: &[Plane],
        across: &[Kernel; 2],
        down: &[Kernel; 2],
        channels: usize,
        out: &mut [u8],
    ) {
        let width = across[0].len();
        let padded_width = width.next_multiple_of(CHUNK);
        for (c, plane) in planes.iter().enumerate() {
            self.resample_columns(c, plane, &across[c.min(1)], &down[c.min(1)], padded_width);
            self.row[c].resize(padded_width, 0);
        }
        for (y, out) in out.chunks_exact_mut(width * channels).enumerate() {
            for c in 0..planes.len() {
                let down = &down[c.min(1)];
                let (first, weights) = down.sum(y);
                let rows = &self.rows[c][(first - down.sources().start) * padded_width..];
                sum(rows, padded_width, weights, &mut self.row[c]);
            }
            let row = self.row.each_ref().map(|row| row.as_slice());
            match (planes.len(), channels) {
                (3, 3) => ycbcr_to_rgb(row, out),
                (3, _) => ycbcr_to_luma(row, out),
                (_, 3) => grey_to_rgb(row[0], out),
                _ => out
                    .iter_mut()
                    .zip(row[0])
                    .for_each(|(out, &value)| *out = to_u8(value)),
            }
        }
    }

    /// Makes `self.rows[c]`: the final columns of the rows that `down` needs.
    #[inline(always)]
    fn resample_columns(
        &mut self,
        c: usize,
        plane: &Plane,
        across: &Kernel,
        down: &Kernel,
        padded_width: usize,
    ) {
        let sources = down.sources();
        let height = sources.len();
        let padded_height = height.next_multiple_of(CHUNK);
        self.columns.resize(padded_height * padded_width, 0);
        for (i, column) in self
            .columns
            .chunks_exact_mut(padded_height)
            .take(across.len())
            .enumerate()
        {
            let (first, weights) = across.sum(i);
            let start = (first - plane.left) * plane.stride + sources.start - plane.top;
            sum(&plane.values[start..], plane.stride, weights, column);
        }
        let rows = &mut self.rows[c];
        rows.resize(padded_height * padded_width, 0);
        for x in (0..across.len()).step_by(8) {
            for y in (0..height).step_by(8) {
                let column = &self.columns[x * padded_height + y..];
                let row = &mut rows[y * padded_width + x..];
                transpose_tile(column, padded_height, row, padded_width);
            }
        }
    }
}

/// Eight values of each of eight lines become eight lines; the lines are a stride apart.
#[inline(always)]
fn transpose_tile(from: &[i16], from_stride: usize, to: &mut [i16], to_stride: usize) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        #[expect(unsafe_code, reason = "the processor was asked for the instructions")]
        return unsafe { x86::transpose_tile(from, from_stride, to, to_stride) };
    }
    transpose_tile_portable(from, from_stride, to, to_stride);
}

fn transpose_tile_portable(from: &[i16], from_stride: usize, to: &mut [i16], to_stride: usize) {
    for i in 0..8 {
        for j in 0..8 {
            to[j * to_stride + i] = from[i * from_stride + j];
        }
    }
}

/// The weighted sum of lines of values, each `stride` after the one before, as pixels.
///
/// The length of `out` is a multiple of [`CHUNK`].
#[inline(always)]
fn sum(lines: &[i16], stride: usize, weights: &[i16], out: &mut [i16]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        #[expect(unsafe_code, reason = "the processor was asked for the instructions")]
        return unsafe { x86::sum(lines, stride, weights, out) };
    }
    sum_portable(lines, stride, weights, out);
}

fn sum_portable(lines: &[i16], stride: usize, weights: &[i16], out: &mut [i16]) {
    for (at, chunk) in (0..).step_by(CHUNK).zip(out.chunks_exact_mut(CHUNK)) {
        let mut sums = [0_i16; CHUNK];
        for (i, &weight) in weights.iter().enumerate() {
            let line = &lines[i * stride + at..][..CHUNK];
            for (sum, &value) in sums.iter_mut().zip(line) {
                *sum = sum.wrapping_add(product(value, weight));
            }
        }
        for (out, sum) in chunk.iter_mut().zip(sums) {
            *out = sum.clamp(0, SUM_MAX) << PIXEL_SHIFT;
        }
    }
}

#[inline(always)]
fn to_u8(value: i16) -> u8 {
    ((i32::from(value) + (1 << (PIXEL_FRACTION - 1))) >> PIXEL_FRACTION) as u8
}

fn grey_to_rgb(row: &[i16], out: &mut [u8]) {
    for (out, &value) in out.chunks_exact_mut(3).zip(row) {
        out.fill(to_u8(value));
    }
}

#[inline(always)]
fn ycbcr_to_rgb(rows: [&[i16]; 3], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        #[expect(unsafe_code, reason = "the processor was asked for the instructions")]
        let done = unsafe { x86::ycbcr_to_rgb(rows, out) };
        return ycbcr_to_rgb_portable(rows.map(|row| &row[done..]), &mut out[3 * done..]);
    }
    ycbcr_to_rgb_portable(rows, out);
}

fn ycbcr_to_rgb_portable([y, cb, cr]: [&[i16]; 3], out: &mut [u8]) {
    for (((out, &y), &cb), &cr) in out.chunks_exact_mut(3).zip(y).zip(cb).zip(cr) {
        out.copy_from_slice(&rgb(y, cb, cr));
    }
}

/// Rec. 709 luma of the colours.
#[inline(always)]
fn ycbcr_to_luma([y, cb, cr]: [&[i16]; 3], out: &mut [u8]) {
    for (((out, &y), &cb), &cr) in out.iter_mut().zip(y).zip(cb).zip(cr) {
        let [red, green, blue] = rgb(y, cb, cr).map(u32::from);
        *out = ((2126 * red + 7152 * green + 722 * blue) / 10_000) as u8;
    }
}

/// Fractional bits of colours: a bit less than those of pixels, so that sums fit in 16 bits.
pub(super) const COLOUR_FRACTION: i32 = PIXEL_FRACTION - 1;
/// What red takes from Cr, green from Cb and from Cr, and blue from Cb.
///
/// Source: ITU-T T.871, section 7.
pub(super) const COLOUR_WEIGHTS: [i16; 4] = [
    colour_weight(1.402),
    colour_weight(-0.344_136),
    colour_weight(-0.714_136),
    colour_weight(1.772),
];

const fn colour_weight(value: f64) -> i16 {
    (value * (1 << WEIGHT_FRACTION) as f64).round() as i16
}

#[inline(always)]
fn rgb(y: i16, cb: i16, cr: i16) -> [u8; 3] {
    let centred = |value: i16| value - (128 << PIXEL_FRACTION);
    let (cb, cr) = (centred(cb), centred(cr));
    let y = (y >> 1) + (1 << (COLOUR_FRACTION - 1));
    let [red_cr, green_cb, green_cr, blue_cb] = COLOUR_WEIGHTS;
    let red = y + product(cr, red_cr);
    let green = y + product(cb, green_cb) + product(cr, green_cr);
    let blue = y + product(cb, blue_cb);
    let finish = |value: i16| (value >> COLOUR_FRACTION).clamp(0, 255) as u8;
    [finish(red), finish(green), finish(blue)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Values and weights as pixels and kernels have them.
        #[test]
        fn every_processor_gives_the_same(
            values in proptest::collection::vec(0_i16..=255 << PIXEL_FRACTION, 8 * CHUNK),
            weights in proptest::array::uniform4(-4000_i16..12_000),
            width in 1_usize..70,
        ) {
            let mut found = [[0; 2 * CHUNK]; 2];
            sum(&values, CHUNK, &weights, &mut found[0][..CHUNK]);
            sum_portable(&values, CHUNK, &weights, &mut found[1][..CHUNK]);
            prop_assert_eq!(found[0], found[1]);

            transpose_tile(&values, 11, &mut found[0], 8);
            transpose_tile_portable(&values, 11, &mut found[1], 8);
            prop_assert_eq!(found[0], found[1]);

            let rows = [0, 1, 2].map(|row| &values[row * 70..row * 70 + width]);
            let mut found = [vec![0; 3 * width], vec![0; 3 * width]];
            ycbcr_to_rgb(rows, &mut found[0]);
            ycbcr_to_rgb_portable(rows, &mut found[1]);
            prop_assert_eq!(&found[0], &found[1]);
        }
    }
}

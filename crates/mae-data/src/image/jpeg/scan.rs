//! From the entropy-coded data to planes of pixels, only where pixels are needed.
//!
//! Source: ITU-T T.81, annexes A and F.2.

use std::ops::Range;

use super::bits::{Bits, Segments};
use super::header::BLOCK;
use super::huffman::{END_OF_BLOCK, Kind, Table};
use super::idct;
use super::resample::CHUNK;
use super::usual::Usual;

/// Where the coefficients of a block, which come in zigzag order, are in `[vertical, horizontal]`.
#[rustfmt::skip]
const NATURAL: [u8; BLOCK] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Codes of a coefficient, with their numbers, that surely fit in the 56 bits of a refill.
const CODES_PER_REFILL: usize = 2;

/// A part of one component's pixels, column after column.
#[derive(Default)]
pub(super) struct Plane {
    /// Times 2 to the [`idct::PIXEL_FRACTION`].
    pub(super) values: Vec<i16>,
    /// From one column to the next.
    pub(super) stride: usize,
    /// The pixel of the component at which the part begins.
    pub(super) top: usize,
    pub(super) left: usize,
}

/// Decodes scans; keeps its memory from image to image.
pub(super) struct Scanner {
    segments: Segments,
    /// By kind, then by place.
    tables: [[Table; 4]; 2],
    pub(super) planes: [Plane; 3],
}

/// The tables of one component.
pub(super) struct Coding<'a> {
    dc: &'a Table,
    ac: &'a Table,
    /// In zigzag order.
    quantisation: [i32; BLOCK],
    /// The largest size of a first coefficient that is not damage, before it is dequantised.
    dc_limit: u32,
}

impl<'a> Coding<'a> {
    pub(super) fn new(dc: &'a Table, ac: &'a Table, quantisation: &[u16; BLOCK]) -> Coding<'a> {
        // The mean of a block of 8-bit values is at most 1024 here; decoded noise drifts far beyond.
        const LIMIT: u32 = 2 * 1024;
        let step = u32::from(quantisation[0]).max(1);
        Coding {
            dc,
            ac,
            quantisation: quantisation.map(i32::from),
            dc_limit: (LIMIT + step) / step,
        }
    }

    /// Reads the difference of the first coefficient to the last one's, both without their lowest `shift`
    /// bits.
    #[inline(always)]
    pub(super) fn read_dc(&self, bits: &mut Bits, prediction: &mut i32, shift: u32) -> Option<()> {
        bits.refill();
        let code = self.dc.code(bits.peek())?;
        *prediction += code.value(bits.peek());
        bits.consume(code.bits());
        (prediction.unsigned_abs() << shift <= self.dc_limit + (1 << shift)).then_some(())
    }

    /// Whether a long run of zeros in a scan cannot be of empty blocks.
    pub(super) fn has_no_zeros(&self) -> bool {
        !self.ac.ends_blocks_by_zeros()
    }
}

impl Scanner {
    pub(super) fn new() -> Scanner {
        Scanner {
            segments: Segments::default(),
            tables: [Kind::Dc, Kind::Ac].map(|kind| [(); 4].map(|()| Table::new(kind))),
            planes: Default::default(),
        }
    }

    /// Decodes the MCUs in `rows` and `columns` to planes; `None` if the data is damaged.
    ///
    /// What comes after `rows` is not looked at, but for its markers, for zeros in it, and whole where it
    /// is suspiciously short.
    #[inline(always)]
    pub(super) fn decode(
        &mut self,
        usual: &Usual,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Option<()> {
        // What ends early, and lacks more than its end, is for those who look at all of it.
        if !self
            .segments
            .read(usual.scan)
            .ok()?
            .starts_with(&[0xff, 0xd9])
        {
            return None;
        }
        let components = &usual.header.components;
        let mut quantisations = Vec::with_capacity(components.len());
        for component in components {
            quantisations.push((*usual.header.quantisation.get(component.quantisation)?)?);
        }
        // No larger number fits in 16 bits when it is dequantised; it is left to libjpeg, which has 32.
        let most = quantisations
            .iter()
            .flatten()
            .max()
            .map_or(1, |&step| step.max(1));
        let max_size = (i16::MAX as u32 / u32::from(most) + 1).ilog2();
        for component in components {
            let (dc, ac) = (component.dc_table, component.ac_table);
            self.tables[0]
                .get_mut(dc)?
                .define((*usual.header.dc_tables.get(dc)?)?, Kind::Dc.max_size())?;
            self.tables[1].get_mut(ac)?.define(
                (*usual.header.ac_tables.get(ac)?)?,
                max_size.min(Kind::Ac.max_size()),
            )?;
        }
        let mut codings = Vec::with_capacity(components.len());
        for (component, quantisation) in components.iter().zip(&quantisations) {
            codings.push(Coding::new(
                &self.tables[0][component.dc_table],
                &self.tables[1][component.ac_table],
                quantisation,
            ));
        }
        if codings.iter().any(Coding::has_no_zeros) && self.segments.has_hole() {
            return None;
        }
        for (plane, [down, across]) in
            self.planes
                .iter_mut()
                .zip([usual.luma_blocks, [1, 1], [1, 1]])
        {
            let height = rows.len() * down * 8;
            // Columns a power of two apart would compete for the same lines of the cache.
            plane.stride = height + 16;
            plane.top = rows.start * down * 8;
            plane.left = columns.start * across * 8;
            // Lines may be read to the end of a chunk.
            let len = plane.stride * columns.len() * across * 8 + CHUNK;
            plane.values.resize(len, 0);
        }

        let [mcu_height, mcu_width] = usual.luma_blocks.map(|blocks| 8 * blocks);
        let mcus_across = usual.header.width.div_ceil(mcu_width);
        let mcus = usual.header.height.div_ceil(mcu_height) * mcus_across;
        let interval = usual.header.restart_interval.unwrap_or(mcus);
        if self.segments.len() != mcus.div_ceil(interval) {
            return None;
        }
        let needed = rows.start * mcus_across..rows.end * mcus_across;
        let first = needed.start / interval;
        let mut end = needed.end;
        let mut segment = first;
        while segment * interval < end {
            let mut bits = self.segments.bits(segment)?;
            let mut predictions = [0; 3];
            let mut mcu = segment * interval;
            while mcu < ((segment + 1) * interval).min(end) {
                let (row, column) = (mcu / mcus_across, mcu % mcus_across);
                if rows.contains(&row) && columns.contains(&column) {
                    let place = [row - rows.start, column - columns.start];
                    let planes = &mut self.planes;
                    decode_mcu(usual, &codings, &mut bits, &mut predictions, place, planes)?;
                } else {
                    skip_mcu(usual, &codings, &mut bits, &mut predictions)?;
                }
                mcu += 1;
                if mcu == needed.end && mcu < mcus {
                    let all = self.segments.bytes_from(first);
                    let rest = self.segments.bytes_from(segment) - bits.consumed_bytes();
                    let read = all - rest;
                    // Half as much for an MCU as so far: the file may have been cut, so see whether all is there.
                    if 2 * rest * (mcu - first * interval) < read * (mcus - mcu) {
                        end = mcus;
                    }
                }
            }
            let is_whole = mcu == ((segment + 1) * interval).min(mcus);
            if bits.is_overrun() || is_whole && bits.is_underrun() {
                return None;
            }
            segment += 1;
        }
        Some(())
    }

    /// Gives back the memory of an uncommonly large image.
    pub(super) fn shrink(&mut self) {
        const KEPT: usize = 4 << 20;
        for plane in &mut self.planes {
            plane.values.truncate(KEPT);
            plane.values.shrink_to(KEPT);
        }
        self.segments.shrink(KEPT);
    }
}

/// Decodes the blocks of one MCU to their `place`, a row and a column of MCUs, in the planes.
#[inline(always)]
fn decode_mcu(
    usual: &Usual,
    codings: &[Coding],
    bits: &mut Bits,
    predictions: &mut [i32; 3],
    place: [usize; 2],
    planes: &mut [Plane; 3],
) -> Option<()> {
    let blocks = [usual.luma_blocks, [1, 1], [1, 1]];
    for (((coding, prediction), [down, across]), plane) in
        codings.iter().zip(predictions).zip(blocks).zip(planes)
    {
        for block in 0..down * across {
            let mut coefficients = [0; BLOCK];
            let is_flat = decode_block(coding, bits, prediction, &mut coefficients)?;
            let y = (place[0] * down + block / across) * 8;
            let x = (place[1] * across + block % across) * 8;
            let pixels = &mut plane.values[x * plane.stride + y..];
            if is_flat {
                idct::inverse_flat(coefficients[0], pixels, plane.stride);
            } else {
                idct::inverse(&coefficients, pixels, plane.stride);
            }
        }
    }
    Some(())
}

#[inline(always)]
fn skip_mcu(
    usual: &Usual,
    codings: &[Coding],
    bits: &mut Bits,
    predictions: &mut [i32; 3],
) -> Option<()> {
    let blocks = [usual.luma_blocks, [1, 1], [1, 1]];
    for ((coding, prediction), [down, across]) in codings.iter().zip(predictions).zip(blocks) {
        for _ in 0..down * across {
            skip_block(coding, bits, prediction)?;
        }
    }
    Some(())
}

/// Reads and dequantises the coefficients of a block; returns whether only the first is not 0.
#[inline(always)]
fn decode_block(
    coding: &Coding,
    bits: &mut Bits,
    prediction: &mut i32,
    coefficients: &mut [i16; BLOCK],
) -> Option<bool> {
    coding.read_dc(bits, prediction, 0)?;
    let first = *prediction * coding.quantisation[0];
    coefficients[0] = first.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
    let mut position = 1;
    while position < BLOCK {
        bits.refill();
        for _ in 0..CODES_PER_REFILL {
            let code = coding.ac.code(bits.peek())?;
            position += code.skip();
            if position >= BLOCK {
                bits.consume(code.bits());
                return (position > END_OF_BLOCK).then_some(position == END_OF_BLOCK + 1);
            }
            let value = code.value(bits.peek()) * coding.quantisation[position];
            coefficients[usize::from(NATURAL[position]) % BLOCK] = value as i16;
            bits.consume(code.bits());
            position += 1;
            if position == BLOCK {
                break;
            }
        }
    }
    Some(false)
}

/// Reads past a block; only the prediction of the next one remains of it.
#[inline(always)]
pub(super) fn skip_block(coding: &Coding, bits: &mut Bits, prediction: &mut i32) -> Option<()> {
    coding.read_dc(bits, prediction, 0)?;
    let mut position = 1;
    while position < BLOCK {
        bits.refill();
        for _ in 0..CODES_PER_REFILL {
            let code = coding.ac.code(bits.peek())?;
            bits.consume(code.bits());
            position += code.skip() + 1;
            if position >= BLOCK {
                break;
            }
        }
    }
    (position == BLOCK || position > END_OF_BLOCK).then_some(())
}

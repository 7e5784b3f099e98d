//! Reads past a block of a progressive scan, as far as other blocks and scans depend on it.
//!
//! Each returns `None` where codes make no sense.
//!
//! Source: ITU-T T.81, annex G.2.

use super::bits::Bits;
use super::header::Scan;
use super::huffman::{END_OF_BLOCK, Table};
use super::scan::Coding;

/// The first coefficient of a block of a progressive scan.
pub(super) fn read_first(
    scan: &Scan,
    coding: &Coding,
    bits: &mut Bits,
    prediction: &mut i32,
) -> Option<()> {
    match scan.bits {
        [0, after] => coding.read_dc(bits, prediction, after),
        _ => {
            bits.refill();
            bits.consume(1);
            Some(())
        }
    }
}

/// Other coefficients of a block, of which nothing is known before.
pub(super) fn read_band(
    scan: &Scan,
    table: &Table,
    bits: &mut Bits,
    end_run: &mut u32,
    nonzero: &mut u64,
) -> Option<()> {
    if *end_run > 0 {
        *end_run -= 1;
        return Some(());
    }
    let [mut position, last] = scan.band;
    while position <= last {
        bits.refill();
        let code = table.code(bits.peek())?;
        bits.consume(code.bits());
        if code.skip() >= END_OF_BLOCK {
            *end_run = read_end_run(code.skip(), bits) - 1;
            return Some(());
        }
        position += code.skip();
        if position > last {
            return None;
        }
        *nonzero |= u64::from(code.size() > 0) << position;
        position += 1;
    }
    Some(())
}

/// One more bit of the other coefficients of a block.
pub(super) fn refine_band(
    scan: &Scan,
    table: &Table,
    bits: &mut Bits,
    end_run: &mut u32,
    nonzero: &mut u64,
) -> Option<()> {
    let [mut position, last] = scan.band;
    let is_nonzero = *nonzero;
    while *end_run == 0 && position <= last {
        bits.refill();
        let code = table.code(bits.peek())?;
        bits.consume(code.bits());
        if code.skip() >= END_OF_BLOCK {
            *end_run = read_end_run(code.skip(), bits);
            break;
        }
        if code.size() > 1 {
            return None;
        }
        // Those that are not 0 get their bit on the way, and are not counted.
        let mut zeros = code.skip();
        while position <= last && (is_nonzero >> position & 1 == 1 || zeros > 0) {
            match is_nonzero >> position & 1 {
                1 => skip_bit(bits),
                _ => zeros -= 1,
            }
            position += 1;
        }
        if code.size() == 1 {
            if position > last {
                return None;
            }
            *nonzero |= 1 << position;
        }
        position += 1;
    }
    if *end_run > 0 {
        for position in position..=last {
            if is_nonzero >> position & 1 == 1 {
                skip_bit(bits);
            }
        }
        *end_run -= 1;
    }
    Some(())
}

fn skip_bit(bits: &mut Bits) {
    bits.refill();
    bits.consume(1);
}

/// Blocks that end, this one among them.
fn read_end_run(skip: usize, bits: &mut Bits) -> u32 {
    let size = (skip - END_OF_BLOCK) as u32;
    bits.refill();
    let more = bits.peek() >> 1 >> (63 - size);
    bits.consume(size);
    (1 << size) + more as u32
}

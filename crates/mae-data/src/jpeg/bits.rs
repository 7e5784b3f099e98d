//! The entropy-coded data as a string of bits.

use std::ops::Range;

/// Bytes of 0 after each segment, so that reading ahead needs no special case.
const PADDING: usize = 16;

/// The entropy-coded data without its stuffing, cut at the restart markers.
#[derive(Default)]
pub(super) struct Segments {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Segments {
    /// Reads `scan` up to the end-of-image marker; `None` if another marker or no marker ends it.
    pub(super) fn read(&mut self, scan: &[u8]) -> Option<()> {
        self.bytes.clear();
        self.ranges.clear();
        let mut rest = scan;
        let mut start = 0;
        loop {
            let marker_at = memchr::memchr(0xff, rest)?;
            let (data, marker) = rest.split_at(marker_at);
            self.bytes.extend_from_slice(data);
            match *marker.get(1)? {
                0x00 => {
                    self.bytes.push(0xff);
                    rest = &marker[2..];
                    continue;
                }
                // One of several that may come before a marker.
                0xff => {
                    rest = &marker[1..];
                    continue;
                }
                code => {
                    self.ranges.push(start..self.bytes.len());
                    self.bytes.extend([0; PADDING]);
                    start = self.bytes.len();
                    match code {
                        0xd9 => return Some(()),
                        // Restart markers count from 0 to 7 and begin again.
                        0xd0..=0xd7 if usize::from(code & 7) == (self.ranges.len() - 1) % 8 => {}
                        _ => return None,
                    }
                    rest = &marker[2..];
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Keeps at most `bytes` bytes of memory.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
        self.bytes.shrink_to(bytes);
    }

    /// The bits of one segment.
    pub(super) fn bits(&self, segment: usize) -> Option<Bits<'_>> {
        let range = self.ranges.get(segment)?;
        Some(Bits {
            bytes: &self.bytes[range.start..range.end + PADDING],
            position: 0,
            buffer: 0,
            buffered: 0,
        })
    }
}

/// Reads bits from the most significant one on.
pub(super) struct Bits<'a> {
    /// At least [`PADDING`] bytes; that many of the last ones are no data.
    bytes: &'a [u8],
    /// Bytes that are wholly in `buffer`, or were.
    position: usize,
    /// The next bits, from the top.
    buffer: u64,
    buffered: u32,
}

impl Bits<'_> {
    /// Makes sure that at least 56 bits can be [peeked](Bits::peek) at and consumed.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        // Past the end the bits make no sense: `is_overrun` tells.
        let at = self.position.min(self.bytes.len() - 8);
        let word = u64::from_be_bytes(self.bytes[at..at + 8].try_into().expect("8 bytes"));
        self.buffer |= word >> self.buffered;
        self.position += (63 - self.buffered as usize) >> 3;
        self.buffered |= 56;
    }

    /// The next 64 bits, of which at least those that `refill` promised are right.
    #[inline(always)]
    pub(super) fn peek(&self) -> u64 {
        self.buffer
    }

    /// Moves on by fewer than 64 bits, not more than `refill` promised.
    #[inline(always)]
    pub(super) fn consume(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.buffered -= bits;
    }

    /// Whether more bits were consumed than there are.
    pub(super) fn is_overrun(&self) -> bool {
        let consumed = 8 * self.position - self.buffered as usize;
        consumed > 8 * (self.bytes.len() - PADDING)
    }
}

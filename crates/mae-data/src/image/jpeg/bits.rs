//! The entropy-coded data as a string of bits.

use std::ops::Range;

/// Bytes of 0 after each segment, so that reading ahead needs no special case.
const PADDING: usize = 16;

/// Bytes of 0 in a row that are no coefficients: more than 63 codes of the shortest kind.
const HOLE: usize = 32;

/// The entropy-coded data without its stuffing, cut at the restart markers.
#[derive(Default)]
pub(super) struct Segments {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Segments {
    /// Reads `scan` up to a marker that is no restart marker, or to its end; returns what follows.
    ///
    /// The error says that the restart markers are not in their order.
    pub(super) fn read<'a>(&mut self, scan: &'a [u8]) -> Result<&'a [u8], String> {
        self.bytes.clear();
        self.ranges.clear();
        let mut rest = scan;
        let mut start = 0;
        loop {
            let marker_at = memchr::memchr(0xff, rest).unwrap_or(rest.len());
            let (data, marker) = rest.split_at(marker_at);
            self.bytes.extend_from_slice(data);
            let code = marker.get(1).copied();
            match code {
                Some(0x00) => {
                    self.bytes.push(0xff);
                    rest = &marker[2..];
                    continue;
                }
                // One of several that may come before a marker.
                Some(0xff) => {
                    rest = &marker[1..];
                    continue;
                }
                _ => {}
            }
            self.ranges.push(start..self.bytes.len());
            self.bytes.extend([0; PADDING]);
            start = self.bytes.len();
            match code {
                Some(code @ 0xd0..=0xd7) => {
                    // Restart markers count from 0 to 7 and begin again.
                    let expected = (self.ranges.len() - 1) % 8;
                    let found = usize::from(code & 7);
                    if found != expected {
                        return Err(format!(
                            "the jpeg is damaged: expected restart marker {expected}, \
                             found {found}; fetch it again"
                        ));
                    }
                    rest = &marker[2..];
                }
                _ => {
                    // Some encoders write a restart marker after the last MCU, too.
                    if self.ranges.len() > 1 {
                        self.ranges.pop_if(|last| last.start == last.end);
                    }
                    return Ok(if code.is_some() { marker } else { &[] });
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Bytes of a segment and all that follow.
    pub(super) fn bytes_from(&self, segment: usize) -> usize {
        self.ranges[segment..].iter().map(Range::len).sum()
    }

    /// Keeps at most `bytes` bytes of memory.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
        self.bytes.shrink_to(bytes);
    }

    /// Whether zeros were written over data: more of them in a row than a block of noise has.
    ///
    /// An empty block may be coded as zeros, so this is for scans where it is not.
    pub(super) fn has_hole(&self) -> bool {
        self.ranges.iter().any(|range| {
            let data = &self.bytes[range.clone()];
            // As many zeros fill half as many bytes wherever these are, and few data have any such.
            let halves = data.as_chunks::<{ HOLE / 2 }>().0.iter();
            halves
                .map(|half| u128::from_ne_bytes(*half))
                .any(|half| half == 0)
                && memchr::memmem::find(data, &[0; HOLE]).is_some()
        })
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
        self.consumed() > 8 * self.data().len()
    }

    /// Whether data is left beyond what was consumed, other than a few bytes that fill up a file.
    pub(super) fn is_underrun(&self) -> bool {
        const FILLERS: usize = 16;
        let left = self.data().get(self.consumed_bytes()..).unwrap_or(&[]);
        let is_filled = |filler| left.iter().all(|&byte| byte == filler);
        left.len() > FILLERS || !(is_filled(0) || is_filled(0xff))
    }

    /// Bytes of which a bit was consumed, at most as many as there are.
    pub(super) fn consumed_bytes(&self) -> usize {
        self.consumed().div_ceil(8).min(self.data().len())
    }

    fn consumed(&self) -> usize {
        8 * self.position - self.buffered as usize
    }

    fn data(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - PADDING]
    }
}

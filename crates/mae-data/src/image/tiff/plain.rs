//! A TIFF file without its colours.

use std::collections::HashSet;
use std::io::{Cursor, Read, Result, Seek, SeekFrom};

/// The same file, but the values of all pages have no meaning, so that the decoder hands over all of them as they
/// are: it would leave out some, and refuses others.
pub(super) struct Plain<'a> {
    content: Cursor<&'a [u8]>,
    /// Where pages say what their values mean.
    meanings: Vec<u64>,
    grey: [u8; 2],
}

impl<'a> Plain<'a> {
    pub(super) fn new(content: &'a [u8]) -> Plain<'a> {
        const BLACK_IS_ZERO: u16 = 1;
        let is_big_endian = content.starts_with(b"MM");
        Plain {
            content: Cursor::new(content),
            meanings: meanings(content, is_big_endian),
            grey: match is_big_endian {
                true => BLACK_IS_ZERO.to_be_bytes(),
                false => BLACK_IS_ZERO.to_le_bytes(),
            },
        }
    }

    /// TIFF's numbers for what the values of the pages mean.
    pub(super) fn meanings(&self) -> Vec<Option<u16>> {
        let content = self.content.get_ref();
        let read = |&at: &u64| {
            let at = usize::try_from(at).ok().filter(|&at| at > 0)?;
            let bytes: [u8; 2] = content.get(at..at + 2)?.try_into().ok()?;
            Some(match content.starts_with(b"MM") {
                true => u16::from_be_bytes(bytes),
                false => u16::from_le_bytes(bytes),
            })
        };
        self.meanings.iter().map(read).collect()
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let start = self.content.position();
        let read = self.content.read(buffer)?;
        for &meaning in &self.meanings {
            for (at, byte) in (meaning..).zip(self.grey) {
                if let Some(at) = at.checked_sub(start)
                    && at < read as u64
                    && meaning > 0
                {
                    buffer[at as usize] = byte;
                }
            }
        }
        Ok(read)
    }
}

impl Seek for Plain<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.content.seek(to)
    }
}

/// For each page, where it says what its values mean; 0 where it does not.
fn meanings(content: &[u8], is_big_endian: bool) -> Vec<u64> {
    const PHOTOMETRIC_INTERPRETATION: u64 = 262;
    /// More pages than any file of images has.
    const MAX_PAGES: usize = 10_000;
    let number = |at: u64, len: usize| -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = content.get(at..at.checked_add(len)?)?.iter();
        let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match is_big_endian {
            true => bytes.fold(0, push),
            false => bytes.rev().fold(0, push),
        })
    };
    // Bytes of an offset, of a directory's length, and of an entry; where an entry has its value.
    let (first, offset, count, entry, value) = match number(2, 2) {
        Some(42) => (4, 4, 2, 12, 8),
        _ => (8, 8, 8, 20, 12),
    };
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let mut next = number(first, offset);
    while let Some(directory) = next.filter(|&at| at > 0)
        && found.len() < MAX_PAGES
        && seen.insert(directory)
    {
        let Some(entries) = number(directory, count) else {
            break;
        };
        let at = |index: u64| {
            directory
                .checked_add(count as u64)?
                .checked_add(index.checked_mul(entry)?)
        };
        let meaning = (0..entries)
            .map_while(|index| Some((at(index)?, number(at(index)?, 2)?)))
            .find(|&(_, tag)| tag == PHOTOMETRIC_INTERPRETATION);
        found.push(meaning.map_or(0, |(at, _)| at + value));
        next = at(entries).and_then(|end| number(end, offset));
    }
    found
}

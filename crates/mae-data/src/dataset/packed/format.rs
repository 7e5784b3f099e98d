//! The bytes of a packed file: what [`super`] documents, in code.

use crate::pixels::PixelKind;

pub(super) const MAGIC: [u8; 8] = *b"mae-pack";
/// The newest version; files that the first can hold are of the first, for older programs.
pub(super) const VERSION: u32 = 2;
pub(super) const HEADER_LEN: usize = 56;
pub(super) const ENTRY_LEN: usize = 40;
/// The label of an image without one.
pub(super) const NO_LABEL: u32 = u32::MAX;
/// Where the header's checksum is: it covers what comes before.
const CHECKSUM_AT: usize = HEADER_LEN - 4;

/// What a record is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Pixels, `[height, width, channels]`, bytes.
    Raw = 0,
    /// The content of an image file.
    File = 1,
    /// Pixels, `[height, width, channels]`, f32. Since version 2.
    RawF32 = 2,
}

impl Encoding {
    /// What the pixels are.
    pub(super) fn kind(self) -> PixelKind {
        match self {
            Encoding::Raw | Encoding::File => PixelKind::U8,
            Encoding::RawF32 => PixelKind::F32,
        }
    }
}

/// What is at the start of a packed file.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) encoding: Encoding,
    pub(super) channels: u32,
    pub(super) classes: u32,
    pub(super) images: u64,
    pub(super) index_at: u64,
    pub(super) index_len: u64,
    pub(super) index_checksum: u32,
}

/// Why a header is none.
#[derive(Debug, PartialEq)]
pub(super) enum BadHeader {
    Foreign,
    Version(u32),
    Damaged,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        let words = [
            self.version(),
            self.encoding as u32,
            self.channels,
            self.classes,
        ];
        for (at, word) in words.into_iter().enumerate() {
            bytes[8 + 4 * at..][..4].copy_from_slice(&word.to_le_bytes());
        }
        let longs = [self.images, self.index_at, self.index_len];
        for (at, long) in longs.into_iter().enumerate() {
            bytes[24 + 8 * at..][..8].copy_from_slice(&long.to_le_bytes());
        }
        bytes[48..52].copy_from_slice(&self.index_checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The first version of the format that has all that is used.
    fn version(self) -> u32 {
        match (self.encoding, self.channels) {
            (Encoding::Raw | Encoding::File, 1 | 3) => 1,
            _ => VERSION,
        }
    }

    /// Reads the start of a file.
    pub(super) fn read(file: &[u8]) -> Result<Header, BadHeader> {
        if file.get(..8) != Some(&MAGIC) {
            return Err(BadHeader::Foreign);
        }
        let header = file.get(..HEADER_LEN).ok_or(BadHeader::Damaged)?;
        // Before the checksum, which another version may have elsewhere.
        match u32_at(header, 8) {
            1..=VERSION => {}
            version => return Err(BadHeader::Version(version)),
        }
        if crc32c::crc32c(&header[..CHECKSUM_AT]) != u32_at(header, CHECKSUM_AT) {
            return Err(BadHeader::Damaged);
        }
        Ok(Header {
            encoding: match u32_at(header, 12) {
                0 => Encoding::Raw,
                1 => Encoding::File,
                2 => Encoding::RawF32,
                _ => return Err(BadHeader::Damaged),
            },
            channels: u32_at(header, 16),
            classes: u32_at(header, 20),
            images: u64_at(header, 24),
            index_at: u64_at(header, 32),
            index_len: u64_at(header, 40),
            index_checksum: u32_at(header, 48),
        })
    }
}

/// What the index says of one image.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Where its record begins, from the start of the file.
    pub(super) at: u64,
    /// Where its name ends, from the start of the names.
    pub(super) name_end: u64,
    /// Bytes of its record.
    pub(super) len: u32,
    pub(super) height: u32,
    pub(super) width: u32,
    pub(super) label: u32,
    pub(super) checksum: u32,
}

impl Entry {
    pub(super) fn to_bytes(self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..8].copy_from_slice(&self.at.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.name_end.to_le_bytes());
        let words = [
            self.len,
            self.height,
            self.width,
            self.label,
            self.checksum,
            0,
        ];
        for (at, word) in words.into_iter().enumerate() {
            bytes[16 + 4 * at..][..4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads an entry of [`ENTRY_LEN`] bytes.
    pub(super) fn read(bytes: &[u8]) -> Entry {
        Entry {
            at: u64_at(bytes, 0),
            name_end: u64_at(bytes, 8),
            len: u32_at(bytes, 16),
            height: u32_at(bytes, 20),
            width: u32_at(bytes, 24),
            label: u32_at(bytes, 28),
            checksum: u32_at(bytes, 32),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

//! The segments between which the scans are: what decoders must know, as slices of the file.
//!
//! Source: ITU-T T.81, annex B.

use image::metadata::Orientation;

use super::standard;

/// Values of an 8 x 8 block.
pub(super) const BLOCK: usize = 64;

/// What the segments that were read so far say.
pub(super) struct Header<'a> {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) coding: Coding,
    pub(super) components: Vec<Component>,
    /// MCUs between two restart markers; `None` without such markers.
    pub(super) restart_interval: Option<usize>,
    /// Quantisation tables in zigzag order.
    pub(super) quantisation: [Option<[u16; BLOCK]>; 4],
    /// Definitions of Huffman tables: 16 counts, then the symbols.
    pub(super) dc_tables: [Option<&'a [u8]>; 4],
    pub(super) ac_tables: [Option<&'a [u8]>; 4],
    pub(super) orientation: Orientation,
    /// The colours, by the number in Adobe's segment; `None` without such a segment.
    pub(super) adobe: Option<u8>,
    /// What was not read yet.
    rest: &'a [u8],
}

/// How the coefficients are spread over scans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Of a block, all at once.
    Sequential,
    /// Of a block, by frequency and by bit.
    Progressive,
}

#[derive(Clone, Copy)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks in an MCU, down and across.
    pub(super) sampling: [usize; 2],
    pub(super) quantisation: usize,
    pub(super) dc_table: usize,
    pub(super) ac_table: usize,
}

/// The head of a scan.
pub(super) struct Scan<'a> {
    /// Which of the frame's components it holds.
    pub(super) components: Vec<usize>,
    /// The first and the last coefficient, in zigzag order.
    pub(super) band: [usize; 2],
    /// The lowest bit of the coefficients that is known before the scan (0 if none is), and after it.
    pub(super) bits: [u32; 2],
    /// The entropy-coded data and all that follows.
    pub(super) data: &'a [u8],
}

impl<'a> Header<'a> {
    /// Nothing is read of `content` yet; the error says why it is no JPEG.
    pub(super) fn new(content: &'a [u8]) -> Result<Header<'a>, String> {
        let rest = content
            .strip_prefix(&[0xff, 0xd8])
            .ok_or("it does not begin as a jpeg does; fetch it again")?;
        Ok(Header {
            height: 0,
            width: 0,
            coding: Coding::Sequential,
            components: Vec::new(),
            restart_interval: None,
            quantisation: [None; 4],
            // Frames of motion JPEG leave them out; what has its own defines it before its scan.
            dc_tables: [Some(standard::DC[0]), Some(standard::DC[1]), None, None],
            ac_tables: [Some(standard::AC[0]), Some(standard::AC[1]), None, None],
            orientation: Orientation::NoTransforms,
            adobe: None,
            rest,
        })
    }

    /// Reads up to the data of the next scan; `None` where there is none before the end.
    ///
    /// The error names what is damaged, or of what kind the file is that cannot be read.
    pub(super) fn next_scan(&mut self) -> Result<Option<Scan<'a>>, String> {
        loop {
            let Some(marker) = self.next_marker() else {
                return Ok(None);
            };
            match marker {
                // These stand alone: no length follows.
                0x00 | 0x01 | 0xd0..=0xd8 => continue,
                0xd9 => return Ok(None),
                _ => {}
            }
            let segment = self.segment()?;
            match marker {
                0xc0..=0xc2 => self.read_frame(marker, segment)?,
                0xc4 => self.read_huffman_tables(segment)?,
                0xda => return self.read_scan(segment).map(Some),
                0xdb => self.read_quantisation(segment)?,
                0xdd => {
                    let interval = <[u8; 2]>::try_from(segment)
                        .map_err(|_| damaged("its restart interval"))?;
                    let interval = usize::from(u16::from_be_bytes(interval));
                    self.restart_interval = (interval > 0).then_some(interval);
                }
                0xe1 => self.read_exif(segment),
                0xee if segment.starts_with(b"Adobe") => self.adobe = segment.get(11).copied(),
                0xe0..=0xef | 0xfe => {}
                _ => return Err(other_kind(marker)),
            }
        }
    }

    /// What follows the data of a scan is read next.
    pub(super) fn go_on(&mut self, rest: &'a [u8]) {
        self.rest = rest;
    }

    fn next_marker(&mut self) -> Option<u8> {
        // Decoders skip stray bytes between segments, and any number of 0xff may come first.
        let marker_at = memchr::memchr(0xff, self.rest)?;
        let rest = &self.rest[marker_at..];
        let code_at = rest.iter().position(|&byte| byte != 0xff)?;
        self.rest = &rest[code_at + 1..];
        Some(rest[code_at])
    }

    fn segment(&mut self) -> Result<&'a [u8], String> {
        let early = || "the jpeg ends early, among its headers; fetch it again".to_owned();
        let (&length, rest) = self.rest.split_first_chunk().ok_or_else(early)?;
        let length = usize::from(u16::from_be_bytes(length))
            .checked_sub(2)
            .ok_or_else(|| damaged("the length of a header"))?;
        let (segment, rest) = rest.split_at_checked(length).ok_or_else(early)?;
        self.rest = rest;
        Ok(segment)
    }

    fn read_frame(&mut self, marker: u8, segment: &[u8]) -> Result<(), String> {
        let bad = || damaged("the header of its frame");
        let (&[depth, h1, h0, w1, w0, count], components) =
            segment.split_first_chunk().ok_or_else(bad)?;
        if depth != 8 {
            return Err(format!(
                "the jpeg has {depth} bits a value, expected 8; convert it to png"
            ));
        }
        self.height = usize::from(u16::from_be_bytes([h1, h0]));
        self.width = usize::from(u16::from_be_bytes([w1, w0]));
        if self.height == 0 {
            return Err(
                "the jpeg tells its height after its pixels, expected before them; \
                 write it again with another program"
                    .to_owned(),
            );
        }
        if !self.components.is_empty() || self.width == 0 {
            return Err(bad());
        }
        if components.len() != 3 * usize::from(count) {
            return Err(bad());
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(format!(
                "the jpeg has {count} components, expected 1, 3 or 4; convert it to png"
            ));
        }
        self.coding = match marker {
            0xc2 => Coding::Progressive,
            _ => Coding::Sequential,
        };
        for component in components.chunks_exact(3) {
            let sampling = [component[1] & 15, component[1] >> 4].map(usize::from);
            if sampling.iter().any(|factor| !(1..=4).contains(factor)) {
                return Err(bad());
            }
            self.components.push(Component {
                id: component[0],
                sampling,
                quantisation: usize::from(component[2]),
                dc_table: 0,
                ac_table: 0,
            });
        }
        Ok(())
    }

    fn read_huffman_tables(&mut self, mut segment: &'a [u8]) -> Result<(), String> {
        let bad = || damaged("a huffman table");
        while let Some((&place, rest)) = segment.split_first() {
            let counts = rest.get(..16).ok_or_else(bad)?;
            let symbols: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let (definition, after) = rest.split_at_checked(16 + symbols).ok_or_else(bad)?;
            let tables = match place >> 4 {
                0 => &mut self.dc_tables,
                1 => &mut self.ac_tables,
                _ => return Err(bad()),
            };
            *tables.get_mut(usize::from(place & 15)).ok_or_else(bad)? = Some(definition);
            segment = after;
        }
        Ok(())
    }

    fn read_quantisation(&mut self, mut segment: &[u8]) -> Result<(), String> {
        let bad = || damaged("a quantisation table");
        while let Some((&place, rest)) = segment.split_first() {
            let bytes = match place >> 4 {
                0 => 1,
                1 => 2,
                _ => return Err(bad()),
            };
            let (values, after) = rest.split_at_checked(BLOCK * bytes).ok_or_else(bad)?;
            let mut table = [0; BLOCK];
            for (out, value) in table.iter_mut().zip(values.chunks_exact(bytes)) {
                *out = value
                    .iter()
                    .fold(0, |value, &byte| value << 8 | u16::from(byte));
            }
            *self
                .quantisation
                .get_mut(usize::from(place & 15))
                .ok_or_else(bad)? = Some(table);
            segment = after;
        }
        Ok(())
    }

    fn read_exif(&mut self, app1: &[u8]) {
        if let Some(exif) = app1.strip_prefix(b"Exif\0\0") {
            self.orientation =
                Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms);
        }
    }

    fn read_scan(&mut self, segment: &[u8]) -> Result<Scan<'a>, String> {
        let bad = || damaged("the header of a scan");
        if self.components.is_empty() {
            return Err(
                "the jpeg has a scan before the header of its frame; fetch it again".into(),
            );
        }
        let (&count, rest) = segment.split_first().ok_or_else(bad)?;
        let (selectors, spectrum) = rest
            .split_at_checked(2 * usize::from(count))
            .ok_or_else(bad)?;
        let &[first, last, bits] = <&[u8; 3]>::try_from(spectrum).map_err(|_| bad())?;
        let mut components = Vec::with_capacity(usize::from(count));
        for selector in selectors.chunks_exact(2) {
            // In the order of the frame, each once.
            let from = components.last().map_or(0, |&last| last + 1);
            let at = (from..self.components.len())
                .find(|&at| self.components[at].id == selector[0])
                .ok_or_else(bad)?;
            self.components[at].dc_table = usize::from(selector[1] >> 4);
            self.components[at].ac_table = usize::from(selector[1] & 15);
            components.push(at);
        }
        if components.is_empty() {
            return Err(bad());
        }
        Ok(Scan {
            components,
            band: [first, last].map(usize::from),
            bits: [bits >> 4, bits & 15].map(u32::from),
            data: self.rest,
        })
    }
}

/// Says what of a JPEG makes no sense.
pub(super) fn damaged(what: &str) -> String {
    format!("the jpeg is damaged: {what} makes no sense; fetch it again")
}

/// Says of a JPEG with a frame of another kind what it is.
fn other_kind(marker: u8) -> String {
    let (kind, remedy) = match marker {
        0xc3 | 0xf7 => ("lossless", "convert it to png"),
        0xc9 | 0xca => (
            "arithmetic-coded",
            "recode it with `jpegtran -optimize`, which loses nothing",
        ),
        0xc5..=0xc7 | 0xcb | 0xcd..=0xcf | 0xde | 0xdf => ("hierarchical", "convert it to png"),
        _ => {
            return format!(
                "the jpeg has a header of unknown kind 0xff{marker:02x}; fetch it again, or convert it to png"
            );
        }
    };
    format!("the jpeg is {kind}, expected baseline or progressive with huffman codes; {remedy}")
}

//! The segments before the scan: what the decoder must know, as slices of the file.
//!
//! Source: ITU-T T.81, annex B.

use image::metadata::Orientation;

/// Values of an 8 x 8 block.
pub(super) const BLOCK: usize = 64;

/// A baseline JPEG whose single scan holds all components.
pub(super) struct Header<'a> {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Grey, or luma and two of chroma.
    pub(super) components: Vec<Component>,
    /// Blocks of luma in an MCU, down and across; those of chroma are one.
    pub(super) luma_blocks: [usize; 2],
    /// MCUs between two restart markers; `None` without such markers.
    pub(super) restart_interval: Option<usize>,
    /// Quantisation tables in zigzag order.
    pub(super) quantisation: [Option<[u16; BLOCK]>; 4],
    /// Definitions of Huffman tables: 16 counts, then the symbols.
    pub(super) dc_tables: [Option<&'a [u8]>; 4],
    pub(super) ac_tables: [Option<&'a [u8]>; 4],
    /// The entropy-coded data and all that follows.
    pub(super) scan: &'a [u8],
}

#[derive(Clone, Copy)]
pub(super) struct Component {
    id: u8,
    sampling: [usize; 2],
    pub(super) quantisation: usize,
    pub(super) dc_table: usize,
    pub(super) ac_table: usize,
}

impl<'a> Header<'a> {
    /// Reads up to the scan; `None` if this is damaged or not the kind of JPEG described above.
    pub(super) fn parse(content: &'a [u8]) -> Option<Header<'a>> {
        let mut header = Header {
            height: 0,
            width: 0,
            components: Vec::new(),
            luma_blocks: [1, 1],
            restart_interval: None,
            quantisation: [None; 4],
            dc_tables: [None; 4],
            ac_tables: [None; 4],
            scan: &[],
        };
        let mut rest = content.strip_prefix(&[0xff, 0xd8])?;
        loop {
            let (marker, segment);
            (marker, segment, rest) = next_segment(rest)?;
            match marker {
                0xc0 | 0xc1 => header.read_frame(segment)?,
                0xc4 => header.read_huffman_tables(segment)?,
                0xda => {
                    header.read_scan(segment)?;
                    header.scan = rest;
                    return Some(header);
                }
                0xdb => header.read_quantisation(segment)?,
                0xdd => {
                    let interval = usize::from(u16::from_be_bytes(segment.try_into().ok()?));
                    header.restart_interval = (interval > 0).then_some(interval);
                }
                0xe1 if !is_upright(segment) => return None,
                0xee if !is_ycbcr(segment) => return None,
                0xe0..=0xef | 0xfe => {}
                // Progressive, lossless, hierarchical and arithmetic-coded frames, and oddities.
                _ => return None,
            }
        }
    }

    fn read_frame(&mut self, segment: &[u8]) -> Option<()> {
        let (&[8, h1, h0, w1, w0, count], components) = segment.split_first_chunk()? else {
            return None;
        };
        self.height = usize::from(u16::from_be_bytes([h1, h0]));
        self.width = usize::from(u16::from_be_bytes([w1, w0]));
        let is_first = self.components.is_empty();
        if !is_first
            || self.height == 0
            || self.width == 0
            || components.len() != 3 * usize::from(count)
        {
            return None;
        }
        for component in components.chunks_exact(3) {
            self.components.push(Component {
                id: component[0],
                sampling: [component[1] & 15, component[1] >> 4].map(usize::from),
                quantisation: usize::from(component[2]),
                dc_table: 0,
                ac_table: 0,
            });
        }
        match self.components.as_slice() {
            // The MCU of a scan of one component is one block, whatever its sampling.
            [_] => {}
            [luma, cb, cr] => {
                let is_supported = luma.sampling.iter().all(|factor| matches!(factor, 1 | 2))
                    && [cb.sampling, cr.sampling] == [[1, 1]; 2];
                let is_rgb = [luma.id, cb.id, cr.id] == *b"RGB";
                if !is_supported || is_rgb {
                    return None;
                }
                self.luma_blocks = luma.sampling;
            }
            _ => return None,
        }
        Some(())
    }

    fn read_huffman_tables(&mut self, mut segment: &'a [u8]) -> Option<()> {
        while let Some((&place, rest)) = segment.split_first() {
            let symbols: usize = rest
                .get(..16)?
                .iter()
                .map(|&count| usize::from(count))
                .sum();
            let (definition, after) = rest.split_at_checked(16 + symbols)?;
            let tables = match place >> 4 {
                0 => &mut self.dc_tables,
                1 => &mut self.ac_tables,
                _ => return None,
            };
            *tables.get_mut(usize::from(place & 15))? = Some(definition);
            segment = after;
        }
        Some(())
    }

    fn read_quantisation(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&place, rest)) = segment.split_first() {
            let bytes = match place >> 4 {
                0 => 1,
                1 => 2,
                _ => return None,
            };
            let (values, after) = rest.split_at_checked(BLOCK * bytes)?;
            let mut table = [0; BLOCK];
            for (out, value) in table.iter_mut().zip(values.chunks_exact(bytes)) {
                *out = value
                    .iter()
                    .fold(0, |value, &byte| value << 8 | u16::from(byte));
            }
            *self.quantisation.get_mut(usize::from(place & 15))? = Some(table);
            segment = after;
        }
        Some(())
    }

    fn read_scan(&mut self, segment: &[u8]) -> Option<()> {
        let (&count, rest) = segment.split_first()?;
        let (selectors, spectrum) = rest.split_at_checked(2 * usize::from(count))?;
        if usize::from(count) != self.components.len() || count == 0 || spectrum != [0, 63, 0] {
            return None;
        }
        for (component, selector) in self.components.iter_mut().zip(selectors.chunks_exact(2)) {
            if component.id != selector[0] {
                return None;
            }
            component.dc_table = usize::from(selector[1] >> 4);
            component.ac_table = usize::from(selector[1] & 15);
        }
        Some(())
    }
}

/// Marker and content of the next segment, and what follows it.
fn next_segment(content: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let rest = content.strip_prefix(&[0xff])?;
    // Any number of 0xff may come before a marker.
    let at = rest.iter().position(|&byte| byte != 0xff)?;
    let (&[marker, l1, l0], rest) = rest[at..].split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes([l1, l0])).checked_sub(2)?;
    let (segment, rest) = rest.split_at_checked(length)?;
    Some((marker, segment, rest))
}

fn is_upright(app1: &[u8]) -> bool {
    let orientation = app1
        .strip_prefix(b"Exif\0\0")
        .and_then(Orientation::from_exif_chunk);
    matches!(orientation, None | Some(Orientation::NoTransforms))
}

/// Whether Adobe's segment, if it is one, says that the colours are YCbCr.
fn is_ycbcr(app14: &[u8]) -> bool {
    !app14.starts_with(b"Adobe") || app14.get(11) == Some(&1)
}

//! The usual kind of JPEG, of which crops are decoded.

use image::metadata::Orientation;

use super::header::{Coding, Header, Scan};

/// A sequential JPEG whose single scan holds all components, grey or YCbCr, upright.
pub(super) struct Usual<'a> {
    pub(super) header: Header<'a>,
    /// Blocks of luma in an MCU, down and across; those of chroma are one.
    pub(super) luma_blocks: [usize; 2],
    /// The entropy-coded data and all that follows.
    pub(super) scan: &'a [u8],
}

impl<'a> Usual<'a> {
    /// Reads up to the scan; `None` if this is damaged or not the kind of JPEG described above.
    pub(super) fn parse(content: &'a [u8]) -> Option<Usual<'a>> {
        let mut header = Header::new(content).ok()?;
        let scan = header.next_scan().ok()??;
        let Scan {
            band: [0, 63],
            bits: [0, 0],
            ..
        } = scan
        else {
            return None;
        };
        if header.coding != Coding::Sequential
            || header.orientation != Orientation::NoTransforms
            || scan.components.len() != header.components.len()
        {
            return None;
        }
        let luma_blocks = match header.components.as_slice() {
            // The MCU of a scan of one component is one block, whatever its sampling.
            [_] => [1, 1],
            [luma, cb, cr] => {
                let is_halved = luma.sampling.iter().all(|factor| matches!(factor, 1 | 2))
                    && [cb.sampling, cr.sampling] == [[1, 1]; 2];
                let is_rgb = [luma.id, cb.id, cr.id] == *b"RGB";
                let is_ycbcr = matches!(header.adobe, None | Some(1)) && !is_rgb;
                if !is_halved || !is_ycbcr {
                    return None;
                }
                luma.sampling
            }
            _ => return None,
        };
        Some(Usual {
            header,
            luma_blocks,
            scan: scan.data,
        })
    }
}

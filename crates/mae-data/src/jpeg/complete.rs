//! Tells a whole JPEG from one that ends early.
//!
//! The decoder fills what is missing with grey and reports success, which would teach a network
//! to paint grey boxes.

const MARKER: u8 = 0xff;
const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;

/// Whether an end-of-image marker follows the start of the first scan.
///
/// The segments before the scan are stepped over by their length, because an EXIF thumbnail among
/// them is a JPEG with markers of its own.
/// In the scan itself every 0xff of data is followed by 0, so a marker there is a marker.
///
/// Source: ITU-T T.81, annex B.
pub(crate) fn is_complete(content: &[u8]) -> bool {
    first_scan(content)
        .is_some_and(|scan| scan.windows(2).any(|pair| pair == [MARKER, END_OF_IMAGE]))
}

/// What follows the marker of the first scan.
fn first_scan(content: &[u8]) -> Option<&[u8]> {
    // Two bytes of start-of-image come first.
    let mut rest = content.get(2..)?;
    loop {
        // Decoders skip stray bytes between segments, and any number of 0xff may come first.
        let marker_at = rest.iter().position(|&byte| byte == MARKER)?;
        rest = &rest[marker_at..];
        let code_at = rest.iter().position(|&byte| byte != MARKER)?;
        let code = rest[code_at];
        rest = &rest[code_at + 1..];
        match code {
            START_OF_SCAN => return Some(rest),
            // These stand alone: no length follows.
            0x00 | 0x01 | 0xd0..=0xd9 => {}
            _ => {
                let length = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
                rest = rest.get(length.max(2)..)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_inside_a_thumbnail_do_not_count() {
        let thumbnail = [0xff, 0xda, 0xff, 0xd9];
        let mut content = vec![0xff, 0xd8, 0xff, 0xe1, 0, 6];
        content.extend(thumbnail);
        assert!(!is_complete(&content));
        content.extend([0xff, 0xff, 0xda, 0, 2, 0xff, 0x00, 17]);
        assert!(!is_complete(&content));
        content.extend([0xff, 0xd9]);
        assert!(is_complete(&content));
        content.extend(b"trailing bytes");
        assert!(is_complete(&content));
    }

    #[test]
    fn no_prefix_panics() {
        let content = [
            0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xda, 0, 2, 9, 0xff, 0xd9,
        ];
        for end in 0..content.len() {
            assert!(!is_complete(&content[..end]));
        }
        assert!(is_complete(&content));
        assert!(!is_complete(&[0xff; 40]));
    }
}

//! What a file is by its first bytes, where its name does not say it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What a file begins like.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// An image that is read, other than TIFF.
    Image,
    /// A TIFF file, or what cameras and scanners make of TIFF.
    Tiff,
    /// A file that is known by this ending.
    Like(&'static str),
    Unknown,
}

/// Where DICOM's mark ends, after 128 bytes of anything.
const LOOKED_AT: usize = 132;

/// What the file at `path` begins like; one that cannot be read is unknown.
pub(super) fn of(path: &Path) -> Content {
    let mut start = Vec::with_capacity(LOOKED_AT);
    let read =
        File::open(path).and_then(|file| file.take(LOOKED_AT as u64).read_to_end(&mut start));
    read.map_or(Content::Unknown, |_| look(&start))
}

/// What a file that begins with `start`, 132 bytes or all of it, is.
///
/// Sources: the formats' own specifications; ISO/IEC 14496-12 for `ftyp` and its brands.
pub(super) fn look(start: &[u8]) -> Content {
    const IMAGES: [&[u8]; 5] = [
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF87a",
        b"GIF89a",
        b"\x93NUMPY",
    ];
    const TIFF: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];
    const OTHERS: [(&[u8], &str); 13] = [
        (b"\0\0\0\x0cjP  ", "jp2"),
        (b"\xff\x4f\xff\x51", "j2k"),
        (b"\xff\x0a", "jxl"),
        (b"\0\0\0\x0cJXL ", "jxl"),
        (b"8BPS", "psd"),
        (b"\x89HDF\r\n\x1a\n", "h5"),
        (b"PK\x03\x04", "zip"),
        (b"\x1f\x8b", "gz"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"%PDF", "pdf"),
        (b"v/1\x01", "exr"),
        (b"SIMPLE  =", "fits"),
        (b"FUJIFILMCCD-RAW", "raf"),
    ];
    let begins = |magic: &&[u8]| start.starts_with(magic);
    let at = |place: usize, words: &[u8]| start.get(place..).is_some_and(|s| s.starts_with(words));
    if IMAGES.iter().any(begins) || is_bmp(start) {
        return Content::Image;
    }
    if start.starts_with(b"RIFF") {
        return match start.get(8..12) {
            Some(b"WEBP") => Content::Image,
            Some(b"AVI ") => Content::Like("avi"),
            _ => Content::Unknown,
        };
    }
    if TIFF.iter().any(begins) {
        return Content::Tiff;
    }
    if at(4, b"ftyp") {
        return match start.get(8..12) {
            Some(b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1") => {
                Content::Like("heic")
            }
            Some(b"avif" | b"avis") => Content::Like("avif"),
            Some(b"crx ") => Content::Like("cr3"),
            _ => Content::Like("mp4"),
        };
    }
    if at(LOOKED_AT - 4, b"DICM") {
        return Content::Like("dcm");
    }
    let other = OTHERS.iter().find(|(magic, _)| begins(magic));
    other.map_or(Content::Unknown, |(_, ending)| Content::Like(ending))
}

/// Two letters begin many a text: the sizes of the headers must fit, too.
fn is_bmp(start: &[u8]) -> bool {
    let word = |at: usize| {
        let bytes = start.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    start.starts_with(b"BM")
        && word(6) == Some(0)
        && matches!(word(14), Some(12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_beginning() {
        let encoded = |format| {
            let mut content = std::io::Cursor::new(Vec::new());
            image::RgbImage::new(3, 2)
                .write_to(&mut content, format)
                .unwrap();
            content.into_inner()
        };
        use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
        for format in [Bmp, Gif, Jpeg, Png, WebP] {
            assert_eq!(look(&encoded(format)), Content::Image, "{format:?}");
        }
        assert_eq!(look(&encoded(Tiff)), Content::Tiff);
        for (start, ending) in [
            (&b"\0\0\0\x18ftypheic"[..], "heic"),
            (b"\0\0\0\x18ftypavif", "avif"),
            (b"\0\0\0\x18ftypisom", "mp4"),
            (b"PK\x03\x04rest", "zip"),
        ] {
            assert_eq!(look(start), Content::Like(ending));
        }
        let dicom = [&[0; 128][..], b"DICM"].concat();
        assert_eq!(look(&dicom), Content::Like("dcm"));
        for text in [
            &b"BMW and other cars drive here"[..],
            b"",
            b"B",
            b"RIFF",
            b"GIF",
        ] {
            assert_eq!(look(text), Content::Unknown);
        }
    }
}

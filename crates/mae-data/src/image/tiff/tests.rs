use std::io::Cursor;

use proptest::prelude::*;
use tiff::encoder::colortype;
use tiff::encoder::{Compression, TiffEncoder};
use tiff::tags::{PhotometricInterpretation, Predictor, SampleFormat};

use super::*;
use crate::error::DataError;
use crate::image::Image;
use crate::pixels::from_u16;

/// How a file is laid out.
#[derive(Copy, Clone, Debug)]
struct Sheet {
    is_big_endian: bool,
    is_planar: bool,
    is_tiled: bool,
    bits: u16,
    /// 1 for unsigned integers, 2 for signed ones, 3 for floating-point numbers.
    format: u16,
    /// 1 for grey and bands, 2 for RGB.
    meaning: u16,
    extra: &'static [u16],
    orientation: u16,
}

const SHEET: Sheet = Sheet {
    is_big_endian: false,
    is_planar: false,
    is_tiled: false,
    bits: 16,
    format: 1,
    meaning: 1,
    extra: &[],
    orientation: 1,
};

impl Sheet {
    /// A file of `[height, width, channels]` values; `bits_of` gives the bits of each.
    fn file(
        self,
        [height, width, channels]: [usize; 3],
        bits_of: impl Fn(usize) -> u64,
    ) -> Vec<u8> {
        let number = |value: u64, len: usize| -> Vec<u8> {
            let mut bytes = value.to_le_bytes()[..len].to_vec();
            if self.is_big_endian {
                bytes.reverse();
            }
            bytes
        };
        let len = usize::from(self.bits / 8);
        let [rows, columns] = match self.is_tiled {
            true => [16, 16],
            false => [3, width],
        };
        let planes = match self.is_planar {
            true => channels,
            false => 1,
        };
        let mut file = Vec::new();
        file.extend(if self.is_big_endian { b"MM" } else { b"II" });
        file.extend(number(42, 2));
        file.extend([0; 4]);
        let (mut offsets, mut lengths) = (Vec::new(), Vec::new());
        for plane in 0..planes {
            for top in (0..height).step_by(rows) {
                for left in (0..width).step_by(columns) {
                    offsets.push(file.len() as u64);
                    let bottom = match self.is_tiled {
                        true => top + rows,
                        false => height.min(top + rows),
                    };
                    for row in top..bottom {
                        for column in left..left + columns {
                            for channel in 0..channels / planes {
                                let at = (row * width + column) * channels + plane + channel;
                                let is_inside = row < height && column < width;
                                let bits = if is_inside { bits_of(at) } else { 0 };
                                file.extend(number(bits, len));
                            }
                        }
                    }
                    lengths.push(file.len() as u64 - offsets.last().unwrap());
                }
            }
        }
        const SHORT: u64 = 3;
        const LONG: u64 = 4;
        let one = |value: usize| vec![value as u64];
        let each = |value: u16| vec![u64::from(value); channels];
        let mut entries = vec![
            (256, LONG, one(width)),
            (257, LONG, one(height)),
            (258, SHORT, each(self.bits)),
            (259, SHORT, one(1)),
            (262, SHORT, one(self.meaning.into())),
            (274, SHORT, one(self.orientation.into())),
            (277, SHORT, one(channels)),
            (284, SHORT, one(1 + usize::from(self.is_planar))),
        ];
        entries.extend(match self.is_tiled {
            true => vec![
                (322, LONG, one(columns)),
                (323, LONG, one(rows)),
                (324, LONG, offsets),
                (325, LONG, lengths),
            ],
            false => vec![
                (273, LONG, offsets),
                (278, LONG, one(rows)),
                (279, LONG, lengths),
            ],
        });
        if !self.extra.is_empty() {
            let extra = self.extra.iter().map(|&kind| kind.into()).collect();
            entries.push((338, SHORT, extra));
        }
        entries.push((339, SHORT, each(self.format)));
        entries.sort();
        let mut directory = number(entries.len() as u64, 2);
        for (tag, kind, values) in entries {
            let len = if kind == SHORT { 2 } else { 4 };
            let mut bytes: Vec<u8> = values
                .iter()
                .flat_map(|&value| number(value, len))
                .collect();
            if bytes.len() > 4 {
                let at = file.len() as u64;
                file.append(&mut bytes);
                bytes = number(at, 4);
            }
            bytes.resize(4, 0);
            directory.extend([number(tag, 2), number(kind, 2)].concat());
            directory.extend(number(values.len() as u64, 4));
            directory.extend(bytes);
        }
        directory.extend([0; 4]);
        let at = number(file.len() as u64, 4);
        file[4..8].copy_from_slice(&at);
        file.extend(directory);
        file
    }
}

/// Different values for different places.
fn scrambled(at: usize) -> u64 {
    (at as u64 * 40_503 + 977) % 65_536
}

fn reason(content: &[u8], channels: usize) -> String {
    match Image::decode(content, channels, "a.tif") {
        Err(DataError::Image { name, reason }) if name == "a.tif" => reason,
        other => panic!("expected a broken image, found {other:?}"),
    }
}

#[test]
fn every_layout_gives_every_value() {
    for is_big_endian in [false, true] {
        for is_planar in [false, true] {
            for is_tiled in [false, true] {
                for channels in [1, 2, 5, 12] {
                    let sheet = Sheet {
                        is_big_endian,
                        is_planar,
                        is_tiled,
                        ..SHEET
                    };
                    let content = sheet.file([19, 21, channels], scrambled);
                    let image = Image::decode(&content, channels, "a.tif").unwrap();
                    assert_eq!((image.height(), image.width()), (19, 21));
                    let expected: Vec<f32> = (0..19 * 21 * channels)
                        .map(|at| scrambled(at) as f32 / 65_535.0)
                        .collect();
                    assert_eq!(image.pixels().as_f32().unwrap(), expected, "{sheet:?}");
                }
            }
        }
    }
}

#[test]
fn every_type_has_the_documented_values() {
    let check = |bits, format, number: u64, expected: f32| {
        let content = Sheet {
            bits,
            format,
            ..SHEET
        }
        .file([2, 3, 5], |_| number);
        let image = Image::decode(&content, 5, "a.tif").unwrap();
        assert_eq!(image.pixels().as_f32().unwrap(), [expected; 30]);
        assert_eq!(
            crate::image::kind_of(Cursor::new(content), Nodata::Auto),
            Some(PixelKind::F32)
        );
    };
    check(16, 1, 65_535, 1.0);
    check(32, 1, 100_000, 100_000.0);
    check(8, 2, 0x80, -128.0);
    check(16, 2, 0xfc18, -1000.0);
    check(32, 2, 0xffff_ffff, -1.0);
    check(32, 3, u64::from((-2.5_f32).to_bits()), -2.5);
    check(64, 3, 1e10_f64.to_bits(), 1e10);

    let bytes = Sheet { bits: 8, ..SHEET }.file([2, 3, 7], |at| at as u64);
    let image = Image::decode(&bytes, 7, "a.tif").unwrap();
    assert_eq!(image.bytes(), (0..42).collect::<Vec<u8>>());
    assert_eq!(
        crate::image::kind_of(Cursor::new(bytes), Nodata::Auto),
        Some(PixelKind::U8)
    );

    let nan = Sheet {
        bits: 32,
        format: 3,
        ..SHEET
    };
    let nan = nan.file([2, 3, 1], |at| u64::from([0.0, f32::NAN][at / 5].to_bits()));
    assert!(reason(&nan, 1).contains("row 1, column 2, channel 0 is NaN"));
}

/// Colours and more: as many as are asked for, or RGB, but never some of the bands unasked.
#[test]
fn colours_with_more_bands_are_read_whole() {
    for (samples, extra) in [(4, &[0_u16][..]), (5, &[0, 0]), (5, &[2, 0]), (6, &[])] {
        for is_big_endian in [false, true] {
            let sheet = Sheet {
                meaning: 2,
                bits: 8,
                extra,
                is_big_endian,
                ..SHEET
            };
            let content = sheet.file([4, 5, samples], |at| at as u64);
            let image = Image::decode(&content, samples, "a.tif").unwrap();
            let expected: Vec<u8> = (0..20 * samples as u8).collect();
            assert_eq!(image.bytes(), expected, "{sheet:?}");
            let message = reason(&content, 3);
            let expected = format!(
                "it has {samples} channels, expected 3 channels; convert or remove it, or set model.channels={samples}"
            );
            assert!(message.contains(&expected), "{message}");
        }
    }
    let alpha = Sheet {
        meaning: 2,
        bits: 8,
        extra: &[2],
        ..SHEET
    };
    let content = alpha.file([1, 2, 4], |at| at as u64);
    let decode = |channels| Image::decode(&content, channels, "a.tif");
    assert_eq!(decode(3).unwrap().bytes(), [0, 1, 2, 4, 5, 6]);
    assert_eq!(decode(4).unwrap().bytes(), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(decode(1).unwrap().bytes(), [0, 4]);
    assert!(reason(&content, 2).contains("it has 4 channels, expected 2"));
}

#[test]
fn another_number_of_channels_says_what_to_do() {
    let bands = SHEET.file([4, 5, 5], scrambled);
    for channels in [1, 3, 4, 6] {
        let message = reason(&bands, channels);
        assert!(
            message.contains(&format!("it has 5 channels, expected {channels}"))
                && message.contains("set model.channels=5"),
            "{message}"
        );
    }
}

/// The library of pictures turns them, too: by its own rules, which must be ours.
#[test]
fn orientation_is_applied() {
    for orientation in 1..=8 {
        let sheet = Sheet {
            bits: 8,
            orientation,
            ..SHEET
        };
        let content = sheet.file([2, 3, 1], |at| at as u64);
        let found = Image::decode(&content, 1, "a.tif").unwrap();
        let mut expected = image::DynamicImage::from(
            image::GrayImage::from_raw(3, 2, (0..6).collect::<Vec<u8>>()).unwrap(),
        );
        let turned = image::metadata::Orientation::from_exif(orientation as u8).unwrap();
        expected.apply_orientation(turned);
        assert_eq!(
            (found.height() as u32, found.width() as u32),
            (expected.height(), expected.width())
        );
        assert_eq!(
            found.bytes(),
            expected.into_luma8().as_raw(),
            "{orientation}"
        );
    }
}

/// Five bands of 16 bits, for the library's encoder.
struct Five;

impl colortype::ColorType for Five {
    type Inner = u16;
    const TIFF_VALUE: PhotometricInterpretation = PhotometricInterpretation::BlackIsZero;
    const BITS_PER_SAMPLE: &'static [u16] = &[16; 5];
    const SAMPLE_FORMAT: &'static [SampleFormat] = &[SampleFormat::Uint; 5];

    fn horizontal_predict(row: &[u16], result: &mut Vec<u16>) {
        result.extend_from_slice(&row[..5]);
        result.extend((5..row.len()).map(|at| row[at].wrapping_sub(row[at - 5])));
    }
}

#[test]
fn compressed_bands_are_read() {
    let values: Vec<u16> = (0..40 * 30 * 5).map(|at| scrambled(at) as u16).collect();
    for compression in [
        Compression::Uncompressed,
        Compression::Lzw,
        Compression::Deflate(Default::default()),
        Compression::Packbits,
    ] {
        for predictor in [Predictor::None, Predictor::Horizontal] {
            if predictor == Predictor::Horizontal && matches!(compression, Compression::Packbits) {
                continue;
            }
            let mut content = Cursor::new(Vec::new());
            TiffEncoder::new(&mut content)
                .unwrap()
                .with_compression(compression)
                .with_predictor(predictor)
                .write_image::<Five>(30, 40, &values)
                .unwrap();
            let image = Image::decode(&content.into_inner(), 5, "a.tif").unwrap();
            assert_eq!((image.height(), image.width()), (40, 30));
            let expected: Vec<f32> = values.iter().map(|&v| from_u16(v)).collect();
            assert_eq!(image.pixels().as_f32().unwrap(), expected);
        }
    }
}

#[test]
fn absurd_sizes_are_refused_before_memory_is_taken() {
    // One strip, so that the file is whole at any height.
    let mut content = SHEET.file([3, 5, 5], scrambled);
    let at = u32::from_le_bytes(content[4..8].try_into().unwrap()) as usize;
    let mut set = |entry: usize| {
        content[at + 2 + 12 * entry + 8..][..4].copy_from_slice(&60_000_u32.to_le_bytes());
    };
    // The entries are sorted: width and height, and the rows of a strip after eight others.
    [0, 1, 8].into_iter().for_each(&mut set);
    assert!(
        reason(&content, 5).contains("1024 MiB"),
        "{}",
        reason(&content, 5)
    );
}

proptest! {
    #[test]
    fn a_damaged_file_is_refused_or_read(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
        cut in any::<proptest::sample::Index>(),
        is_cut in any::<bool>(),
        is_planar in any::<bool>(),
        is_tiled in any::<bool>(),
    ) {
        let sheet = Sheet { is_planar, is_tiled, meaning: 2, extra: &[0, 0], ..SHEET };
        let mut content = sheet.file([5, 7, 5], scrambled);
        let at = u32::from_le_bytes(content[4..8].try_into().unwrap()) as usize;
        for (index, byte) in damage {
            // Mostly in the directory, which is what says how the rest is to be read.
            let at = at - 100 + index.index(content.len() - at + 100);
            content[at] = byte;
        }
        let end = if is_cut { cut.index(content.len()) } else { content.len() };
        for channels in [1, 3, 5] {
            let _ = Image::decode(&content[..end], channels, "a.tif");
        }
        let _ = crate::image::kind_of(Cursor::new(&content[..end]), Nodata::Auto);
    }
}

/// GDAL and others write the tag to the first page only.
#[test]
fn what_the_first_page_says_is_missing_is_missing_in_all() {
    let file = |tags: [Option<&str>; 2]| {
        let mut content = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut content).unwrap();
        for (tag, values) in tags.into_iter().zip([[7.0_f32, 1.0], [7.0, 9.0]]) {
            let mut page = encoder.new_image::<colortype::Gray32Float>(2, 1).unwrap();
            if let Some(tag) = tag {
                page.encoder().write_tag(Tag::GdalNodata, tag).unwrap();
            }
            page.write_data(&values).unwrap();
        }
        content.into_inner()
    };
    let missing = |tags| {
        let image = Image::decode(&file(tags), 2, "a.tif").unwrap();
        let values = image.pixels().as_f32().unwrap();
        values
            .iter()
            .map(|value| value.is_nan())
            .collect::<Vec<_>>()
    };
    assert_eq!(missing([Some("7"), None]), [true, true, false, false]);
    assert_eq!(missing([Some("7"), Some("9")]), [true, false, false, true]);
    assert_eq!(missing([None, Some("7")]), [false, true, false, false]);
    assert_eq!(missing([None, None]), [false; 4]);
}

#[test]
fn a_file_that_was_cut_says_what_to_do() {
    let content = SHEET.file([19, 21, 1], scrambled);
    for len in [5, 9, content.len() / 2, content.len() - 3] {
        let reason = reason(&content[..len], 1);
        assert!(
            reason.ends_with("; fetch it again or remove it"),
            "{reason}"
        );
    }
}

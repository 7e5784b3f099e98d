use proptest::prelude::*;

use super::*;
use crate::error::DataError;
use crate::image::{Image, Nodata};

/// A file as NumPy writes it.
fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.extend([version, 0]);
    match version {
        1 => file.extend((header.len() as u16).to_le_bytes()),
        _ => file.extend((header.len() as u32).to_le_bytes()),
    }
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

fn header(descr: &str, is_fortran: bool, shape: &str) -> String {
    let order = if is_fortran { "True" } else { "False" };
    format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n")
}

fn array(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    file(1, &header(descr, false, shape), data)
}

fn decode(content: &[u8], channels: usize) -> Image {
    Image::decode(content, channels, "a.npy").unwrap()
}

fn reason(content: &[u8], channels: usize) -> String {
    match Image::decode(content, channels, "a.npy") {
        Err(DataError::Image { name, reason }) if name == "a.npy" => reason,
        other => panic!("expected a broken image, found {other:?}"),
    }
}

#[test]
fn every_type_has_the_documented_values() {
    fn check(descr: &str, data: &[u8], expected: [f32; 2]) {
        let image = decode(&array(descr, "(1, 2)", data), 1);
        assert_eq!(image.pixels().as_f32().unwrap(), expected, "{descr}");
    }
    let bytes = decode(&array("|u1", "(1, 2)", &[0, 200]), 1);
    assert_eq!(bytes.bytes(), [0, 200]);
    check("<u2", &[0xff, 0xff, 0x01, 0x00], [1.0, 1.0 / 65535.0]);
    check(">u2", &[0x00, 0x00, 0x80, 0x00], [0.0, 32768.0 / 65535.0]);
    check("|i1", &[0x80, 0x7f], [-128.0, 127.0]);
    check("<i2", &[0x18, 0xfc, 0xb8, 0x0b], [-1000.0, 3000.0]);
    check(">i4", &[0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff], [256.0, -1.0]);
    check("<u4", &[0, 0, 1, 0, 5, 0, 0, 0], [65536.0, 5.0]);
    let mut data = 7_i64.to_be_bytes().to_vec();
    data.extend((-8_i64).to_be_bytes());
    check(">i8", &data, [7.0, -8.0]);
    data = 1_u64.to_le_bytes().to_vec();
    data.extend((1_u64 << 40).to_le_bytes());
    check("<u8", &data, [1.0, (1_u64 << 40) as f32]);
    // One, and the smallest number there is; minus two, and the largest.
    check("<f2", &[0x00, 0x3c, 0x01, 0x00], [1.0, 2_f32.powi(-24)]);
    check(">f2", &[0xc0, 0x00, 0x7b, 0xff], [-2.0, 65504.0]);
    data = (-0.1_f32).to_be_bytes().to_vec();
    data.extend(1e30_f32.to_be_bytes());
    check(">f4", &data, [-0.1, 1e30]);
    data = 0.1_f64.to_le_bytes().to_vec();
    data.extend((-3.5_f64).to_le_bytes());
    check("<f8", &data, [0.1, -3.5]);
}

/// `[2, 3, 4]`, row by row and the other way around, in every layout of the axes.
#[test]
fn rows_columns_and_channels_are_found_in_every_layout() {
    let values: Vec<u8> = (0..24).collect();
    for version in [1, 2, 3] {
        let content = file(version, &header("|u1", false, "(2, 3, 4)"), &values);
        let image = decode(&content, 4);
        assert_eq!((image.height(), image.width()), (2, 3));
        assert_eq!(image.bytes(), values);
    }
    let at = |[row, column, channel]: [usize; 3]| (12 * row + 4 * column + channel) as u8;
    let fortran: Vec<u8> = (0..24).map(|i| at([i % 2, i / 2 % 3, i / 6])).collect();
    let content = file(1, &header("|u1", true, "(2, 3, 4)"), &fortran);
    assert_eq!(decode(&content, 4).bytes(), values);

    let planes: Vec<u8> = (0..24).map(|i| at([i / 3 % 2, i % 3, i / 6])).collect();
    let content = array("|u1", "(4, 2, 3)", &planes);
    assert_eq!(decode(&content, 4).bytes(), values);
    let fortran: Vec<u8> = (0..24).map(|i| at([i / 4 % 2, i / 8, i % 4])).collect();
    let content = file(1, &header("|u1", true, "(4, 2, 3)"), &fortran);
    assert_eq!(decode(&content, 4).bytes(), values);

    // Where both fit, channels are last.
    let both = array("|u1", "(2, 6, 2)", &values);
    assert_eq!(decode(&both, 2).bytes(), values);
    for shape in ["(4, 6)", "(4, 6, 1)", "(1, 4, 6)"] {
        let image = decode(&array("|u1", shape, &values), 1);
        assert_eq!((image.height(), image.width()), (4, 6), "{shape}");
        assert_eq!(image.bytes(), values);
    }
}

#[test]
fn what_is_no_image_is_explained() {
    let check = |content: &[u8], channels, expected: &str| {
        let reason = reason(content, channels);
        assert!(reason.contains(expected), "{reason}");
    };
    let data = [0; 64];
    let array = |descr, shape| array(descr, shape, &data);
    check(
        &array("|u1", "(4, 5, 2)"),
        3,
        "shape [4, 5, 2], expected [height, width, 3] or [3, height, width]; set model.channels=2",
    );
    check(&array("|u1", "(4, 5)"), 3, "set model.channels=1");
    check(&array("|u1", "(64,)"), 1, "save one array an image");
    check(&array("|u1", "(2, 2, 2, 2)"), 2, "save one array an image");
    check(&array("|u1", "(0, 5)"), 1, "1 to 65536 pixels on a side");
    check(
        &array("|u1", "(65537, 5)"),
        1,
        "1 to 65536 pixels on a side",
    );
    check(&array("|u1", "(65536, 65536)"), 1, "1024 MiB");
    let huge = format!("({}, 65536, 65536)", usize::MAX);
    check(&array("|u1", &huge), 1, "expected [height, width]");
    check(
        &array("<f4", "(4, 5)"),
        1,
        "the array ends early: 64 bytes of 80",
    );
    check(&array("|O", "(4, 5)"), 1, "of type \"|O\"");
    check(&array("<c8", "(4, 5)"), 1, "save it as float32");
    check(&array("[('a', '<f4')]", "(4, 5)"), 1, "are of type");
    check(&array("|u1", "(4, x)"), 1, "no usable shape");
    check(&array("|u1", "(-4, 5)"), 1, "no usable shape");
    check(&file(1, "{}", &data), 1, "no usable descr");
    check(&file(4, "{}", &data), 1, "version 4 of its format");
    let long = " ".repeat(MAX_HEADER + 1);
    check(&file(2, &long, &data), 1, "65537 bytes long");
    let whole = array("|u1", "(4, 5)");
    check(&whole[..20], 1, "the header of the array ends early");
    check(&whole[..9], 1, "the header of the array ends early");
}

#[test]
fn numbers_that_are_not_finite_are_named() {
    let mut data: Vec<u8> = [1.0_f32; 12].iter().flat_map(|v| v.to_le_bytes()).collect();
    data[4 * 9..4 * 10].copy_from_slice(&f32::NAN.to_le_bytes());
    let found = reason(&array("<f4", "(2, 3, 2)", &data), 2);
    assert!(
        found.contains("row 1, column 1, channel 1 is NaN"),
        "{found}"
    );
    let too_large: Vec<u8> = [1e300_f64; 4]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let found = reason(&array("<f8", "(2, 2)", &too_large), 1);
    assert!(
        found.contains("row 0, column 0, channel 0 is inf"),
        "{found}"
    );
}

#[test]
fn the_kind_is_told_by_the_header() {
    for (descr, kind) in [
        ("|u1", PixelKind::U8),
        ("<u2", PixelKind::F32),
        ("|i1", PixelKind::F32),
    ] {
        let content = array(descr, "(4, 5)", &[]);
        let found = crate::image::kind_of(std::io::Cursor::new(content), Nodata::Auto);
        assert_eq!(found, Some(kind), "{descr}");
    }
}

proptest! {
    #[test]
    fn a_damaged_file_is_refused_or_read(
        damage in proptest::collection::vec((0_usize..120, any::<u8>()), 1..6),
        len in 0_usize..200,
    ) {
        let header = header("<u2", false, "(3, 4, 5)");
        let mut content = file(1, &header, &[7; 120]);
        for (at, byte) in damage {
            let at = at % content.len();
            content[at] = byte;
        }
        let end = content.len().saturating_sub(len / 10 * (len % 2));
        for channels in [1, 4, 5] {
            let _ = Image::decode(&content[..end], channels, "a.npy");
        }
        let _ = crate::image::kind_of(std::io::Cursor::new(&content[..end]), Nodata::Auto);
    }
}

#[test]
fn the_array_of_an_archive_is_named() {
    use std::io::Write;

    let archive = |array: &[u8]| {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, content) in [("labels.npy", &b"no array"[..]), ("image.npy", array)] {
            let options = zip::write::SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Stored);
            archive.start_file(name, options).unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap().into_inner()
    };
    let reason = |content: &[u8], channels| {
        let error = Image::decode(content, channels, "a.npz").unwrap_err();
        error.to_string()
    };
    let values = [f32::NAN; 180].map(f32::to_le_bytes).concat();
    let array = array("<f4", "(6, 6, 5)", &values);
    let whole = archive(&array);
    let kind = crate::image::kind_of(std::io::Cursor::new(&whole), Nodata::Auto);
    assert_eq!(
        (kind, Image::bands(&whole)),
        (Some(PixelKind::F32), Some(5))
    );
    let other = reason(&whole, 3);
    assert!(
        other.contains("a.npz: image.npy in it: the array has shape"),
        "{other}"
    );
    let missing = reason(&whole, 5);
    assert!(
        missing.contains("image.npy in it: the value at"),
        "{missing}"
    );
    let short = reason(&archive(&array[..array.len() - 1]), 5);
    assert!(short.ends_with("fetch it again or remove it"), "{short}");
    let cut = reason(&whole[..whole.len() - 9], 5);
    assert!(cut.ends_with("fetch it again or remove it"), "{cut}");
    let mut flipped = whole.clone();
    let at = memchr::memmem::find(&whole, b"NUMPY").unwrap() + 100;
    flipped[at] ^= 1;
    let flipped = reason(&flipped, 5);
    assert!(
        flipped.contains("image.npy in it cannot be read"),
        "{flipped}"
    );
    assert!(
        flipped.ends_with("fetch it again or remove it"),
        "{flipped}"
    );
}

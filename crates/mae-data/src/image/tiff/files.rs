//! Files of other programs, and what these read in them: see `make_tiff.py` beside the files.

use crate::image::{Image, Nodata};
use crate::pixels::Pixels;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiff/");

fn content(name: &str) -> Vec<u8> {
    let path = format!("{FOLDER}{name}");
    std::fs::read(&path).expect(&path)
}

/// Compares a file with what another program has read in it; values may be `levels` of 255 apart.
#[track_caller]
fn check(name: &str, channels: usize, levels: f32) {
    let stem = name.split('.').next().unwrap();
    let expected = Image::decode_with(
        &content(&format!("{stem}.npy")),
        channels,
        Nodata::Value(f64::NAN),
        stem,
    );
    compare(name, channels, &expected.unwrap(), levels);
}

#[track_caller]
fn compare(name: &str, channels: usize, expected: &Image, levels: f32) {
    let found = Image::decode(&content(name), channels, name).unwrap();
    assert_eq!(
        (found.height(), found.width()),
        (expected.height(), expected.width())
    );
    if let (Pixels::U8(_), Pixels::F32(_)) = (found.pixels(), expected.pixels()) {
        panic!("{name}: expected numbers");
    }
    let [found, expected] = [&found, expected].map(|image| image.pixels().clone().into_f32());
    let mut sum = 0.0;
    for (at, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.is_nan(), expected.is_nan(), "{name}: value {at}");
        let difference = if found.is_nan() {
            0.0
        } else {
            255.0 * (found - expected).abs()
        };
        assert!(
            difference <= levels,
            "{name}: value {at} is {found}, expected {expected}"
        );
        sum += difference;
    }
    // Wrong colours would differ everywhere.
    assert!(sum / found.len() as f32 <= levels / 3.0, "{name}: {sum}");
}

#[test]
fn every_compression_gives_the_same_values() {
    for name in ["rgb_zstd.tif", "rgb_webp.tif"] {
        check(name, 3, 0.0);
    }
}

/// Chroma is magnified by another rule than libjpeg's, and rounded otherwise.
#[test]
fn jpegs_in_tiff_have_the_right_colours() {
    for name in [
        "ycbcr_jpeg_tiles.tif",
        "ycbcr_jpeg_strips.tif",
        "ycbcr_jpeg_422.tif",
    ] {
        check(name, 3, 12.0);
    }
    check("rgb_jpeg_tiles.tif", 3, 2.0);
}

#[test]
fn a_jpeg_that_ends_early_is_refused() {
    let mut damaged = content("rgb_jpeg_tiles.tif");
    let end = damaged
        .windows(2)
        .rposition(|bytes| bytes == b"\xff\xd9")
        .unwrap();
    damaged[end + 1] = 0;
    let message = Image::decode(&damaged, 3, "a.tif").unwrap_err().to_string();
    assert!(message.contains("ends early"), "{message}");
}

#[test]
fn palettes_and_few_bits_are_read() {
    for bits in [8, 4, 2, 1] {
        check(&format!("palette_{bits}.tif"), 3, 0.0);
    }
    for bits in [4, 2, 1] {
        check(&format!("grey_{bits}.tif"), 1, 0.0);
    }
    check("white_is_zero.tif", 1, 0.0);
    check("fax.tif", 3, 0.0);
    check("cmyk.tif", 3, 1.0);
}

#[test]
fn what_gdal_says_is_missing_is_missing() {
    check("nodata_f32.tif", 6, 0.0);
    check("nodata_lowest.tif", 6, 0.0);
    check("nodata_u8.tif", 3, 0.0);
    check("sparse.tif", 1, 0.0);
    let kind = |name, nodata| crate::image::kind_of(std::io::Cursor::new(content(name)), nodata);
    assert_eq!(
        kind("nodata_u8.tif", Nodata::Auto),
        Some(crate::PixelKind::F32)
    );
    assert_eq!(
        kind("nodata_u8.tif", Nodata::None),
        Some(crate::PixelKind::U8)
    );
    assert_eq!(
        kind("rgb_zstd.tif", Nodata::Value(7.0)),
        Some(crate::PixelKind::F32)
    );
    // No byte is -9999, so none can be missing.
    assert_eq!(
        kind("rgb_zstd.tif", Nodata::Value(-9999.0)),
        Some(crate::PixelKind::U8)
    );
    let whole = Image::decode_with(&content("nodata_f32.tif"), 6, Nodata::None, "").unwrap();
    assert!(whole.pixels().as_f32().unwrap().contains(&-9999.0));
}

#[test]
fn pages_are_bands_where_so_many_channels_are_asked_for() {
    check("pages.tif", 3, 0.0);
    assert_eq!(Image::bands(&content("pages.tif")), Some(3));
    let first = Image::decode(&content("pages.tif"), 1, "").unwrap();
    let all = Image::decode(&content("pages.tif"), 3, "").unwrap();
    let red: Vec<u8> = all.bytes().chunks_exact(3).map(|pixel| pixel[0]).collect();
    assert_eq!(first.bytes(), red);
    check("imagej.tif", 5, 0.0);
    check("other_pages.tif", 3, 0.0);
    check("overview.tif", 3, 0.0);
    let left = |name: &str| {
        super::read(&content(name), 3, Nodata::Auto, &mut |height, width| {
            [0..height, 0..width]
        })
        .unwrap()
        .left_pages
    };
    assert_eq!([left("other_pages.tif"), left("overview.tif")], [1, 0]);
    let message = Image::decode(&content("imagej.tif"), 4, "")
        .unwrap_err()
        .to_string();
    assert!(message.contains("its 5 pages have 5"), "{message}");
}

#[test]
fn what_cannot_be_read_is_named() {
    for (name, compression) in [("rgb_lzma.tif", "LZMA"), ("rgb_lerc.tif", "LERC")] {
        let message = Image::decode(&content(name), 3, name)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(compression)
                && message.contains("gdal_translate -co COMPRESS=DEFLATE"),
            "{message}"
        );
    }
}

#[test]
fn archives_and_booleans_are_arrays() {
    let expected = Image::decode(&content("archive.npy"), 5, "").unwrap();
    compare("named.npz", 5, &expected, 0.0);
    compare("first.npz", 5, &expected, 0.0);
    assert_eq!(Image::bands(&content("named.npz")), Some(5));
    let mask = Image::decode(&content("bool.npy"), 1, "").unwrap();
    assert!(mask.bytes().contains(&0) && mask.bytes().contains(&255));
    assert!(mask.bytes().iter().all(|byte| matches!(byte, 0 | 255)));
}

/// Only what a crop needs is decoded, and it is what a crop of the whole image is, to the last bit.
#[test]
fn a_crop_of_a_file_is_a_crop_of_its_image() {
    use crate::rng::SampleKey;
    use crate::transform::{Augmentation, Transform};
    let files = [
        ("nodata_lowest.tif", 6),
        ("nodata_u8.tif", 3),
        ("rgb_zstd.tif", 3),
        ("ycbcr_jpeg_tiles.tif", 3),
        ("palette_4.tif", 3),
        ("grey_2.tif", 1),
        ("pages.tif", 3),
        ("imagej.tif", 5),
        ("archive.npy", 5),
        ("first.npz", 5),
        ("sparse.tif", 1),
    ];
    for (name, channels) in files {
        let content = content(name);
        let whole = Image::decode(&content, channels, name).unwrap();
        for index in 0..40 {
            let transform = Transform {
                height: 13,
                width: 9,
                augmentation: Augmentation::RandomResizedCrop {
                    scale: [0.05, 1.0],
                    ratio: [0.5, 2.0],
                },
                hflip: true,
                color_jitter: None,
                rand_augment: None,
            };
            let key = SampleKey {
                seed: 3,
                epoch: 0,
                index,
            };
            let found = transform.apply_encoded(&content, channels, Nodata::Auto, name, key);
            let expected = transform.apply(whole.clone(), key).unwrap();
            let [found, expected] = [found.unwrap(), expected].map(|image| {
                let values = image.into_pixels().into_f32().into_iter();
                values.map(f32::to_bits).collect::<Vec<_>>()
            });
            assert!(found == expected, "{name}, crop {index}");
        }
    }
}

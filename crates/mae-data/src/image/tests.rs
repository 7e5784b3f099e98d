use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, Rgba};

use super::*;

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut content = Cursor::new(Vec::new());
    image.into().write_to(&mut content, format).unwrap();
    content.into_inner()
}

fn ramp() -> RgbImage {
    RgbImage::from_fn(20, 10, |x, y| Rgb([10 * x as u8, 20 * y as u8, 128]))
}

fn reason(content: &[u8]) -> String {
    match Image::decode(content, 3, "cat.jpg") {
        Err(DataError::Image { name, reason }) => {
            assert_eq!(name, "cat.jpg");
            reason
        }
        other => panic!("expected a broken image, found {other:?}"),
    }
}

#[test]
fn every_format_is_decoded() {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    // The greatest error that the format's own loss explains.
    for (format, tolerance) in [
        (Png, 0),
        (Bmp, 0),
        (Tiff, 0),
        (WebP, 0),
        (Gif, 30),
        (Jpeg, 30),
    ] {
        let content = encode(ramp(), format);
        let image = Image::decode(&content, 3, "ramp").unwrap();
        assert_eq!((image.height(), image.width()), (10, 20), "{format:?}");
        let worst = (image.bytes().iter().zip(ramp().as_raw()))
            .map(|(found, expected)| found.abs_diff(*expected))
            .max();
        assert!(worst <= Some(tolerance), "{format:?}: {worst:?}");
        assert_eq!(Image::decode(&content, 1, "ramp").unwrap().channels(), 1);
    }
}

#[test]
fn alpha_is_dropped_and_depth_kept() {
    let rgba = ImageBuffer::from_pixel(2, 2, Rgba([200_u8, 100, 50, 0]));
    let image = Image::decode(&encode(rgba, ImageFormat::Png), 3, "rgba").unwrap();
    assert_eq!(image.bytes()[..3], [200, 100, 50]);

    let deep = ImageBuffer::from_pixel(2, 2, Rgb([65535_u16, 257 * 100, 0]));
    let image = Image::decode(&encode(deep, ImageFormat::Png), 3, "deep").unwrap();
    let expected = [1.0, 100.0 / 255.0, 0.0];
    assert_eq!(image.pixels().as_f32().unwrap()[..3], expected);
}

#[test]
fn broken_files_say_why() {
    assert_eq!(
        reason(b""),
        "the file is empty; fetch it again or remove it"
    );
    assert!(reason(b"no picture at all").contains("the content is no image"));
    for format in [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Gif,
        ImageFormat::Tiff,
    ] {
        let content = encode(ramp(), format);
        for len in [content.len() / 2, content.len() / 4, 12] {
            let reason = reason(&content[..len]);
            assert!(reason.contains("fetch it again"), "{format:?}: {reason}");
        }
    }
}

#[test]
fn absurd_sizes_are_refused_before_memory_is_taken() {
    let mut content = encode(ramp(), ImageFormat::Bmp);
    // Width and height of a BMP are at bytes 18 and 22.
    content[18..22].copy_from_slice(&60_000_u32.to_le_bytes());
    content[22..26].copy_from_slice(&60_000_u32.to_le_bytes());
    assert!(
        reason(&content).contains("1024 MiB"),
        "{}",
        reason(&content)
    );
    content[18..22].copy_from_slice(&70_000_u32.to_le_bytes());
    assert!(!reason(&content).is_empty());
}

#[test]
fn what_is_no_image_is_refused() {
    for channels in [0, 1025] {
        let error = Image::decode(&encode(ramp(), ImageFormat::Png), channels, "ramp");
        let message = error.unwrap_err().to_string();
        assert!(message.contains("up to 1024"), "{message}");
        assert!(Image::new(1, 1, channels, vec![0_u8; channels]).is_err());
    }
    assert!(Image::new(2, 2, 3, vec![0_u8; 11]).is_err());
    assert!(Image::new(0, 2, 3, Vec::<u8>::new()).is_err());
    assert!(Image::new(usize::MAX, 2, 3, Vec::<u8>::new()).is_err());
}

#[test]
fn flip_mirrors_pixels_not_channels() {
    let mut image = Image::new(2, 2, 3, (0..12).collect::<Vec<u8>>()).unwrap();
    image.flip_horizontally();
    assert_eq!(image.bytes(), [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]);
}

#[test]
fn a_crop_must_be_inside_the_image() {
    let image = Image::new(4, 4, 1, vec![7_u8; 16]).unwrap();
    let crop = |top, left, height, width| {
        let crop = CropBox {
            top,
            left,
            height,
            width,
        };
        image.crop_resize(crop, 3, 5)
    };
    assert_eq!(crop(0.5, 0.0, 3.5, 4.0).unwrap().bytes(), [7; 15]);
    assert!(crop(0.5, 0.0, 3.6, 4.0).is_err());
    assert!(crop(-0.1, 0.0, 3.0, 4.0).is_err());
    assert!(crop(4.0, 0.0, 1e-30, 4.0).is_err());
    assert!(crop(1.0, 0.0, 1e-30, 4.0).is_err());
    assert_eq!(crop(3.9, 0.0, 2e-5, 4.0).unwrap().bytes(), [7; 15]);
    assert!(crop(0.0, 0.0, 0.0, 4.0).is_err());
    assert!(crop(0.0, f64::NAN, 1.0, 4.0).is_err());
    assert!(image.resize(0, 5).is_err());
}

/// Values without order, between -1000 and 3000, as of a scanner.
fn measured(height: usize, width: usize, channels: usize) -> Image {
    let pixels: Vec<f32> = (0..height * width * channels)
        .map(|at| (at * 7919 % 4001) as f32 - 1000.0)
        .collect();
    Image::new(height, width, channels, pixels).unwrap()
}

/// One channel of an image.
fn channel(image: &Image, channel: usize) -> Image {
    let select = |at: usize| at * image.channels() + channel;
    let pixels = image.height() * image.width();
    let pixels = match image.pixels() {
        Pixels::U8(values) => Pixels::U8((0..pixels).map(|at| values[select(at)]).collect()),
        Pixels::F32(values) => Pixels::F32((0..pixels).map(|at| values[select(at)]).collect()),
    };
    Image::new(image.height(), image.width(), 1, pixels).unwrap()
}

/// Second and fourth channels are no alpha, and no channel leaks into another.
#[test]
fn every_channel_is_resized_by_itself() {
    for channels in [1, 2, 3, 4, 5, 8, 13] {
        let bytes: Vec<u8> = (0..11 * 17 * channels).map(|at| (at * 89) as u8).collect();
        let bytes = Image::new(11, 17, channels, bytes).unwrap();
        for image in [bytes, measured(11, 17, channels)] {
            let mut resized = image.resize(7, 23).unwrap();
            assert_eq!(resized.channels(), channels);
            resized.flip_horizontally();
            for at in 0..channels {
                let mut expected = channel(&image, at).resize(7, 23).unwrap();
                expected.flip_horizontally();
                let found = channel(&resized, at);
                let worst = (found.pixels().clone().into_f32().iter())
                    .zip(expected.pixels().clone().into_f32())
                    .map(|(found, expected)| (found - expected).abs())
                    .fold(0.0, f32::max);
                // The sums of other vector instructions are rounded in another way.
                assert!(worst < 1e-3, "{channels} channels, {worst}");
            }
        }
    }
}

/// The bicubic kernel overshoots at edges, and numbers are not cut off.
#[test]
fn numbers_are_neither_rounded_nor_clamped() {
    let pixels: Vec<f32> = (0..64)
        .map(|at| if at % 8 < 4 { -1000.0 } else { 3000.25 })
        .collect();
    let image = Image::new(8, 8, 1, pixels).unwrap();
    let resized = image.resize(8, 24).unwrap();
    let values = resized.pixels().as_f32().unwrap();
    let (low, high) = (values.iter()).fold((f32::MAX, f32::MIN), |(low, high), &value| {
        (low.min(value), high.max(value))
    });
    assert!((-1300.0..-1100.0).contains(&low), "{low}");
    assert!((3100.0..3300.0).contains(&high), "{high}");
    let constant = Image::new(5, 7, 6, vec![-123.456_f32; 210]).unwrap();
    for &value in constant.resize(9, 3).unwrap().pixels().as_f32().unwrap() {
        assert!((value + 123.456).abs() < 1e-3, "{value}");
    }
}

/// A photograph of 8 bits and the same one of 16 have the same values.
#[test]
fn depth_does_not_change_values() {
    let bytes = encode(ramp(), ImageFormat::Png);
    let deep = ImageBuffer::from_fn(20, 10, |x, y| {
        Rgb(ramp().get_pixel(x, y).0.map(|value| 257 * u16::from(value)))
    });
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let deep = encode(deep.clone(), format);
        let found = Image::decode(&deep, 3, "deep").unwrap();
        assert_eq!(found.kind(), PixelKind::F32);
        let wide = Image::decode(&bytes, 3, "ramp").unwrap();
        assert_eq!(found, wide.into_kind(PixelKind::F32, "ramp").unwrap());
        assert_eq!(
            kind_of(Cursor::new(&deep), Nodata::Auto),
            Some(PixelKind::F32)
        );
        let refused = found
            .into_kind(PixelKind::U8, "deep")
            .unwrap_err()
            .to_string();
        assert!(refused.contains("set data.values=\"f32\""), "{refused}");
    }
    assert_eq!(
        kind_of(Cursor::new(&bytes), Nodata::Auto),
        Some(PixelKind::U8)
    );
    assert_eq!(kind_of(Cursor::new(b"no picture"), Nodata::Auto), None);
}

#[test]
fn alpha_is_kept_where_it_is_asked_for() {
    let rgba = ImageBuffer::from_pixel(2, 2, Rgba([200_u8, 100, 50, 7]));
    let image = Image::decode(&encode(rgba, ImageFormat::Png), 4, "rgba").unwrap();
    assert_eq!(image.bytes()[..4], [200, 100, 50, 7]);
    let grey = ImageBuffer::from_pixel(2, 2, image::LumaA([200_u16, 100]));
    let grey = encode(grey, ImageFormat::Png);
    let image = Image::decode(&grey, 2, "grey").unwrap();
    let expected = [200.0 / 65535.0, 100.0 / 65535.0];
    assert_eq!(image.pixels().as_f32().unwrap()[..2], expected);
    assert_eq!(Image::decode(&grey, 3, "grey").unwrap().channels(), 3);
    for (content, found) in [(grey, 2), (encode(ramp(), ImageFormat::Jpeg), 3)] {
        let message = Image::decode(&content, 4, "a.png").unwrap_err().to_string();
        let expected = format!(
            "a.png: it has {found} channels, expected 4 channels; convert or remove it, or set model.channels={found}"
        );
        assert!(message.starts_with(&expected), "{message}");
    }
}

/// A pixel of which most is missing is missing; the others are means of what is there, so no value bleeds.
#[test]
fn missing_values_have_no_weight() {
    let with = |value: &dyn Fn(usize, usize) -> f32| {
        let pixels: Vec<f32> = (0..16 * 16).map(|at| value(at / 16, at % 16)).collect();
        Image::new(16, 16, 1, pixels).unwrap()
    };
    // The left half is missing: at half the size, with 5 columns in 16 the edge lies between pixels.
    let left = with(&|_, x| if x < 8 { f32::NAN } else { 5e4 });
    for (height, width, missing) in [(8, 8, 4), (16, 32, 16), (4, 4, 2)] {
        let resized = left.resize(height, width).unwrap();
        for (at, value) in resized.pixels().as_f32().unwrap().iter().enumerate() {
            match at % width < missing {
                true => assert!(value.is_nan(), "{at}: {value}"),
                false => assert!((value - 5e4).abs() < 0.05, "{at}: {value}"),
            }
        }
    }
    // Single pixels are filled from around them.
    let holes = with(&|y, x| {
        if y % 5 == 2 && x % 5 == 2 {
            f32::NAN
        } else {
            x as f32
        }
    });
    let (resized, whole) = (
        holes.resize(4, 4).unwrap(),
        with(&|_, x| x as f32).resize(4, 4).unwrap(),
    );
    let pairs = resized
        .pixels()
        .as_f32()
        .unwrap()
        .iter()
        .zip(whole.pixels().as_f32().unwrap());
    for (found, expected) in pairs {
        assert!(
            (found - expected).abs() < 0.4,
            "{found}, expected about {expected}"
        );
    }
    // A crop that sees nothing missing is that of the whole image, to the bit.
    let crop = CropBox {
        top: 0.0,
        left: 12.0,
        height: 8.0,
        width: 4.0,
    };
    let (found, expected) = (
        left.crop_resize(crop, 4, 4),
        with(&|_, _| 5e4).crop_resize(crop, 4, 4),
    );
    assert_eq!(found.unwrap(), expected.unwrap());
    let all = with(&|_, _| f32::NAN).resize(3, 3).unwrap();
    assert!(
        all.pixels()
            .as_f32()
            .unwrap()
            .iter()
            .all(|value| value.is_nan())
    );
}

#[test]
fn a_png_may_lack_its_end_and_no_pixels() {
    let pixels: Vec<u8> = (0..200 * 200 * 3u32)
        .map(|i| ((i % 977) * (i % 977) % 251) as u8)
        .collect();
    let picture = image::RgbImage::from_raw(200, 200, pixels.clone()).unwrap();
    let mut content = Cursor::new(Vec::new());
    picture
        .write_to(&mut content, image::ImageFormat::Png)
        .unwrap();
    let content = content.into_inner();
    for missing in 0..=12 {
        let image = Image::decode(&content[..content.len() - missing], 3, "a.png").unwrap();
        assert_eq!(image.bytes(), pixels, "{missing}");
    }
    for missing in [13, 16, 17, 100, content.len() / 2] {
        let cut = Image::decode(&content[..content.len() - missing], 3, "a.png");
        assert!(cut.is_err(), "{missing}");
    }
    // A part of the pixels that ends where a chunk does.
    let data = content.windows(4).position(|word| word == b"IDAT").unwrap();
    let len = u32::from_be_bytes(content[data - 4..data].try_into().unwrap()) as usize;
    let half = &content[data + 4..data + 4 + len / 2];
    let mut short = content[..data - 4].to_vec();
    short.extend((half.len() as u32).to_be_bytes());
    short.extend(b"IDAT");
    short.extend(half);
    let mut checksum = flate2::Crc::new();
    checksum.update(b"IDAT");
    checksum.update(half);
    short.extend(checksum.sum().to_be_bytes());
    assert!(Image::decode(&short, 3, "a.png").is_err());
}

#[test]
fn netpbm_is_read_at_any_depth() {
    let decode = |content: &[u8]| {
        let image = Image::decode(content, 3, "a.ppm").unwrap();
        let kind = kind_of(Cursor::new(content), Nodata::Auto);
        assert_eq!(kind, Some(image.kind()), "{content:?}");
        image
    };
    let bytes = |content: &[u8]| decode(content).bytes().to_vec();
    assert_eq!(
        bytes(b"P6\n2 1\n255\n\x01\x02\x03\x04\x05\x06"),
        [1, 2, 3, 4, 5, 6]
    );
    assert_eq!(
        bytes(b"P5\n# a comment\n2 1\n15\n\0\x0f"),
        [0, 0, 0, 255, 255, 255]
    );
    assert_eq!(bytes(b"P1\n2 1\n0 1\n"), [255, 255, 255, 0, 0, 0]);
    let numbers = |content: &[u8]| decode(content).pixels().as_f32().unwrap().to_vec();
    let (black, white) = ([0.0; 3], [1.0; 3]);
    assert_eq!(
        numbers(b"P5\n2 1\n65535\n\0\0\xff\xff"),
        [black, white].concat()
    );
    assert_eq!(numbers(b"P2\n2 1\n1023\n0 1023\n"), [black, white].concat());
    assert!(Image::decode(b"P6\n2 1\n255\n\x01\x02\x03\x04", 3, "a.ppm").is_err());
}

/// A PNG keeps every value, so one of them can stand for nothing measured; a JPEG does not.
#[test]
fn pngs_have_missing_values_and_jpegs_none() {
    let nodata = Nodata::Value(0.0);
    let decode = |content: &[u8], channels| {
        let image = Image::decode_with(content, channels, nodata, "a").unwrap();
        assert_eq!(kind_of(Cursor::new(content), nodata), Some(image.kind()));
        image
    };
    let grey = GrayImage::from_raw(2, 1, vec![0, 51]).unwrap();
    let png = decode(&encode(grey.clone(), ImageFormat::Png), 1);
    let values = png.pixels().as_f32().unwrap();
    assert!(values[0].is_nan() && values[1] == 0.2, "{values:?}");
    let deep = ImageBuffer::<Luma<u16>, _>::from_raw(2, 1, vec![0, 65_535]).unwrap();
    let png = decode(
        &encode(DynamicImage::ImageLuma16(deep), ImageFormat::Png),
        3,
    );
    let values = png.pixels().as_f32().unwrap();
    assert!(values[..3].iter().all(|value| value.is_nan()) && values[3..] == [1.0; 3]);
    let jpeg = decode(&encode(grey, ImageFormat::Jpeg), 1);
    assert_eq!(jpeg.kind(), PixelKind::U8);
}

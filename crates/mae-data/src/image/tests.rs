use std::io::Cursor;

use image::{DynamicImage, ImageBuffer, ImageFormat, Rgb, RgbImage, Rgba};

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
    assert_eq!(reason(b""), "the file is empty");
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
        assert!(
            !reason(&content[..content.len() / 2]).is_empty(),
            "{format:?}"
        );
    }
}

#[test]
fn absurd_sizes_are_refused_before_memory_is_taken() {
    let mut content = encode(ramp(), ImageFormat::Bmp);
    // Width and height of a BMP are at bytes 18 and 22.
    content[18..22].copy_from_slice(&60_000_u32.to_le_bytes());
    content[22..26].copy_from_slice(&60_000_u32.to_le_bytes());
    assert!(reason(&content).contains("512 MiB"), "{}", reason(&content));
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

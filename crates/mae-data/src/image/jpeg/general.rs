//! All pixels of any kind of JPEG, by libjpeg.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, GrayImage, RgbImage};
use mozjpeg::{Decompress, Format};

use super::check::check;
use super::header::Header;
use crate::image::MAX_DECODED;

/// Decodes a JPEG that is whole; the error says what is missing, damaged or of a kind that cannot be
/// read.
///
/// Grey or RGB, upright as EXIF says; CMYK becomes RGB as Pillow makes it.
pub(crate) fn decode(content: &[u8]) -> Result<DynamicImage, String> {
    let (header, len) = check(content, check_size)?;
    let pixels = catch_unwind(AssertUnwindSafe(|| pixels(&content[..len])))
        // libjpeg's errors come this way.
        .unwrap_or_else(|panic| match panic.downcast::<String>() {
            Ok(reason) => Err(*reason),
            Err(_) => Err("libjpeg failed".to_owned()),
        })
        .map_err(|reason| format!("{reason}; convert the jpeg to png"))?;
    let (height, width) = (header.height as u32, header.width as u32);
    let image = match header.components.len() {
        1 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8),
        3 => RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8),
        _ => {
            let pixels = pixels.chunks_exact(4).flat_map(rgb);
            RgbImage::from_raw(width, height, pixels.collect()).map(DynamicImage::ImageRgb8)
        }
    };
    let mut image =
        image.ok_or("libjpeg made another number of pixels; convert the jpeg to png")?;
    image.apply_orientation(header.orientation);
    Ok(image)
}

fn check_size(header: &Header) -> Result<(), String> {
    let (height, width) = (header.height as u64, header.width as u64);
    if height * width * header.components.len() as u64 > MAX_DECODED {
        return Err(format!(
            "{width} x {height} pixels take more than {} MiB; shrink it",
            MAX_DECODED >> 20
        ));
    }
    Ok(())
}

/// Values of grey, RGB or CMYK.
fn pixels(content: &[u8]) -> Result<Vec<u8>, String> {
    let reason = |error: std::io::Error| error.to_string();
    let (Format::Gray(mut image) | Format::RGB(mut image) | Format::CMYK(mut image)) =
        Decompress::new_mem(content)
            .map_err(reason)?
            .image()
            .map_err(reason)?;
    image.read_scanlines().map_err(reason)
}

/// Of four inks, which are stored inverted, as Adobe's programs do.
fn rgb(ink: &[u8]) -> [u8; 3] {
    [0, 1, 2].map(|i| ((u32::from(ink[i]) * u32::from(ink[3]) + 127) / 255) as u8)
}

//! How the pixels of an image file are stored, by its content.

use std::io::Cursor;

use image::{ExtendedColorType, ImageDecoder, ImageFormat, ImageReader};

use crate::dataset::is_promise;
use crate::image::Image;
use crate::pixels::PixelKind;

/// How pixels are stored.
pub struct Stored {
    /// For example `jpeg`.
    pub format: &'static str,
    /// Values of a pixel, alpha included; 3 for a palette of colours.
    pub channels: usize,
    /// In words.
    pub name: String,
}

/// How the file with this content, which was decoded as `image`, stores pixels; `None` if nothing more is known than
/// what it was decoded as.
pub fn stored(content: &[u8], image: &Image) -> Option<Stored> {
    if let Some(numbers) = npy_numbers(content) {
        return Some(Stored {
            format: "npy",
            channels: image.channels(),
            name: match image.channels() {
                1 => format!("1 channel of {numbers}"),
                channels => format!("{channels} channels of {numbers}"),
            },
        });
    }
    let reader = ImageReader::new(Cursor::new(content)).with_guessed_format();
    let reader = reader.ok()?;
    let format = format_name(reader.format()?);
    if let Some(palette) = png_palette(content) {
        return Some(Stored {
            format,
            channels: 3,
            name: palette,
        });
    }
    let decoder = reader.into_decoder().ok()?;
    let color = decoder.original_color_type();
    let channels = usize::from(color.channel_count());
    let bits = usize::from(color.bits_per_pixel()) / channels;
    let name = match color {
        ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16 => format!("CMYK of {bits} bits"),
        _ => describe(channels, bits),
    };
    Some(Stored {
        format,
        channels,
        name,
    })
}

/// What is known of values without their file.
pub fn of_values(image: &Image) -> String {
    match image.kind() {
        PixelKind::U8 => describe(image.channels(), 8),
        PixelKind::F32 => format!("{} channels of more than 8 bits", image.channels()),
    }
}

/// The type of the numbers in an array that NumPy saved, for example "32-bit floats".
fn npy_numbers(content: &[u8]) -> Option<String> {
    const KEY: &str = "'descr': '";
    let header = content.strip_prefix(b"\x93NUMPY")?;
    let header = String::from_utf8_lossy(&header[..header.len().min(256)]);
    let descr = &header[header.find(KEY)? + KEY.len()..];
    let descr = descr[..descr.find('\'')?].trim_start_matches(['<', '>', '|', '=']);
    let (letter, bytes) = descr.split_at_checked(1)?;
    let numbers = match letter {
        "f" => "floats",
        "i" => "integers",
        "u" => "unsigned integers",
        _ => return None,
    };
    Some(format!(
        "{}-bit {numbers}",
        8 * bytes.parse::<usize>().ok()?
    ))
}

/// "RGB of 8 bits".
fn describe(channels: usize, bits: usize) -> String {
    let name = match channels {
        1 => "grey",
        2 => "grey and alpha",
        3 => "RGB",
        4 => "RGBA",
        _ => return format!("{channels} channels of {bits} bits"),
    };
    format!("{name} of {bits} bits")
}

/// Whether files of a format may have this ending.
pub fn is_extension_of(extension: &str, format: &str) -> bool {
    match extension {
        "jpg" | "jfif" | "jpe" | "jif" | "pjpeg" | "pjp" => format == "jpeg",
        "tif" => format == "tiff",
        "dib" => format == "bmp",
        "pnm" | "ppm" | "pgm" | "pbm" => format == "netpbm",
        // Any other ending, or none, promises nothing: such a file is there for its content.
        _ => extension == format || !is_promise(extension),
    }
}

/// PNG's colours by number, which its decoder does not tell of.
///
/// Source: W3C, "Portable Network Graphics", 11.2.1: `IHDR` comes first.
fn png_palette(content: &[u8]) -> Option<String> {
    const PALETTE: u8 = 3;
    match (content.get(12..16)?, content.get(24..26)?) {
        (b"IHDR", &[bits, PALETTE]) => Some(format!("palette of {bits} bits")),
        _ => None,
    }
}

fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "jpeg",
        ImageFormat::Png => "png",
        ImageFormat::WebP => "webp",
        ImageFormat::Bmp => "bmp",
        ImageFormat::Tiff => "tiff",
        ImageFormat::Gif => "gif",
        ImageFormat::Pnm => "netpbm",
        _ => "another format",
    }
}

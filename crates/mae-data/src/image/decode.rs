//! From the content of a file to pixels.

use std::io::{BufRead, Cursor, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::pnm::PnmDecoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::nodata::Missing;
use super::number::{Number, Stored};
use super::{Choose, MAX_DECODED, MAX_SIDE, Nodata, jpeg, npy, npz, tiff};
use crate::pixels::{PixelKind, Pixels, from_u8, from_u16, recolour};

/// What a file holds, or the part of it that was chosen.
pub(super) struct Decoded {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) meaning: Meaning,
    /// NaN where nothing was measured.
    pub(super) pixels: Pixels,
    /// Whether values may be missing.
    pub(super) may_miss: bool,
    /// Pages of the file that are not in it.
    pub(super) left_pages: usize,
    /// The row and column of the file that its first are.
    pub(super) first: [usize; 2],
}

/// What channels are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Grey or RGB, with or without alpha.
    Picture,
    /// Of each file's own.
    Bands,
}

/// Decodes the content of an image file or an array; the error says why it cannot be.
pub(super) fn decode(
    content: &[u8],
    channels: usize,
    nodata: Nodata,
    choose: &mut Choose,
) -> Result<Decoded, String> {
    // A decoder that panics on a damaged file must not end a run of days.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        decode_any(content, channels, nodata, choose)
    }))
    .unwrap_or_else(|_| Err("the decoder panicked on it".to_owned()))?;
    let decoded = decoded.with_channels(channels)?;
    decoded.check_finite()?;
    Ok(decoded)
}

/// What the values of a file become, where `nodata` are missing; `None` if it is no file that [`decode`] knows.
pub(crate) fn kind_of(mut reader: impl BufRead + Seek, nodata: Nodata) -> Option<PixelKind> {
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
    /// Where a PNG says how many bits a value has.
    const PNG_DEPTH_AT: usize = 24;
    let mut start = [0; 32];
    let mut filled = 0;
    while filled < start.len() {
        match reader.read(&mut start[filled..]).ok()? {
            0 => break,
            read => filled += read,
        }
    }
    let start = &start[..filled];
    reader.rewind().ok()?;
    catch_unwind(AssertUnwindSafe(|| {
        if npy::is_npy(start) {
            npy::kind_of(&mut reader, nodata)
        } else if npz::is_npz(start) {
            npy::kind_of(&mut npz::header(reader)?.as_slice(), nodata)
        } else if tiff::is_tiff(start) {
            tiff::kind_of(reader, nodata)
        } else if start.starts_with(PNG) {
            Some(match start.get(PNG_DEPTH_AT)? {
                16 => PixelKind::F32,
                _ => Number::BYTE.kind(nodata.missing(None).ok()?),
            })
        } else {
            match image::guess_format(start).ok()? {
                ImageFormat::Pnm => {
                    let colour = PnmDecoder::new(reader).ok()?.color_type();
                    let is_deep = colour.bytes_per_pixel() > colour.channel_count();
                    Some(match is_deep {
                        true => PixelKind::F32,
                        false => Number::BYTE.kind(nodata.missing(None).ok()?),
                    })
                }
                _ => Some(PixelKind::U8),
            }
        }
    }))
    .ok()
    .flatten()
}

/// Says that a file has not the channels that are asked for.
pub(super) fn other_channels(found: usize, expected: usize) -> String {
    let channels = |count: usize| match count {
        1 => "1 channel".to_owned(),
        count => format!("{count} channels"),
    };
    format!(
        "it has {}, expected {}; convert or remove it, or {}",
        channels(found),
        channels(expected),
        read_with(found),
    )
}

/// How the programs are told to read images of so many channels.
pub(super) fn read_with(channels: usize) -> String {
    format!(
        "set model.channels={channels} to train, give --channels {channels} to inspect or pack; \
         a trained model takes no other number than its own"
    )
}

/// Says that an image takes more memory than any may.
pub(super) fn too_large(height: usize, width: usize, channels: usize, bytes: u64) -> String {
    format!(
        "{height} x {width} pixels of {channels} channels take {} MiB, expected at most {} MiB; cut it into tiles",
        bytes.div_ceil(1 << 20),
        MAX_DECODED >> 20
    )
}

/// How many channels the file of an array or of bands has; `None` of a picture, which can be read with 1 or 3.
pub(super) fn bands(content: &[u8]) -> Option<usize> {
    if npy::is_npy(content) {
        npy::channels(content)
    } else if npz::is_npz(content) {
        npy::channels(&npz::header(Cursor::new(content))?)
    } else if tiff::is_tiff(content) {
        tiff::bands(content)
    } else {
        None
    }
}

fn decode_any(
    content: &[u8],
    channels: usize,
    nodata: Nodata,
    choose: &mut Choose,
) -> Result<Decoded, String> {
    if npy::is_npy(content) {
        return npy::read(content, channels, nodata, choose);
    }
    if npz::is_npz(content) {
        let (name, array) = npz::array(content)?;
        let decoded = npy::read(&array, channels, nodata, choose)
            .and_then(|decoded| decoded.check_finite().map(|()| decoded));
        return decoded.map_err(|reason| format!("{name} in it: {reason}"));
    }
    if tiff::is_tiff(content) {
        return tiff::read(content, channels, nodata, choose);
    }
    let missing = match image::guess_format(content) {
        Ok(ImageFormat::Png | ImageFormat::Pnm) => nodata.missing(None)?,
        // Compression may have changed any value.
        _ => None,
    };
    Decoded::of_picture(decode_picture(content)?, missing)
}

fn decode_picture(content: &[u8]) -> Result<DynamicImage, String> {
    /// The last chunk of a PNG: its length, name and checksum.
    const PNG_END: &[u8] = b"\0\0\0\0IEND\xaeB`\x82";
    let decoded = decode_as_it_is(content);
    let is_png = matches!(image::guess_format(content), Ok(ImageFormat::Png));
    if decoded.is_err() && is_png && !content.ends_with(PNG_END) {
        // All pixels may be there, and the end alone may be missing; if pixels are, this fails, too.
        let has = (0..PNG_END.len())
            .rev()
            .find(|&len| content.ends_with(&PNG_END[..len]));
        let rest = &PNG_END[has.unwrap_or_default()..];
        return decode_as_it_is(&[content, rest].concat()).or(decoded);
    }
    decoded
}

fn decode_as_it_is(content: &[u8]) -> Result<DynamicImage, String> {
    let mut reader = ImageReader::new(Cursor::new(content))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    match reader.format() {
        _ if content.is_empty() => {
            return Err("the file is empty; fetch it again or remove it".to_owned());
        }
        None => {
            return Err(
                "the content is no image: expected jpeg, png, webp, bmp, tiff, gif, ppm, npy or npz; \
                        convert or remove it"
                    .to_owned(),
            );
        }
        Some(ImageFormat::Jpeg) => return jpeg::decode(content),
        Some(_) => {}
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(with_remedy)?;
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > MAX_DECODED {
        return Err(format!(
            "{width} x {height} pixels take more than {} MiB; shrink it",
            MAX_DECODED >> 20
        ));
    }
    let orientation = decoder.orientation().map_err(with_remedy)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(with_remedy)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// What the library says, and what can be done.
fn with_remedy(error: ImageError) -> String {
    let remedy = match error {
        ImageError::Unsupported(_) => "convert or remove it",
        ImageError::Limits(_) => "shrink it",
        _ => "fetch it again or remove it",
    };
    format!("{error}; {remedy}")
}

/// The values of a picture as numbers, NaN where nothing was measured.
fn numbers<T: Copy + PartialEq>(
    values: Vec<T>,
    missing: Option<T>,
    value: impl Fn(T) -> f32,
) -> Pixels {
    let number = |stored: T| match missing == Some(stored) {
        true => f32::NAN,
        false => value(stored),
    };
    Pixels::F32(values.into_iter().map(number).collect())
}

impl Decoded {
    fn of_picture(image: DynamicImage, missing: Option<Missing>) -> Result<Decoded, String> {
        let bytes = |values| match missing.and_then(<u8 as Stored>::of) {
            None => Pixels::U8(values),
            missing => numbers(values, missing, from_u8),
        };
        let deep = |values| numbers(values, missing.and_then(<u16 as Stored>::of), from_u16);
        let (height, width) = (image.height() as usize, image.width() as usize);
        let channels = usize::from(image.color().channel_count());
        let pixels = match image {
            DynamicImage::ImageLuma8(image) => bytes(image.into_raw()),
            DynamicImage::ImageLumaA8(image) => bytes(image.into_raw()),
            DynamicImage::ImageRgb8(image) => bytes(image.into_raw()),
            DynamicImage::ImageRgba8(image) => bytes(image.into_raw()),
            DynamicImage::ImageLuma16(image) => deep(image.into_raw()),
            DynamicImage::ImageLumaA16(image) => deep(image.into_raw()),
            DynamicImage::ImageRgb16(image) => deep(image.into_raw()),
            DynamicImage::ImageRgba16(image) => deep(image.into_raw()),
            DynamicImage::ImageRgb32F(image) => Pixels::F32(image.into_raw()),
            DynamicImage::ImageRgba32F(image) => Pixels::F32(image.into_raw()),
            other => return Err(format!("its colours are {:?}; convert it", other.color())),
        };
        Ok(Decoded {
            height,
            width,
            channels,
            meaning: Meaning::Picture,
            pixels,
            may_miss: missing.is_some(),
            left_pages: 0,
            first: [0, 0],
        })
    }

    /// With as many channels as are wanted, if they can be made.
    fn with_channels(self, wanted: usize) -> Result<Decoded, String> {
        match (self.meaning, wanted) {
            (_, wanted) if wanted == self.channels => Ok(self),
            (Meaning::Picture, 1 | 3) => Ok(Decoded {
                pixels: recolour(self.pixels, self.channels, wanted),
                channels: wanted,
                ..self
            }),
            _ => Err(other_channels(self.channels, wanted)),
        }
    }

    /// As it is meant to be looked at; `orientation` is EXIF's and TIFF's number for how it lies.
    pub(super) fn oriented(self, orientation: u16) -> Decoded {
        fn move_pixels<T: Copy>(
            values: &[T],
            channels: usize,
            source: impl Iterator<Item = usize>,
        ) -> Vec<T> {
            source
                .flat_map(|pixel| values[pixel * channels..][..channels].iter().copied())
                .collect()
        }
        if !(2..=8).contains(&orientation) {
            return self;
        }
        let (old_height, old_width) = (self.height, self.width);
        let is_turned = orientation >= 5;
        let (height, width) = match is_turned {
            true => (old_width, old_height),
            false => (old_height, old_width),
        };
        // Where the pixel at a row and a column of the result is in the file.
        let source = |row: usize, column: usize| {
            let (y, x) = match is_turned {
                true => (column, row),
                false => (row, column),
            };
            let y = match orientation {
                3 | 4 | 6 | 7 => old_height - 1 - y,
                _ => y,
            };
            let x = match orientation {
                2 | 3 | 7 | 8 => old_width - 1 - x,
                _ => x,
            };
            (y, x)
        };
        let source = (0..height * width).map(|at| {
            let (y, x) = source(at / width, at % width);
            y * old_width + x
        });
        let pixels = match &self.pixels {
            Pixels::U8(values) => Pixels::U8(move_pixels(values, self.channels, source)),
            Pixels::F32(values) => Pixels::F32(move_pixels(values, self.channels, source)),
        };
        Decoded {
            height,
            width,
            pixels,
            ..self
        }
    }

    fn check_finite(&self) -> Result<(), String> {
        let Pixels::F32(values) = &self.pixels else {
            return Ok(());
        };
        let is_sound = |value: &f32| value.is_finite() || self.may_miss && value.is_nan();
        let Some(at) = values.iter().position(|value| !is_sound(value)) else {
            return Ok(());
        };
        let pixel = at / self.channels;
        let remedy = match values[at].is_nan() {
            true => {
                "set data.nodata = nan if it means that nothing was measured, else replace or remove it"
            }
            false => {
                "set data.nodata to what the file has there if it means that nothing was measured, else replace or \
                 remove it"
            }
        };
        Err(format!(
            "the value at row {}, column {}, channel {} is {}, expected finite numbers; {remedy}",
            self.first[0] + pixel / self.width,
            self.first[1] + pixel % self.width,
            at % self.channels,
            values[at]
        ))
    }
}

//! TIFF files of any number of channels.

use std::io::{Cursor, Read, Seek};

use tiff::ColorType;
use tiff::decoder::ifd::Value;
use tiff::decoder::{ChunkType, Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use super::nodata::Missing;
use super::number::{Number, Stored};
use super::{Decoded, MAX_DECODED, MAX_SIDE, Meaning, Nodata};
use crate::pixels::{PixelKind, Pixels, from_u8, from_u16};

/// TIFF's number for RGB in the tag for what values mean, and for values of no special meaning.
const RGB: u64 = 2;
const BLACK_IS_ZERO: u16 = 1;

/// Whether a file begins as TIFF files do.
pub(super) fn is_tiff(content: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];
    MAGIC.iter().any(|magic| content.starts_with(magic))
}

/// What the values of a TIFF file become.
pub(super) fn kind_of(reader: impl Read + Seek, nodata: Nodata) -> Option<PixelKind> {
    let mut decoder = Decoder::new(reader).ok()?;
    let bits = decoder
        .find_tag_unsigned_vec::<u16>(Tag::BitsPerSample)
        .ok()?
        .unwrap_or_default();
    let formats = decoder
        .find_tag_unsigned_vec::<u16>(Tag::SampleFormat)
        .ok()?
        .unwrap_or_default();
    // Format 1, the default, is for unsigned integers.
    let are_bytes = bits.iter().all(|&bits| bits <= 8) && formats.iter().all(|&format| format == 1);
    Some(match are_bytes {
        true => Number::BYTE.kind(missing(&mut decoder, nodata).ok()?),
        false => PixelKind::F32,
    })
}

/// What a missing value is written as in a file.
fn missing(
    decoder: &mut Decoder<impl Read + Seek>,
    nodata: Nodata,
) -> Result<Option<Missing>, String> {
    let tag = decoder.find_tag(Tag::GdalNodata);
    let tag = tag.and_then(|tag| tag.map(Value::into_string).transpose());
    let tag = tag.map_err(|error| error.to_string())?;
    nodata.missing(tag.as_deref())
}

/// Decodes a file of 8 bits or more a value, grey, RGB or of any bands; `None` for the other kinds
/// (palettes, CMYK, 1 bit), which are left to the library of pictures.
pub(super) fn read(
    content: &[u8],
    channels: usize,
    nodata: Nodata,
) -> Result<Option<Decoded>, String> {
    let mut decoder = open(content)?;
    let samples: usize = (decoder.find_tag_unsigned(Tag::SamplesPerPixel))
        .map_err(|error| error.to_string())?
        .unwrap_or(1);
    let meaning = decoder
        .find_tag_unsigned::<u64>(Tag::PhotometricInterpretation)
        .map_err(|error| error.to_string())?;
    if has_more_than_colours(&mut decoder, samples, meaning) {
        // The decoder would leave out what is more than colours.
        let bands = as_bands(content).ok_or("its first directory is damaged")?;
        return decode(open(&bands)?, samples, channels, nodata);
    }
    decode(decoder, samples, channels, nodata)
}

fn has_more_than_colours(
    decoder: &mut Decoder<Cursor<&[u8]>>,
    samples: usize,
    meaning: Option<u64>,
) -> bool {
    meaning == Some(RGB)
        && samples > 3
        && !matches!(decoder.colortype(), Ok(ColorType::RGBA(_)) if samples == 4)
}

/// How many bands a file has; `None` of pictures and of what cannot be read.
pub(super) fn bands(content: &[u8]) -> Option<usize> {
    let mut decoder = open(content).ok()?;
    let samples: usize = decoder.find_tag_unsigned(Tag::SamplesPerPixel).ok()??;
    let meaning = decoder
        .find_tag_unsigned(Tag::PhotometricInterpretation)
        .ok()?;
    let is_bands = matches!(decoder.colortype(), Ok(ColorType::Multiband { .. }))
        || has_more_than_colours(&mut decoder, samples, meaning);
    is_bands.then_some(samples)
}

fn open(content: &[u8]) -> Result<Decoder<Cursor<&[u8]>>, String> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_DECODED as usize;
    limits.intermediate_buffer_size = MAX_DECODED as usize;
    Decoder::new(Cursor::new(content))
        .map(|decoder| decoder.with_limits(limits))
        .map_err(|error| error.to_string())
}

fn decode(
    mut decoder: Decoder<Cursor<&[u8]>>,
    samples: usize,
    channels: usize,
    nodata: Nodata,
) -> Result<Option<Decoded>, String> {
    let missing = missing(&mut decoder, nodata)?;
    let colour = decoder.colortype().map_err(|error| error.to_string())?;
    let (own, bits) = match colour {
        ColorType::Gray(bits) => (1, bits),
        ColorType::GrayA(bits) => (2, bits),
        ColorType::RGB(bits) => (3, bits),
        ColorType::RGBA(bits) => (4, bits),
        ColorType::Multiband {
            bit_depth,
            num_samples,
        } => (usize::from(num_samples), bit_depth),
        _ => return Ok(None),
    };
    if bits < 8 {
        return Ok(None);
    }
    let meaning = match colour {
        ColorType::Multiband { .. } => Meaning::Bands,
        _ => Meaning::Picture,
    };
    if own != channels && (meaning == Meaning::Bands || !matches!(channels, 1 | 3)) {
        // Said before anything large is decoded.
        return Err(super::other_channels(samples, channels));
    }
    let (width, height) = decoder.dimensions().map_err(|error| error.to_string())?;
    let values = u64::from(width) * u64::from(height) * own as u64;
    if width > MAX_SIDE || height > MAX_SIDE || values > MAX_DECODED / 4 {
        return Err(format!(
            "{width} x {height} pixels of {own} channels take more than {} MiB; shrink it",
            MAX_DECODED >> 20
        ));
    }
    let orientation = decoder
        .find_tag_unsigned::<u16>(Tag::Orientation)
        .map_err(|error| error.to_string())?
        .unwrap_or(1);
    let [height, width] = [height as usize, width as usize];
    let planes = decoder
        .image_buffer_layout()
        .map_err(|error| error.to_string())?
        .planes;
    if planes != 1 && planes != own {
        return Err(format!(
            "{planes} planes of {own} channels, expected one a channel"
        ));
    }
    let is_tiled = decoder.get_chunk_type() == ChunkType::Tile;
    let pixels = if planes > 1 && is_tiled {
        read_planar_tiles(&mut decoder, [height, width, own], missing)?
    } else {
        let mut buffer = DecodingResult::U8(Vec::new());
        decoder
            .read_image_to_buffer(&mut buffer)
            .map_err(|error| error.to_string())?;
        match planes {
            1 => into_pixels(buffer, missing),
            _ => interleave(into_pixels(buffer, missing), own),
        }
    };
    if pixels.len() != height * width * own {
        return Err(format!(
            "{} values, expected {height} x {width} pixels of {own} channels; fetch it again",
            pixels.len()
        ));
    }
    Ok(Some(
        Decoded {
            height,
            width,
            channels: own,
            meaning,
            pixels,
            may_miss: missing.is_some(),
        }
        .oriented(orientation),
    ))
}

/// Unsigned integers of 16 bits as shares of the largest, other numbers as they are.
fn into_pixels(decoded: DecodingResult, missing: Option<Missing>) -> Pixels {
    fn all<T: Copy + PartialEq + Stored>(
        values: &[T],
        missing: Option<Missing>,
        value: impl Fn(T) -> f32,
    ) -> Pixels {
        let missing = missing.and_then(T::of);
        let value = |&number: &T| match missing == Some(number) {
            true => f32::NAN,
            false => value(number),
        };
        Pixels::F32(values.iter().map(value).collect())
    }
    match decoded {
        DecodingResult::U8(values) => match Number::BYTE.kind(missing) {
            PixelKind::U8 => Pixels::U8(values),
            PixelKind::F32 => all(&values, missing, from_u8),
        },
        DecodingResult::U16(values) => all(&values, missing, from_u16),
        DecodingResult::U32(values) => all(&values, missing, |value| value as f32),
        DecodingResult::U64(values) => all(&values, missing, |value| value as f32),
        DecodingResult::I8(values) => all(&values, missing, f32::from),
        DecodingResult::I16(values) => all(&values, missing, f32::from),
        DecodingResult::I32(values) => all(&values, missing, |value| value as f32),
        DecodingResult::I64(values) => all(&values, missing, |value| value as f32),
        DecodingResult::F16(values) => all(&values, missing, f32::from),
        DecodingResult::F32(values) => all(&values, missing, |value| value),
        DecodingResult::F64(values) => all(&values, missing, |value| value as f32),
    }
}

/// Reads tiles of one channel each.
///
/// One by one, for the library takes the padding below the last tiles of all planes but the first for pixels.
fn read_planar_tiles(
    decoder: &mut Decoder<Cursor<&[u8]>>,
    [height, width, channels]: [usize; 3],
    missing: Option<Missing>,
) -> Result<Pixels, String> {
    let (tile_width, tile_height) = decoder.chunk_dimensions();
    let [tile_height, tile_width] = [tile_height, tile_width].map(|side| (side as usize).max(1));
    let [down, across] = [height.div_ceil(tile_height), width.div_ceil(tile_width)];
    let mut pixels = None;
    for index in 0..channels * down * across {
        let tile = (decoder.read_chunk(index as u32)).map_err(|error| error.to_string())?;
        let tile = into_pixels(tile, missing);
        let (row_len, _) = decoder.chunk_data_dimensions(index as u32);
        let place = Place {
            channel: index / (down * across),
            top: index / across % down * tile_height,
            left: index % across * tile_width,
            row_len: (row_len as usize).max(1),
        };
        let pixels =
            pixels.get_or_insert_with(|| Pixels::zeros(tile.kind(), height * width * channels));
        match (pixels, &tile) {
            (Pixels::U8(all), Pixels::U8(tile)) => place.fill(tile, all, width, channels),
            (Pixels::F32(all), Pixels::F32(tile)) => place.fill(tile, all, width, channels),
            _ => return Err("its tiles are of different types".to_owned()),
        }
    }
    pixels.ok_or_else(|| "it has no tiles".to_owned())
}

/// Where a tile lies in an image.
struct Place {
    channel: usize,
    top: usize,
    left: usize,
    /// Values of a row of the tile.
    row_len: usize,
}

impl Place {
    /// Copies a tile; what lies over the image's edges is left out.
    fn fill<T: Copy>(&self, tile: &[T], all: &mut [T], width: usize, channels: usize) {
        let rows = all.chunks_exact_mut(width * channels).skip(self.top);
        for (row, values) in rows.zip(tile.chunks_exact(self.row_len)) {
            let pixels = row.chunks_exact_mut(channels).skip(self.left);
            for (pixel, &value) in pixels.zip(values) {
                pixel[self.channel] = value;
            }
        }
    }
}

/// Planes `[channels, height, width]` as pixels `[height, width, channels]`.
fn interleave(pixels: Pixels, channels: usize) -> Pixels {
    fn of<T: Copy>(values: &[T], channels: usize) -> Vec<T> {
        let plane = values.len() / channels;
        (0..values.len())
            .map(|at| values[at % channels * plane + at / channels])
            .collect()
    }
    match pixels {
        Pixels::U8(values) => Pixels::U8(of(&values, channels)),
        Pixels::F32(values) => Pixels::F32(of(&values, channels)),
    }
}

/// The same file, but its values have no meaning: so the decoder hands over all of them.
fn as_bands(content: &[u8]) -> Option<Vec<u8>> {
    const PHOTOMETRIC_INTERPRETATION: u64 = 262;
    let is_big_endian = content.starts_with(b"MM");
    let number = |at: usize, len: usize| -> Option<u64> {
        let bytes = content.get(at..at.checked_add(len)?)?.iter();
        let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match is_big_endian {
            true => bytes.fold(0, push),
            false => bytes.rev().fold(0, push),
        })
    };
    // Bytes of an offset, of a directory's length, and of an entry; where an entry has its value.
    let (at, offset, count, entry, value) = match number(2, 2)? {
        42 => (4, 4, 2, 12, 8),
        _ => (8, 8, 8, 20, 12),
    };
    let directory = usize::try_from(number(at, offset)?).ok()?;
    for index in 0..usize::try_from(number(directory, count)?).ok()? {
        let at = directory
            .checked_add(count)?
            .checked_add(index.checked_mul(entry)?)?;
        if number(at, 2)? == PHOTOMETRIC_INTERPRETATION {
            let mut bands = content.to_vec();
            let bytes = match is_big_endian {
                true => BLACK_IS_ZERO.to_be_bytes(),
                false => BLACK_IS_ZERO.to_le_bytes(),
            };
            bands
                .get_mut(at + value..at + value + 2)?
                .copy_from_slice(&bytes);
            return Some(bands);
        }
    }
    None
}

#[cfg(test)]
mod tests;

//! One page of a TIFF file: what it says of itself, and its values.

use std::ops::Range;

use tiff::ColorType;
use tiff::decoder::ifd::Value;
use tiff::decoder::{ChunkType, Decoder};
use tiff::tags::Tag;

use super::plain::Plain;
use super::with_remedy;
use crate::image::nodata::Missing;
use crate::image::number::{Dtype, Number, Strides};
use crate::pixels::Pixels;

/// TIFF's number for JPEG in its present form.
pub(super) const JPEG: u16 = 7;
const UNCOMPRESSED: u16 = 1;
/// TIFF's number for values that mean brightness and two of chroma.
pub(super) const YCBCR: u16 = 6;

/// Rows and columns of a page.
pub(super) type Part = [Range<usize>; 2];

/// What a page says of itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Page {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Values of a pixel.
    pub(super) samples: usize,
    pub(super) bits: u8,
    /// 1 for unsigned integers, 2 for signed ones, 3 for floating-point numbers.
    pub(super) format: u16,
    /// TIFF's number for what the values mean.
    pub(super) meaning: u16,
    /// What the values are that are more than colours: 1 and 2 for alpha.
    pub(super) extra: Vec<u16>,
    pub(super) compression: u16,
}

impl Page {
    /// The page that the decoder is at, whose values mean `meaning`.
    pub(super) fn of(decoder: &mut Decoder<Plain>, meaning: Option<u16>) -> Result<Page, String> {
        let (width, height) = decoder.dimensions().map_err(with_remedy)?;
        let one = |decoder: &mut Decoder<Plain>, tag, default| -> Result<u16, String> {
            let found = decoder.find_tag_unsigned_vec::<u16>(tag);
            let found = found.map_err(with_remedy)?;
            Ok((found.and_then(|values| values.first().copied())).unwrap_or(default))
        };
        let extra = decoder
            .find_tag_unsigned_vec::<u16>(Tag::ExtraSamples)
            .map_err(with_remedy)?;
        Ok(Page {
            height: height as usize,
            width: width as usize,
            samples: one(decoder, Tag::SamplesPerPixel, 1)?.into(),
            bits: one(decoder, Tag::BitsPerSample, 1)? as u8,
            format: one(decoder, Tag::SampleFormat, 1)?,
            meaning: meaning.ok_or("it does not say what its values mean; save it anew")?,
            extra: extra.unwrap_or_default(),
            compression: one(decoder, Tag::Compression, UNCOMPRESSED)?,
        })
    }

    /// Whether two pages hold values of the same kind, so that they can be bands of one image.
    pub(super) fn is_like(&self, other: &Page) -> bool {
        let kind = |page: &Page| {
            let Page {
                height,
                width,
                samples,
                bits,
                format,
                meaning,
                ..
            } = *page;
            (height, width, samples, bits, format, meaning)
        };
        kind(self) == kind(other)
    }

    /// What its numbers are; of fewer bits than 8 the indices or shares that they stand for.
    pub(super) fn number(&self) -> Result<Number, String> {
        const PALETTE: u16 = 3;
        Ok(match (self.format, self.bits) {
            (1, 1 | 2 | 4 | 8) => Number::U8 {
                largest: match self.meaning {
                    PALETTE => u8::MAX,
                    _ => u8::MAX >> (8 - self.bits),
                },
            },
            (1, 16) => Number::U16,
            (1, 32) => Number::U32,
            (1, 64) => Number::U64,
            (2, 8) => Number::I8,
            (2, 16) => Number::I16,
            (2, 32) => Number::I32,
            (2, 64) => Number::I64,
            (3, 16) => Number::F16,
            (3, 32) => Number::F32,
            (3, 64) => Number::F64,
            (format, bits) => {
                let format = match format {
                    1 => "unsigned integers",
                    2 => "signed integers",
                    3 => "floating-point numbers",
                    4 => "an undefined type",
                    _ => "complex numbers",
                };
                return Err(format!(
                    "its values are {format} of {bits} bits, expected 1, 2, 4, 8, 16, 32 or 64; convert it: \
                     gdal_translate -ot Float32 IN OUT"
                ));
            }
        })
    }

    /// Refuses what the decoder does not know, with a name for it.
    pub(super) fn check_compression(&self) -> Result<(), String> {
        let name = match self.compression {
            UNCOMPRESSED | 4 | 5 | JPEG | 8 | 32_946 | 32_773 | 50_000 | 50_001 => return Ok(()),
            2 | 3 => "CCITT fax of group 3",
            6 => "JPEG in its form of before 1995",
            33_003..=33_005 | 34_712 => "JPEG 2000",
            34_887 => "LERC",
            34_892 => "lossy DNG",
            34_925 => "LZMA",
            50_002 | 52_546 => "JPEG XL",
            _ => "one that is not known",
        };
        Err(format!(
            "its compression is {name} ({}), which cannot be read; convert it: \
             gdal_translate -co COMPRESS=DEFLATE IN OUT",
            self.compression
        ))
    }

    /// Copies the values of a part of the page that the decoder is at into `pixels`, which is as large; the first
    /// goes to `start`, and pixels are `channels` values apart.
    pub(super) fn copy(
        &self,
        decoder: &mut Decoder<Plain>,
        content: &[u8],
        [rows, columns]: &Part,
        missing: Option<Missing>,
        pixels: &mut Pixels,
        [start, channels]: [usize; 2],
    ) -> Result<(), String> {
        let number = self.number()?;
        let planes = match decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration) {
            Ok(Some(2)) => self.samples,
            _ => 1,
        };
        let samples = self.samples / planes;
        let (chunk_width, chunk_height) = decoder.chunk_dimensions();
        let [chunk_height, chunk_width] =
            [chunk_height, chunk_width].map(|side| (side as usize).max(1));
        let down = self.height.div_ceil(chunk_height);
        let across = self.width.div_ceil(chunk_width);
        let (offsets, lens) = match decoder.get_chunk_type() {
            ChunkType::Strip => (Tag::StripOffsets, Tag::StripByteCounts),
            ChunkType::Tile => (Tag::TileOffsets, Tag::TileByteCounts),
        };
        let [offsets, lens] = [offsets, lens].map(|tag| {
            let values = decoder.find_tag_unsigned_vec::<u64>(tag);
            values.map(Option::unwrap_or_default).unwrap_or_default()
        });
        for index in 0..planes * down * across {
            let (plane, place) = (index / (down * across), index % (down * across));
            let [top, left] = [place / across * chunk_height, place % across * chunk_width];
            // The library takes the padding below the last tiles of all planes but the first for pixels.
            let height = chunk_height.min(self.height - top);
            let width = chunk_width.min(self.width - left);
            // What of the chunk is wanted.
            let inside = [
                rows.start.max(top)..rows.end.min(top + height),
                columns.start.max(left)..columns.end.min(left + width),
            ];
            if inside.iter().any(Range::is_empty) {
                continue;
            }
            let count = [inside[0].len(), inside[1].len(), samples];
            let (row, column) = (
                inside[0].start - rows.start,
                inside[1].start - columns.start,
            );
            let to = Strides {
                start: start + (row * columns.len() + column) * channels + plane,
                rows: columns.len() * channels,
                columns: channels,
                channels: 1,
            };
            let (offset, len) = (offsets.get(index).copied(), lens.get(index).copied());
            if len == Some(0) {
                // GDAL leaves out what is empty, and means by it what is missing, or zeros.
                for at in 0..count[0] * count[1] {
                    let at = to.start + at / count[1] * to.rows + at % count[1] * to.columns;
                    match pixels {
                        Pixels::U8(values) if self.meaning == YCBCR => {
                            values[at..at + samples].copy_from_slice(&[0, 128, 128]);
                        }
                        Pixels::F32(values) if missing.is_some() => {
                            values[at..at + samples].fill(f32::NAN);
                        }
                        _ => {}
                    }
                }
                continue;
            }
            if self.compression == JPEG {
                check_jpeg(content, offset.zip(len))?;
            }
            let mut chunk = (decoder.read_chunk(index as u32)).map_err(with_remedy)?;
            let buffer = chunk.as_buffer(0);
            let unpacked;
            let bytes = match self.bits {
                1..8 => {
                    unpacked = unpack(buffer.as_bytes(), self.bits, width * samples);
                    &unpacked
                }
                _ => buffer.as_bytes(),
            };
            let needed = height * width * samples * number.size();
            if bytes.len() < needed {
                return Err(format!(
                    "a part of it has {} bytes, expected {needed}; fetch it again or remove it",
                    bytes.len()
                ));
            }
            let from = Strides {
                start: ((inside[0].start - top) * width + inside[1].start - left) * samples,
                rows: width * samples,
                columns: samples,
                channels: 1,
            };
            let dtype = Dtype {
                number,
                is_big_endian: cfg!(target_endian = "big"),
            };
            dtype.copy(bytes, from, count, missing, pixels, to);
        }
        Ok(())
    }
}

/// Whether the decoder's page is a smaller copy of another, or says only where another has pixels.
pub(super) fn is_auxiliary(decoder: &mut Decoder<Plain>, meaning: Option<u16>) -> bool {
    const REDUCED: u64 = 1;
    const MASK: u64 = 4;
    let tag = |decoder: &mut Decoder<Plain>, tag| {
        decoder
            .find_tag_unsigned::<u64>(tag)
            .ok()
            .flatten()
            .unwrap_or(0)
    };
    tag(decoder, Tag::NewSubfileType) & (REDUCED | MASK) != 0
        || tag(decoder, Tag::SubfileType) == 2
        || meaning == Some(MASK as u16)
}

/// What a missing value is written as in the page that the decoder is at.
pub(super) fn nodata_tag<R: std::io::Read + std::io::Seek>(
    decoder: &mut Decoder<R>,
) -> Result<Option<String>, String> {
    let tag = decoder.find_tag(Tag::GdalNodata);
    let tag = tag.and_then(|tag| tag.map(Value::into_string).transpose());
    tag.map_err(with_remedy)
}

/// A decoder of JPEG fills what is not there with grey.
fn check_jpeg(content: &[u8], place: Option<(u64, u64)>) -> Result<(), String> {
    const END: &[u8] = b"\xff\xd9";
    /// Some writers fill up parts.
    const AFTER_END: usize = 64;
    let bytes = place.and_then(|(offset, len)| {
        let start = usize::try_from(offset).ok()?;
        content.get(start..start.checked_add(usize::try_from(len).ok()?)?)
    });
    let is_whole = bytes.is_some_and(|bytes| {
        let end = &bytes[bytes.len().saturating_sub(AFTER_END)..];
        end.windows(END.len()).any(|window| window == END)
    });
    match is_whole {
        true => Ok(()),
        false => Err(
            "a jpeg in it ends early: no end-of-image marker; fetch it again or remove it"
                .to_owned(),
        ),
    }
}

/// Values of 1, 2 or 4 bits as bytes; rows of `row` values begin with a byte.
fn unpack(packed: &[u8], bits: u8, row: usize) -> Vec<u8> {
    let each = usize::from(8 / bits);
    let mask = u8::MAX >> (8 - bits);
    (packed.chunks(row.div_ceil(each).max(1)))
        .flat_map(|bytes| {
            (0..row.min(bytes.len() * each)).map(move |at| {
                let shift = 8 - bits * (at % each + 1) as u8;
                bytes[at / each] >> shift & mask
            })
        })
        .collect()
}

/// Whether the decoder's values are what the page says: one sample, or all of them.
pub(super) fn check_plain(decoder: &mut Decoder<Plain>, samples: usize) -> Result<(), String> {
    match decoder.colortype() {
        Ok(ColorType::Gray(_)) if samples == 1 => Ok(()),
        Ok(ColorType::Multiband { num_samples, .. }) if usize::from(num_samples) == samples => {
            Ok(())
        }
        Ok(other) => Err(format!(
            "its values are {other:?}, expected {samples} samples"
        )),
        Err(error) => Err(with_remedy(error)),
    }
}

//! Arrays that NumPy saved.
//!
//! Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::Read;

use super::number::{Dtype, Number, Strides};
use super::{
    Choose, Decoded, MAX_CHANNELS, MAX_DECODED, MAX_SIDE, Meaning, Nodata, read_with, too_large,
};
use crate::pixels::{PixelKind, Pixels};

const MAGIC: &[u8] = b"\x93NUMPY";
/// The header of a plain array takes 128 bytes; no sensible one is longer than this.
pub(super) const MAX_HEADER: usize = 64 << 10;

/// Whether a file begins as NumPy's do.
pub(super) fn is_npy(content: &[u8]) -> bool {
    content.starts_with(MAGIC)
}

/// What the values of the array that `reader` is at the start of become.
pub(super) fn kind_of(reader: &mut impl Read, nodata: Nodata) -> Option<PixelKind> {
    let header = Header::read(reader).ok()?;
    Some(header.dtype.number.kind(nodata.missing(None).ok()?))
}

/// The values of an array of `channels` channels, of the rows and columns that `choose` wants.
///
/// The array is `[height, width]`, `[height, width, channels]`, or, where that does not fit,
/// `[channels, height, width]`.
pub(super) fn read(
    content: &[u8],
    channels: usize,
    nodata: Nodata,
    choose: &mut Choose,
) -> Result<Decoded, String> {
    let mut data = content;
    let header = Header::read(&mut data)?;
    let layout = Layout::of(&header.shape, channels)?;
    let size = header.dtype.number.size();
    let [rows, columns] = choose(layout.height, layout.width);
    let (height, width) = (rows.len(), columns.len());
    let len = height * width * channels;
    if (len * size) as u64 > MAX_DECODED {
        return Err(too_large(height, width, channels, (len * size) as u64));
    }
    let bytes = layout.height * layout.width * channels * size;
    let data = data.get(..bytes).ok_or_else(|| {
        format!(
            "the array ends early: {} bytes of {bytes}; fetch it again or remove it",
            data.len()
        )
    })?;
    let missing = nodata.missing(None)?;
    let mut pixels = Pixels::zeros(header.dtype.number.kind(missing), len);
    let to = Strides {
        start: 0,
        rows: width * channels,
        columns: channels,
        channels: 1,
    };
    let count = [height, width, channels];
    let mut from = layout.strides(&header);
    from.start = rows.start * from.rows + columns.start * from.columns;
    (header.dtype).copy(data, from, count, missing, &mut pixels, to);
    Ok(Decoded {
        height,
        width,
        channels,
        meaning: Meaning::Bands,
        pixels,
        may_miss: missing.is_some(),
        left_pages: 0,
        first: [rows.start, columns.start],
    })
}

/// The channels of an array with this header, as far as can be told without its numbers.
pub(super) fn channels(mut content: &[u8]) -> Option<usize> {
    own_channels(&Header::read(&mut content).ok()?.shape)
}

/// The channels that an array of this shape can be read with: there are fewer of them than pixels on a side.
fn own_channels(shape: &[usize]) -> Option<usize> {
    match *shape {
        [_, _] => Some(1),
        [first, _, last] => Some(first.min(last)).filter(|own| (1..=MAX_CHANNELS).contains(own)),
        _ => None,
    }
}

/// Which dimension is which.
struct Layout {
    height: usize,
    width: usize,
    /// The dimensions that rows, columns and channels are; none for channels of `[height, width]`.
    axes: (usize, usize, Option<usize>),
}

impl Layout {
    fn of(shape: &[usize], channels: usize) -> Result<Layout, String> {
        let (height, width, axes) = match *shape {
            [height, width] if channels == 1 => (height, width, (0, 1, None)),
            [height, width, last] if last == channels => (height, width, (0, 1, Some(2))),
            [first, height, width] if first == channels => (height, width, (1, 2, Some(0))),
            _ => {
                let remedy = match own_channels(shape) {
                    Some(own) => read_with(own),
                    None => "save one array an image".to_owned(),
                };
                let one = match channels {
                    1 => "[height, width], ",
                    _ => "",
                };
                return Err(format!(
                    "the array has shape {shape:?}, expected {one}[height, width, {channels}] or \
                     [{channels}, height, width]; {remedy}"
                ));
            }
        };
        let sides = 1..=MAX_SIDE as usize;
        if !(sides.contains(&height) && sides.contains(&width)) {
            return Err(format!(
                "the array has shape {shape:?}, expected 1 to {MAX_SIDE} pixels on a side"
            ));
        }
        Ok(Layout {
            height,
            width,
            axes,
        })
    }

    /// How far apart, in values, rows, columns and channels are.
    fn strides(&self, header: &Header) -> Strides {
        let shape = &header.shape;
        let stride = |axis: usize| -> usize {
            match header.is_fortran {
                true => shape[..axis].iter().product(),
                false => shape[axis + 1..].iter().product(),
            }
        };
        let (rows, columns, channels) = self.axes;
        Strides {
            start: 0,
            rows: stride(rows),
            columns: stride(columns),
            channels: channels.map_or(0, stride),
        }
    }
}

impl Dtype {
    /// As NumPy writes it, `<f4`.
    fn parse(text: &str) -> Option<Dtype> {
        let (order, number) = text.split_at_checked(1)?;
        let number = match number {
            "b1" => Number::U8 { largest: 1 },
            "u1" => Number::BYTE,
            "u2" => Number::U16,
            "u4" => Number::U32,
            "u8" => Number::U64,
            "i1" => Number::I8,
            "i2" => Number::I16,
            "i4" => Number::I32,
            "i8" => Number::I64,
            "f2" => Number::F16,
            "f4" => Number::F32,
            "f8" => Number::F64,
            _ => return None,
        };
        let is_big_endian = match order {
            "<" | "|" => false,
            ">" => true,
            "=" => cfg!(target_endian = "big"),
            _ => return None,
        };
        Some(Dtype {
            number,
            is_big_endian,
        })
    }
}

/// What precedes the numbers.
#[derive(Debug)]
struct Header {
    dtype: Dtype,
    is_fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads it, and leaves `reader` where the numbers begin.
    fn read(reader: &mut impl Read) -> Result<Header, String> {
        let short =
            |_| "the header of the array ends early; fetch it again or remove it".to_owned();
        let mut start = [0; 8];
        reader.read_exact(&mut start).map_err(short)?;
        if !is_npy(&start) {
            return Err("it does not begin as an array of NumPy does".to_owned());
        }
        let len = match start[6] {
            1 => {
                let mut len = [0; 2];
                reader.read_exact(&mut len).map_err(short)?;
                usize::from(u16::from_le_bytes(len))
            }
            2 | 3 => {
                let mut len = [0; 4];
                reader.read_exact(&mut len).map_err(short)?;
                u32::from_le_bytes(len) as usize
            }
            version => {
                return Err(format!(
                    "the array is of version {version} of its format, expected 1 to 3; save it anew"
                ));
            }
        };
        if len > MAX_HEADER {
            return Err(format!(
                "the array's header is {len} bytes long, expected at most {MAX_HEADER}; save it anew"
            ));
        }
        let mut text = vec![0; len];
        reader.read_exact(&mut text).map_err(short)?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// Reads a header as it is written: a Python dictionary of three keys.
    fn parse(text: &str) -> Result<Header, String> {
        let missing =
            |key: &str| format!("the array's header has no usable {key}: {}", start(text));
        let dtype = value_of(text, "descr").ok_or_else(|| missing("descr"))?;
        let found = quoted(dtype).unwrap_or(dtype);
        let dtype = Dtype::parse(found).ok_or_else(|| {
            format!(
                "the array's numbers are of type {}, expected integers or floating-point numbers; \
                 save it as float32",
                start(found)
            )
        })?;
        let order = value_of(text, "fortran_order").ok_or_else(|| missing("fortran_order"))?;
        let is_fortran = match (order.starts_with("True"), order.starts_with("False")) {
            (true, _) => true,
            (_, true) => false,
            _ => return Err(missing("fortran_order")),
        };
        let shape = (value_of(text, "shape"))
            .and_then(|value| value.strip_prefix('(')?.split_once(')'))
            .ok_or_else(|| missing("shape"))?;
        let shape = (shape.0.split(','))
            .map(str::trim)
            .filter(|side| !side.is_empty())
            .map(|side| side.trim_end_matches('L').parse())
            .collect::<Result<Vec<usize>, _>>()
            .map_err(|_| missing("shape"))?;
        Ok(Header {
            dtype,
            is_fortran,
            shape,
        })
    }
}

/// What follows `'key':`.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = (text.split_once(&format!("'{key}'")))
        .or_else(|| text.split_once(&format!("\"{key}\"")))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

/// The text between the quotes that `text` begins with.
fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let (inside, _) = text[1..].split_once(quote)?;
    Some(inside)
}

/// The beginning of a text that may be long.
fn start(text: &str) -> String {
    format!("{:?}", text.chars().take(60).collect::<String>())
}

#[cfg(test)]
mod tests;

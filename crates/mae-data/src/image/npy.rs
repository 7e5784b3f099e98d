//! Arrays that NumPy saved.
//!
//! Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::Read;

use super::{MAX_CHANNELS, MAX_DECODED, MAX_SIDE, read_with};
use crate::pixels::{PixelKind, Pixels, from_u16};

const MAGIC: &[u8] = b"\x93NUMPY";
/// The header of a plain array takes 128 bytes; no sensible one is longer than this.
const MAX_HEADER: usize = 64 << 10;

/// Whether a file begins as NumPy's do.
pub(super) fn is_npy(content: &[u8]) -> bool {
    content.starts_with(MAGIC)
}

/// What the values of the array that `reader` is at the start of become.
pub(super) fn kind_of(reader: &mut impl Read) -> Option<PixelKind> {
    let header = Header::read(reader).ok()?;
    Some(match header.dtype.number {
        Number::U8 => PixelKind::U8,
        _ => PixelKind::F32,
    })
}

/// Height, width, and values `[height, width, channels]` of an array of `channels` channels.
///
/// The array is `[height, width]`, `[height, width, channels]`, or, where that does not fit,
/// `[channels, height, width]`.
pub(super) fn read(content: &[u8], channels: usize) -> Result<(usize, usize, Pixels), String> {
    let mut data = content;
    let header = Header::read(&mut data)?;
    let layout = Layout::of(&header.shape, channels)?;
    let Layout { height, width, .. } = layout;
    let len = (height.checked_mul(width))
        .and_then(|pixels| pixels.checked_mul(channels))
        .filter(|len| (len * size_of::<f32>()) as u64 <= MAX_DECODED)
        .ok_or_else(|| {
            format!(
                "{height} x {width} pixels of {channels} channels take more than {} MiB; shrink it",
                MAX_DECODED >> 20
            )
        })?;
    let bytes = len * header.dtype.size();
    let data = data.get(..bytes).ok_or_else(|| {
        format!(
            "the array ends early: {} bytes of {bytes}; fetch it again",
            data.len()
        )
    })?;
    let strides = layout.strides(&header);
    let pixels = match header.dtype.number {
        Number::U8 => Pixels::U8(gather(
            data,
            &layout,
            channels,
            strides,
            |[value]: [u8; 1]| value,
        )),
        _ => Pixels::F32(header.dtype.gather(data, &layout, channels, strides)),
    };
    Ok((height, width, pixels))
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
    fn strides(&self, header: &Header) -> [usize; 3] {
        let shape = &header.shape;
        let stride = |axis: usize| -> usize {
            match header.is_fortran {
                true => shape[..axis].iter().product(),
                false => shape[axis + 1..].iter().product(),
            }
        };
        let (rows, columns, channels) = self.axes;
        [stride(rows), stride(columns), channels.map_or(0, stride)]
    }
}

/// The values in the order `[height, width, channels]`.
fn gather<const SIZE: usize, T>(
    data: &[u8],
    layout: &Layout,
    channels: usize,
    [rows, columns, planes]: [usize; 3],
    number: impl Fn([u8; SIZE]) -> T,
) -> Vec<T> {
    let mut values = Vec::with_capacity(layout.height * layout.width * channels);
    for row in 0..layout.height {
        for column in 0..layout.width {
            for channel in 0..channels {
                let at = (row * rows + column * columns + channel * planes) * SIZE;
                let bytes = std::array::from_fn(|i| data[at + i]);
                values.push(number(bytes));
            }
        }
    }
    values
}

/// What stands for a number.
#[derive(Copy, Clone, Debug, PartialEq)]
enum Number {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
}

#[derive(Copy, Clone, Debug)]
struct Dtype {
    number: Number,
    is_big_endian: bool,
}

impl Dtype {
    fn parse(text: &str) -> Option<Dtype> {
        let (order, number) = text.split_at_checked(1)?;
        let number = match number {
            "u1" => Number::U8,
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

    fn size(self) -> usize {
        match self.number {
            Number::U8 | Number::I8 => 1,
            Number::U16 | Number::I16 | Number::F16 => 2,
            Number::U32 | Number::I32 | Number::F32 => 4,
            Number::U64 | Number::I64 | Number::F64 => 8,
        }
    }

    /// 16-bit unsigned integers as shares of the largest, other numbers as they are.
    fn gather(
        self,
        data: &[u8],
        layout: &Layout,
        channels: usize,
        strides: [usize; 3],
    ) -> Vec<f32> {
        macro_rules! gather {
            ($number:ty, $value:expr) => {
                gather(data, layout, channels, strides, |bytes| {
                    $value(match self.is_big_endian {
                        true => <$number>::from_be_bytes(bytes),
                        false => <$number>::from_le_bytes(bytes),
                    })
                })
            };
        }
        match self.number {
            Number::U8 => gather!(u8, crate::pixels::from_u8),
            Number::U16 => gather!(u16, from_u16),
            Number::U32 => gather!(u32, |value| value as f32),
            Number::U64 => gather!(u64, |value| value as f32),
            Number::I8 => gather!(i8, f32::from),
            Number::I16 => gather!(i16, f32::from),
            Number::I32 => gather!(i32, |value| value as f32),
            Number::I64 => gather!(i64, |value| value as f32),
            Number::F16 => gather!(u16, half),
            Number::F32 => gather!(f32, |value| value),
            Number::F64 => gather!(f64, |value| value as f32),
        }
    }
}

/// The number that IEEE 754's 16 bits stand for.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2_f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1024.0 + fraction) * 2_f32.powi(exponent - 25),
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
        let short = |_| "the header of the array ends early; fetch it again".to_owned();
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

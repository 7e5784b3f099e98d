//! Numbers as files store them, and the values of pixels that they become.

use super::nodata::Missing;
use crate::pixels::{PixelKind, Pixels, from_u8, from_u16};

/// What stands for a number.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) enum Number {
    /// In a byte, from 0 to `largest`, which divides 255: 1 for booleans.
    U8 {
        largest: u8,
    },
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

impl Number {
    /// Bytes of all values.
    pub(super) const BYTE: Number = Number::U8 { largest: u8::MAX };

    /// Bytes that a number takes.
    pub(super) fn size(self) -> usize {
        match self {
            Number::U8 { .. } | Number::I8 => 1,
            Number::U16 | Number::I16 | Number::F16 => 2,
            Number::U32 | Number::I32 | Number::F32 => 4,
            Number::U64 | Number::I64 | Number::F64 => 8,
        }
    }

    /// What the numbers of a file become: bytes stay bytes, unless some of them may be missing.
    pub(super) fn kind(self, missing: Option<Missing>) -> PixelKind {
        match self {
            Number::U8 { .. } if missing.and_then(<u8 as Stored>::of).is_none() => PixelKind::U8,
            _ => PixelKind::F32,
        }
    }
}

/// How a file stores a number.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Dtype {
    pub(super) number: Number,
    pub(super) is_big_endian: bool,
}

/// Where rows, columns and channels of values lie: the first, and how far apart they are, in values.
#[derive(Copy, Clone, Debug)]
pub(super) struct Strides {
    pub(super) start: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) channels: usize,
}

impl Dtype {
    /// Copies `[rows, columns, channels]` numbers of `data` into `pixels`, which are of [`Number::kind`].
    ///
    /// Unsigned integers of 8 and 16 bits become shares of the largest, where they do not stay bytes; other numbers
    /// stay what they are, and what is `missing` becomes NaN.
    ///
    /// # Panics
    /// If a number lies outside of `data` or of `pixels`.
    pub(super) fn copy(
        self,
        data: &[u8],
        from: Strides,
        count: [usize; 3],
        missing: Option<Missing>,
        pixels: &mut Pixels,
        to: Strides,
    ) {
        let numbers = match pixels {
            Pixels::U8(bytes) => {
                let Number::U8 { largest } = self.number else {
                    unreachable!("only bytes become bytes");
                };
                let step = u8::MAX / largest;
                let [rows, columns, channels] = count;
                let is_dense =
                    |strides: Strides| (strides.columns, strides.channels) == (channels, 1);
                if step == 1 && is_dense(from) && is_dense(to) {
                    let len = columns * channels;
                    for row in 0..rows {
                        let row_of = |strides: Strides| strides.start + row * strides.rows;
                        bytes[row_of(to)..][..len].copy_from_slice(&data[row_of(from)..][..len]);
                    }
                    return;
                }
                return copy(data, from, count, bytes, to, |[byte]: [u8; 1]| {
                    byte.min(largest) * step
                });
            }
            Pixels::F32(numbers) => numbers,
        };
        macro_rules! copy {
            ($number:ty, $value:expr) => {{
                let missing = missing.and_then(<$number as Stored>::of);
                copy(data, from, count, numbers, to, |bytes| {
                    let number = match self.is_big_endian {
                        true => <$number>::from_be_bytes(bytes),
                        false => <$number>::from_le_bytes(bytes),
                    };
                    match missing == Some(number) {
                        true => f32::NAN,
                        false => $value(number),
                    }
                })
            }};
        }
        match self.number {
            Number::U8 { largest } => {
                let step = u8::MAX / largest;
                copy!(u8, |value: u8| from_u8(value.min(largest) * step))
            }
            Number::U16 => copy!(u16, from_u16),
            Number::U32 => copy!(u32, |value| value as f32),
            Number::U64 => copy!(u64, |value| value as f32),
            Number::I8 => copy!(i8, f32::from),
            Number::I16 => copy!(i16, f32::from),
            Number::I32 => copy!(i32, |value| value as f32),
            Number::I64 => copy!(i64, |value| value as f32),
            Number::F16 => copy!(half::f16, half::f16::to_f32),
            Number::F32 => copy!(f32, |value| value),
            Number::F64 => copy!(f64, |value| value as f32),
        }
    }
}

fn copy<const SIZE: usize, T: Copy>(
    data: &[u8],
    from: Strides,
    [rows, columns, channels]: [usize; 3],
    values: &mut [T],
    to: Strides,
    value: impl Fn([u8; SIZE]) -> T,
) {
    let (data, _) = data.as_chunks::<SIZE>();
    for row in 0..rows {
        for column in 0..columns {
            let from_pixel = from.start + row * from.rows + column * from.columns;
            let to_pixel = to.start + row * to.rows + column * to.columns;
            for channel in 0..channels {
                values[to_pixel + channel * to.channels] =
                    value(data[from_pixel + channel * from.channels]);
            }
        }
    }
}

/// A type of numbers in files.
pub(super) trait Stored: Sized {
    /// The number of this type that a missing value is written as; `None` if the type has none such.
    fn of(missing: Missing) -> Option<Self>;
}

macro_rules! stored_integers {
    ($($number:ty),*) => {$(
        impl Stored for $number {
            fn of(missing: Missing) -> Option<Self> {
                missing.integer()?.try_into().ok()
            }
        }
    )*};
}

stored_integers!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Stored for half::f16 {
    fn of(missing: Missing) -> Option<Self> {
        Some(half::f16::from_f64(missing.number()))
    }
}

impl Stored for f32 {
    fn of(missing: Missing) -> Option<Self> {
        let value = missing.number();
        // The lowest number there is, written with fewer digits than it has.
        let is_lowest = (value.abs() / f64::from(f32::MAX) - 1.0).abs() < 1e-5;
        Some(match is_lowest {
            true => f32::MAX.copysign(value as f32),
            false => value as f32,
        })
    }
}

impl Stored for f64 {
    fn of(missing: Missing) -> Option<Self> {
        Some(missing.number())
    }
}

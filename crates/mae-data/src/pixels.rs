//! The values of pixels: bytes, or floating-point numbers.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What the values of pixels are; the same for all images of a data set.
#[derive(Serialize, Deserialize, Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum PixelKind {
    /// Bytes, 0 to 255: usual images.
    #[default]
    U8,
    /// Floating-point numbers: what 8 bits cannot hold.
    ///
    /// 0 to 1 where an image file or an array holds unsigned integers of 8 or 16 bits, whose
    /// largest value becomes 1; the file's own units where it holds other numbers.
    F32,
}

impl PixelKind {
    /// As configurations name it: `u8` or `f32`.
    pub fn name(self) -> &'static str {
        match self {
            PixelKind::U8 => "u8",
            PixelKind::F32 => "f32",
        }
    }
}

/// Values of pixels, in the order that their owner documents.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// Bytes, 0 to 255.
    U8(Vec<u8>),
    /// Numbers as they were measured: see [`PixelKind::F32`].
    F32(Vec<f32>),
}

impl Pixels {
    /// `len` zeros.
    pub fn zeros(kind: PixelKind, len: usize) -> Pixels {
        match kind {
            PixelKind::U8 => Pixels::U8(vec![0; len]),
            PixelKind::F32 => Pixels::F32(vec![0.0; len]),
        }
    }

    /// What the values are.
    pub fn kind(&self) -> PixelKind {
        match self {
            Pixels::U8(_) => PixelKind::U8,
            Pixels::F32(_) => PixelKind::F32,
        }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        match self {
            Pixels::U8(values) => values.len(),
            Pixels::F32(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values, if they are bytes.
    pub fn as_u8(&self) -> Option<&[u8]> {
        match self {
            Pixels::U8(values) => Some(values),
            Pixels::F32(_) => None,
        }
    }

    /// The values, if they are floating-point numbers.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match self {
            Pixels::U8(_) => None,
            Pixels::F32(values) => Some(values),
        }
    }

    /// The values as numbers in the units of mean and standard deviation: bytes become 0 to 1.
    ///
    /// The byte `v` becomes what `257 * v` of a 16-bit image becomes, to the last bit.
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            Pixels::U8(values) => values.into_iter().map(from_u8).collect(),
            Pixels::F32(values) => values,
        }
    }

    /// As [`into_f32`](Pixels::into_f32), of some of the values.
    ///
    /// # Panics
    /// If `range` is not inside.
    pub fn range_f32(&self, range: Range<usize>) -> Vec<f32> {
        match self {
            Pixels::U8(values) => values[range].iter().copied().map(from_u8).collect(),
            Pixels::F32(values) => values[range].to_vec(),
        }
    }

    /// Memory for each `len` values, one after the other.
    pub(crate) fn chunks_exact_mut(&mut self, len: usize) -> Vec<PixelsMut<'_>> {
        match self {
            Pixels::U8(values) => values.chunks_exact_mut(len).map(PixelsMut::U8).collect(),
            Pixels::F32(values) => values.chunks_exact_mut(len).map(PixelsMut::F32).collect(),
        }
    }
}

impl From<Vec<u8>> for Pixels {
    fn from(values: Vec<u8>) -> Pixels {
        Pixels::U8(values)
    }
}

impl From<Vec<f32>> for Pixels {
    fn from(values: Vec<f32>) -> Pixels {
        Pixels::F32(values)
    }
}

/// [`Pixels`] of another owner, to be overwritten.
pub enum PixelsMut<'a> {
    /// Bytes.
    U8(&'a mut [u8]),
    /// Numbers.
    F32(&'a mut [f32]),
}

/// A byte as a share of the largest one.
pub(crate) fn from_u8(value: u8) -> f32 {
    f32::from(value) / f32::from(u8::MAX)
}

/// A 16-bit value as a share of the largest one.
pub(crate) fn from_u16(value: u16) -> f32 {
    f32::from(value) / f32::from(u16::MAX)
}

/// Makes grey or colours of pixels that are grey or RGB, with or without alpha, which is dropped.
///
/// `found` is 1 to 4, `wanted` 1 or 3. One channel is the Rec. 709 luma of the colours.
pub(crate) fn recolour(pixels: Pixels, found: usize, wanted: usize) -> Pixels {
    fn map<T: Copy>(values: &[T], found: usize, wanted: usize, luma: impl Fn(&[T]) -> T) -> Vec<T> {
        let mut result = Vec::with_capacity(values.len() / found * wanted);
        for pixel in values.chunks_exact(found) {
            match (found >= 3, wanted) {
                (true, 1) => result.push(luma(pixel)),
                (true, _) => result.extend_from_slice(&pixel[..3]),
                (false, _) => result.extend(std::iter::repeat_n(pixel[0], wanted)),
            }
        }
        result
    }
    if found == wanted {
        return pixels;
    }
    match pixels {
        Pixels::U8(values) => Pixels::U8(map(&values, found, wanted, |pixel| {
            let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
            ((2126 * red + 7152 * green + 722 * blue) / 10_000) as u8
        })),
        Pixels::F32(values) => Pixels::F32(map(&values, found, wanted, |pixel| {
            0.2126 * pixel[0] + 0.7152 * pixel[1] + 0.0722 * pixel[2]
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_16_bit_values_of_the_same_brightness_are_equal() {
        for value in 0..=u8::MAX {
            assert_eq!(from_u8(value), from_u16(257 * u16::from(value)));
        }
        assert_eq!((from_u8(0), from_u8(255)), (0.0, 1.0));
    }

    #[test]
    fn colours_become_luma_and_grey_becomes_colours() {
        let rgba = Pixels::U8(vec![200, 100, 50, 7]);
        assert_eq!(recolour(rgba.clone(), 4, 3), Pixels::U8(vec![200, 100, 50]));
        let luma = (2126 * 200 + 7152 * 100 + 722 * 50) / 10_000;
        assert_eq!(recolour(rgba, 4, 1), Pixels::U8(vec![luma as u8]));
        let grey = Pixels::F32(vec![-5.0, 0.5, 3.0, 0.1]);
        assert_eq!(
            recolour(grey.clone(), 2, 3),
            Pixels::F32(vec![-5.0, -5.0, -5.0, 3.0, 3.0, 3.0])
        );
        assert_eq!(recolour(grey, 2, 1), Pixels::F32(vec![-5.0, 3.0]));
    }
}

//! An image in memory: decoding, cropping, resizing, flipping.

mod decode;
pub(crate) mod jpeg;
mod nodata;
mod npy;
mod npz;
mod number;
mod resize;
mod tiff;

use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::Once;

pub(crate) use self::decode::kind_of;
use self::decode::{Decoded, Meaning, other_channels, read_with, too_large};
pub use self::nodata::Nodata;
use crate::error::DataError;
use crate::pixels::{PixelKind, Pixels};

/// Chooses rows and columns of an image of a height and a width.
pub(crate) type Choose<'a> = dyn FnMut(usize, usize) -> [Range<usize>; 2] + 'a;

/// Longest side of an image that [`Image::decode`] accepts, in pixels.
const MAX_SIDE: u32 = 1 << 16;
/// Most bytes that one image may have, as its file counts them: 357 million RGB pixels of 8 bits.
pub(crate) const MAX_DECODED: u64 = 1 << 30;

/// Most channels of an image.
pub(crate) const MAX_CHANNELS: usize = 1024;

/// Pixels `[height, width, channels]`, of bytes or floating-point numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    height: usize,
    width: usize,
    channels: usize,
    pixels: Pixels,
}

/// A rectangle of an image, in pixels; edges may lie between pixels.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct CropBox {
    /// Distance of the top edge from the top of the image.
    pub top: f64,
    /// Distance of the left edge from the left of the image.
    pub left: f64,
    /// Height of the rectangle.
    pub height: f64,
    /// Width of the rectangle.
    pub width: f64,
}

impl Image {
    /// An image from its pixels: a vector of bytes or of floating-point numbers.
    ///
    /// # Shapes
    /// - `pixels`: `[height, width, channels]`
    ///
    /// # Errors
    /// [`DataError::Config`] if a side is 0 or `channels` is not from 1 to 1024;
    /// [`DataError::Shape`] if `pixels` has another length.
    pub fn new(
        height: usize,
        width: usize,
        channels: usize,
        pixels: impl Into<Pixels>,
    ) -> Result<Image, DataError> {
        check_channels(channels)?;
        check_sides(height, width)?;
        let pixels = pixels.into();
        let expected = height.saturating_mul(width).saturating_mul(channels);
        DataError::check_len("pixels", expected, pixels.len())?;
        Ok(Image {
            height,
            width,
            channels,
            pixels,
        })
    }

    /// Decodes the content of a file: JPEG, PNG, WebP, BMP, TIFF, GIF (first frame), or an array that
    /// NumPy saved, alone or in an archive: `x`, `image`, `images`, `arr_0`, or else the first.
    /// Booleans are black and white.
    ///
    /// The format is recognised by content.
    /// The EXIF orientation is applied.
    /// A JPEG that lacks blocks or is damaged is refused, although decoders would fill them with grey; only
    /// its end marker may be missing.
    ///
    /// # Channels
    /// Of pictures, one channel is the Rec. 709 luma of the colours and three are RGB, whatever the file
    /// has, and alpha is dropped; two are grey and alpha and four are RGB and alpha, which the file must
    /// have.
    /// A TIFF file of bands and an array must have as many channels as are asked for.
    /// Pages of a TIFF file that are of one size and type are bands where they have together as many
    /// channels as are asked for, and the first alone has not; else the first is read, and a warning
    /// says so once.
    /// An array is `[height, width]`, `[height, width, channels]`, or, where that does not fit,
    /// `[channels, height, width]`.
    ///
    /// # Values
    /// Bytes stay bytes.
    /// Unsigned integers of 16 bits become floating-point numbers from 0 to 1, their largest value.
    /// Floating-point numbers, signed integers and those of 32 bits or more are numbers in the file's own
    /// units.
    /// The value that a TIFF file says to mean that nothing was measured, in GDAL's tag 42113, becomes NaN; what the
    /// first page says holds for the others that are bands with it.
    ///
    /// # Errors
    /// [`DataError::Image`] with `name` if the content is no such file, is damaged, has other channels,
    /// has numbers that are not finite, or is larger than 65,536 pixels on a side or 1 GiB as it is stored;
    /// [`DataError::Config`] if `channels` is not from 1 to 1024.
    pub fn decode(content: &[u8], channels: usize, name: &str) -> Result<Image, DataError> {
        Image::decode_with(content, channels, Nodata::Auto, name)
    }

    /// As [`Image::decode`], with other values that mean that nothing was measured.
    ///
    /// # Values
    /// A missing value is NaN: in a TIFF, PNG or Netpbm file or an array that of `nodata`, and then every NaN, too.
    /// Other pictures, whose compression changes values, have none.
    /// A file whose values may be missing is of numbers, even where it stores bytes.
    /// Values are compared as the file has them, exactly.
    ///
    /// # Errors
    /// As [`Image::decode`].
    pub fn decode_with(
        content: &[u8],
        channels: usize,
        nodata: Nodata,
        name: &str,
    ) -> Result<Image, DataError> {
        let all = &mut |height, width| [0..height, 0..width];
        Image::decode_part(content, channels, nodata, name, all)
    }

    /// As [`Image::decode_with`], but of a file of which rows and columns can be decoded alone, those that `choose`
    /// wants of its height and width; it is not called for other files.
    pub(crate) fn decode_part(
        content: &[u8],
        channels: usize,
        nodata: Nodata,
        name: &str,
        choose: &mut Choose,
    ) -> Result<Image, DataError> {
        check_channels(channels)?;
        let decoded = decode::decode(content, channels, nodata, choose).map_err(|reason| {
            DataError::Image {
                name: name.to_owned(),
                reason,
            }
        })?;
        if decoded.left_pages > 0 {
            warn_of_pages(name, decoded.left_pages);
        }
        Image::new(decoded.height, decoded.width, channels, decoded.pixels)
    }

    /// How many channels the content of a file of bands or of an array has, which is what it must be decoded with;
    /// `None` of a picture and of what is neither.
    pub fn bands(content: &[u8]) -> Option<usize> {
        catch_unwind(|| decode::bands(content)).ok().flatten()
    }

    /// The image of a data set of `kind`: bytes are widened, numbers are never narrowed to bytes.
    ///
    /// # Errors
    /// [`DataError::Image`] with `name` if the image has numbers and `kind` is bytes.
    pub(crate) fn into_kind(self, kind: PixelKind, name: &str) -> Result<Image, DataError> {
        match (self.pixels.kind(), kind) {
            (found, kind) if found == kind => Ok(self),
            (PixelKind::U8, _) => Ok(Image {
                pixels: Pixels::F32(self.pixels.into_f32()),
                ..self
            }),
            _ => Err(DataError::Image {
                name: name.to_owned(),
                reason:
                    "it has values of more than 8 bits, or missing ones, and the other images are \
                         of 8 bits; set data.values=\"f32\" to keep all, or convert or remove it"
                        .to_owned(),
            }),
        }
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values per pixel: 1 (luma), 3 (RGB), or another number.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// What the values are.
    pub fn kind(&self) -> PixelKind {
        self.pixels.kind()
    }

    /// The pixels, `[height, width, channels]`.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// The pixels, `[height, width, channels]`, without a copy.
    pub fn into_pixels(self) -> Pixels {
        self.pixels
    }

    /// The pixels of an image of bytes: for operations on nothing else, whose callers have checked it.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.pixels.as_u8().expect("an image of bytes")
    }

    /// As [`Image::bytes`], to be changed in place.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.pixels {
            Pixels::U8(values) => values,
            Pixels::F32(_) => unreachable!("an image of bytes"),
        }
    }

    /// Mirrors the image: left becomes right.
    pub fn flip_horizontally(&mut self) {
        match &mut self.pixels {
            Pixels::U8(values) => mirror_rows(values, self.width, self.channels),
            Pixels::F32(values) => mirror_rows(values, self.width, self.channels),
        }
    }
}

/// Says once that the first page of a file is read and others are not: files of a data set are much alike.
fn warn_of_pages(name: &str, left: usize) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::warn!(
            "{name}: it has {} pages, of which the first is read, and so of other files (said once); pages of one \
             size become channels where model.channels, or --channels, is the number of all their channels",
            left + 1
        );
    });
}

fn mirror_rows<T>(values: &mut [T], width: usize, channels: usize) {
    for row in values.chunks_exact_mut(width * channels) {
        row.reverse();
        // Reversing the row also reversed each pixel.
        row.chunks_exact_mut(channels).for_each(<[T]>::reverse);
    }
}

/// Refuses channel counts that no image has.
pub(crate) fn check_channels(channels: usize) -> Result<(), DataError> {
    if (1..=MAX_CHANNELS).contains(&channels) {
        return Ok(());
    }
    Err(DataError::Config {
        key: "channels",
        expected: format!("1 (luma), 3 (RGB), or what the files have, up to {MAX_CHANNELS}"),
        found: channels.to_string(),
        remedy: "use 3 for colour images".to_owned(),
    })
}

/// Refuses channel counts other than 1 (luma) and 3 (RGB), for images that can be nothing else.
pub(crate) fn check_grey_or_rgb(channels: usize) -> Result<(), DataError> {
    if matches!(channels, 1 | 3) {
        return Ok(());
    }
    Err(DataError::Config {
        key: "channels",
        expected: "1 (luma) or 3 (RGB)".to_owned(),
        found: channels.to_string(),
        remedy: "use 3 for colour images".to_owned(),
    })
}

/// Refuses images whose colours the setting `key` cannot change: all but those of bytes in grey or RGB.
pub(crate) fn check_colours(
    key: &'static str,
    channels: usize,
    kind: PixelKind,
) -> Result<(), DataError> {
    if matches!(channels, 1 | 3) && kind == PixelKind::U8 {
        return Ok(());
    }
    Err(DataError::Config {
        key,
        expected: "images of 8 bits in grey or RGB, whose colours it changes".to_owned(),
        found: format!("{channels} channels of {} values", kind.name()),
        remedy: "leave it out".to_owned(),
    })
}

/// Refuses sides of 0 pixels, and those that a u32 cannot hold.
pub(crate) fn check_sides(height: usize, width: usize) -> Result<(), DataError> {
    for (key, side) in [("height", height), ("width", width)] {
        if side == 0 || side > u32::MAX as usize {
            return Err(DataError::Config {
                key,
                expected: "at least 1 and less than 2^32 pixels".to_owned(),
                found: side.to_string(),
                remedy: "give the size in pixels".to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! An image in memory: decoding, cropping, resizing, flipping.

use std::io::Cursor;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fast_image_resize as fir;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::error::DataError;
use crate::jpeg;

/// Longest side of an image that [`Image::decode`] accepts, in pixels.
const MAX_SIDE: u32 = 1 << 16;
/// Most memory that decoding one image may take, in bytes: 178 million RGB pixels.
const MAX_DECODED: u64 = 512 << 20;

/// Pixels `[height, width, channels]`, u8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    height: usize,
    width: usize,
    channels: usize,
    pixels: Vec<u8>,
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
    /// An image from its pixels.
    ///
    /// # Shapes
    /// - `pixels`: `[height, width, channels]`
    ///
    /// # Errors
    /// [`DataError::Config`] if a side is 0 or `channels` is neither 1 nor 3;
    /// [`DataError::Shape`] if `pixels` has another length.
    pub fn new(
        height: usize,
        width: usize,
        channels: usize,
        pixels: Vec<u8>,
    ) -> Result<Image, DataError> {
        check_channels(channels)?;
        check_sides(height, width)?;
        let expected = height.saturating_mul(width).saturating_mul(channels);
        DataError::check_len("pixels", expected, pixels.len())?;
        Ok(Image {
            height,
            width,
            channels,
            pixels,
        })
    }

    /// Decodes the content of an image file: JPEG, PNG, WebP, BMP, TIFF or GIF (first frame).
    ///
    /// The format is recognised by content.
    /// The EXIF orientation is applied, alpha is dropped, and 16-bit values become 8-bit ones.
    /// One channel is the Rec. 709 luma of the colours, three are RGB.
    /// A JPEG that ends early is refused, although its decoder would fill the rest with grey.
    ///
    /// # Errors
    /// [`DataError::Image`] with `name` if the content is no such file, is damaged, or is larger
    /// than 65,536 pixels on a side or 512 MiB in memory; [`DataError::Config`] if `channels` is
    /// neither 1 nor 3.
    pub fn decode(content: &[u8], channels: usize, name: &str) -> Result<Image, DataError> {
        check_channels(channels)?;
        // A decoder that panics on a damaged file must not end a run of days.
        let decoded = catch_unwind(AssertUnwindSafe(|| decode_dynamic(content)))
            .unwrap_or_else(|_| Err("the decoder panicked on it".to_owned()));
        let image = decoded.map_err(|reason| DataError::Image {
            name: name.to_owned(),
            reason,
        })?;
        let (height, width) = (image.height() as usize, image.width() as usize);
        let pixels = match channels {
            1 => image.into_luma8().into_raw(),
            _ => image.into_rgb8().into_raw(),
        };
        Image::new(height, width, channels, pixels)
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values per pixel: 1 (luma) or 3 (RGB).
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The pixels, `[height, width, channels]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels, `[height, width, channels]`, to be changed in place.
    pub(crate) fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// The pixels, `[height, width, channels]`, without a copy.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// Resizes to `height` times `width` pixels with antialiased bicubic interpolation.
    ///
    /// The kernel is Catmull-Rom (a = -0.5), stretched when shrinking, as PIL's `BICUBIC` and
    /// torchvision's with `antialias=True`.
    ///
    /// # Errors
    /// [`DataError::Config`] if a side is 0.
    pub fn resize(&self, height: usize, width: usize) -> Result<Image, DataError> {
        let whole = CropBox {
            top: 0.0,
            left: 0.0,
            height: self.height as f64,
            width: self.width as f64,
        };
        self.crop_resize(whole, height, width)
    }

    /// Resizes the part of the image inside `crop` to `height` times `width` pixels.
    ///
    /// As [`Image::resize`]; near an edge of `crop` the kernel reaches over it into the image.
    ///
    /// # Errors
    /// [`DataError::Config`] if a side is 0 or `crop` is not inside the image.
    pub fn crop_resize(
        &self,
        crop: CropBox,
        height: usize,
        width: usize,
    ) -> Result<Image, DataError> {
        check_sides(height, width)?;
        self.check_crop(crop)?;
        // One call for each axis, horizontal first, gives Pillow's numbers: rounding in between
        // makes the order matter, and fast_image_resize itself would begin with the vertical.
        // One call for both would also, in 6.1, read out of bounds when it magnifies and the last
        // pixel falls exactly on one of the image: the kernel of that pixel, by which it sizes
        // the image in between, is a single point.
        let rows = self.rows_under_kernel(crop, height);
        let strip = CropBox {
            top: rows.start as f64,
            height: rows.len() as f64,
            ..crop
        };
        let strip = self.resample(strip, rows.len(), width);
        let top = crop.top - rows.start as f64;
        let crop = CropBox {
            top,
            left: 0.0,
            // Smaller numbers are finer: what rounded to the edge before may now lie over it.
            height: crop.height.min(rows.len() as f64 - top),
            width: width as f64,
        };
        Ok(strip.resample(crop, height, width))
    }

    /// The rows that the vertical kernel reaches when `crop` becomes `height` pixels high.
    fn rows_under_kernel(&self, crop: CropBox, height: usize) -> Range<usize> {
        const SUPPORT: f64 = 2.0;
        let reach = (SUPPORT * (crop.height / height as f64).max(1.0)).ceil() + 1.0;
        let start = (crop.top - reach).floor().max(0.0) as usize;
        let end = (crop.top + crop.height + reach).ceil() as usize;
        start..end.min(self.height)
    }

    /// Resizes a valid `crop` to valid sides.
    fn resample(&self, crop: CropBox, height: usize, width: usize) -> Image {
        let pixel_type = match self.channels {
            1 => fir::PixelType::U8,
            _ => fir::PixelType::U8x3,
        };
        let source = fir::images::ImageRef::new(
            self.width as u32,
            self.height as u32,
            &self.pixels,
            pixel_type,
        )
        .expect("an image holds height * width * channels bytes");
        let mut target = fir::images::Image::new(width as u32, height as u32, pixel_type);
        let options = fir::ResizeOptions::new()
            .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::CatmullRom))
            .crop(crop.left, crop.top, crop.width, crop.height);
        fir::Resizer::new()
            .resize(&source, &mut target, &options)
            .expect("the crop is inside the image and the pixel types agree");
        Image {
            height,
            width,
            channels: self.channels,
            pixels: target.into_vec(),
        }
    }

    /// Mirrors the image: left becomes right.
    pub fn flip_horizontally(&mut self) {
        for row in self.pixels.chunks_exact_mut(self.width * self.channels) {
            row.reverse();
            // Reversing the row also reversed each pixel.
            row.chunks_exact_mut(self.channels)
                .for_each(<[u8]>::reverse);
        }
    }

    fn check_crop(&self, crop: CropBox) -> Result<(), DataError> {
        // A box much thinner than a pixel vanishes when its edges are rounded.
        const MIN_LEN: f64 = 1e-5;
        let is_inside = |start: f64, len: f64, side: usize| {
            start >= 0.0 && len >= MIN_LEN && start + len <= side as f64
        };
        if is_inside(crop.top, crop.height, self.height)
            && is_inside(crop.left, crop.width, self.width)
        {
            return Ok(());
        }
        Err(DataError::Config {
            key: "crop",
            expected: format!("a box inside {} x {} pixels", self.height, self.width),
            found: format!(
                "top {}, left {}, height {}, width {}",
                crop.top, crop.left, crop.height, crop.width
            ),
            remedy: "clip the box to the image".to_owned(),
        })
    }
}

fn decode_dynamic(content: &[u8]) -> Result<DynamicImage, String> {
    let mut reader = ImageReader::new(Cursor::new(content))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    match reader.format() {
        _ if content.is_empty() => return Err("the file is empty".to_owned()),
        None => {
            return Err(
                "the content is no image: expected jpeg, png, webp, bmp, tiff or gif; \
                        convert or remove it"
                    .to_owned(),
            );
        }
        Some(ImageFormat::Jpeg) if !jpeg::is_complete(content) => {
            return Err("the jpeg ends early: no end-of-image marker; fetch it again".to_owned());
        }
        Some(_) => {}
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > MAX_DECODED {
        return Err(format!(
            "{width} x {height} pixels take more than {} MiB; shrink it",
            MAX_DECODED >> 20
        ));
    }
    let orientation = decoder.orientation().map_err(|error| error.to_string())?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Refuses channel counts other than 1 (luma) and 3 (RGB).
pub(crate) fn check_channels(channels: usize) -> Result<(), DataError> {
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

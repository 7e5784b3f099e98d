//! Crop and resize: one antialiased bicubic convolution an axis.

use std::ops::Range;

use fast_image_resize as fir;

use super::{CropBox, Image, check_sides};
use crate::error::DataError;
use crate::pixels::Pixels;

impl Image {
    /// Resizes to `height` times `width` pixels with antialiased bicubic interpolation.
    ///
    /// The kernel is Catmull-Rom (a = -0.5), stretched when shrinking, as PIL's `BICUBIC` and
    /// torchvision's with `antialias=True`.
    ///
    /// Missing values (NaN) have no weight: a pixel is the weighted mean of those that are there, and is
    /// missing itself where these have less than half of the kernel's weight.
    /// Source: Knutsson and Westin 1993, "Normalized and Differential Convolution".
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
        let Pixels::F32(values) = &self.pixels else {
            return Ok(self.convolve(crop, height, width));
        };
        // Only what the kernel reaches counts, so that of a part of a file comes the same as of all of it.
        let [rows, columns] = crop.reach([height, width], [self.height, self.width]);
        let is_missing = (values.chunks_exact(self.width * self.channels))
            .take(rows.end)
            .skip(rows.start)
            .flat_map(|row| &row[columns.start * self.channels..columns.end * self.channels])
            .any(|value| value.is_nan());
        if !is_missing {
            return Ok(self.convolve(crop, height, width));
        }
        let part = self.part([rows.clone(), columns.clone()]);
        let crop = crop.within([rows, columns]);
        let (values, weights) = part.split_missing();
        let values = values.convolve(crop, height, width);
        let weights = weights.convolve(crop, height, width);
        Ok(values.over(&weights))
    }

    /// The rows and columns of an image of numbers.
    fn part(&self, [rows, columns]: [Range<usize>; 2]) -> Image {
        let values = self.pixels.as_f32().unwrap_or_default();
        let part = (values.chunks_exact(self.width * self.channels))
            .take(rows.end)
            .skip(rows.start)
            .flat_map(|row| &row[columns.start * self.channels..columns.end * self.channels]);
        Image {
            height: rows.len(),
            width: columns.len(),
            channels: self.channels,
            pixels: Pixels::F32(part.copied().collect()),
        }
    }

    /// The image with 0 in the places of missing values, and 1 where there is a value, 0 where there is none.
    fn split_missing(&self) -> (Image, Image) {
        let values = self.pixels.as_f32().unwrap_or_default();
        let with = |pixels: Vec<f32>| Image {
            pixels: Pixels::F32(pixels),
            ..*self
        };
        let known = |value: &f32| f32::from(u8::from(!value.is_nan()));
        let filled = |value: &f32| if value.is_nan() { 0.0 } else { *value };
        (
            with(values.iter().map(filled).collect()),
            with(values.iter().map(known).collect()),
        )
    }

    /// Values over their weights, missing where these are too small.
    fn over(self, weights: &Image) -> Image {
        const LEAST_WEIGHT: f32 = 0.5;
        let weights = weights.pixels.as_f32().unwrap_or_default();
        let values = self.pixels.into_f32();
        let over = |(value, &weight): (f32, &f32)| match weight >= LEAST_WEIGHT {
            true => value / weight,
            false => f32::NAN,
        };
        Image {
            pixels: Pixels::F32(values.into_iter().zip(weights).map(over).collect()),
            ..self
        }
    }

    /// Resizes a valid `crop` to valid sides.
    fn convolve(&self, crop: CropBox, height: usize, width: usize) -> Image {
        // One call for each axis, horizontal first, gives Pillow's numbers: rounding in between
        // makes the order matter, and fast_image_resize itself would begin with the vertical.
        // One call for both would also, in 6.1, read out of bounds when it magnifies and the last
        // pixel falls exactly on one of the image: the kernel of that pixel, by which it sizes
        // the image in between, is a single point.
        let rows = under_kernel(crop.top, crop.height, height, self.height);
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
        strip.resample(crop, height, width)
    }

    /// Resizes a valid `crop` to valid sides, both axes in one call.
    fn resample(&self, crop: CropBox, height: usize, width: usize) -> Image {
        let task = Resampling {
            source: (self.height, self.width),
            target: (height, width),
            crop,
        };
        let pixels = match &self.pixels {
            Pixels::U8(values) => Pixels::U8(task.all_channels(values, self.channels)),
            Pixels::F32(values) => Pixels::F32(task.all_channels(values, self.channels)),
        };
        Image {
            height,
            width,
            channels: self.channels,
            pixels,
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

impl CropBox {
    /// The rows and columns of an image that count when this part of it is resized to `target` pixels.
    pub(crate) fn reach(&self, target: [usize; 2], source: [usize; 2]) -> [Range<usize>; 2] {
        [
            under_kernel(self.top, self.height, target[0], source[0]),
            under_kernel(self.left, self.width, target[1], source[1]),
        ]
    }

    /// The same part, of an image of these rows and columns alone.
    pub(crate) fn within(self, [rows, columns]: [Range<usize>; 2]) -> CropBox {
        let (top, left) = (
            self.top - rows.start as f64,
            self.left - columns.start as f64,
        );
        CropBox {
            top,
            left,
            // Smaller numbers are finer: what rounded to the edge before may now lie over it.
            height: self.height.min(rows.len() as f64 - top),
            width: self.width.min(columns.len() as f64 - left),
        }
    }
}

/// The pixels of a `side` that the kernel reaches when the part from `start` on becomes `target` pixels.
fn under_kernel(start: f64, len: f64, target: usize, side: usize) -> Range<usize> {
    const SUPPORT: f64 = 2.0;
    let reach = (SUPPORT * (len / target as f64).max(1.0)).ceil() + 1.0;
    let end = (start + len + reach).ceil() as usize;
    (start - reach).floor().max(0.0) as usize..end.min(side)
}

/// Values that can be resampled, up to four channels at a time.
trait Resampled: bytemuck::Pod + Default {
    /// Pixels of 1, 2, 3 and 4 channels.
    const TYPES: [fir::PixelType; MOST_CHANNELS];
}

/// Channels that are resampled at once.
const MOST_CHANNELS: usize = 4;

impl Resampled for u8 {
    const TYPES: [fir::PixelType; MOST_CHANNELS] = [
        fir::PixelType::U8,
        fir::PixelType::U8x2,
        fir::PixelType::U8x3,
        fir::PixelType::U8x4,
    ];
}

impl Resampled for f32 {
    const TYPES: [fir::PixelType; MOST_CHANNELS] = [
        fir::PixelType::F32,
        fir::PixelType::F32x2,
        fir::PixelType::F32x3,
        fir::PixelType::F32x4,
    ];
}

/// A valid crop of an image, and the size that it gets; sides are height and width.
struct Resampling {
    source: (usize, usize),
    target: (usize, usize),
    crop: CropBox,
}

impl Resampling {
    fn all_channels<T: Resampled>(&self, values: &[T], channels: usize) -> Vec<T> {
        if channels <= MOST_CHANNELS {
            return self.channels_at_once(values, channels);
        }
        let mut result = vec![T::default(); self.target.0 * self.target.1 * channels];
        for first in (0..channels).step_by(MOST_CHANNELS) {
            let group = first..channels.min(first + MOST_CHANNELS);
            let some: Vec<T> = (values.chunks_exact(channels))
                .flat_map(|pixel| pixel[group.clone()].iter().copied())
                .collect();
            let some = self.channels_at_once(&some, group.len());
            for (pixel, some) in
                (result.chunks_exact_mut(channels)).zip(some.chunks_exact(group.len()))
            {
                pixel[group.clone()].copy_from_slice(some);
            }
        }
        result
    }

    fn channels_at_once<T: Resampled>(&self, values: &[T], channels: usize) -> Vec<T> {
        let pixel_type = T::TYPES[channels - 1];
        let [(source_height, source_width), (height, width)] =
            [self.source, self.target].map(|(height, width)| (height as u32, width as u32));
        let source = fir::images::ImageRef::new(
            source_width,
            source_height,
            bytemuck::cast_slice(values),
            pixel_type,
        )
        .expect("an image holds height * width * channels values");
        // In numbers of the columns alone, as rows are, so that a part of an image gives the same bits.
        let crop = self.crop;
        let columns = under_kernel(crop.left, crop.width, self.target.1, self.source.1);
        let crop = crop.within([0..self.source.0, columns.clone()]);
        let (first, count) = (columns.start as u32, columns.len() as u32);
        let source = fir::images::CroppedImage::new(&source, first, 0, count, source_height)
            .expect("the columns are inside the image");
        let mut result = vec![T::default(); self.target.0 * self.target.1 * channels];
        let mut target = fir::images::Image::from_slice_u8(
            width,
            height,
            bytemuck::cast_slice_mut(&mut result),
            pixel_type,
        )
        .expect("the result holds height * width * channels values");
        let options = fir::ResizeOptions::new()
            .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::CatmullRom))
            .crop(crop.left, crop.top, crop.width, crop.height)
            // Second and fourth channels are values like the others.
            .use_alpha(false);
        fir::Resizer::new()
            .resize(&source, &mut target, &options)
            .expect("the crop is inside the image and the pixel types agree");
        result
    }
}

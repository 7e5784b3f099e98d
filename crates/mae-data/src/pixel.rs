//! Operations that change colours and leave everything where it is.
//!
//! Values are rounded, and cut off, as Pillow does it: mostly towards 0.

mod hue;

pub(crate) use self::hue::hue;
use crate::image::Image;

/// Stretches each channel so that its darkest value becomes 0 and its brightest 255.
pub(crate) fn auto_contrast(image: Image) -> Image {
    map_channels(image, |histogram| {
        let low = histogram.iter().position(|&count| count > 0).unwrap_or(0);
        let high = histogram.iter().rposition(|&count| count > 0).unwrap_or(0);
        if high <= low {
            return identity();
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        table(|value| (value as f64 * scale + offset) as u8)
    })
}

/// Makes each channel's values about equally frequent.
pub(crate) fn equalize(image: Image) -> Image {
    map_channels(image, |histogram| {
        let pixels: usize = histogram.iter().sum();
        let brightest = histogram.iter().rfind(|&&count| count > 0).unwrap_or(&0);
        let step = (pixels - brightest) / 255;
        if step == 0 {
            return identity();
        }
        let mut below = step / 2;
        table(|value| {
            let level = (below / step).min(255);
            below += histogram[value];
            level as u8
        })
    })
}

/// The negative.
pub(crate) fn invert(image: Image) -> Image {
    map_values(image, |value| 255 - value)
}

/// Keeps the highest `bits` bits, 0 to 8, of each value; none make the image black.
pub(crate) fn posterize(image: Image, bits: u32) -> Image {
    let mask = (0xFF00_u32 >> bits) as u8;
    map_values(image, |value| value & mask)
}

/// The negative of the values from `threshold`, 0 to 256, on.
pub(crate) fn solarize(image: Image, threshold: u32) -> Image {
    map_values(image, |value| {
        if u32::from(value) < threshold {
            value
        } else {
            255 - value
        }
    })
}

/// Adds to the values of the darker half.
pub(crate) fn solarize_add(image: Image, add: u8) -> Image {
    map_values(image, |value| {
        if value < 128 {
            value.saturating_add(add)
        } else {
            value
        }
    })
}

/// Moves each pixel away from its luma (`factor` above 1) or towards it; luma images stay.
pub(crate) fn color(mut image: Image, factor: f32) -> Image {
    if image.channels() == 3 {
        for pixel in image.bytes_mut().chunks_exact_mut(3) {
            let grey = luma([pixel[0], pixel[1], pixel[2]]);
            for value in pixel {
                *value = blend(grey, *value, factor);
            }
        }
    }
    image
}

/// Moves the values away from the mean luma of the image (`factor` above 1) or towards it.
pub(crate) fn contrast(image: Image, factor: f32) -> Image {
    let sum: u64 = match image.channels() {
        1 => image.bytes().iter().copied().map(u64::from).sum(),
        _ => (image.bytes().chunks_exact(3))
            .map(|pixel| u64::from(luma([pixel[0], pixel[1], pixel[2]])))
            .sum(),
    };
    let pixels = (image.height() * image.width()) as f64;
    let mean = (sum as f64 / pixels + 0.5) as u8;
    map_values(image, |value| blend(mean, value, factor))
}

/// Multiplies the values by `factor`.
pub(crate) fn brightness(image: Image, factor: f32) -> Image {
    map_values(image, |value| blend(0, value, factor))
}

/// Moves the image away from a smoothed copy (`factor` above 1) or towards it; the outermost
/// pixels stay.
pub(crate) fn sharpness(image: Image, factor: f32) -> Image {
    let mut result = image.clone();
    let (height, width, channels) = (image.height(), image.width(), image.channels());
    let row_len = width * channels;
    let source = image.bytes();
    for y in 1..height.saturating_sub(1) {
        for at in y * row_len + channels..((y + 1) * row_len).saturating_sub(channels) {
            let row = |at: usize| {
                [at - channels, at, at + channels]
                    .map(|at| u32::from(source[at]))
                    .iter()
                    .sum::<u32>()
            };
            // The kernel is 1 everywhere but 5 in the middle.
            let around = row(at - row_len) + row(at) + row(at + row_len);
            let sum = around + 4 * u32::from(source[at]);
            let smooth = (sum as f32 / 13.0 + 0.5) as u8;
            result.bytes_mut()[at] = blend(smooth, source[at], factor);
        }
    }
    result
}

/// Luma of an RGB colour, with the weights of ITU-R BT.601 in units of 2^-16, as Pillow.
pub(crate) fn luma([red, green, blue]: [u8; 3]) -> u8 {
    let sum = 19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue);
    ((sum + (1 << 15)) >> 16) as u8
}

/// From `degenerate` (factor 0) by way of `value` (factor 1) to beyond it.
fn blend(degenerate: u8, value: u8, factor: f32) -> u8 {
    let (degenerate, value) = (f32::from(degenerate), f32::from(value));
    (degenerate + factor * (value - degenerate)) as u8
}

fn identity() -> [u8; 256] {
    table(|value| value as u8)
}

fn table(mut new: impl FnMut(usize) -> u8) -> [u8; 256] {
    let mut table = [0; 256];
    for (value, entry) in table.iter_mut().enumerate() {
        *entry = new(value);
    }
    table
}

fn map_values(mut image: Image, new: impl Fn(u8) -> u8) -> Image {
    for value in image.bytes_mut() {
        *value = new(*value);
    }
    image
}

/// Maps each channel by the table that `table_of` makes of its histogram.
fn map_channels(mut image: Image, table_of: impl Fn(&[usize; 256]) -> [u8; 256]) -> Image {
    let channels = image.channels();
    for channel in 0..channels {
        let mut histogram = [0; 256];
        for &value in image.bytes().iter().skip(channel).step_by(channels) {
            histogram[usize::from(value)] += 1;
        }
        let table = table_of(&histogram);
        for value in image.bytes_mut().iter_mut().skip(channel).step_by(channels) {
            *value = table[usize::from(*value)];
        }
    }
    image
}

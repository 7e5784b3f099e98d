//! The hue of pixels, on Pillow's wheel of 255 steps.

use crate::image::Image;

/// Turns the hue of each pixel by `turn`, a share of the full circle from -0.5 to 0.5; luma images
/// stay.
///
/// Colours become hue, saturation and value of 8 bits each and come back, as in Pillow, so even a
/// turn of 0 changes them a little.
/// All 2^24 colours give Pillow's numbers.
pub(crate) fn hue(mut image: Image, turn: f64) -> Image {
    // As torchvision: towards 0, and modulo 256, although Pillow's circle has 255 steps.
    let steps = (turn * 255.0) as i32 as u8;
    if image.channels() == 3 {
        for pixel in image.bytes_mut().chunks_exact_mut(3) {
            let (hue, saturation, value) = to_hsv([pixel[0], pixel[1], pixel[2]]);
            let turned = to_rgb(hue.wrapping_add(steps), saturation, value);
            pixel.copy_from_slice(&turned);
        }
    }
    image
}

/// Hue, saturation and value: 255 is a full circle, full saturation and full brightness.
fn to_hsv(colour: [u8; 3]) -> (u8, u8, u8) {
    let [red, green, blue] = colour.map(i32::from);
    let value = red.max(green).max(blue);
    let range = value - red.min(green).min(blue);
    if range == 0 {
        return (0, 0, value as u8);
    }
    // In sixths of a circle times `range`.
    let angle = if red == value && green >= blue {
        green - blue
    } else if red == value {
        6 * range + green - blue
    } else if green == value {
        2 * range + blue - red
    } else {
        4 * range + red - green
    };
    let hue = match exact_quotient(85 * angle, 2 * range) {
        Ok(_) => pillow_hue(colour),
        Err(hue) => hue,
    };
    let (Ok(saturation) | Err(saturation)) = exact_quotient(255 * range, value);
    (hue, saturation, value as u8)
}

/// The quotient of two numbers below 2^24, which must be below 256: `Ok` if it is a whole number,
/// else rounded down.
///
/// Faster than a division of integers, and as good: both numbers are exact in f32, and a fraction
/// differs by more from the next whole number than its rounding.
fn exact_quotient(dividend: i32, divisor: i32) -> Result<u8, u8> {
    let quotient = (dividend as f32 / divisor as f32) as i32;
    if quotient * divisor == dividend {
        Ok(quotient as u8)
    } else {
        Err(quotient as u8)
    }
}

/// The hue of a colour that is not grey, with Pillow's rounding of every step: where exactly a
/// whole number should come out, it may be just below it.
#[cold]
fn pillow_hue([red, green, blue]: [u8; 3]) -> u8 {
    let value = red.max(green).max(blue);
    let range = value - red.min(green).min(blue);
    let below = |channel: u8| f32::from(value - channel) / f32::from(range);
    let (red_below, green_below, blue_below) = (below(red), below(green), below(blue));
    let sixths = if red == value {
        blue_below - green_below
    } else if green == value {
        (2.0 + f64::from(red_below) - f64::from(blue_below)) as f32
    } else {
        (4.0 + f64::from(green_below) - f64::from(red_below)) as f32
    };
    let circles = (f64::from(sixths) / 6.0 + 1.0).fract() as f32;
    (f64::from(circles) * 255.0) as u8
}

fn to_rgb(hue: u8, saturation: u8, value: u8) -> [u8; 3] {
    let (sixths, saturation) = (6 * u32::from(hue), u32::from(saturation));
    let (sector, within) = (sixths / 255, sixths % 255);
    // `value * (1 - share / 255^2)`, rounded: never half way between whole numbers.
    let less = |share: u32| ((2 * u32::from(value) * (ONE - share) + ONE) / (2 * ONE)) as u8;
    let low = less(saturation * 255);
    let falling = less(saturation * within);
    let rising = less(saturation * (255 - within));
    match sector {
        0 | 6 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}

/// A share of 1 in `to_rgb`.
const ONE: u32 = 255 * 255;

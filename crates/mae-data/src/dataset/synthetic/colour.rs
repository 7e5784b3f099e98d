//! Colours that go together: chosen in Oklch, where equal steps look equal.

use super::uniform;
use crate::rng::Rng;

/// Red, green and blue in `[0, 1]`, sRGB.
pub(super) type Colour = [f32; 3];

/// The colours of one scene.
pub(super) struct Palette {
    /// The two colours of the background texture.
    pub(super) back: [Colour; 2],
    /// The main object, in contrast to `back`.
    pub(super) front: Colour,
    /// The second object, in less contrast.
    pub(super) companion: Colour,
}

impl Palette {
    pub(super) fn random(rng: &mut Rng) -> Palette {
        use std::f32::consts::TAU;
        let hue = uniform(rng, 0.0, TAU);
        let hue_step = uniform(rng, -0.9, 0.9);
        let lightness_step = uniform(rng, 0.07, 0.15);
        let chroma = uniform(rng, 0.05, 0.12);
        let front_hue = hue + uniform(rng, 0.3 * TAU, 0.7 * TAU);
        let front_chroma = uniform(rng, 0.13, 0.20);
        let companion_hue = front_hue + uniform(rng, -1.2, 1.2);
        let is_dark = rng.below(2) == 0;
        // The texture moves away from the object's lightness, so that the contrast is at least
        // that of the first colour.
        let (back, second, front) = if is_dark {
            let back = uniform(rng, 0.34, 0.46);
            (back, back - lightness_step, uniform(rng, 0.76, 0.88))
        } else {
            let back = uniform(rng, 0.80, 0.86);
            (back, back + lightness_step, uniform(rng, 0.42, 0.56))
        };
        Palette {
            back: [
                oklch(back, chroma, hue),
                oklch(second, chroma, hue + hue_step),
            ],
            front: oklch(front, front_chroma, front_hue),
            companion: oklch(
                0.35 * back + 0.65 * front,
                0.8 * front_chroma,
                companion_hue,
            ),
        }
    }
}

/// Linear interpolation: `a` at share 0, `b` at share 1.
pub(super) fn mix(a: Colour, b: Colour, share: f32) -> Colour {
    std::array::from_fn(|channel| a[channel] + (b[channel] - a[channel]) * share)
}

/// Rec. 709 luma, as that of decoded images.
pub(super) fn luma([red, green, blue]: Colour) -> f32 {
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

/// Source: Ottosson 2020, "A perceptual color space for image processing".
fn oklch(lightness: f32, chroma: f32, hue: f32) -> Colour {
    let (a, b) = (chroma * hue.cos(), chroma * hue.sin());
    let cube = |value: f32| value * value * value;
    let l = cube(lightness + 0.396_337_78 * a + 0.215_803_76 * b);
    let m = cube(lightness - 0.105_561_346 * a - 0.063_854_17 * b);
    let s = cube(lightness - 0.089_484_18 * a - 1.291_485_5 * b);
    [
        4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_94 * s,
        -1.268_438 * l + 2.609_757_4 * m - 0.341_319_38 * s,
        -0.004_196_086_3 * l - 0.703_418_6 * m + 1.707_614_7 * s,
    ]
    .map(srgb)
}

/// The sRGB transfer function; light outside the gamut is clipped.
fn srgb(linear: f32) -> f32 {
    let linear = linear.clamp(0.0, 1.0);
    if linear <= 0.003_130_8 {
        12.92 * linear
    } else {
        1.055 * linear.powf(1.0 / 2.4) - 0.055
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours_are_met() {
        let near = |found: Colour, expected: Colour| {
            (found.iter().zip(expected)).all(|(found, expected)| (found - expected).abs() < 2e-3)
        };
        assert!(near(oklch(1.0, 0.0, 0.0), [1.0; 3]));
        assert!(near(oklch(0.0, 0.0, 0.0), [0.0; 3]));
        // sRGB red is oklch(0.628 0.2577 29.23deg).
        assert!(near(
            oklch(0.627_955, 0.257_683, 0.510_227),
            [1.0, 0.0, 0.0]
        ));
    }
}

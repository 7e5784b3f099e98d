//! Textures: how much of the second background colour each point shows.

use std::f32::consts::TAU;

use super::{smoothstep, uniform};
use crate::rng::Rng;

/// A texture in a frame of its own: turned, and scaled to `frequency` periods per unit.
pub(super) struct Background {
    pattern: Pattern,
    cos: f32,
    sin: f32,
    shift: (f32, f32),
    frequency: f32,
    hash_seed: u32,
}

#[derive(Copy, Clone)]
enum Pattern {
    Gradient,
    Glow,
    Stripes,
    Waves,
    Checks,
    Dots,
    Rings,
    Clouds,
}

use Pattern::{Checks, Clouds, Dots, Glow, Gradient, Rings, Stripes, Waves};

const PATTERNS: [Pattern; 8] = [Gradient, Glow, Stripes, Waves, Checks, Dots, Rings, Clouds];

impl Background {
    pub(super) fn random(rng: &mut Rng) -> Background {
        let pattern = PATTERNS[rng.below(PATTERNS.len() as u64) as usize];
        let angle = uniform(rng, 0.0, TAU);
        let frequency = match pattern {
            Gradient | Glow => uniform(rng, 0.8, 1.2),
            Stripes | Waves | Rings => uniform(rng, 3.0, 7.0),
            Checks | Dots => uniform(rng, 3.5, 7.0),
            Clouds => uniform(rng, 3.0, 5.0),
        };
        Background {
            pattern,
            cos: angle.cos(),
            sin: angle.sin(),
            shift: (uniform(rng, -0.5, 0.5), uniform(rng, -0.5, 0.5)),
            frequency,
            hash_seed: rng.below(1 << 32) as u32,
        }
    }

    /// The share of the second colour at a point, `[0, 1]`; edges are one `pixel` soft.
    pub(super) fn value(&self, x: f32, y: f32, pixel: f32) -> f32 {
        // Turned around the centre of the unit square.
        let (x, y) = (x - 0.5, y - 0.5);
        let u = (self.cos * x + self.sin * y) * self.frequency + self.shift.0;
        let v = (self.cos * y - self.sin * x) * self.frequency + self.shift.1;
        let pixel = pixel * self.frequency;
        match self.pattern {
            Gradient => smoothstep(0.5 + 0.5 * u),
            Glow => smoothstep(1.0 - (u * u + v * v).sqrt()),
            Stripes => band(u, pixel),
            Waves => band(u + 0.22 * (v * 0.5 * TAU).sin(), pixel),
            Rings => band((u * u + v * v).sqrt(), pixel),
            Checks => {
                let (a, b) = (band(0.5 * u, 0.5 * pixel), band(0.5 * v, 0.5 * pixel));
                a + b - 2.0 * a * b
            }
            Dots => {
                let (x, y) = (u - floor(u) - 0.5, v - floor(v) - 0.5);
                (0.5 - ((x * x + y * y).sqrt() - 0.28) / pixel).clamp(0.0, 1.0)
            }
            Clouds => {
                let coarse = self.noise(u, v);
                let fine = self.noise(2.0 * u + 17.0, 2.0 * v + 5.0);
                // Stretched, because averages crowd around one half.
                smoothstep(0.5 + 1.3 * (0.68 * coarse + 0.32 * fine - 0.5))
            }
        }
    }

    /// Value noise: random at integer points, smooth in between.
    fn noise(&self, u: f32, v: f32) -> f32 {
        let (column, row) = (floor(u), floor(v));
        let (x, y) = (smoothstep(u - column), smoothstep(v - row));
        let (column, row) = (column as i32, row as i32);
        let at = |dx, dy| self.hash(column + dx, row + dy);
        let top = at(0, 0) + (at(1, 0) - at(0, 0)) * x;
        let bottom = at(0, 1) + (at(1, 1) - at(0, 1)) * x;
        top + (bottom - top) * y
    }

    /// A random number in `[0, 1)` for an integer point: PCG-like mixing of its coordinates.
    fn hash(&self, column: i32, row: i32) -> f32 {
        let mut word = self.hash_seed
            ^ (column as u32).wrapping_mul(0x9e37_79b1)
            ^ (row as u32).wrapping_mul(0x85eb_ca77);
        word = (word ^ (word >> 15)).wrapping_mul(0x2c1b_3c6d);
        word = (word ^ (word >> 12)).wrapping_mul(0x297a_2d39);
        (word >> 8) as f32 / (1_u32 << 24) as f32
    }
}

/// 1 in the middle half of each unit interval, 0 elsewhere.
fn band(u: f32, pixel: f32) -> f32 {
    let from_middle = (u - floor(u) - 0.5).abs();
    (0.5 - (from_middle - 0.25) / pixel).clamp(0.0, 1.0)
}

/// `value.floor()` for small values, without the library call that it costs on baseline x86-64.
fn floor(value: f32) -> f32 {
    let truncated = value as i32 as f32;
    if truncated > value {
        truncated - 1.0
    } else {
        truncated
    }
}

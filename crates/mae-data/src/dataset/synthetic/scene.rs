//! What a scene shows and how it is drawn.

use super::background::Background;
use super::colour::{Colour, Palette, luma, mix};
use super::shape::Shape;
use super::{smoothstep, uniform};
use crate::rng::Rng;

/// The image plane. Lengths are in units of its shorter side; x goes right and y down.
pub(super) struct Canvas {
    rows: usize,
    columns: usize,
    height: f32,
    width: f32,
    pixel: f32,
}

impl Canvas {
    pub(super) fn new(rows: usize, columns: usize) -> Canvas {
        let pixel = 1.0 / rows.min(columns) as f32;
        Canvas {
            rows,
            columns,
            height: rows as f32 * pixel,
            width: columns as f32 * pixel,
            pixel,
        }
    }
}

pub(super) struct Scene {
    background: Background,
    back: [Colour; 2],
    /// Direction that the light comes from, a unit vector.
    light: (f32, f32),
    /// Drawn in order.
    objects: Vec<Object>,
}

struct Object {
    shape: Shape,
    x: f32,
    y: f32,
    radius: f32,
    /// Cosine and sine of the rotation.
    turn: (f32, f32),
    colour: Colour,
}

/// Share of the scenes with a second, smaller object of the same class.
const COMPANION_SHARE: f32 = 0.35;
/// How far shapes are turned from upright, in radians: beyond it a square looks like a diamond.
const MAX_TURN: f32 = 0.35;

impl Scene {
    pub(super) fn random(shape: Shape, canvas: &Canvas, rng: &mut Rng) -> Scene {
        let palette = Palette::random(rng);
        let background = Background::random(rng);
        let light_angle = uniform(rng, -2.6, -0.5);
        let mut objects = Vec::new();
        if uniform(rng, 0.0, 1.0) < COMPANION_SHARE {
            let radius = uniform(rng, 0.10, 0.16);
            objects.push(Object {
                shape,
                x: uniform(rng, 0.0, canvas.width),
                y: uniform(rng, 0.0, canvas.height),
                radius,
                turn: turn(rng),
                colour: palette.companion,
            });
        }
        let radius = uniform(rng, 0.20, 0.33);
        objects.push(Object {
            shape,
            x: uniform(rng, radius, canvas.width - radius),
            y: uniform(rng, radius, canvas.height - radius),
            radius,
            turn: turn(rng),
            colour: palette.front,
        });
        Scene {
            background,
            back: palette.back,
            light: (light_angle.cos(), light_angle.sin()),
            objects,
        }
    }

    /// # Shapes
    /// - returns `[height, width, channels]`
    pub(super) fn draw(&self, canvas: &Canvas, channels: usize) -> Vec<u8> {
        let quantise = |value: f32| (value * 255.0 + 0.5) as u8;
        let centre = |at: usize| (at as f32 + 0.5) * canvas.pixel;
        let row_len = canvas.columns * channels;
        let mut pixels = vec![0; canvas.rows * row_len];
        for (row, pixels) in pixels.chunks_exact_mut(row_len).enumerate() {
            for (column, pixel) in pixels.chunks_exact_mut(channels).enumerate() {
                let colour = self.colour(canvas, centre(column), centre(row));
                match pixel {
                    [value] => *value = quantise(luma(colour)),
                    _ => pixel.copy_from_slice(&colour.map(quantise)),
                }
            }
        }
        pixels
    }

    fn colour(&self, canvas: &Canvas, x: f32, y: f32) -> Colour {
        const FALLOFF: f32 = 0.10;
        let share = self.background.value(x, y, canvas.pixel);
        let towards_light =
            (x - 0.5 * canvas.width) * self.light.0 + (y - 0.5 * canvas.height) * self.light.1;
        let mut colour = mix(self.back[0], self.back[1], share)
            .map(|value| (value * (1.0 + FALLOFF * towards_light)).clamp(0.0, 1.0));
        for object in &self.objects {
            colour = object.over(colour, self.light, canvas.pixel, x, y);
        }
        colour
    }
}

impl Object {
    /// The colour of a point after the object and its shadow are drawn over `under`.
    fn over(&self, under: Colour, light: (f32, f32), pixel: f32, x: f32, y: f32) -> Colour {
        const SHADOW_OFFSET: f32 = 0.14;
        const SHADOW_BLUR: f32 = 0.16;
        const SHADOW_DEPTH: f32 = 0.42;
        const SHADING: f32 = 0.16;
        // Shapes fill the unit circle, and corners may stand out a little.
        const REACH: f32 = 1.06 + SHADOW_OFFSET + SHADOW_BLUR;
        let (x, y) = ((x - self.x) / self.radius, (y - self.y) / self.radius);
        if x * x + y * y > REACH * REACH {
            return under;
        }
        // A pixel on the edge is half covered; coverage is linear one pixel across it.
        let pixel = pixel / self.radius;
        let coverage = (0.5 - self.distance(x, y) / pixel).clamp(0.0, 1.0);
        let mut colour = under;
        if coverage < 1.0 {
            let behind = self.distance(x + SHADOW_OFFSET * light.0, y + SHADOW_OFFSET * light.1);
            let shade = smoothstep(0.5 - 0.5 * behind / SHADOW_BLUR);
            colour = colour.map(|value| value * (1.0 - SHADOW_DEPTH * shade));
        }
        if coverage > 0.0 {
            let lit = 1.0 + SHADING * (x * light.0 + y * light.1);
            let front = self.colour.map(|value| (value * lit).clamp(0.0, 1.0));
            colour = mix(colour, front, coverage);
        }
        colour
    }

    /// Signed distance to the turned shape, in units of the radius.
    fn distance(&self, x: f32, y: f32) -> f32 {
        let (cos, sin) = self.turn;
        self.shape.distance(cos * x + sin * y, cos * y - sin * x)
    }
}

fn turn(rng: &mut Rng) -> (f32, f32) {
    let angle = uniform(rng, -MAX_TURN, MAX_TURN);
    (angle.cos(), angle.sin())
}

#[cfg(test)]
mod tests {
    use super::super::shape::SHAPES;
    use super::*;
    use crate::rng::{SampleKey, Stream};

    /// The main object is recognisable: it covers enough pixels and stands out from them.
    #[test]
    fn objects_are_large_and_in_contrast() {
        let canvas = Canvas::new(64, 64);
        for index in 0..200 {
            let key = SampleKey {
                seed: 3,
                epoch: 0,
                index,
            };
            let shape = SHAPES[index as usize % SHAPES.len()];
            let mut scene = Scene::random(shape, &canvas, &mut Rng::new(key, Stream::Scene));
            scene.objects.drain(..scene.objects.len() - 1);
            let with = scene.draw(&canvas, 1);
            let object = scene.objects.pop().unwrap();
            let without = scene.draw(&canvas, 1);
            let inside: Vec<f32> = (0..64 * 64)
                .filter(|&at| {
                    let centre = |at: usize| (at as f32 + 0.5) * canvas.pixel;
                    let x = (centre(at % 64) - object.x) / object.radius;
                    let y = (centre(at / 64) - object.y) / object.radius;
                    object.distance(x, y) < 0.0
                })
                .map(|at| f32::from(with[at]) - f32::from(without[at]))
                .collect();
            let share = inside.len() as f32 / (64.0 * 64.0);
            assert!(
                share > 0.03,
                "scene {index}: {} covers {share}",
                shape.name()
            );
            let contrast = inside.iter().sum::<f32>().abs() / inside.len() as f32;
            assert!(contrast > 25.0, "scene {index}: contrast {contrast} of 255");
        }
    }
}

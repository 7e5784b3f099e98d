//! Operations that move pixels: rotations, shears and shifts.

use crate::image::Image;
use crate::pixel::luma;

/// Where a pixel of the result comes from, in pixels of the source:
/// `x_source = x[0] * x + x[1] * y + x[2]`, and `y` alike.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Affine {
    x: [f64; 3],
    y: [f64; 3],
}

impl Affine {
    /// Turns the image about its centre, counter-clockwise.
    pub(super) fn rotation(degrees: f64, height: usize, width: usize) -> Affine {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let (center_x, center_y) = (width as f64 / 2.0, height as f64 / 2.0);
        Affine {
            x: [cos, -sin, center_x - cos * center_x + sin * center_y],
            y: [sin, cos, center_y - sin * center_x - cos * center_y],
        }
    }

    /// Moves each row by `factor` times its distance from the top.
    pub(super) fn shear_x(factor: f64) -> Affine {
        Affine {
            x: [1.0, factor, 0.0],
            y: [0.0, 1.0, 0.0],
        }
    }

    /// Moves each column by `factor` times its distance from the left.
    pub(super) fn shear_y(factor: f64) -> Affine {
        Affine {
            x: [1.0, 0.0, 0.0],
            y: [factor, 1.0, 0.0],
        }
    }

    /// Moves the image up by `rows` and to the left by `columns` pixels.
    pub(super) fn translation(rows: f64, columns: f64) -> Affine {
        Affine {
            x: [1.0, 0.0, columns],
            y: [0.0, 1.0, rows],
        }
    }

    /// The place in the source of the middle of a pixel of the result.
    fn source_of(&self, x: usize, y: usize) -> (f64, f64) {
        let (x, y) = (x as f64 + 0.5, y as f64 + 0.5);
        let along = |[per_x, per_y, start]: [f64; 3]| per_x * x + per_y * y + start;
        (along(self.x), along(self.y))
    }
}

/// Moves the pixels of an image; what comes from outside of it gets the colour `fill`.
///
/// Between pixels the value is bicubic; near the edges it repeats the outermost pixels.
pub(super) fn warp(image: &Image, affine: &Affine, fill: [u8; 3]) -> Image {
    let (height, width, channels) = (image.height(), image.width(), image.channels());
    let fill = match channels {
        1 => [luma(fill); 3],
        _ => fill,
    };
    let inside = |place: f64, side: usize| (0.0..side as f64).contains(&place);
    let mut result = image.clone();
    for (at, pixel) in (result.bytes_mut().chunks_exact_mut(channels)).enumerate() {
        let (x, y) = affine.source_of(at % width, at / width);
        if !(inside(x, width) && inside(y, height)) {
            pixel.copy_from_slice(&fill[..channels]);
            continue;
        }
        let (columns, column_weights) = taps(x, width);
        let (rows, row_weights) = taps(y, height);
        for (channel, value) in pixel.iter_mut().enumerate() {
            let mut sum = 0.0;
            for (row, row_weight) in rows.into_iter().zip(row_weights) {
                for (column, column_weight) in columns.into_iter().zip(column_weights) {
                    let source = image.bytes()[(row * width + column) * channels + channel];
                    sum += row_weight * column_weight * f64::from(source);
                }
            }
            // Without the margin, sums that only rounding keeps below a whole number would lose 1.
            *value = (sum + 1e-9) as u8;
        }
    }
    result
}

/// The four pixels of a side around a place on it, and their weights.
fn taps(place: f64, side: usize) -> ([usize; 4], [f64; 4]) {
    let start = (place - 0.5).floor();
    let pixels =
        [-1, 0, 1, 2].map(|offset| (start as isize + offset).clamp(0, side as isize - 1) as usize);
    (pixels, cubic(place - 0.5 - start))
}

/// Weights of the pixels -1, 0, 1 and 2 for a place `t`, in `[0, 1)`, past pixel 0: the cubic
/// kernel with a = -1 that Pillow has for warps.
fn cubic(t: f64) -> [f64; 4] {
    let (t2, t3) = (t * t, t * t * t);
    [
        -t3 + 2.0 * t2 - t,
        t3 - 2.0 * t2 + 1.0,
        -t3 + t2 + t,
        t3 - t2,
    ]
}

//! The ten shapes, as signed distances: negative inside, 0 on the edge.
//!
//! Distances are exact near straight edges, where antialiasing needs them, and approximate beyond
//! corners.
//! Source of the star's folding and of the heart: Quilez, "2D distance functions".

/// What a scene shows; its place in [`SHAPES`] is its label.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Circle,
    Square,
    Triangle,
    Star,
    Ring,
    Cross,
    Diamond,
    Hexagon,
    Crescent,
    Heart,
}

/// All shapes in label order; the order is part of the data set, so never change it.
pub(super) const SHAPES: [Shape; 10] = [
    Shape::Circle,
    Shape::Square,
    Shape::Triangle,
    Shape::Star,
    Shape::Ring,
    Shape::Cross,
    Shape::Diamond,
    Shape::Hexagon,
    Shape::Crescent,
    Shape::Heart,
];

impl Shape {
    pub(super) fn name(self) -> &'static str {
        match self {
            Shape::Circle => "circle",
            Shape::Square => "square",
            Shape::Triangle => "triangle",
            Shape::Star => "star",
            Shape::Ring => "ring",
            Shape::Cross => "cross",
            Shape::Diamond => "diamond",
            Shape::Hexagon => "hexagon",
            Shape::Crescent => "crescent",
            Shape::Heart => "heart",
        }
    }

    /// Signed distance of a point to the shape, which fills the unit circle upright; y goes down.
    pub(super) fn distance(self, x: f32, y: f32) -> f32 {
        match self {
            Shape::Circle => length(x, y) - 0.86,
            Shape::Square => soft_max(x.abs(), y.abs()) - 0.74,
            Shape::Triangle => {
                // Moved down because the centre of an upright triangle looks too high.
                let y = y - 0.12;
                soft_max(SQRT_3_OVER_2 * x.abs() - 0.5 * y, y) - 0.53
            }
            Shape::Star => star(x, y),
            Shape::Ring => (length(x, y) - 0.68).abs() - 0.22,
            Shape::Cross => {
                let (long, short) = (x.abs().max(y.abs()), x.abs().min(y.abs()));
                soft_max(long - 0.92, short - 0.30)
            }
            Shape::Diamond => {
                const WIDTH: f32 = 0.66;
                (x.abs() + WIDTH * y.abs() - WIDTH) / (1.0 + WIDTH * WIDTH).sqrt()
            }
            Shape::Hexagon => soft_max(SQRT_3_OVER_2 * x.abs() + 0.5 * y.abs(), y.abs()) - 0.80,
            Shape::Crescent => (length(x + 0.05, y) - 0.92).max(0.74 - length(x - 0.42, y + 0.10)),
            Shape::Heart => heart(x, y),
        }
    }
}

const SQRT_3_OVER_2: f32 = 0.866_025_4;

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// The larger of two distances, with the corner between their edges rounded.
fn soft_max(a: f32, b: f32) -> f32 {
    const ROUNDING: f32 = 0.18;
    let overlap = (ROUNDING - (a - b).abs()).max(0.0);
    a.max(b) + overlap * overlap / (4.0 * ROUNDING)
}

/// Folds the plane along the axes of a pentagon, until one half of one tip is left.
fn star(x: f32, y: f32) -> f32 {
    const TIP: f32 = 0.98;
    // Cosine and sine of 36 degrees.
    const COS: f32 = 0.809_017;
    const SIN: f32 = 0.587_785_25;
    /// Distance of the inner corners from the centre; a regular pentagram has 0.37.
    const INNER: f32 = 0.46;
    let (mut x, mut y) = (x.abs(), -y);
    let over = 2.0 * (COS * x - SIN * y).max(0.0);
    (x, y) = (x - over * COS, y + over * SIN);
    let over = 2.0 * (-COS * x - SIN * y).max(0.0);
    (x, y) = (x + over * COS, y + over * SIN);
    x = x.abs();
    // The edge runs from the tip to the inner corner, 36 degrees further.
    let (edge_x, edge_y) = (INNER * SIN, INNER * COS - TIP);
    (edge_x * (y - TIP) - edge_y * x) / length(edge_x, edge_y)
}

/// Two quarter circles on a square that stands on its corner.
fn heart(x: f32, y: f32) -> f32 {
    const SCALE: f32 = 0.66;
    let (x, y) = (SCALE * x.abs(), 0.56 - SCALE * y);
    let distance = if x + y > 1.0 {
        length(x - 0.25, y - 0.75) - std::f32::consts::SQRT_2 / 4.0
    } else {
        let along = 0.5 * (x + y).max(0.0);
        let nearest = length(x, y - 1.0).min(length(x - along, y - along));
        nearest * (x - y).signum()
    };
    distance / SCALE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polar(radius: f32, degrees: f32) -> (f32, f32) {
        let (sin, cos) = degrees.to_radians().sin_cos();
        (radius * cos, radius * sin)
    }

    #[test]
    fn shapes_fill_the_unit_circle() {
        for shape in SHAPES {
            let inside = |radius| {
                (0..360)
                    .map(|degrees| polar(radius, degrees as f32))
                    .filter(|&(x, y)| shape.distance(x, y) < 0.0)
                    .count()
            };
            assert_eq!(inside(1.06), 0, "{shape:?} is too large");
            assert!(inside(0.8) > 0, "{shape:?} is too small");
        }
    }

    /// A distance changes by at most the distance walked, and by about that near the edge.
    #[test]
    fn distances_are_distances() {
        const STEP: f32 = 1e-2;
        for shape in SHAPES {
            for at in 0..10_000 {
                let (x, y) = (
                    (at % 100) as f32 * 0.02 - 1.0,
                    (at / 100) as f32 * 0.02 - 1.0,
                );
                let here = shape.distance(x, y);
                let slope_x = (shape.distance(x + STEP, y) - here) / STEP;
                let slope_y = (shape.distance(x, y + STEP) - here) / STEP;
                let slope = length(slope_x, slope_y);
                assert!(slope < 1.42, "{shape:?} at {x} {y}: slope {slope}");
            }
        }
    }

    #[test]
    fn shapes_differ_from_each_other() {
        for (at, a) in SHAPES.iter().enumerate() {
            for b in &SHAPES[..at] {
                let differ = (0..400)
                    .map(|at| ((at % 20) as f32 * 0.1 - 1.0, (at / 20) as f32 * 0.1 - 1.0))
                    .filter(|&(x, y)| (a.distance(x, y) < 0.0) != (b.distance(x, y) < 0.0))
                    .count();
                assert!(
                    differ > 15,
                    "{a:?} and {b:?} differ in {differ} of 400 points"
                );
            }
        }
    }
}

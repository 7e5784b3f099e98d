//! How a series looks.

use plotters::element::DashedPathElement;
use plotters::prelude::*;

use crate::plot::{BLUE, Canvas, DrawResult, GREEN, INK, ORANGE, UNITS, at, units};

/// From a mark's middle to its sides, pixels.
const MARK: i32 = 5;

/// What tells a series from another.
#[derive(Clone, Copy)]
pub(super) struct Style {
    shape: Shape,
    /// Apart in lightness, too.
    color: RGBColor,
    /// A dash and the gap after it, pixels; none for a whole line.
    dash: Option<(u32, u32)>,
    /// With more series than shapes, marks are open.
    open: bool,
}

#[derive(Clone, Copy)]
enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
}

impl Style {
    pub(super) fn of(index: usize) -> Self {
        let kinds = [
            (Shape::Circle, BLUE, None),
            (Shape::Square, ORANGE, Some((8, 4))),
            (Shape::Triangle, GREEN, Some((3, 3))),
            (Shape::Diamond, INK, Some((12, 3))),
        ];
        let (shape, color, dash) = kinds[index % kinds.len()];
        Self {
            shape,
            color,
            dash,
            open: index >= kinds.len(),
        }
    }

    pub(super) fn line(&self, area: &Canvas, points: Vec<(i32, i32)>) -> DrawResult {
        let stroke = self.color.stroke_width(units(2));
        match self.dash {
            None => area.draw(&PathElement::new(points, stroke))?,
            Some((dash, gap)) => area.draw(&DashedPathElement::new(
                points,
                units(dash),
                units(gap),
                stroke,
            ))?,
        }
        Ok(())
    }

    /// A line with a short stroke across both of its ends.
    pub(super) fn interval(&self, area: &Canvas, low: (i32, i32), high: (i32, i32)) -> DrawResult {
        let stroke = self.color.stroke_width(units(3) / 2);
        let upright = low.0 == high.0;
        let across = |(x, y): (i32, i32)| match at((MARK - 1, MARK - 1)) {
            (half, _) if upright => vec![(x - half, y), (x + half, y)],
            (_, half) => vec![(x, y - half), (x, y + half)],
        };
        for line in [vec![low, high], across(low), across(high)] {
            area.draw(&PathElement::new(line, stroke))?;
        }
        Ok(())
    }

    pub(super) fn mark(&self, area: &Canvas, (x, y): (i32, i32)) -> DrawResult {
        // A white rim keeps marks apart that lie on each other.
        for (half, color) in [(MARK + 1, WHITE), (MARK, self.color), (MARK - 2, WHITE)] {
            if half < MARK && !self.open {
                break;
            }
            let half = half * UNITS as i32;
            let corners: &[(i32, i32)] = match self.shape {
                Shape::Circle => {
                    area.draw(&Circle::new((x, y), half, color.filled()))?;
                    continue;
                }
                Shape::Square => &[(-9, -9), (9, -9), (9, 9), (-9, 9)],
                Shape::Triangle => &[(0, -12), (11, 8), (-11, 8)],
                Shape::Diamond => &[(0, -13), (13, 0), (0, 13), (-13, 0)],
            };
            let corner = |&(dx, dy): &(i32, i32)| (x + dx * half / 10, y + dy * half / 10);
            let corners: Vec<_> = corners.iter().map(corner).collect();
            area.draw(&Polygon::new(corners, color.filled()))?;
        }
        Ok(())
    }
}

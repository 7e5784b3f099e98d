//! A line of a plot, thinned to what the eye can tell.

use std::ops::Range;

use super::axis::is_drawable;

/// Columns that points are gathered into: about one per pixel.
const COLUMNS: f64 = 600.0;

/// The unbroken pieces of the line through `points`, which are ordered by x, over the range `x`.
///
/// Of all points in a column the first, lowest, highest and last stay: no spike is lost, and a longer run
/// does not make a larger picture.
/// The line breaks where a column holds only values that cannot be drawn.
pub(super) fn pieces(points: &[(f64, f64)], x: &Range<f64>) -> Vec<Vec<(f64, f64)>> {
    let column = |point: &(f64, f64)| (COLUMNS * (point.0 - x.start) / (x.end - x.start)) as i64;
    let mut pieces = vec![Vec::new()];
    for points in points.chunk_by(|a, b| column(a) == column(b)) {
        let drawable: Vec<_> = points
            .iter()
            .copied()
            .filter(|point| is_drawable(point.1))
            .collect();
        match pieces.last_mut() {
            Some(piece) if !drawable.is_empty() => piece.extend(extremes(&drawable)),
            _ => pieces.push(Vec::new()),
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// The first, lowest, highest and last of `points`, in the order they are in.
fn extremes(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    let by_value = |&a: &usize, &b: &usize| points[a].1.total_cmp(&points[b].1);
    let lowest = (0..points.len()).min_by(by_value);
    let highest = (0..points.len()).max_by(by_value);
    let mut chosen: Vec<_> = [Some(0), lowest, highest, Some(points.len() - 1)]
        .into_iter()
        .flatten()
        .collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen.into_iter().map(|index| points[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_points_stay_and_gaps_break() {
        let points = [
            (0.0, 1.0),
            (1.0, f64::NAN),
            (2.0, 3.0),
            (3.0, 4.0),
            (4.0, f64::INFINITY),
        ];
        assert_eq!(
            pieces(&points, &(0.0..4.0)),
            [vec![(0.0, 1.0)], vec![(2.0, 3.0), (3.0, 4.0)]]
        );
        assert!(pieces(&[(0.0, f64::NAN)], &(0.0..1.0)).is_empty());
        assert!(pieces(&[], &(0.0..1.0)).is_empty());
    }

    #[test]
    fn many_points_are_thinned_and_no_spike_is_lost() {
        let mut points: Vec<_> = (0..100_000)
            .map(|step| (f64::from(step), f64::from(step % 7)))
            .collect();
        points[54_321].1 = 50.0;
        points[54_322].1 = f64::NAN;
        let pieces = pieces(&points, &(0.0..99_999.0));
        let [piece] = &pieces[..] else {
            panic!("a gap narrower than a pixel is no gap")
        };
        assert!(piece.len() <= 4 * 601);
        assert!(piece.contains(&(54_321.0, 50.0)));
        assert!(piece.is_sorted_by_key(|point| point.0));
        assert_eq!(
            (piece[0], piece[piece.len() - 1]),
            (points[0], points[99_999])
        );
    }
}

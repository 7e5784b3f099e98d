//! A mask that somebody drew.

use super::Mask;
use crate::error::DataError;
use crate::patch::PatchGrid;

/// The luma from which on a pixel counts as white.
const WHITE: f32 = 0.5;

impl Mask {
    /// A mask from a black and white drawing of any size, stretched over the whole grid: a patch is masked if more
    /// than half of its area is white, of a luma of 0.5 or more.
    ///
    /// Visible and masked patches are in image order.
    ///
    /// # Shapes
    /// - `luma`: `[height, width]`, 0 to 1
    ///
    /// # Errors
    /// [`DataError::Shape`] if `luma` has another length or is empty; [`DataError::Mask`] if no patch is masked, or
    /// none is visible.
    pub fn from_drawing(
        luma: &[f32],
        height: usize,
        width: usize,
        grid: &PatchGrid,
    ) -> Result<Mask, DataError> {
        DataError::check_len(
            "the drawing",
            height.saturating_mul(width).max(1),
            luma.len(),
        )?;
        let white = |patch: usize| {
            let rows = overlaps(patch / grid.columns(), grid.rows(), height);
            rows.flat_map(|(y, high)| {
                overlaps(patch % grid.columns(), grid.columns(), width)
                    .filter(move |(x, _)| luma[y * width + x] >= WHITE)
                    .map(move |(_, wide)| high * wide)
            })
            .sum::<u64>()
        };
        // Of a patch, in the units of `overlaps`.
        let area = height as u64 * width as u64;
        let (masked, visible): (Vec<u32>, Vec<u32>) =
            (0..grid.patches() as u32).partition(|&patch| 2 * white(patch as usize) > area);
        let kept = visible.len();
        Mask::from_ids_shuffle([visible, masked].concat(), kept)
    }
}

/// The pixels of a line of `pixels` that the part number `part` of `parts` equal ones touches, and how much of each:
/// in units of which a pixel has `parts`, and a part `pixels`.
fn overlaps(part: usize, parts: usize, pixels: usize) -> impl Iterator<Item = (usize, u64)> {
    let (start, end) = (part * pixels, (part + 1) * pixels);
    (start / parts..end.div_ceil(parts)).map(move |pixel| {
        let (first, last) = (pixel * parts, (pixel + 1) * parts);
        (pixel, (last.min(end) - first.max(start)) as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(rows: usize, columns: usize) -> PatchGrid {
        PatchGrid::new(4 * rows, 4 * columns, 4, 3).unwrap()
    }

    /// The mask of a drawing whose white pixels are `#`.
    fn draw(drawing: &[&str], grid: &PatchGrid) -> Result<Mask, DataError> {
        let luma: Vec<f32> = (drawing.concat().bytes())
            .map(|byte| if byte == b'#' { 0.5 } else { 0.49 })
            .collect();
        Mask::from_drawing(&luma, drawing.len(), drawing[0].len(), grid)
    }

    #[test]
    fn white_is_masked_at_any_size() {
        let expected = [0, 1, 0, 0, 1, 1];
        for drawing in [
            &[".#.", ".##"][..],
            &["..##..", "..##..", "..####", "..####"],
            // Not multiples: the middle column of patches is 5/3 pixels wide, from 1 2/3 to 3 1/3.
            &["..##.", "..##.", "..###", "..###"],
        ] {
            let mask = draw(drawing, &grid(2, 3)).unwrap();
            assert_eq!(mask.to_binary(), expected, "{drawing:?}");
            assert_eq!(mask.ids_shuffle(), [0, 2, 3, 1, 4, 5]);
        }
        // Fewer pixels than patches.
        let mask = draw(&["#."], &grid(2, 4)).unwrap();
        assert_eq!(mask.to_binary(), [1, 1, 0, 0, 1, 1, 0, 0]);
    }

    #[test]
    fn half_is_not_more_than_half() {
        // Of 3 x 2 pixels on 1 x 2 patches, each patch is 1.5 pixels wide.
        let mask = draw(&["##.", "#.#"], &grid(1, 2)).unwrap();
        assert_eq!(mask.to_binary(), [1, 0]);
        assert!(draw(&["#."], &grid(1, 1)).is_err());
    }

    #[test]
    fn all_or_nothing_is_refused() {
        for (drawing, visible) in [("..", 4), ("##", 0)] {
            let message = draw(&[drawing], &grid(2, 2)).unwrap_err().to_string();
            assert_eq!(
                message,
                format!(
                    "mask: expected at least one visible and one masked patch, found {visible} visible of 4"
                )
            );
        }
        assert!(Mask::from_drawing(&[0.0; 5], 2, 3, &grid(2, 2)).is_err());
        assert!(Mask::from_drawing(&[], 0, 3, &grid(2, 2)).is_err());
    }
}

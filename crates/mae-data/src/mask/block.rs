//! Block-wise masking.

use crate::patch::PatchGrid;
use crate::rng::Rng;

/// The smallest block is 16 patches of 14 x 14, and the same share of other grids.
const MIN_SHARE: f64 = 16.0 / 196.0;
/// Width over height of the tallest block; its inverse is that of the widest.
const MIN_ASPECT: f64 = 0.3;

/// Visible patches, then exactly `masked` masked ones, both in image order.
///
/// `masked` must be less than the number of patches.
pub(super) fn order(grid: &PatchGrid, masked: usize, rng: &mut Rng) -> Vec<u32> {
    let mut is_masked = vec![false; grid.patches()];
    let mut left = masked;
    while left > 0 {
        let mut block = Block::draw(grid, left, rng);
        let mut new = block.visible(grid, &is_masked);
        if new.is_empty() {
            // A late block often falls on earlier ones: without this, loops would be without bound.
            let visible: Vec<usize> = (0..grid.patches()).filter(|&id| !is_masked[id]).collect();
            let id = visible[rng.below(visible.len() as u64) as usize];
            block.cover(id, grid, rng);
            new = block.visible(grid, &is_masked);
        }
        if new.len() > left && rng.below(2) == 1 {
            new.reverse();
        }
        new.truncate(left);
        left -= new.len();
        for id in new {
            is_masked[id] = true;
        }
    }
    let mut ids: Vec<u32> = (0..grid.patches() as u32).collect();
    ids.sort_by_key(|&id| is_masked[id as usize]);
    ids
}

/// A rectangle inside the grid, in patches.
struct Block {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

impl Block {
    /// A random block of at most about `max_area` patches, or of the least area if that is more.
    fn draw(grid: &PatchGrid, max_area: usize, rng: &mut Rng) -> Block {
        let min_area = (grid.patches() as f64 * MIN_SHARE).max(1.0);
        let area = rng.between(min_area, (max_area as f64).max(min_area));
        let bound = MIN_ASPECT.recip().ln();
        let aspect = rng.between(-bound, bound).exp();
        let side = |side: f64, most: usize| (side.round() as usize).clamp(1, most);
        let height = side((area / aspect).sqrt(), grid.rows());
        let width = side((area * aspect).sqrt(), grid.columns());
        Block {
            top: rng.below((grid.rows() - height) as u64 + 1) as usize,
            left: rng.below((grid.columns() - width) as u64 + 1) as usize,
            height,
            width,
        }
    }

    /// Moves the block to where it covers patch `id`.
    fn cover(&mut self, id: usize, grid: &PatchGrid, rng: &mut Rng) {
        let mut start = |at: usize, len: usize, side: usize| {
            let before = rng.below(len as u64) as usize;
            at.saturating_sub(before).min(side - len)
        };
        self.top = start(id / grid.columns(), self.height, grid.rows());
        self.left = start(id % grid.columns(), self.width, grid.columns());
    }

    /// The patches of the block that are not masked yet, row by row.
    fn visible(&self, grid: &PatchGrid, is_masked: &[bool]) -> Vec<usize> {
        (self.top..self.top + self.height)
            .flat_map(|row| {
                let start = row * grid.columns() + self.left;
                start..start + self.width
            })
            .filter(|&id| !is_masked[id])
            .collect()
    }
}

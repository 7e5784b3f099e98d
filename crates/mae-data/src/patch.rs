//! An image as a grid of square patches, and the way there and back.

use crate::error::DataError;

/// How an image `[height, width, channels]` is cut into square patches.
///
/// Patches are numbered row by row from the top left, and the values of one patch are ordered
/// (row, column, channel), as in the MAE authors' `patchify`.
///
/// ```
/// let grid = mae_data::PatchGrid::new(224, 224, 16, 3)?;
/// assert_eq!((grid.patches(), grid.patch_dim()), (196, 768));
/// # Ok::<(), mae_data::DataError>(())
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PatchGrid {
    height: usize,
    width: usize,
    patch_size: usize,
    channels: usize,
}

impl PatchGrid {
    /// A grid over images of `height` times `width` pixels with patches of side `patch_size`.
    ///
    /// # Errors
    /// [`DataError::Config`] if a number is 0, if `patch_size` does not divide both sides, or if
    /// the image would have more values than memory can address.
    pub fn new(
        height: usize,
        width: usize,
        patch_size: usize,
        channels: usize,
    ) -> Result<PatchGrid, DataError> {
        let sides = [
            ("height", height),
            ("width", width),
            ("patch_size", patch_size),
            ("channels", channels),
        ];
        for (key, value) in sides {
            if value == 0 {
                return Err(DataError::Config {
                    key,
                    expected: "at least 1".to_owned(),
                    found: "0".to_owned(),
                    remedy: "give a positive number".to_owned(),
                });
            }
        }
        for (key, side) in [("height", height), ("width", width)] {
            if side % patch_size != 0 {
                return Err(DataError::Config {
                    key,
                    expected: format!("a multiple of patch_size {patch_size}"),
                    found: side.to_string(),
                    remedy: nearest_sides(side, patch_size),
                });
            }
        }
        let image_len = height
            .checked_mul(width)
            .and_then(|pixels| pixels.checked_mul(channels));
        // Patch numbers are u32 in a mask.
        if image_len.is_none_or(|len| len > u32::MAX as usize) {
            return Err(DataError::Config {
                key: "height",
                expected: "an image of less than 2^32 values".to_owned(),
                found: format!("{height} x {width} x {channels}"),
                remedy: "use smaller images".to_owned(),
            });
        }
        Ok(PatchGrid {
            height,
            width,
            patch_size,
            channels,
        })
    }

    /// Height of the image in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width of the image in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Side of a patch in pixels.
    pub fn patch_size(&self) -> usize {
        self.patch_size
    }

    /// Values per pixel.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Rows of patches.
    pub fn rows(&self) -> usize {
        self.height / self.patch_size
    }

    /// Columns of patches.
    pub fn columns(&self) -> usize {
        self.width / self.patch_size
    }

    /// Patches of an image.
    pub fn patches(&self) -> usize {
        self.rows() * self.columns()
    }

    /// Values of a patch: `patch_size * patch_size * channels`.
    pub fn patch_dim(&self) -> usize {
        self.patch_size * self.patch_size * self.channels
    }

    /// Values of an image: `height * width * channels`.
    pub fn image_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Where each row of pixels of patch `patch` begins in the image.
    fn row_starts(&self, patch: usize) -> impl Iterator<Item = usize> {
        let top = patch / self.columns() * self.patch_size;
        let left = patch % self.columns() * self.patch_size;
        let row_len = self.width * self.channels;
        let start = top * row_len + left * self.channels;
        (0..self.patch_size).map(move |row| start + row * row_len)
    }

    /// Copies patch `patch` of `image` into `out`; the caller has checked the lengths.
    pub(crate) fn read_patch<T: Copy>(&self, image: &[T], patch: usize, out: &mut [T]) {
        let run = self.patch_size * self.channels;
        for (out, start) in out.chunks_exact_mut(run).zip(self.row_starts(patch)) {
            out.copy_from_slice(&image[start..start + run]);
        }
    }

    /// Copies `values` into patch `patch` of `image`; the caller has checked the lengths.
    fn write_patch<T: Copy>(&self, values: &[T], patch: usize, image: &mut [T]) {
        let run = self.patch_size * self.channels;
        for (values, start) in values.chunks_exact(run).zip(self.row_starts(patch)) {
            image[start..start + run].copy_from_slice(values);
        }
    }
}

/// Cuts an image into patches.
///
/// # Shapes
/// - `image`: `[height, width, channels]`
/// - returns `[patches, patch_size * patch_size * channels]`, each row ordered
///   (row, column, channel)
///
/// # Errors
/// [`DataError::Shape`] if `image` has not the length that `grid` calls for.
pub fn patchify<T: Copy>(image: &[T], grid: &PatchGrid) -> Result<Vec<T>, DataError> {
    let mut patches = image.to_vec();
    patchify_into(image, grid, &mut patches)?;
    Ok(patches)
}

/// [`patchify`] into memory of the caller.
///
/// # Shapes
/// - `image`: `[height, width, channels]`
/// - `patches`: `[patches, patch_size * patch_size * channels]`, overwritten
///
/// # Errors
/// [`DataError::Shape`] if a slice has not the length that `grid` calls for.
pub fn patchify_into<T: Copy>(
    image: &[T],
    grid: &PatchGrid,
    patches: &mut [T],
) -> Result<(), DataError> {
    DataError::check_len("image", grid.image_len(), image.len())?;
    DataError::check_len("patches", grid.image_len(), patches.len())?;
    for (patch, out) in patches.chunks_exact_mut(grid.patch_dim()).enumerate() {
        grid.read_patch(image, patch, out);
    }
    Ok(())
}

/// Puts patches back together: the inverse of [`patchify`].
///
/// # Shapes
/// - `patches`: `[patches, patch_size * patch_size * channels]`
/// - returns `[height, width, channels]`
///
/// # Errors
/// [`DataError::Shape`] if `patches` has not the length that `grid` calls for.
pub fn unpatchify<T: Copy>(patches: &[T], grid: &PatchGrid) -> Result<Vec<T>, DataError> {
    let mut image = patches.to_vec();
    unpatchify_into(patches, grid, &mut image)?;
    Ok(image)
}

/// [`unpatchify`] into memory of the caller.
///
/// # Shapes
/// - `patches`: `[patches, patch_size * patch_size * channels]`
/// - `image`: `[height, width, channels]`, overwritten
///
/// # Errors
/// [`DataError::Shape`] if a slice has not the length that `grid` calls for.
pub fn unpatchify_into<T: Copy>(
    patches: &[T],
    grid: &PatchGrid,
    image: &mut [T],
) -> Result<(), DataError> {
    DataError::check_len("patches", grid.image_len(), patches.len())?;
    DataError::check_len("image", grid.image_len(), image.len())?;
    for (patch, values) in patches.chunks_exact(grid.patch_dim()).enumerate() {
        grid.write_patch(values, patch, image);
    }
    Ok(())
}

fn nearest_sides(side: usize, patch_size: usize) -> String {
    let below = side - side % patch_size;
    match (below, below.checked_add(patch_size)) {
        (0, Some(above)) => format!("use {above}"),
        (below, Some(above)) => format!("use {below} or {above}"),
        (below, None) => format!("use {below}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count_up(grid: &PatchGrid) -> Vec<u32> {
        (0..grid.image_len() as u32).collect()
    }

    #[test]
    fn patch_values_are_ordered_row_column_channel() {
        let grid = PatchGrid::new(4, 6, 2, 2).unwrap();
        let patches = patchify(&count_up(&grid), &grid).unwrap();
        // One row of the image is 6 pixels of 2 channels: 12 values.
        assert_eq!(patches[..8], [0, 1, 2, 3, 12, 13, 14, 15]);
        // Patch 1 is to the right of patch 0; patch 3 begins the second row of patches.
        assert_eq!(patches[8..16], [4, 5, 6, 7, 16, 17, 18, 19]);
        assert_eq!(patches[24..32], [24, 25, 26, 27, 36, 37, 38, 39]);
    }

    #[test]
    fn a_bad_grid_is_refused_with_a_remedy() {
        let message = |h, w, p, c| PatchGrid::new(h, w, p, c).unwrap_err().to_string();
        assert_eq!(
            message(225, 224, 16, 3),
            "height: expected a multiple of patch_size 16, found 225; use 224 or 240"
        );
        assert_eq!(
            message(16, 10, 16, 3),
            "width: expected a multiple of patch_size 16, found 10; use 16"
        );
        assert!(message(32, 32, 0, 3).starts_with("patch_size: expected at least 1"));
        assert!(message(usize::MAX, usize::MAX, 1, 3).contains("2^32"));
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let grid = PatchGrid::new(4, 4, 2, 3).unwrap();
        assert_eq!(
            patchify(&[0_u8; 47], &grid).unwrap_err().to_string(),
            "image: expected 48 elements, found 47"
        );
        assert!(unpatchify(&[0_u8; 49], &grid).is_err());
        assert!(patchify_into(&[0_u8; 48], &grid, &mut [0; 47]).is_err());
    }

    proptest! {
        #[test]
        fn unpatchify_inverts_patchify(
            rows in 1_usize..6,
            columns in 1_usize..6,
            patch_size in 1_usize..5,
            channels in 1_usize..5,
        ) {
            let grid =
                PatchGrid::new(rows * patch_size, columns * patch_size, patch_size, channels)
                    .unwrap();
            let image = count_up(&grid);
            let patches = patchify(&image, &grid).unwrap();
            prop_assert_eq!(patches.len(), grid.patches() * grid.patch_dim());
            prop_assert_eq!(unpatchify(&patches, &grid).unwrap(), image);
        }
    }
}

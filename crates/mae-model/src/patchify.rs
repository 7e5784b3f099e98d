//! Images to patches and back where they are.

use mae_data::PatchGrid;
use tch::Tensor;

use crate::Result;
use crate::error::shape;

/// Cuts images into patches on their device, in the order of [`mae_data::patchify`].
///
/// # Shapes
/// - `images`: `[batch, height, width, channels]`, any dtype
/// - returns `[batch, patches, patch_size * patch_size * channels]`, each row (row, column, channel)
///
/// # Errors
/// [`ModelError::Shape`](crate::ModelError::Shape) if `patch_size` does not divide height and width.
pub fn patchify(images: &Tensor, patch_size: usize) -> Result<Tensor> {
    let p = patch_size as i64;
    match images.size()[..] {
        [_, height, width, _] if p > 0 && height % p == 0 && width % p == 0 => {
            // By dimensions that say nothing of the number of images: a recording of it takes any number, and
            // refuses images of another size.
            Ok(images
                .unflatten(2, [width / p, p])
                .unflatten(1, [height / p, p])
                .transpose(2, 3)
                .flatten(1, 2)
                .flatten(2, 4))
        }
        _ => {
            let expected =
                format!("[batch, height, width, channels], height and width multiples of {p}");
            Err(shape("images", images, expected))
        }
    }
}

/// Puts patches in the image's order together on their device: the inverse of [`patchify`].
///
/// # Shapes
/// - `patches`: `[batch, patches, patch_dim]`, any dtype
/// - returns `[batch, height, width, channels]`
///
/// # Errors
/// [`ModelError::Shape`](crate::ModelError::Shape) if the patches are not those of `grid`.
pub fn unpatchify(patches: &Tensor, grid: &PatchGrid) -> Result<Tensor> {
    let [rows, columns, p] = [grid.rows(), grid.columns(), grid.patch_size()].map(|n| n as i64);
    let [count, dim] = [grid.patches() as i64, grid.patch_dim() as i64];
    match patches.size()[..] {
        [batch, found, found_dim] if (found, found_dim) == (count, dim) => Ok(patches
            .reshape([batch, rows, columns, p, p, -1])
            .transpose(2, 3)
            .reshape([batch, rows * p, columns * p, -1])),
        _ => {
            let expected = format!("[batch, {count}, {dim}], all patches of an image");
            Err(shape("patches", patches, expected))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_hosts_patchify() {
        for (height, width, patch_size, channels) in [(4, 6, 2, 3), (9, 6, 3, 1), (8, 8, 8, 2)] {
            let grid = PatchGrid::new(height, width, patch_size, channels).unwrap();
            let image_len = grid.image_len();
            let pixels: Vec<i64> = (0..2 * image_len as i64).collect();
            let expected: Vec<i64> = pixels
                .chunks_exact(image_len)
                .flat_map(|image| mae_data::patchify(image, &grid).unwrap())
                .collect();
            let size = [2, height as i64, width as i64, channels as i64];
            let images = Tensor::from_slice(&pixels).view(size);
            let patches = patchify(&images, patch_size).unwrap();
            assert_eq!(unpatchify(&patches, &grid).unwrap(), images);
            assert!(unpatchify(&patches.narrow(1, 0, 1), &grid).is_err() || grid.patches() == 1);
            assert_eq!(
                patches.size(),
                [2, grid.patches() as i64, grid.patch_dim() as i64]
            );
            assert_eq!(
                Vec::<i64>::try_from(patches.flatten(0, -1)).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn a_side_that_is_no_multiple_is_refused() {
        let error = patchify(&Tensor::from_slice(&[0u8; 30]).view([1, 5, 6, 1]), 2)
            .unwrap_err()
            .to_string();
        assert!(error.contains("multiples of 2"), "{error}");
    }
}

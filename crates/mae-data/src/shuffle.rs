//! Splitting patches into visible and masked ones, and putting them back.

use crate::error::DataError;
use crate::mask::Mask;
use crate::patch::PatchGrid;

/// Splits patches into visible and masked ones, in the order of `mask.ids_shuffle()`.
///
/// # Shapes
/// - `patches`: `[patches, patch_dim]`
/// - returns visible `[kept, patch_dim]` and masked `[patches - kept, patch_dim]`
///
/// # Errors
/// [`DataError::Shape`] if `patches` has not the length that `mask` and `patch_dim` call for.
pub fn shuffle<T: Copy>(
    patches: &[T],
    patch_dim: usize,
    mask: &Mask,
) -> Result<(Vec<T>, Vec<T>), DataError> {
    check_patches("patches", mask.patches(), patch_dim, patches.len())?;
    let gather = |ids: &[u32]| {
        ids.iter()
            .map(|&id| &patches[id as usize * patch_dim..][..patch_dim])
            .collect::<Vec<_>>()
            .concat()
    };
    Ok((gather(mask.ids_keep()), gather(mask.ids_masked())))
}

/// Brings visible and masked patches back into image order: the inverse of [`shuffle`].
///
/// # Shapes
/// - `visible`: `[kept, patch_dim]`
/// - `masked`: `[patches - kept, patch_dim]`
/// - returns `[patches, patch_dim]`
///
/// # Errors
/// [`DataError::Shape`] if a slice has not the length that `mask` and `patch_dim` call for.
pub fn unshuffle<T: Copy>(
    visible: &[T],
    masked: &[T],
    patch_dim: usize,
    mask: &Mask,
) -> Result<Vec<T>, DataError> {
    let removed = mask.patches() - mask.kept();
    check_patches("visible", mask.kept(), patch_dim, visible.len())?;
    check_patches("masked", removed, patch_dim, masked.len())?;
    let mut patches = [visible, masked].concat();
    let shuffled = visible
        .chunks_exact(patch_dim)
        .chain(masked.chunks_exact(patch_dim));
    for (&id, values) in mask.ids_shuffle().iter().zip(shuffled) {
        patches[id as usize * patch_dim..][..patch_dim].copy_from_slice(values);
    }
    Ok(patches)
}

/// [`patchify`](crate::patchify) and [`shuffle`] in one pass, into memory of the caller.
///
/// The hot path of the loader: every value is copied once, from the image to its place in the
/// batch.
///
/// # Shapes
/// - `image`: `[height, width, channels]`
/// - `visible`: `[kept, patch_dim]`, overwritten
/// - `masked`: `[patches - kept, patch_dim]`, overwritten
///
/// # Errors
/// [`DataError::Shape`] if `grid`, `mask` and the slices disagree.
pub fn patchify_shuffled_into<T: Copy>(
    image: &[T],
    grid: &PatchGrid,
    mask: &Mask,
    visible: &mut [T],
    masked: &mut [T],
) -> Result<(), DataError> {
    let patch_dim = grid.patch_dim();
    let removed = mask.patches() - mask.kept();
    DataError::check_len("image", grid.image_len(), image.len())?;
    DataError::check_len("mask", grid.patches(), mask.patches())?;
    check_patches("visible", mask.kept(), patch_dim, visible.len())?;
    check_patches("masked", removed, patch_dim, masked.len())?;
    let places = visible
        .chunks_exact_mut(patch_dim)
        .chain(masked.chunks_exact_mut(patch_dim));
    for (&id, place) in mask.ids_shuffle().iter().zip(places) {
        grid.read_patch(image, id as usize, place);
    }
    Ok(())
}

fn check_patches(
    what: &'static str,
    patches: usize,
    patch_dim: usize,
    found: usize,
) -> Result<(), DataError> {
    if patch_dim == 0 {
        return Err(DataError::Config {
            key: "patch_dim",
            expected: "at least 1".to_owned(),
            found: "0".to_owned(),
            remedy: "use PatchGrid::patch_dim".to_owned(),
        });
    }
    DataError::check_len(what, patches.saturating_mul(patch_dim), found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{MaskSampler, SampleKey, patchify};

    fn mask(grid: &PatchGrid, mask_ratio: f64, seed: u64) -> Mask {
        let key = SampleKey {
            seed,
            epoch: 0,
            index: 0,
        };
        MaskSampler::Random.sample(grid, mask_ratio, key).unwrap()
    }

    #[test]
    fn visible_patches_follow_ids_keep() {
        let mask = Mask::from_ids_shuffle(vec![2, 0, 1], 1).unwrap();
        let (visible, masked) = shuffle(&[0, 1, 10, 11, 20, 21], 2, &mask).unwrap();
        assert_eq!(visible, [20, 21]);
        assert_eq!(masked, [0, 1, 10, 11]);
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let grid = PatchGrid::new(4, 4, 2, 1).unwrap();
        let mask = mask(&grid, 0.5, 0);
        assert!(shuffle(&[0_u8; 15], 4, &mask).is_err());
        assert!(shuffle::<u8>(&[], 0, &mask).is_err());
        assert!(unshuffle(&[0_u8; 8], &[0; 7], 4, &mask).is_err());
        let mut visible = [0_u8; 8];
        for (image, masked) in [(15, 8), (16, 9)] {
            let (image, mut masked) = (vec![0; image], vec![0; masked]);
            assert!(
                patchify_shuffled_into(&image, &grid, &mask, &mut visible, &mut masked).is_err()
            );
        }
    }

    proptest! {
        #[test]
        fn unshuffle_inverts_shuffle_and_one_pass_equals_two(
            rows in 1_usize..6,
            columns in 2_usize..6,
            patch_size in 1_usize..5,
            channels in 1_usize..5,
            mask_ratio in 0.3..0.5,
            seed: u64,
        ) {
            let grid =
                PatchGrid::new(rows * patch_size, columns * patch_size, patch_size, channels)
                    .unwrap();
            let mask = mask(&grid, mask_ratio, seed);
            let image: Vec<u32> = (0..grid.image_len() as u32).collect();
            let patches = patchify(&image, &grid).unwrap();
            let (visible, masked) = shuffle(&patches, grid.patch_dim(), &mask).unwrap();

            let restored = unshuffle(&visible, &masked, grid.patch_dim(), &mask).unwrap();
            prop_assert_eq!(restored, patches);

            let mut one_pass = (vec![0; visible.len()], vec![0; masked.len()]);
            patchify_shuffled_into(&image, &grid, &mask, &mut one_pass.0, &mut one_pass.1)
                .unwrap();
            prop_assert_eq!(one_pass, (visible, masked));
        }
    }
}

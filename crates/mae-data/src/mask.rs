//! Which patches the encoder sees: sampling a mask, and splitting patches by it.

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::patch::PatchGrid;
use crate::rng::{Rng, SampleKey, Stream};

/// An order of the patches of an image, of which the first `kept` are visible.
///
/// This is `ids_shuffle` of the MAE authors' `random_masking`; everything else follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    ids_shuffle: Vec<u32>,
    kept: usize,
}

impl Mask {
    /// A mask from an order of the patches.
    ///
    /// # Errors
    /// [`DataError::Mask`] if `ids_shuffle` does not hold each of `0..ids_shuffle.len()` once, or
    /// if `kept` leaves no patch visible or no patch masked.
    pub fn from_ids_shuffle(ids_shuffle: Vec<u32>, kept: usize) -> Result<Mask, DataError> {
        check_kept(kept, ids_shuffle.len())?;
        let mut seen = vec![false; ids_shuffle.len()];
        for &id in &ids_shuffle {
            let seen = seen.get_mut(id as usize).ok_or_else(|| DataError::Mask {
                expected: "ids below the number of patches",
                found: format!("{id} among {} patches", ids_shuffle.len()),
            })?;
            if std::mem::replace(seen, true) {
                return Err(DataError::Mask {
                    expected: "each patch once",
                    found: format!("patch {id} twice"),
                });
            }
        }
        Ok(Mask { ids_shuffle, kept })
    }

    /// A mask that keeps the patches with the smallest noise.
    ///
    /// Lets a caller repeat the mask of another implementation that sorts noise, as the MAE
    /// authors' `random_masking` does; equal noise keeps image order.
    ///
    /// # Shapes
    /// - `noise`: `[patches]`
    ///
    /// # Errors
    /// [`DataError::Mask`] if a value is NaN, or if `kept` leaves no patch visible or masked.
    pub fn from_noise(noise: &[f32], kept: usize) -> Result<Mask, DataError> {
        check_kept(kept, noise.len())?;
        if let Some(patch) = noise.iter().position(|value| value.is_nan()) {
            return Err(DataError::Mask {
                expected: "noise without NaN",
                found: format!("NaN at patch {patch}"),
            });
        }
        let mut ids_shuffle: Vec<u32> = (0..noise.len() as u32).collect();
        // `+ 0.0` turns -0 into 0, which `total_cmp` would tell apart.
        ids_shuffle
            .sort_by(|&a, &b| (noise[a as usize] + 0.0).total_cmp(&(noise[b as usize] + 0.0)));
        Ok(Mask { ids_shuffle, kept })
    }

    /// Patch numbers in shuffled order, `[patches]`.
    pub fn ids_shuffle(&self) -> &[u32] {
        &self.ids_shuffle
    }

    /// Patch numbers of the visible patches, `[kept]`.
    pub fn ids_keep(&self) -> &[u32] {
        &self.ids_shuffle[..self.kept]
    }

    /// Patch numbers of the masked patches, `[patches - kept]`.
    pub fn ids_masked(&self) -> &[u32] {
        &self.ids_shuffle[self.kept..]
    }

    /// The place of each patch in the shuffled order, `[patches]`: the inverse of `ids_shuffle`.
    pub fn ids_restore(&self) -> Vec<u32> {
        let mut ids_restore = vec![0; self.patches()];
        for (place, &id) in self.ids_shuffle.iter().enumerate() {
            ids_restore[id as usize] = place as u32;
        }
        ids_restore
    }

    /// The mask in image order, `[patches]`: 0 is kept, 1 is removed.
    pub fn to_binary(&self) -> Vec<u8> {
        let mut binary = vec![1; self.patches()];
        for &id in self.ids_keep() {
            binary[id as usize] = 0;
        }
        binary
    }

    /// The number of visible patches.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// The number of patches, visible and masked.
    pub fn patches(&self) -> usize {
        self.ids_shuffle.len()
    }
}

/// The number of visible patches: `patches - round(patches * mask_ratio)`.
///
/// Rounding the masked count keeps 10 of 100 patches at ratio 0.9, where truncating
/// `100 * (1 - 0.9)`, which is 9.999... in floating point, would keep 9.
///
/// # Errors
/// [`DataError::Config`] if `mask_ratio` is not between 0 and 1, both excluded, or leaves no patch
/// visible or no patch masked.
pub fn kept_patches(patches: usize, mask_ratio: f64) -> Result<usize, DataError> {
    if !(mask_ratio > 0.0 && mask_ratio < 1.0) {
        return Err(DataError::Config {
            key: "mask_ratio",
            expected: "a number between 0 and 1, both excluded".to_owned(),
            found: mask_ratio.to_string(),
            remedy: "the paper uses 0.75".to_owned(),
        });
    }
    let masked = (patches as f64 * mask_ratio).round() as usize;
    if masked == 0 || masked >= patches {
        return Err(DataError::Config {
            key: "mask_ratio",
            expected: "at least one visible and one masked patch".to_owned(),
            found: format!("{masked} of {patches} patches masked at ratio {mask_ratio}"),
            remedy: "move mask_ratio towards 0.5 or use smaller patches".to_owned(),
        });
    }
    Ok(patches - masked)
}

/// How the visible patches are chosen.
#[derive(Serialize, Deserialize, Copy, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum MaskSampler {
    /// Every set of patches is equally likely.
    ///
    /// Source: He et al. 2021, section 3, "Masking".
    Random,
}

impl MaskSampler {
    /// The mask of one sample: a pure function of its arguments.
    ///
    /// # Errors
    /// [`DataError::Config`] as for [`kept_patches`].
    pub fn sample(
        &self,
        grid: &PatchGrid,
        mask_ratio: f64,
        key: SampleKey,
    ) -> Result<Mask, DataError> {
        let kept = kept_patches(grid.patches(), mask_ratio)?;
        let mut rng = Rng::new(key, Stream::Mask);
        let ids_shuffle = match self {
            MaskSampler::Random => random_order(grid, &mut rng),
        };
        Ok(Mask { ids_shuffle, kept })
    }
}

fn random_order(grid: &PatchGrid, rng: &mut Rng) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..grid.patches() as u32).collect();
    rng.shuffle(&mut ids);
    ids
}

fn check_kept(kept: usize, patches: usize) -> Result<(), DataError> {
    if kept == 0 || kept >= patches {
        return Err(DataError::Mask {
            expected: "at least one visible and one masked patch",
            found: format!("{kept} visible of {patches}"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(side: usize, index: u64) -> Mask {
        let grid = PatchGrid::new(side, side, 1, 1).unwrap();
        let key = SampleKey {
            seed: 1,
            epoch: 0,
            index,
        };
        MaskSampler::Random.sample(&grid, 0.75, key).unwrap()
    }

    #[test]
    fn kept_patches_rounds_instead_of_truncating() {
        assert_eq!(kept_patches(100, 0.9).unwrap(), 10);
        assert_eq!(kept_patches(196, 0.75).unwrap(), 49);
        assert_eq!(kept_patches(64, 0.75).unwrap(), 16);
        for bad in [0.0, 1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
            assert!(kept_patches(196, bad).is_err(), "{bad}");
        }
        for (patches, ratio) in [(4, 0.1), (4, 0.9), (1, 0.5), (0, 0.5)] {
            assert!(kept_patches(patches, ratio).is_err(), "{patches} {ratio}");
        }
    }

    /// The values come from `tests/fixtures/masks.py`.
    #[test]
    fn masks_are_pinned() {
        let expected = [2, 3, 11, 7, 10, 15, 8, 6, 5, 1, 9, 13, 12, 4, 0, 14];
        assert_eq!(sample(4, 0).ids_shuffle(), expected);
        assert_eq!(sample(4, 1).ids_keep(), [14, 15, 6, 8]);
    }

    #[test]
    fn views_agree() {
        let mask = Mask::from_ids_shuffle(vec![2, 0, 3, 1], 1).unwrap();
        assert_eq!(mask.ids_keep(), [2]);
        assert_eq!(mask.ids_masked(), [0, 3, 1]);
        assert_eq!(mask.ids_restore(), [1, 3, 0, 2]);
        assert_eq!(mask.to_binary(), [1, 1, 0, 1]);
    }

    #[test]
    fn noise_is_sorted_stably() {
        let mask = Mask::from_noise(&[0.5, 0.0, -0.0, 0.1], 2).unwrap();
        assert_eq!(mask.ids_shuffle(), [1, 2, 3, 0]);
        assert!(Mask::from_noise(&[0.5, f32::NAN], 1).is_err());
    }

    #[test]
    fn a_bad_order_is_refused() {
        for (ids, kept) in [
            (vec![0, 0, 1], 1),
            (vec![0, 1, 3], 1),
            (vec![0, 1], 0),
            (vec![0, 1], 2),
            (vec![], 0),
        ] {
            assert!(
                Mask::from_ids_shuffle(ids.clone(), kept).is_err(),
                "{ids:?}"
            );
        }
    }

    /// Each patch is visible in a quarter of the masks, and each pair in its share of them.
    #[test]
    fn random_masks_are_uniform() {
        const MASKS: u64 = 8000;
        let mut single = [0_f64; 16];
        let mut pair = [[0_f64; 16]; 16];
        for index in 0..MASKS {
            let mask = sample(4, index);
            for &a in mask.ids_keep() {
                single[a as usize] += 1.0;
                for &b in mask.ids_keep() {
                    pair[a as usize][b as usize] += 1.0;
                }
            }
        }
        let within = |count: f64, share: f64| {
            let expected = MASKS as f64 * share;
            (count - expected).abs() < 5.0 * (expected * (1.0 - share)).sqrt()
        };
        for a in 0..16 {
            assert!(within(single[a], 0.25), "patch {a}: {}", single[a]);
            for b in (0..16).filter(|&b| b != a) {
                assert!(within(pair[a][b], 4.0 * 3.0 / (16.0 * 15.0)), "{a} {b}");
            }
        }
    }
}

//! Which patches the encoder sees: sampling a mask, and splitting patches by it.

mod block;
mod drawn;

use std::fmt;
use std::str::FromStr;

use serde::de::IntoDeserializer;
use serde::{Deserialize, Serialize};
use strum::VariantNames;

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

/// The number of visible patches: `patches * (1 - mask_ratio)`, rounded down.
///
/// The product is exact, with the ratio's shortest decimal digits. So 10 of 100 patches are kept at ratio 0.9, where
/// the authors' program and Hugging Face's, in whose floating point the product is 9.999..., keep 9; at most other
/// ratios all keep the same.
///
/// Source: He et al. 2021, whose authors' program truncates the product.
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
    let masked = masked_patches(patches, mask_ratio);
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

/// `patches * mask_ratio`, rounded up.
fn masked_patches(patches: usize, mask_ratio: f64) -> usize {
    /// Of more decimals, which only ratios very near to 0 have, any counts as one more.
    const DECIMALS: usize = 18;
    let text = mask_ratio.to_string();
    let (_, decimals) = text.split_once('.').unwrap_or((&text, "0"));
    let (decimals, more) = decimals.split_at(decimals.len().min(DECIMALS));
    let ratio = decimals
        .bytes()
        .fold(0, |ratio, digit| 10 * ratio + u128::from(digit - b'0'));
    let ratio = ratio + u128::from(!more.is_empty());
    (patches as u128 * ratio).div_ceil(10_u128.pow(decimals.len() as u32)) as usize
}

/// How the visible patches are chosen.
///
/// Each image of a batch has the same number of visible patches, whatever the sampler.
/// serde and `FromStr` read their [names](Self::NAMES), and `Display` writes them.
#[derive(Serialize, Deserialize, strum::VariantNames, Copy, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
#[non_exhaustive]
pub enum MaskSampler {
    /// Every set of patches is equally likely; visible and masked patches are in random order.
    ///
    /// Source: He et al. 2021, section 3, "Masking".
    Random,
    /// Masks rectangles of random size, shape and place until the ratio is met; visible and masked
    /// patches are in image order.
    ///
    /// A rectangle's area is uniform from 16/196 of the grid, which is 16 patches of 14 x 14, to
    /// what is still to be masked, and its width over its height is log-uniform from 0.3 to 1/0.3.
    /// The last rectangle masks only as many of its patches as the ratio allows, row by row from
    /// its top left or its bottom right. One that would mask nothing new is moved over a visible
    /// patch.
    ///
    /// Source: He et al. 2021, table 1f; Bao et al. 2021 (arXiv 2106.08254), algorithm 1, which
    /// may exceed the ratio, and whose authors' program draws the shape in logarithms.
    Block,
    /// Keeps the top left patch of every 2 x 2, the same ones of every image; visible and masked
    /// patches are in image order.
    ///
    /// Takes grids with even sides at ratio 0.75.
    ///
    /// Source: He et al. 2021, table 1f and figure 6, which keep one of every four patches.
    Grid,
}

impl MaskSampler {
    /// What configurations call the samplers.
    pub const NAMES: &[&str] = Self::VARIANTS;

    /// The number of visible patches of each image, as [`kept_patches`].
    ///
    /// # Errors
    /// [`DataError::Config`] as for [`kept_patches`], and if the sampler cannot make such a mask.
    pub fn kept(&self, grid: &PatchGrid, mask_ratio: f64) -> Result<usize, DataError> {
        if let MaskSampler::Grid = self {
            check_grid(grid, mask_ratio)?;
        }
        kept_patches(grid.patches(), mask_ratio)
    }

    /// The mask of one sample: a pure function of its arguments.
    ///
    /// # Errors
    /// [`DataError::Config`] as for [`MaskSampler::kept`].
    pub fn sample(
        &self,
        grid: &PatchGrid,
        mask_ratio: f64,
        key: SampleKey,
    ) -> Result<Mask, DataError> {
        let kept = self.kept(grid, mask_ratio)?;
        let mut rng = Rng::new(key, Stream::Mask);
        let ids_shuffle = match self {
            MaskSampler::Random => random_order(grid, &mut rng),
            MaskSampler::Block => block::order(grid, grid.patches() - kept, &mut rng),
            MaskSampler::Grid => grid_order(grid),
        };
        Ok(Mask { ids_shuffle, kept })
    }
}

impl FromStr for MaskSampler {
    type Err = serde::de::value::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::deserialize(name.into_deserializer())
    }
}

impl fmt::Display for MaskSampler {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.serialize(f)
    }
}

fn random_order(grid: &PatchGrid, rng: &mut Rng) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..grid.patches() as u32).collect();
    rng.shuffle(&mut ids);
    ids
}

fn grid_order(grid: &PatchGrid) -> Vec<u32> {
    let columns = grid.columns() as u32;
    let is_masked = |id: u32| (id / columns) % 2 == 1 || id % columns % 2 == 1;
    let mut ids: Vec<u32> = (0..grid.patches() as u32).collect();
    ids.sort_by_key(|&id| is_masked(id));
    ids
}

fn check_grid(grid: &PatchGrid, mask_ratio: f64) -> Result<(), DataError> {
    if mask_ratio != 0.75 {
        return Err(DataError::Config {
            key: "mask_ratio",
            expected: "0.75, what sampler grid masks".to_owned(),
            found: mask_ratio.to_string(),
            remedy: "set it to 0.75, or use sampler random or block".to_owned(),
        });
    }
    if grid.rows() % 2 == 1 || grid.columns() % 2 == 1 {
        return Err(DataError::Config {
            key: "sampler",
            expected: "even numbers of rows and columns of patches for grid".to_owned(),
            found: format!("{} x {}", grid.rows(), grid.columns()),
            remedy: "change the size of images or patches, or use sampler random or block"
                .to_owned(),
        });
    }
    Ok(())
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
mod tests;

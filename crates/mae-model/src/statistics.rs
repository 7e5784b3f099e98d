//! The mean and deviation of patches, which a prediction of normalised patches lacks.

use tch::{Kind, Tensor};

/// Where the mean and deviation of a patch are taken from, to make pixels of a prediction.
///
/// Under [`norm_pix_loss`](crate::MaeConfig::norm_pix_loss) a model predicts each patch without them, so every picture
/// of its predictions takes them from somewhere. Any other model predicts all of a patch: it knows
/// [`Raw`](PatchStatistics::Raw) alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchStatistics {
    /// From the true patch, hidden ones included: it gives away their brightness and contrast, which no model could
    /// know. What is left to judge is their structure.
    Oracle,
    /// From what is visible of the same image: a visible patch has its own, a hidden one the mean of theirs, each
    /// weighted by `1 / d^4`, where `d` is the distance in the grid.
    ///
    /// With mean `m` and deviation `s` of visible patches `v`, those of a hidden patch `h` are
    ///
    /// ```text
    /// m(h) = sum_v w(h, v) m(v) / sum_v w(h, v),   s(h) likewise
    /// w(h, v) = 1 / ((row(h) - row(v))^2 + (column(h) - column(v))^2)^2
    /// ```
    ///
    /// This is Shepard's interpolation (1968); of the powers 1 to 6 and of the nearest neighbours, the fourth power came
    /// nearest to the true means of photographs.
    Visible,
    /// From nowhere: predictions as they are. Under `norm_pix_loss` each patch then has the mean and deviation that
    /// the channels have over all images, as if it had not been normalised.
    Raw,
}

impl PatchStatistics {
    /// All of them, the most honest picture of a whole image first.
    pub const ALL: [Self; 3] = [Self::Visible, Self::Oracle, Self::Raw];

    /// What a user calls it: `oracle`, `visible` or `raw`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Oracle => "oracle",
            Self::Visible => "visible",
            Self::Raw => "raw",
        }
    }
}

/// Added to variances, so that a patch of one colour has a deviation, too. Source: the MAE authors' `models_mae.py`.
const EPSILON: f64 = 1e-6;

/// Mean and deviation of the values of each patch, `[batch, patches, 1]` each, of `[batch, patches, patch_dim]`.
///
/// Of values that are missing, NaN, nothing is taken; of a patch without any the mean is 0 and the variance, too.
pub(crate) fn mean_and_std(patches: &Tensor, gaps: Gaps) -> (Tensor, Tensor) {
    let (mean, variance) = match gaps {
        Gaps::None => (
            patches.mean_dim(-1i64, true, Kind::Float),
            patches.var_dim(-1i64, true, true),
        ),
        Gaps::Nan => {
            let sum = |values: &Tensor| values.nansum(-1i64, true, Kind::Float);
            let count = patches
                .isnan()
                .logical_not()
                .sum_dim_intlist(-1i64, true, Kind::Float);
            let mean = sum(patches) / count.clamp_min(1.0);
            let squares = sum(&(patches - &mean).square());
            (mean, squares / (count - 1.0).clamp_min(1.0))
        }
    };
    (mean, (variance + EPSILON).sqrt())
}

/// Whether values of patches may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gaps {
    /// Bytes have no number for it.
    None,
    /// NaN is a value that is missing.
    Nan,
}

impl Gaps {
    /// Of patches as a model is given them.
    pub fn of(patches: &Tensor) -> Self {
        match patches.kind() {
            Kind::Uint8 => Self::None,
            _ => Self::Nan,
        }
    }
}

/// Fills in what hidden patches lack by [`PatchStatistics::Visible`]'s formula; values of hidden patches are not looked
/// at.
///
/// # Shapes
/// - `values`: `[batch, patches, 1]`, in the order of an image with `columns` patches a row
/// - `ids_keep`: `[batch, kept]`, i64; the visible patches' places
/// - returns `[batch, patches, 1]`
pub(crate) fn interpolate(values: &Tensor, ids_keep: &Tensor, columns: i64) -> Tensor {
    let [batch, patches] = [values.size()[0], values.size()[1]];
    let ids = Tensor::arange(patches, (Kind::Int64, values.device()));
    let place = |ids: &Tensor| {
        let row = ids.divide_scalar_mode(columns, "floor");
        Tensor::stack(&[row, ids.remainder(columns)], -1).to_kind(Kind::Float)
    };
    // [batch, patches, kept]; between two different patches it is at least 1.
    let squared_distance = (place(&ids).view([1, patches, 1, 2]) - place(ids_keep).unsqueeze(1))
        .square()
        .sum_dim_intlist(-1i64, false, Kind::Float)
        .clamp_min(1.0);
    let weights = squared_distance.square().reciprocal();
    let ids_keep = ids_keep.unsqueeze(-1);
    let visible = values.gather(1, &ids_keep, false);
    let total = weights.sum_dim_intlist(-1i64, true, Kind::Float);
    let interpolated = weights.matmul(&visible) / total;
    debug_assert_eq!(interpolated.size(), [batch, patches, 1]);
    interpolated.scatter(1, &ids_keep, &visible)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grid of 2 rows and 3 columns, of which patches 0 and 5 are visible.
    #[test]
    fn hidden_patches_are_between_visible_ones() {
        let nan = f32::NAN;
        let values = Tensor::from_slice(&[1.0, nan, nan, nan, nan, 4.0]).view([1, 6, 1]);
        let ids_keep = Tensor::from_slice(&[5i64, 0]).view([1, 2]);
        let found = interpolate(&values, &ids_keep, 3);
        // Patch 1 is at distance 1 from patch 0, and at sqrt(2) from patch 5: weights 1 and 1/4.
        let (near, far) = ((1.0 + 4.0 / 4.0) / 1.25, (4.0 + 1.0 / 4.0) / 1.25);
        // Patch 2 is at distance 2 from patch 0 and 1 from patch 5: weights 1/16 and 1; patch 3 the other way round.
        let (nearer, farther) = (
            (1.0 + 4.0 / 16.0) / (17.0 / 16.0),
            (4.0 + 1.0 / 16.0) / (17.0 / 16.0),
        );
        let expected = [1.0, near, farther, nearer, far, 4.0];
        let found = Vec::<f32>::try_from(found.flatten(0, -1)).unwrap();
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn each_image_has_its_own_visible_patches() {
        let values = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 1.0, 2.0, 3.0]).view([2, 3, 1]);
        let ids_keep = Tensor::from_slice(&[0i64, 2]).view([2, 1]);
        let found = interpolate(&values, &ids_keep, 3).flatten(0, -1);
        let expected = [1.0f32, 1.0, 1.0, 3.0, 3.0, 3.0];
        assert_eq!(Vec::<f32>::try_from(found).unwrap(), expected);
    }
}

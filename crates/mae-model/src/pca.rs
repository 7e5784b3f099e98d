//! Principal components of patches: what the largest part of their variance lies in.
//!
//! Source: He et al. 2021, arXiv 2111.06377, table 1d and section 4.1, "Reconstruction target".

use tch::{Device, Kind, Tensor, no_grad};

use crate::Result;
use crate::error::{invalid, shape};

/// A mean patch and orthonormal directions from it, the one of the largest variance first.
#[derive(Debug)]
pub struct Pca {
    /// `[patch_dim]`, f32.
    pub mean: Tensor,
    /// `[components, patch_dim]`, f32, each of length 1.
    pub components: Tensor,
}

impl Pca {
    /// The coefficients of patches.
    ///
    /// # Shapes
    /// - `patches`: `[.., patch_dim]`, f32
    /// - returns `[.., components]`, in f32 whatever autocast does
    ///
    /// # Errors
    /// [`ModelError::Torch`](crate::ModelError::Torch) if the device has no autocast to turn off.
    pub fn project(&self, patches: &Tensor) -> Result<Tensor> {
        self.in_full_precision(|| (patches - &self.mean).matmul(&self.components.tr()))
    }

    /// The patches that coefficients stand for: all that the components do not span is the mean's.
    ///
    /// # Shapes
    /// - `coefficients`: `[.., components]`, f32
    /// - returns `[.., patch_dim]`, in f32 whatever autocast does
    ///
    /// # Errors
    /// [`ModelError::Torch`](crate::ModelError::Torch) if the device has no autocast to turn off.
    pub fn restore(&self, coefficients: &Tensor) -> Result<Tensor> {
        self.in_full_precision(|| coefficients.matmul(&self.components) + &self.mean)
    }

    fn in_full_precision(&self, body: impl FnOnce() -> Tensor) -> Result<Tensor> {
        Ok(torch_ext::autocast(self.mean.device(), Kind::Float, body)?)
    }
}

/// Sums over patches that their principal components follow from; on the CPU, in f64.
#[derive(Debug)]
pub struct Moments {
    count: i64,
    /// `[dim]`
    sum: Tensor,
    /// `[dim, dim]`
    products: Tensor,
}

impl Moments {
    /// Of no patch yet; a patch has `dim` numbers.
    pub fn new(dim: usize) -> Self {
        let (dim, options) = (dim as i64, (Kind::Double, Device::Cpu));
        Self {
            count: 0,
            sum: Tensor::zeros([dim], options),
            products: Tensor::zeros([dim, dim], options),
        }
    }

    /// Patches so far.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Adds patches.
    ///
    /// # Shapes
    /// - `patches`: `[.., dim]`, normalised f32
    ///
    /// # Errors
    /// [`ModelError::Shape`](crate::ModelError::Shape) if they have another number of pixels.
    pub fn add(&mut self, patches: &Tensor) -> Result<()> {
        let dim = self.sum.size()[0];
        if patches.size().last() != Some(&dim) {
            return Err(shape("patches", patches, format!("[.., {dim}]")));
        }
        no_grad(|| {
            let rows = patches
                .to_device(Device::Cpu)
                .to_kind(Kind::Double)
                .reshape([-1, dim]);
            self.count += rows.size()[0];
            self.sum += rows.sum_dim_intlist(0i64, false, Kind::Double);
            self.products += rows.tr().matmul(&rows);
        });
        Ok(())
    }

    /// The first `components` principal components, and the share of the patches' variance that each explains.
    ///
    /// The sign of a component, which nothing determines, makes its entry of the largest magnitude positive.
    ///
    /// # Errors
    /// [`ModelError::Config`](crate::ModelError::Config) if a patch has fewer numbers, or there are not two patches.
    pub fn principal_components(&self, components: usize) -> Result<(Pca, Vec<f64>)> {
        let dim = self.sum.size()[0];
        if !(1..=dim).contains(&(components as i64)) {
            let expected = format!("1 to {dim}, the numbers of a patch");
            return Err(invalid("components", components, expected));
        }
        if self.count < 2 {
            return Err(invalid("count", self.count, "at least 2 patches".into()));
        }
        let mean = &self.sum / self.count as f64;
        let covariance = &self.products / self.count as f64 - mean.outer(&mean);
        // Columns, in ascending order of variance.
        let (variances, vectors) = covariance.f_linalg_eigh("L")?;
        let total = variances.sum(Kind::Double).double_value(&[]);
        let first = dim - components as i64;
        let variances =
            Vec::<f64>::try_from(variances.narrow(0, first, components as i64).flip([0]))?;
        let vectors = vectors.tr().narrow(0, first, components as i64).flip([0]);
        let largest = vectors.abs().argmax(1, true);
        let vectors = &vectors * vectors.gather(1, &largest, false).sign();
        let pca = Pca {
            mean: mean.to_kind(Kind::Float),
            components: vectors.to_kind(Kind::Float).contiguous(),
        };
        let share = |variance: f64| match total > 0.0 {
            true => (variance / total).clamp(0.0, 1.0),
            // Patches that are all the same have no variance to explain.
            false => 1.0 / components as f64,
        };
        Ok((pca, variances.into_iter().map(share).collect()))
    }
}

/// Checks that `pca` is one of `components` components of patches of `dim` numbers.
pub(crate) fn check(pca: &Pca, components: usize, dim: usize) -> Result<()> {
    let (components, dim) = (components as i64, dim as i64);
    if pca.components.size() != [components, dim] {
        let expected = format!("[{components}, {dim}]");
        return Err(shape("components", &pca.components, expected));
    }
    if pca.mean.size() != [dim] {
        return Err(shape("mean", &pca.mean, format!("[{dim}]")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor_file::read_tensors;
    use std::path::Path;

    /// Norm of the difference over the norm.
    fn relative(a: &Tensor, b: &Tensor) -> f64 {
        ((a - b).norm() / b.norm()).double_value(&[])
    }

    /// Of patches in batches of several sizes.
    fn moments(patches: &Tensor) -> Moments {
        let (count, dim) = (patches.size()[0], patches.size()[1]);
        let mut moments = Moments::new(dim as usize);
        let first = patches.narrow(0, 0, 60).view([3, 20, dim]);
        moments.add(&first).unwrap();
        moments.add(&patches.narrow(0, 60, count - 60)).unwrap();
        assert_eq!(moments.count(), count as usize);
        moments
    }

    /// The numbers of scikit-learn's `PCA`: see `tests/fixtures/make_pca.py`.
    #[test]
    fn scikit_learn_finds_the_same() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pca.safetensors");
        let (expected, _) = read_tensors(&file).unwrap();
        let (patches, components) = (&expected["patches"], &expected["components"]);
        let (pca, explained) = moments(patches)
            .principal_components(components.size()[0] as usize)
            .unwrap();
        assert!(relative(&pca.mean, &expected["mean"]) < 1e-6);
        let error = relative(&pca.components, components);
        assert!(error < 1e-6, "{error}");
        let shares = Vec::<f64>::try_from(&expected["explained_variance_ratio"]).unwrap();
        assert_eq!(explained.len(), shares.len());
        for (explained, share) in explained.iter().zip(shares) {
            assert!((explained - share).abs() < 1e-9);
        }
        let coefficients = pca.project(patches).unwrap();
        assert!(relative(&coefficients, &expected["coefficients"]) < 1e-5);
        let restored = pca.restore(&coefficients).unwrap();
        assert!(relative(&restored, &expected["restored"]) < 1e-5);
    }

    #[test]
    fn all_components_lose_nothing() {
        let patches = (Tensor::arange(800, (Kind::Float, Device::Cpu)) * 0.7)
            .sin()
            .view([100, 8])
            + 3.0;
        let (pca, explained) = moments(&patches).principal_components(8).unwrap();
        assert!((explained.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let restored = pca.restore(&pca.project(&patches).unwrap()).unwrap();
        assert!(relative(&restored, &patches) < 1e-6);
        let autocast = torch_ext::autocast(Device::Cpu, Kind::BFloat16, || pca.project(&patches));
        assert_eq!(autocast.unwrap().unwrap(), pca.project(&patches).unwrap());
    }

    #[test]
    fn patches_that_are_all_the_same_have_components() {
        let patches = Tensor::ones([100, 3], (Kind::Float, Device::Cpu));
        let (pca, explained) = moments(&patches).principal_components(2).unwrap();
        assert_eq!(
            pca.restore(&pca.project(&patches).unwrap()).unwrap(),
            patches
        );
        assert_eq!(explained, [0.5, 0.5]);
    }

    #[test]
    fn what_has_no_components_is_refused() {
        let patches = Tensor::ones([100, 3], (Kind::Float, Device::Cpu));
        let message = |result: Result<(Pca, Vec<f64>)>| result.unwrap_err().to_string();
        let found = message(moments(&patches).principal_components(4));
        assert!(
            found.contains("`components` is 4, expected 1 to 3"),
            "{found}"
        );
        let found = message(Moments::new(3).principal_components(2));
        assert!(found.contains("`count` is 0"), "{found}");
        let found = Moments::new(4).add(&patches).unwrap_err().to_string();
        assert!(found.contains("expected [.., 4]"), "{found}");
    }
}

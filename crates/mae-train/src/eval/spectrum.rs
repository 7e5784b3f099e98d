//! What can be said of an encoder without labels: how many directions its features use, and how well it predicts images
//! that it was not trained on.
//!
//! A larger rank went with a better linear probe among encoders of one kind in the sources; none of these is an accuracy.

use std::sync::Arc;

use anyhow::{Result, ensure};
use mae_data::{Augmentation, Dataset, ImageBatch, Subset, Transform};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::features::{Extraction, Rows};
use crate::distributed::World;
use crate::run::interrupt::Interrupt;
use crate::run::progress::Progress;

/// How many directions features use, by several measures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// See [`rank_me`].
    pub rank_me: f64,
    /// See [`effective_rank`].
    pub effective_rank: f64,
    /// See [`alpha`].
    pub alpha: Option<f64>,
    /// See [`lidar`]; `None` where there were no views.
    pub lidar: Option<f64>,
}

/// The spectra of an encoder's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spectra {
    /// Images that they are of.
    pub images: usize,
    /// Of the class token after the last norm.
    pub class_token: Spectrum,
    /// Of the mean of the patch tokens after it.
    pub mean_patch: Spectrum,
}

/// How many images are looked at, and in how many views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// Images for the ranks.
    pub images: usize,
    /// Random crops of each image for LiDAR, of which [`LIDAR_IMAGES`] at most are looked at; below 2 for none.
    pub views: usize,
}

/// Images that LiDAR is computed of.
///
/// Source: Thilak et al. 2023, arXiv 2312.04000, section 4: 1000 images.
pub const LIDAR_IMAGES: usize = 1000;

/// Measures the encoder of `extraction` on images of `dataset`, evenly spaced in its order; each of several processes
/// computes a part.
///
/// # Errors
/// If images cannot be read, there are not two, or another process is gone; or, as
/// [`Stopped`](crate::error::Stopped), after a signal.
pub fn measure(
    extraction: &Extraction,
    dataset: &Arc<dyn Dataset>,
    looks: Looks,
    world: &World,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Spectra> {
    let dim = extraction.model.config().encoder.embed_dim as i64;
    let look = |extraction: &Extraction, dataset: &Arc<dyn Dataset>, epoch| {
        let encode = |batch: &ImageBatch| {
            let tokens = extraction.encode_tokens(batch)?;
            let mean = (tokens.narrow(1, 1, tokens.size()[1] - 1)).mean_dim(1i64, false, None);
            Ok(Tensor::stack(&[tokens.select(1, 0), mean], 1))
        };
        let (rows, _) = Rows::new(extraction, dataset, &[2, dim], &encode)
            .of_epoch(epoch, world, interrupt, progress)?;
        anyhow::Ok(rows)
    };
    let features = look(extraction, &sample(dataset, looks.images)?, 0)?;
    let images = features.size()[0];
    ensure!(
        images >= 2,
        "a spectrum needs at least 2 images, found {images} that can be read"
    );
    let views = match looks.views {
        0 | 1 => None,
        views => {
            let augmented = Extraction {
                transform: views_of(&extraction.transform),
                ..extraction.clone()
            };
            let dataset = sample(dataset, looks.images.min(LIDAR_IMAGES))?;
            let views: Vec<Tensor> = (0..views as u64)
                .map(|view| look(&augmented, &dataset, view))
                .collect::<Result<_>>()?;
            Some(Tensor::stack(&views, 1))
        }
    };
    let spectrum = |token: i64| -> Result<Spectrum> {
        let features = features.select(1, token);
        let lidar = match &views {
            Some(views) => Some(lidar(&views.select(2, token))?),
            None => None,
        };
        Ok(Spectrum {
            rank_me: rank_me(&features)?,
            effective_rank: effective_rank(&features)?,
            alpha: alpha(&features)?,
            lidar,
        })
    };
    Ok(Spectra {
        images: images as usize,
        class_token: spectrum(0)?,
        mean_patch: spectrum(1)?,
    })
}

/// Up to `images` of `dataset`, evenly spaced.
fn sample(dataset: &Arc<dyn Dataset>, images: usize) -> Result<Arc<dyn Dataset>> {
    let (all, images) = (dataset.len(), images.min(dataset.len()));
    let indices = (0..images).map(|i| i * all / images).collect();
    Ok(Arc::new(Subset::new(Arc::clone(dataset), indices)?))
}

/// The usual crops of pre-training without labels, at the size of `transform`.
fn views_of(transform: &Transform) -> Transform {
    Transform {
        augmentation: Augmentation::RandomResizedCrop {
            scale: Augmentation::SCALE,
            ratio: Augmentation::RATIO,
        },
        hflip: true,
        ..transform.clone()
    }
}

/// What is added to each share, as published for both RankMe and LiDAR.
const EPSILON: f64 = 1e-7;

/// RankMe: the exponential of the entropy of the singular values of the features, as shares of their sum plus 1e-7.
///
/// From 1, if all features are multiples of one, to the smaller of both dimensions; 0 if all are zero.
///
/// # Shapes
/// - `features`: `[images, dim]`
///
/// # Errors
/// If the features are not finite.
///
/// Source: Garrido et al. 2023, arXiv 2210.02885, equation 1.
pub fn rank_me(features: &Tensor) -> Result<f64> {
    let shares = shares(&singular_values(&features.to_kind(Kind::Double))?);
    Ok(shares.map_or(0.0, |shares| exp_entropy(&(shares + EPSILON))))
}

/// Effective rank: the exponential of the entropy of the singular values of the features less their mean.
///
/// From 1 to the smaller of both dimensions; 0 if all features are the same.
///
/// # Shapes
/// - `features`: `[images, dim]`
///
/// # Errors
/// If the features are not finite.
///
/// Source: Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality"; the mean is taken off,
/// for what all images share tells none from another.
pub fn effective_rank(features: &Tensor) -> Result<f64> {
    let values = centred_values(features)?;
    Ok(shares(&values).map_or(0.0, |shares| exp_entropy(&shares)))
}

/// Alpha-ReQ: how fast the variances along the principal directions fall, as the power of a power law.
///
/// The slope, its sign changed, of the least-squares line through their logarithms over the logarithms of their places,
/// from 1 on, of all that differ from zero by more than rounding (NumPy's `matrix_rank`, for f32).
/// The source expects the best encoders near 1; `None` if there are not two such directions.
///
/// # Shapes
/// - `features`: `[images, dim]`
///
/// # Errors
/// If the features are not finite.
///
/// Source: Agrawal et al. 2022, "alpha-ReQ: Assessing Representation Quality in Self-Supervised Learning by measuring
/// eigenspectrum decay".
pub fn alpha(features: &Tensor) -> Result<Option<f64>> {
    let values = Vec::<f64>::try_from(centred_values(features)?)?;
    let largest = features.size().into_iter().max().unwrap_or(0) as f64;
    let smallest = values[0] * largest * f64::from(f32::EPSILON);
    let points: Vec<(f64, f64)> = (1..)
        .zip(values)
        .take_while(|&(_, value)| value > smallest)
        .map(|(place, value)| (f64::from(place).ln(), 2.0 * value.ln()))
        .collect();
    let count = points.len() as f64;
    if points.len() < 2 {
        return Ok(None);
    }
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(&|point| point.0), mean(&|point| point.1));
    let product = mean(&|point| (point.0 - x) * (point.1 - y));
    let square = mean(&|point| (point.0 - x).powi(2));
    Ok(Some(-product / square))
}

/// LiDAR: the effective rank of what tells images apart, where what tells views of one image apart counts little.
///
/// The exponential of the entropy of the eigenvalues of W^-1/2 B W^-1/2, as shares of their sum plus 1e-7; B is the
/// covariance of the images' means, and W that of the views within an image, plus 1e-4 on its diagonal.
/// 0 if all images are the same.
///
/// # Shapes
/// - `features`: `[images, views, dim]`
///
/// # Errors
/// If the features are not finite.
///
/// Source: Thilak et al. 2023, arXiv 2312.04000, section 4.
pub fn lidar(features: &Tensor) -> Result<f64> {
    /// Keeps the covariance within invertible.
    const DELTA: f64 = 1e-4;
    let features = features.to_kind(Kind::Double);
    let [images, views, dim] = features.size()[..] else {
        unreachable!("features are [images, views, dim]")
    };
    let means = features.mean_dim(1i64, true, None);
    let between = (&means - means.mean_dim(0i64, true, None)).squeeze_dim(1);
    let between = between.tr().matmul(&between) / images as f64;
    let within = (features - &means).view([images * views, dim]);
    let within = within.tr().matmul(&within) / (images * views) as f64
        + Tensor::eye(dim, (Kind::Double, Device::Cpu)) * DELTA;
    // With W = L L^T, L^-1 B L^-T has the same eigenvalues.
    let root = within.f_linalg_cholesky(false)?;
    let half = root.f_linalg_solve_triangular(&between, false, true, false)?;
    let ratio = root.f_linalg_solve_triangular(&half.tr(), false, true, false)?;
    let values = ratio.f_linalg_eigvalsh("L")?.clamp_min(0.0);
    Ok(shares(&values).map_or(0.0, |shares| exp_entropy(&(shares + EPSILON))))
}

/// Singular values of the features less their mean, the largest first; 0 where they are no more than the rounding of f32
/// features.
fn centred_values(features: &Tensor) -> Result<Tensor> {
    let features = features.to_kind(Kind::Double);
    let centred = &features - features.mean_dim(0i64, true, None);
    let (values, whole) = (singular_values(&centred)?, singular_values(&features)?);
    let rounding = whole.max() * f64::from(f32::EPSILON);
    Ok(values.masked_fill(&values.le_tensor(&rounding), 0.0))
}

/// The largest first.
fn singular_values(matrix: &Tensor) -> Result<Tensor> {
    let (_, values, _) = matrix.f_svd(true, false)?;
    Ok(values)
}

/// Values that are at least 0, as shares of their sum; `None` if all are 0.
fn shares(values: &Tensor) -> Option<Tensor> {
    let sum = values.sum(Kind::Double).double_value(&[]);
    (sum > 0.0).then(|| values / sum)
}

fn exp_entropy(shares: &Tensor) -> f64 {
    let entropy = -shares.xlogy(shares).sum(Kind::Double);
    entropy.double_value(&[]).exp()
}

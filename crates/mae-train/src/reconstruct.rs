//! Pictures of what a model makes of masked images.

use std::sync::Arc;

use anyhow::{Context, Result};
use mae_data::{
    Dataset, Loader, LoaderConfig, Mask, MaskSampler, MaskedBatch, Order, PatchGrid, PixelKind,
    SampleKey, Transform,
};
use mae_model::{
    LossRegion, MaskedAutoencoderViT, PatchStatistics, Target, in_units, patchify, unpatchify,
    unshuffle,
};
use tch::{Device, Kind, Tensor, no_grad};

use crate::config::RunConfig;
use crate::data::batch::masked_to_device;
use crate::data::choose::{Chosen, choose};
use crate::picture::display::Display;
use crate::picture::{Comparison, Versions};
pub use crate::picture::{Picture, Pictures};

/// Images in a picture of training.
const IMAGES: usize = 8;
/// An epoch that no training reaches: its masks were never trained on.
const EPOCH: u64 = u64::MAX;
/// What stands for a hidden patch: it is shown in grey.
const HIDDEN: f64 = f64::NAN;

/// The same few images with the same masks for a whole run, uncropped by chance.
///
/// # Errors
/// If none of them can be read.
pub fn pick(config: &RunConfig, dataset: Arc<dyn Dataset>) -> Result<MaskedBatch> {
    let images = IMAGES.min(dataset.len());
    let loader = Loader::new(
        dataset,
        LoaderConfig {
            workers: 1,
            prefetch: 1,
            drop_last: false,
            order: Order::Shuffled,
            seed: config.seed,
            max_broken_share: 1.0,
            mask_ratio: config.method.mask.ratio,
            sampler: config.method.mask.sampler,
            transform: Transform::center_crop(config.grid.height(), config.grid.width()),
            ..LoaderConfig::new(config.grid, images)
        },
    )?;
    loader
        .epoch(EPOCH, 0)
        .next()
        .context("no image for the picture of reconstructions can be read")?
        .map_err(Into::into)
}

/// Draws `original | masked | prediction | prediction with visible patches` for each image of `batch`.
///
/// Under `norm_pix_loss` predictions are shown with [`PatchStatistics::Oracle`], so that the picture shows what the loss
/// is about, and tokens are decoded beside those of the visible patches; the picture says so.
///
/// # Errors
/// If the batch does not fit the model.
pub fn draw(model: &MaskedAutoencoderViT, batch: &MaskedBatch) -> Result<Pictures> {
    let statistics = match model.config().norm_pix_loss {
        true => PatchStatistics::Oracle,
        false => PatchStatistics::Raw,
    };
    let found = Samples::of_batch(batch, model.device()).reconstruct(model, &[statistics])?;
    found.compare(&[], |comparison, images| {
        Ok(Pictures {
            whole: comparison.draw(images),
            small: Some(comparison.small(images)?),
        })
    })
}

/// What is hidden of images.
#[derive(Clone, Debug)]
pub enum Masking {
    /// A share of the patches, of each image others.
    Sampled {
        /// How they are chosen.
        sampler: MaskSampler,
        /// The share.
        ratio: f64,
        /// By chance, which this decides.
        seed: u64,
    },
    /// The same patches of every image.
    Drawn(Mask),
}

impl Masking {
    fn of_image(&self, grid: &PatchGrid, index: usize) -> Result<Mask> {
        match self {
            Self::Drawn(mask) => Ok(mask.clone()),
            Self::Sampled {
                sampler,
                ratio,
                seed,
            } => {
                let key = SampleKey {
                    seed: *seed,
                    epoch: EPOCH,
                    index: index as u64,
                };
                Ok(sampler.sample(grid, *ratio, key)?)
            }
        }
    }
}

/// Masked images as a model takes them, in shuffled order.
#[derive(Debug)]
pub struct Samples {
    /// `[batch, kept, patch_dim]`
    visible: Tensor,
    /// `[batch, patches - kept, patch_dim]`
    masked: Tensor,
    /// `[batch, patches]`, i64
    ids_shuffle: Tensor,
    /// Index of each image in its data set.
    indices: Vec<usize>,
}

impl Samples {
    /// Those of a batch, on `device`.
    pub fn of_batch(batch: &MaskedBatch, device: Device) -> Self {
        let (visible, masked, ids_shuffle) = masked_to_device(batch, device);
        Self {
            visible,
            masked,
            ids_shuffle,
            indices: batch.indices.clone(),
        }
    }

    /// The centres of up to `images` images of `dataset`, which ones depends on `seed`, in its order and on `device`.
    /// Those that cannot be read are left out.
    ///
    /// # Errors
    /// If none of them can be read, or `masking` does not fit `grid`.
    pub fn choose(
        dataset: &Arc<dyn Dataset>,
        images: usize,
        seed: u64,
        grid: &PatchGrid,
        masking: &Masking,
        device: Device,
    ) -> Result<Self> {
        let size = [grid.height(), grid.width()];
        let Chosen { pixels, indices } = choose(dataset, images, seed, size, device)?;
        let masks: Vec<Mask> = (indices.iter())
            .map(|&index| masking.of_image(grid, index))
            .collect::<Result<_>>()?;
        let kept = masks[0].kept() as i64;
        let ids: Vec<i64> = (masks.iter())
            .flat_map(|mask| mask.ids_shuffle().iter().map(|&id| i64::from(id)))
            .collect();
        let ids_shuffle = Tensor::from_slice(&ids)
            .view([masks.len() as i64, -1])
            .to_device(device);
        let patches = patchify(&pixels, grid.patch_size())?;
        let shuffled = gather(&patches, &ids_shuffle);
        Ok(Self {
            visible: shuffled.narrow(1, 0, kept),
            masked: shuffled.narrow(1, kept, grid.patches() as i64 - kept),
            ids_shuffle,
            indices,
        })
    }

    /// Index of each image in its data set.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// The patches of an image that are hidden.
    pub fn hidden(&self) -> usize {
        self.masked.size()[1] as usize
    }

    /// Predicts what is hidden, and shows the predictions with each of `statistics`.
    ///
    /// # Errors
    /// If the images are not of the model's size, or its predictions have no such statistics.
    pub fn reconstruct(
        &self,
        model: &MaskedAutoencoderViT,
        statistics: &[PatchStatistics],
    ) -> Result<Reconstruction> {
        no_grad(|| {
            let (visible, masked, ids_shuffle) = (&self.visible, &self.masked, &self.ids_shuffle);
            let latent = model.forward_encoder(visible, ids_shuffle)?;
            let pred = model.forward_decoder(&latent, ids_shuffle, 0)?;
            let losses = self.losses(model, &pred)?;

            let kept = visible.size()[1];
            let ids_keep = ids_shuffle.narrow(1, 0, kept);
            let patches = unshuffle(&Tensor::cat(&[visible, masked], 1), ids_shuffle);
            let kind = match patches.kind() {
                Kind::Uint8 => PixelKind::U8,
                _ => PixelKind::F32,
            };
            let pred = unshuffle(&pred, ids_shuffle);
            let grid = model.config().grid()?;
            let image = |patches: &Tensor| unpatchify(patches, &grid);
            // True patches where they are visible.
            let seen = in_units(visible);
            let with_visible = |other: &Tensor| {
                let other = gather(other, ids_shuffle).narrow(1, kept, masked.size()[1]);
                image(&unshuffle(&Tensor::cat(&[&seen, &other], 1), ids_shuffle))
            };
            let original = in_units(&patches);
            let grey = original.full_like(HIDDEN);
            let mut versions = vec![image(&original)?, with_visible(&grey)?];
            for &statistics in statistics {
                let pixels = model.to_pixels(&pred, &patches, &ids_keep, statistics)?;
                versions.extend([image(&pixels)?, with_visible(&pixels)?]);
            }
            Ok(Reconstruction {
                losses,
                versions,
                display: Display::new(kind, model.normalization()),
                statistics: statistics.to_vec(),
                target: model.config().target,
                norm_pix_loss: model.config().norm_pix_loss,
            })
        })
    }

    /// The loss of each image over its hidden patches; `pred` in shuffled order.
    fn losses(&self, model: &MaskedAutoencoderViT, pred: &Tensor) -> Result<Vec<f64>> {
        let (kept, hidden) = (self.visible.size()[1], self.masked.size()[1]);
        let target = model.target(&self.visible, &self.masked, &self.ids_shuffle)?;
        let target = match model.config().loss_region {
            LossRegion::Masked => target,
            LossRegion::All => target.narrow(1, kept, hidden),
        };
        let pred = pred.narrow(1, kept, hidden);
        (0..self.indices.len() as i64)
            .map(|i| {
                let loss = model.forward_loss(&pred.narrow(0, i, 1), &target.narrow(0, i, 1))?;
                Ok(loss.double_value(&[]))
            })
            .collect()
    }
}

/// Patches by their places, `[batch, n, dim]` by `[batch, m]`.
fn gather(patches: &Tensor, ids: &Tensor) -> Tensor {
    let dim = patches.size()[2];
    patches.gather(1, &ids.unsqueeze(-1).expand([-1, -1, dim], false), false)
}

/// What a model makes of masked images.
#[derive(Debug)]
pub struct Reconstruction {
    /// The loss of each image over its hidden patches.
    pub losses: Vec<f64>,
    /// Original, masked, and for each of `statistics` prediction and prediction with visible patches:
    /// `[batch, height, width, channels]` f32 in the units of mean and standard deviation.
    versions: Vec<Tensor>,
    display: Display,
    statistics: Vec<PatchStatistics>,
    target: Target,
    norm_pix_loss: bool,
}

impl Reconstruction {
    /// What [`losses`](Self::losses) are.
    pub fn loss_name(&self) -> &'static str {
        match (self.target, self.norm_pix_loss) {
            (Target::Pixels, true) => "mean squared error of hidden, normalised patches",
            (Target::Pixels, false) => {
                "mean squared error of hidden pixels, in units of the channels' deviation"
            }
            (Target::Pca, _) => "mean squared error of the coefficients of hidden patches",
            (Target::Tokens, _) => "cross-entropy of hidden tokens, in nats",
        }
    }

    /// Draws them: `original | masked`, and for each of the statistics `prediction | + visible`; below each image its
    /// name, if there are names.
    ///
    /// # Errors
    /// If a tensor cannot be copied from its device.
    pub fn picture(&self, names: &[String]) -> Result<Picture> {
        self.compare(names, |comparison, images| Ok(comparison.draw(images)))
    }

    /// Gives `draw` the versions of all images.
    fn compare<T>(
        &self,
        names: &[String],
        draw: impl FnOnce(&Comparison, &[Versions]) -> Result<T>,
    ) -> Result<T> {
        let [batch, height, width, _] = self.versions[0].size()[..] else {
            unreachable!("images are [batch, height, width, channels]")
        };
        let images: Vec<Versions> = (0..batch)
            .map(|i| {
                let tile = |version: &Tensor| -> Result<Vec<u8>> {
                    let pixels = version.get(i).to_device(Device::Cpu).flatten(0, -1);
                    Ok(self.display.show(&Vec::<f32>::try_from(pixels)?))
                };
                Ok(Versions {
                    tiles: self.versions.iter().map(tile).collect::<Result<_>>()?,
                    name: names.get(i as usize).cloned(),
                })
            })
            .collect::<Result<_>>()?;
        let (groups, mut notes) = self.words();
        notes.extend(self.display.note());
        if self.versions[0].isnan().any().f_int64_value(&[])? != 0 {
            notes.push("grey in the original: no data".into());
        }
        let mut titles = vec!["original", "masked"];
        for _ in &self.statistics {
            titles.extend(["prediction", "+ visible"]);
        }
        let comparison = Comparison {
            groups: &groups,
            titles: &titles,
            notes: &notes,
            columns: if self.statistics.len() > 1 { 1 } else { 2 },
            height: height as u32,
            width: width as u32,
        };
        draw(&comparison, &images)
    }

    /// What is said of the statistics above their versions, and above all.
    fn words(&self) -> (Vec<(usize, &'static str)>, Vec<String>) {
        if self.target == Target::Tokens {
            let note =
                "predictions are tokens, decoded beside the tokens of the true visible patches";
            return (Vec::new(), vec![note.into()]);
        }
        if !self.norm_pix_loss {
            return (Vec::new(), Vec::new());
        }
        let groups = match self.statistics.len() {
            0 | 1 => Vec::new(),
            _ => (self.statistics.iter().enumerate())
                .map(|(i, statistics)| {
                    let words = match statistics {
                        PatchStatistics::Oracle => "oracle statistics",
                        PatchStatistics::Visible => "visible statistics",
                        PatchStatistics::Raw => "raw, no statistics",
                    };
                    (2 + 2 * i, words)
                })
                .collect(),
        };
        let notes = self.statistics.iter().map(|statistics| {
            let source = match statistics {
                PatchStatistics::Oracle => "of the true ones, which gives them away",
                PatchStatistics::Visible => "of visible ones nearby",
                PatchStatistics::Raw => "of all images, each patch alike",
            };
            format!(
                "{}: normalised patches with mean and deviation {source}",
                statistics.name()
            )
        });
        (groups, notes.collect())
    }
}

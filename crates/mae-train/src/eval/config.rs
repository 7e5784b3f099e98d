//! How an encoder is judged: what the user wrote, checked.

use anyhow::{Result, ensure};
use mae_data::{Augmentation, Nodata, RandAugment, Transform};
use mae_model::Kernels;
use mae_model::classifier::Pooling;
use serde::{Deserialize, Serialize};
use tch::Device;

use super::erase::EraseConfig;
use super::spectrum::Looks;
use crate::config::{OptimSection, RunKeys, RunSection, number};
use crate::device;
use crate::train::precision::Precision;

/// What the user wrote: sections and keys of a TOML file. Absent keys take the defaults given here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Seed of heads, order, augmentation and of the random encoder. Default 0.
    pub seed: u64,
    /// The images.
    pub data: EvalDataSection,
    /// What the frozen encoder gives kNN and the linear probe.
    pub features: FeaturesSection,
    /// Nearest neighbours.
    pub knn: KnnSection,
    /// Linear probing.
    pub linear: LinearSection,
    /// Attentive probing.
    pub attentive: AttentiveSection,
    /// Full and partial fine-tuning.
    pub finetune: FinetuneSection,
    /// What needs no labels.
    pub spectrum: SpectrumSection,
    /// Where and how it runs.
    pub run: EvalRunSection,
}

/// `[data]`: the images and their size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalDataSection {
    /// Side of a square image, pixels. Default: as pre-trained; for another one the positions are computed anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// What stands for a value that was not measured, as in a run's `[data]`. Default: as in the run's training, or
    /// `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodata: Option<Nodata>,
    /// Share of the training images that is held out where there are no validation images. Default 0.1.
    pub val_share: f64,
    /// Share of the image's side that a validation crop shows. Default 1; published for ImageNet: 0.875.
    pub val_crop: f64,
    /// Share of broken images to skip before giving up. Default 0.01.
    pub max_broken_share: f64,
}

impl Default for EvalDataSection {
    fn default() -> Self {
        Self {
            image_size: None,
            nodata: None,
            val_share: 0.1,
            val_crop: 1.0,
            max_broken_share: 0.01,
        }
    }
}

/// What is taken of the encoder's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The mean of the patch tokens after the encoder's norm.
    #[default]
    Mean,
    /// The class token after the encoder's norm.
    Class,
}

/// `[features]`: what the frozen encoder gives kNN and the linear probe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeaturesSection {
    /// `mean` of the patch tokens or the `class` token. Default `mean`.
    pub pool: Pool,
}

impl FeaturesSection {
    /// The classifier's name for it.
    pub fn pooling(&self) -> Pooling {
        match self.pool {
            Pool::Mean => Pooling::NormThenMean,
            Pool::Class => Pooling::ClassToken,
        }
    }
}

/// `[knn]`: nearest neighbours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KnnSection {
    /// Numbers of neighbours, each a row of the table. Default 20 and 200.
    pub k: Vec<i64>,
}

impl Default for KnnSection {
    fn default() -> Self {
        Self { k: vec![20, 200] }
    }
}

/// What moves the linear probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinearOptimizer {
    /// As published.
    Lars,
    /// Less sensitive to the learning rate.
    AdamW,
}

/// `[linear]`: linear probing. Defaults: He et al. 2021, appendix A.1, table 10, but for the batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearSection {
    /// `lars` or `adamw`. Default `lars`.
    pub optimizer: LinearOptimizer,
    /// Passes over the images. Default 90.
    pub epochs: u64,
    /// Epochs of linear warm-up; may be a fraction. Default 10.
    pub warmup_epochs: f64,
    /// Images of an update; fewer if there are not so many. Default 1024 (published: 16384, for 1.28 million images).
    pub batch_size: usize,
    /// Learning rate for 256 images an update. Default 0.1.
    pub base_lr: f64,
    /// Decay of the weight matrix. Default 0.
    pub weight_decay: f64,
    /// Random crops and flips through the frozen encoder, as published, in place of cached features. Default false.
    pub augment: bool,
}

impl Default for LinearSection {
    fn default() -> Self {
        Self {
            optimizer: LinearOptimizer::Lars,
            epochs: 90,
            warmup_epochs: 10.0,
            batch_size: 1024,
            base_lr: 0.1,
            weight_decay: 0.0,
            augment: false,
        }
    }
}

/// `[attentive]`: attentive probing, by AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttentiveSection {
    /// Passes over the images. Default 20.
    pub epochs: u64,
    /// Epochs of linear warm-up; may be a fraction. Default 2.
    pub warmup_epochs: f64,
    /// Images of an update; fewer if there are not so many. Default 256.
    pub batch_size: usize,
    /// Learning rate for 256 images an update. Default 1e-2.
    pub base_lr: f64,
    /// AdamW's decay of matrices. Default 0.1.
    pub weight_decay: f64,
}

impl Default for AttentiveSection {
    fn default() -> Self {
        Self {
            epochs: 20,
            warmup_epochs: 2.0,
            batch_size: 256,
            base_lr: 1e-2,
            weight_decay: 0.1,
        }
    }
}

/// `[finetune]`: full and partial fine-tuning. Defaults: He et al. 2021, appendix A.1, table 9, for ViT-Base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FinetuneSection {
    /// Passes over the images. Default 100.
    pub epochs: u64,
    /// Epochs of linear warm-up; may be a fraction. Default 5.
    pub warmup_epochs: f64,
    /// Images that go through the model at once. Default 64.
    pub batch_size: usize,
    /// Batches whose gradients make one update. Default 1.
    pub accumulate: usize,
    /// Learning rate for 256 images an update. Default 1e-3.
    pub base_lr: f64,
    /// Learning rate at the end. Default 1e-6.
    pub min_lr: f64,
    /// AdamW's decay of matrices. Default 0.05.
    pub weight_decay: f64,
    /// AdamW's momentum decays. Default 0.9, 0.999.
    pub betas: [f64; 2],
    /// Largest gradient norm; 0, the default, clips nothing.
    pub clip_grad: f64,
    /// Learning rate of a block over that of the next. Default 0.75.
    pub layer_decay: f64,
    /// Rate at which the last block's residual branches are dropped; growing with depth. Default 0.1.
    pub drop_path: f64,
    /// Probability given to all classes alike. Default 0.1.
    pub label_smoothing: f64,
    /// Mixup's alpha; 0 is off. Default 0.8.
    pub mixup: f64,
    /// CutMix's alpha; 0 is off. Default 1.
    pub cutmix: f64,
    /// RandAugment's magnitude, of 10; 0 is off. Default 9.
    pub rand_augment: f64,
    /// Probability of random erasing. Default 0.25.
    pub erase: f64,
    /// Smallest and largest share of the image's area in a random crop. Default 0.08 to 1.
    pub crop_scale: [f64; 2],
    /// Mirror every other image, at random. Default true.
    pub hflip: bool,
    /// Judge an exponential moving average of the weights with this decay; 0, the default, is off.
    pub ema: f64,
}

impl Default for FinetuneSection {
    fn default() -> Self {
        Self {
            epochs: 100,
            warmup_epochs: 5.0,
            batch_size: 64,
            accumulate: 1,
            base_lr: 1e-3,
            min_lr: 1e-6,
            weight_decay: 0.05,
            betas: [0.9, 0.999],
            clip_grad: 0.0,
            layer_decay: 0.75,
            drop_path: 0.1,
            label_smoothing: 0.1,
            mixup: 0.8,
            cutmix: 1.0,
            rand_augment: 9.0,
            erase: 0.25,
            crop_scale: [0.08, 1.0],
            hflip: true,
            ema: 0.0,
        }
    }
}

/// `[run]`: where and how it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalRunSection {
    /// `auto`, `cpu`, `cuda` or `cuda:N`. Default `auto`.
    pub device: String,
    /// `fp32`, `bf16` or `fp16`. Default: as for pre-training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// What computes transformer blocks: `auto`, the default, `fused`, `fused-mkl` or `plain`, as in pre-training.
    pub kernels: Kernels,
    /// Threads that load images; 0, the default, is one a core.
    pub workers: usize,
    /// Steps of fine-tuning between lines of metrics. Default 10.
    pub log_every: u64,
    /// Minutes between checkpoints of fine-tuning, besides one each epoch; 0 is never. Default 30.
    pub checkpoint_minutes: f64,
}

impl Default for EvalRunSection {
    fn default() -> Self {
        Self {
            device: "auto".into(),
            precision: None,
            kernels: Kernels::default(),
            workers: 0,
            log_every: 10,
            checkpoint_minutes: 30.0,
        }
    }
}

/// `[spectrum]`: what needs no labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpectrumSection {
    /// Images to learn from whose features are looked at. Default 4096.
    pub images: usize,
    /// Random crops of each of 1000 images for LiDAR; 0 for none. Default 10.
    pub views: usize,
}

impl Default for SpectrumSection {
    fn default() -> Self {
        Self {
            images: 4096,
            views: 10,
        }
    }
}

impl SpectrumSection {
    /// How much is looked at.
    pub fn looks(&self) -> Looks {
        Looks {
            images: self.images,
            views: self.views,
        }
    }
}

impl EvalConfig {
    /// Checks every key and makes `run.device`, `run.precision` and `run.kernels` definite. Returns the first two.
    ///
    /// # Errors
    /// With the key, its value, and what it can be.
    pub fn resolve(&mut self) -> Result<(Device, Precision)> {
        number("data.val_share", self.data.val_share, 1e-6..=0.999)?;
        number(
            "data.max_broken_share",
            self.data.max_broken_share,
            0.0..=1.0,
        )?;
        ensure!(
            !self.knn.k.is_empty() && self.knn.k.iter().all(|&k| k >= 1),
            "`knn.k` is {:?}, expected numbers of neighbours, each at least 1",
            self.knn.k
        );
        ensure!(
            self.spectrum.images >= 2,
            "`spectrum.images` is {}, expected at least 2",
            self.spectrum.images
        );
        ensure!(
            self.spectrum.views != 1,
            "`spectrum.views` is 1, expected at least 2, or 0 for none"
        );
        self.linear.check()?;
        self.attentive.check()?;
        self.finetune.check()?;
        self.val_transform(1, 1).validate()?;
        self.finetune.transform(1, 1).validate()?;
        let (device, precision) = self.run.for_loop().check()?;
        self.run.settle(device, precision);
        Ok((device, precision))
    }

    /// The same, but for where and how it runs, on which no result depends but for the precision: as `other` has it.
    pub fn with_run_of(&self, other: &Self) -> Self {
        Self {
            run: EvalRunSection {
                precision: self.run.precision,
                ..other.run.clone()
            },
            ..self.clone()
        }
    }

    /// Whether an evaluation that began under `begun` can go on under this.
    pub fn continues(&self, begun: &Self) -> bool {
        self.with_run_of(begun) == *begun
    }

    /// As a TOML file, which reads back as itself.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("plain tables of numbers and strings")
    }

    /// What is done to an image that the model is judged by.
    pub fn val_transform(&self, height: usize, width: usize) -> Transform {
        let mut transform = Transform::center_crop(height, width);
        if self.data.val_crop != 1.0 {
            transform.augmentation = Augmentation::CenterCrop {
                crop_share: self.data.val_crop,
            };
        }
        transform
    }
}

/// Checks what probes have in common.
fn check_probe(
    section: &str,
    (epochs, warmup_epochs): (u64, f64),
    batch_size: usize,
    (base_lr, weight_decay): (f64, f64),
) -> Result<()> {
    ensure!(epochs >= 1, "`{section}.epochs` is 0, expected at least 1");
    ensure!(
        (0.0..epochs as f64).contains(&warmup_epochs),
        "`{section}.warmup_epochs` is {warmup_epochs}, expected fewer than `{section}.epochs` = {epochs}: set it, too, 0 \
         for none"
    );
    ensure!(
        batch_size >= 2,
        "`{section}.batch_size` is {batch_size}, expected at least 2 for batch norm"
    );
    number(&format!("{section}.base_lr"), base_lr, 1e-30..=1e6)?;
    number(&format!("{section}.weight_decay"), weight_decay, 0.0..=1e3)
}

impl LinearSection {
    fn check(&self) -> Result<()> {
        check_probe(
            "linear",
            (self.epochs, self.warmup_epochs),
            self.batch_size,
            (self.base_lr, self.weight_decay),
        )
    }
}

impl AttentiveSection {
    fn check(&self) -> Result<()> {
        check_probe(
            "attentive",
            (self.epochs, self.warmup_epochs),
            self.batch_size,
            (self.base_lr, self.weight_decay),
        )
    }
}

impl FinetuneSection {
    fn check(&self) -> Result<()> {
        self.optim().check_as("finetune")?;
        number("finetune.layer_decay", self.layer_decay, 1e-6..=1.0)?;
        number("finetune.drop_path", self.drop_path, 0.0..=0.99)?;
        number("finetune.label_smoothing", self.label_smoothing, 0.0..=0.99)?;
        // Drawing from a Beta distribution takes ever longer for a larger alpha.
        number("finetune.mixup", self.mixup, 0.0..=4.0)?;
        number("finetune.cutmix", self.cutmix, 0.0..=4.0)?;
        number("finetune.rand_augment", self.rand_augment, 0.0..=10.0)?;
        number("finetune.erase", self.erase, 0.0..=1.0)?;
        number("finetune.ema", self.ema, 0.0..=0.999_999_9)
    }

    /// What the training loop needs of it.
    pub fn optim(&self) -> OptimSection {
        OptimSection {
            epochs: self.epochs,
            warmup_epochs: self.warmup_epochs,
            batch_size: self.batch_size,
            accumulate: self.accumulate,
            base_lr: self.base_lr,
            min_lr: self.min_lr,
            weight_decay: self.weight_decay,
            betas: self.betas,
            clip_grad: self.clip_grad,
        }
    }

    /// What is done to a training image.
    pub fn transform(&self, height: usize, width: usize) -> Transform {
        Transform {
            augmentation: Augmentation::RandomResizedCrop {
                scale: self.crop_scale,
                ratio: Augmentation::RATIO,
            },
            hflip: self.hflip,
            rand_augment: (self.rand_augment > 0.0).then(|| RandAugment {
                magnitude: self.rand_augment,
                ..RandAugment::default()
            }),
            ..Transform::center_crop(height, width)
        }
    }

    /// Random erasing with the published boxes.
    pub fn erasing(&self) -> EraseConfig {
        EraseConfig {
            probability: self.erase,
            ..EraseConfig::default()
        }
    }
}

impl RunKeys for EvalRunSection {
    /// A checkpoint each epoch, the last two kept, for one may be damaged.
    fn for_loop(&self) -> RunSection {
        RunSection {
            device: self.device.clone(),
            precision: self.precision,
            kernels: self.kernels,
            log_every: self.log_every,
            checkpoint_every: 1,
            checkpoint_minutes: self.checkpoint_minutes,
            keep_checkpoints: 2,
            ..RunSection::default()
        }
    }

    fn settle(&mut self, device: Device, precision: Precision) {
        self.device = device::name(device);
        self.precision = Some(precision);
        self.kernels = self.kernels.here();
    }
}

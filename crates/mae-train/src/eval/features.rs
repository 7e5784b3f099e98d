//! What an encoder makes of whole images: extracted once, kept on disk.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use mae_data::{Dataset, ImageBatch, ImageLoader, ImageLoaderConfig, Shard, Transform};
use mae_model::classifier::Pass;
use mae_model::tensor_file::{read_tensors, write_tensors};
use mae_model::{VitClassifier, patchify};
use tch::{Device, Kind, Tensor, no_grad};

use crate::data::batch::{images_to_device, label_tensor};
use crate::data::digest::Digester;
use crate::distributed::World;
use crate::run::interrupt::Interrupt;
use crate::run::progress::Progress;
use crate::train::precision::Precision;

/// Features and labels of a data set.
#[derive(Debug)]
pub struct Features {
    /// `[images, embed_dim]`, f32.
    pub values: Tensor,
    /// `[images]`, i64.
    pub labels: Tensor,
    /// Of each image in the data set, `[images]`, i64: broken images are left out.
    pub indices: Tensor,
}

impl Features {
    /// The number of images.
    pub fn len(&self) -> i64 {
        self.labels.numel() as i64
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same on another device.
    pub fn to_device(&self, device: Device) -> Self {
        Self {
            values: self.values.to_device(device),
            labels: self.labels.to_device(device),
            indices: self.indices.shallow_clone(),
        }
    }
}

/// Images at once; fixed, because another number may round differently.
pub const BATCH: usize = 128;

/// How images go through the encoder.
#[derive(Clone, Debug)]
pub struct Extraction<'a> {
    /// The encoder; its pooling decides what a feature is.
    pub model: &'a VitClassifier,
    /// The precision of matrix products.
    pub precision: Precision,
    /// The size and part of the image that it sees.
    pub transform: Transform,
    /// Threads that load images; 0 is one a core.
    pub workers: usize,
    /// Share of broken images to skip before giving up.
    pub max_broken_share: f64,
}

impl Extraction<'_> {
    /// The features of `dataset`: from the cache if they are there, else computed and put there.
    ///
    /// A cached file is found by weights, images and settings; `dataset` says what its images are through
    /// [`Dataset::identify`]. Of several processes the first has the cache.
    /// A cache that cannot be written to costs a warning, for the features are there without it.
    ///
    /// # Errors
    /// If images cannot be read or have no labels, or another process is gone; or, as
    /// [`Stopped`](crate::error::Stopped), after a signal.
    pub fn features(
        &self,
        dataset: &Arc<dyn Dataset>,
        cache: &FeatureCache,
        world: &World,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<Features> {
        let key = self.key(dataset.as_ref())?;
        let cached = match world.is_first() {
            true => cache.read(&key),
            false => None,
        };
        let [images] = world.sums([cached.as_ref().map_or(0, Features::len)])?;
        if images > 0 {
            return self.share(cached, images, world);
        }
        let features = self.extract(dataset, world, interrupt, progress)?;
        if world.is_first() {
            cache.write(&key, &features);
        }
        Ok(features)
    }

    /// What the first process has, in all of them.
    fn share(&self, features: Option<Features>, images: i64, world: &World) -> Result<Features> {
        let dim = self.model.config().encoder.embed_dim as i64;
        let features = features.unwrap_or_else(|| Features {
            values: Tensor::zeros([images, dim], (Kind::Float, Device::Cpu)),
            labels: Tensor::zeros([images], (Kind::Int64, Device::Cpu)),
            indices: Tensor::zeros([images], (Kind::Int64, Device::Cpu)),
        });
        let Features {
            values,
            labels,
            indices,
        } = &features;
        world.copy_from_first(&[values, labels, indices].map(Tensor::shallow_clone))?;
        Ok(features)
    }

    /// The features of `dataset`, computed: each of several processes computes its part of them, and has all.
    ///
    /// # Errors
    /// If images cannot be read or have no labels, or another process is gone; or, as
    /// [`Stopped`](crate::error::Stopped), after a signal.
    pub fn extract(
        &self,
        dataset: &Arc<dyn Dataset>,
        world: &World,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<Features> {
        let row = [self.model.config().encoder.embed_dim as i64];
        let encode = |batch: &ImageBatch| self.encode(batch);
        let rows = Rows::new(self, dataset, &row, &encode);
        rows.with_labels(world, interrupt, progress)
    }

    /// The images of `dataset` in its order, [`BATCH`] of each process at a time, or a part of them.
    ///
    /// # Errors
    /// If the settings make no batch of these images.
    pub fn loader(&self, dataset: &Arc<dyn Dataset>, shard: Shard) -> Result<ImageLoader> {
        let config = ImageLoaderConfig {
            workers: self.workers,
            max_broken_share: self.max_broken_share,
            shard,
            ..ImageLoaderConfig::new(self.transform.clone(), BATCH * shard.size)
        };
        Ok(ImageLoader::new(Arc::clone(dataset), config)?)
    }

    /// The features of a batch, `[batch, embed_dim]`, f32 on the model's device.
    ///
    /// # Errors
    /// If the images are of another size than the model's.
    pub fn encode(&self, batch: &ImageBatch) -> Result<Tensor> {
        self.run(batch, |patches| self.model.features(patches))
    }

    /// All tokens of a batch, `[batch, 1 + patches, embed_dim]`, class token first, f32 on the model's device.
    ///
    /// # Errors
    /// If the images are of another size than the model's, or its pooling comes before the norm.
    pub fn encode_tokens(&self, batch: &ImageBatch) -> Result<Tensor> {
        self.run(batch, |patches| self.model.tokens(patches))
    }

    /// Class scores of a batch, `[batch, classes]`, f32 on the model's device.
    ///
    /// # Errors
    /// If the images are of another size than the model's.
    pub fn classify(&self, batch: &ImageBatch) -> Result<Tensor> {
        self.run(batch, |patches| self.model.forward(patches, Pass::Eval))
    }

    fn run(
        &self,
        batch: &ImageBatch,
        network: impl FnOnce(&Tensor) -> mae_model::Result<Tensor>,
    ) -> Result<Tensor> {
        let device = self.model.device();
        let encoder = &self.model.config().encoder;
        let images = images_to_device(batch, &self.transform, device);
        let patches = patchify(&images, encoder.patch_size)?;
        let results =
            no_grad(|| torch_ext::autocast(device, self.precision.kind(), || network(&patches)))??;
        Ok(results.to_kind(Kind::Float))
    }

    /// A digest of all that decides the features.
    fn key(&self, dataset: &dyn Dataset) -> Result<String> {
        let mut digest = Digester::default();
        let config = serde_json::to_string(self.model.config())?;
        let normalization = serde_json::to_string(self.model.normalization())?;
        let transform = serde_json::to_string(&self.transform)?;
        for part in [&config, &normalization, &transform, self.precision.name()] {
            digest.write(part.as_bytes());
            digest.write(b"\0");
        }
        for (key, tensor) in self.model.parameters() {
            if key.starts_with("head.") {
                continue;
            }
            digest.write(key.as_bytes());
            let host = tensor.detach().to_device(Device::Cpu).contiguous();
            let mut bytes = vec![0; host.numel() * host.kind().elt_size_in_bytes()];
            host.copy_data_u8(&mut bytes, host.numel());
            digest.write(&bytes);
        }
        dataset.identify(&mut digest);
        Ok(digest.hex())
    }
}

/// What images become, a row each.
pub struct Rows<'a> {
    extraction: &'a Extraction<'a>,
    dataset: &'a Arc<dyn Dataset>,
    /// Of a row.
    size: &'a [i64],
    encode: &'a dyn Fn(&ImageBatch) -> Result<Tensor>,
}

impl<'a> Rows<'a> {
    /// Rows of `size` that `encode` makes of the images of `dataset` as `extraction` loads them.
    pub fn new(
        extraction: &'a Extraction<'a>,
        dataset: &'a Arc<dyn Dataset>,
        size: &'a [i64],
        encode: &'a dyn Fn(&ImageBatch) -> Result<Tensor>,
    ) -> Self {
        Self {
            extraction,
            dataset,
            size,
            encode,
        }
    }

    /// All rows, with their images' labels.
    ///
    /// # Errors
    /// As [`of_epoch`](Self::of_epoch), or if an image has no label.
    pub fn with_labels(
        &self,
        world: &World,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<Features> {
        let (values, indices) = self.of_epoch(0, world, interrupt, progress)?;
        let labels = label_tensor(indices.iter().map(|&index| self.dataset.label(index)))?;
        let indices: Vec<i64> = indices.into_iter().map(|index| index as i64).collect();
        Ok(Features {
            values,
            labels,
            indices: Tensor::from_slice(&indices),
        })
    }

    /// All rows, on the CPU in the order of the data set, and the index of each: broken images have none.
    ///
    /// `epoch` decides what augmentation makes of the images. Each of several processes computes its part of the rows,
    /// and has all.
    ///
    /// # Errors
    /// If images cannot be read, or another process is gone; or, as [`Stopped`](crate::error::Stopped), after a signal.
    pub fn of_epoch(
        &self,
        epoch: u64,
        world: &World,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<(Tensor, Vec<usize>)> {
        let loader = self.extraction.loader(self.dataset, world.shard())?;
        let bar = progress.start(0, loader.batches_per_epoch() as u64);
        let nothing = [&[0], self.size].concat();
        // So that there is something of the right size if there are no images.
        let mut values = vec![Tensor::zeros(nothing, (Kind::Float, Device::Cpu))];
        let mut indices = Vec::new();
        for batch in loader.epoch(epoch, 0) {
            let batch = batch?;
            if batch.is_empty() {
                continue;
            }
            indices.extend(&batch.indices);
            values.push((self.encode)(&batch)?.to_device(Device::Cpu));
            bar.advance();
            bar.message(&format!("features of {} images", self.dataset.len()));
            interrupt.check()?;
        }
        gather(Tensor::cat(&values, 0), indices, self.dataset.len(), world)
    }
}

/// The rows of all processes, in the order of the data set.
fn gather(
    own: Tensor,
    indices: Vec<usize>,
    images: usize,
    world: &World,
) -> Result<(Tensor, Vec<usize>)> {
    if world.size() == 1 {
        return Ok((own, indices));
    }
    // Each image is in one process: the sum with the others' zeros is its row.
    let indices: Vec<i64> = indices.into_iter().map(|index| index as i64).collect();
    let indices = Tensor::from_slice(&indices);
    let everywhere = |rows: &Tensor| -> Result<Tensor> {
        let mut size = rows.size();
        size[0] = images as i64;
        let all =
            Tensor::zeros(&size[..], (rows.kind(), Device::Cpu)).index_copy(0, &indices, rows);
        world.sum(&all)?;
        Ok(all)
    };
    let is_there = everywhere(&Tensor::ones_like(&indices))?
        .nonzero()
        .squeeze_dim(1);
    let values = everywhere(&own)?.index_select(0, &is_there);
    let indices = Vec::<i64>::try_from(is_there)?;
    Ok((values, indices.into_iter().map(|i| i as usize).collect()))
}

/// Where features are kept between evaluations, if that can be.
#[derive(Debug)]
pub struct FeatureCache {
    folder: PathBuf,
    has_failed: Cell<bool>,
}

impl FeatureCache {
    /// A cache in `folder`, which is made when it is needed.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            has_failed: Cell::new(false),
        }
    }

    /// The user's: `mae-rs/features` in their cache directory, or `features` in `MAE_CACHE_DIR`.
    ///
    /// `None`, with a warning, if neither `MAE_CACHE_DIR` nor the home directory is known.
    pub fn of_user() -> Option<Self> {
        let set = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let home = || Some(set("HOME")?.join(".cache"));
        let root = set("MAE_CACHE_DIR")
            .or_else(|| Some(set("XDG_CACHE_HOME").or_else(home)?.join("mae-rs")));
        if root.is_none() {
            log::warn!(
                "features are not kept, for there is no home directory; set MAE_CACHE_DIR to keep them"
            );
        }
        Some(Self::new(root?.join("features")))
    }

    fn file(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.safetensors"))
    }

    /// A damaged or foreign file counts as none.
    fn read(&self, key: &str) -> Option<Features> {
        let mut tensors = read_tensors(&self.file(key)).ok()?.0;
        let [values, labels, indices] =
            ["values", "labels", "indices"].map(|key| tensors.remove(key));
        let (values, labels, indices) = (values?, labels?, indices?);
        let images = values.size()[0];
        (labels.size() == [images] && indices.size() == [images]).then_some(Features {
            values,
            labels,
            indices,
        })
    }

    /// Says once that it cannot be written to.
    fn write(&self, key: &str, features: &Features) {
        let write = || -> Result<()> {
            std::fs::create_dir_all(&self.folder)
                .with_context(|| format!("creating {}", self.folder.display()))?;
            let tensors = BTreeMap::from([
                ("values".to_string(), features.values.shallow_clone()),
                ("labels".to_string(), features.labels.shallow_clone()),
                ("indices".to_string(), features.indices.shallow_clone()),
            ]);
            Ok(write_tensors(&self.file(key), &tensors, HashMap::new())?)
        };
        if let Err(error) = write()
            && !self.has_failed.replace(true)
        {
            log::warn!(
                "features are used, but not kept for the next time: {error:#}; MAE_CACHE_DIR names another folder"
            );
        }
    }
}

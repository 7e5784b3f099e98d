//! What the configurations of everything that trains have in common.

use std::fmt::Debug;
use std::path::Path;

use anyhow::{Context, Result};
use mae_data::{PatchGrid, Transform};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Device;

use super::recipes::Recipe;
use super::{DataSection, OptimSection, RunSection, Source, read_run};
use crate::device;
use crate::run::folder::RunDir;
use crate::train::precision::Precision;

/// What is trained: its own part of a configuration.
pub trait Method: Clone + Debug + PartialEq + Serialize {
    /// The command that trains it.
    const COMMAND: &'static str;
    /// The recipe that it is trained by where nothing is said.
    const RECIPE: &'static str;
    /// All its recipes.
    const RECIPES: &'static [Recipe];
    /// What the user writes.
    type Written: DeserializeOwned;
    /// The keys of `[run]` that mean something for it.
    type Keys: RunKeys;

    /// Checks every key and the combinations, and fills in what depends on others or on the machine.
    ///
    /// # Errors
    /// With the key, its value, and what it can be.
    fn resolve(written: Self::Written) -> Result<Run<Self>>;

    /// What to do, in words, where the run in `run_dir` cannot go on.
    fn begin_anew(_run_dir: &RunDir) -> String {
        "or begin a new run with another --out".to_string()
    }
}

/// A `[run]`, in which some keys are left out where they mean nothing.
pub trait RunKeys: Clone + Debug + PartialEq + Serialize {
    /// What the training loop needs of it.
    fn for_loop(&self) -> RunSection;

    /// Makes it definite.
    fn settle(&mut self, device: Device, precision: Precision);
}

/// What a run is made of: complete and checked. Only [`Method::resolve`] makes one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run<M: Method> {
    /// Seed of weights, order, crops, and masks or noise.
    pub seed: u64,
    /// What is trained; its sections are those of the whole.
    #[serde(flatten)]
    pub method: M,
    /// The images.
    pub data: DataSection,
    /// Batch, learning rate and length of training.
    pub optim: OptimSection,
    /// Where and how it runs, definite.
    pub run: M::Keys,
    /// The device that `run.device` names.
    #[serde(skip)]
    pub device: Device,
    /// The precision that `run.precision` names.
    #[serde(skip)]
    pub precision: Precision,
    /// The patches of an image.
    #[serde(skip)]
    pub grid: PatchGrid,
}

impl<M: Method> Run<M> {
    /// Reads `source`, puts `data` and then `overrides` (`a.b=value`) over it, and resolves that.
    ///
    /// # Errors
    /// As [`read`](super::read) and [`Method::resolve`].
    pub fn read(source: &Source, data: Option<&Path>, overrides: &[String]) -> Result<Self> {
        M::resolve(read_run(source, M::RECIPES, data, overrides)?)
    }

    /// Checks what every method has, and makes it definite.
    pub(crate) fn complete(
        seed: u64,
        method: M,
        grid: PatchGrid,
        data: DataSection,
        optim: OptimSection,
        mut run: M::Keys,
    ) -> Result<Self> {
        data.check(grid.channels())?;
        optim.check_as("optim")?;
        let (device, precision) = run.for_loop().check()?;
        run.settle(device, precision);
        let config = Self {
            seed,
            method,
            data,
            optim,
            run,
            device,
            precision,
            grid,
        };
        let transform = config.transform();
        transform.validate().context("`data` describes no crop")?;
        Ok(config)
    }

    /// The configuration as a TOML file, which reads back as itself.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("plain tables of numbers and strings")
    }

    /// What is done to a training image.
    pub fn transform(&self) -> Transform {
        self.data.transform(self.grid.height(), self.grid.width())
    }

    /// The same with `[run]` of `other`, of which no number depends, but for its precision.
    pub fn with_run_of(mut self, other: &Self) -> Self {
        self.run = other.run.clone();
        self.run.settle(other.device, self.precision);
        self
    }
}

impl RunKeys for RunSection {
    fn for_loop(&self) -> RunSection {
        self.clone()
    }

    fn settle(&mut self, device: Device, precision: Precision) {
        self.device = device::name(device);
        self.precision = Some(precision);
        self.kernels = self.kernels.here();
    }
}

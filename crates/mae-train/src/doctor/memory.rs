//! How much memory a run needs, part by part.

use anyhow::Result;
use mae_data::PatchGrid;
use mae_model::Computation;
use serde::Serialize;
use tch::Device;

use crate::config::RunConfig;

/// Bytes of a value of a batch.
const VALUE: u64 = 1;

/// Bytes that CUDA's libraries take of a device for themselves; NVIDIA documents no number.
const CUDA_LIBRARIES: u64 = 500_000_000;

/// Bytes that a run needs on its device, estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RunMemory {
    /// The program, its libraries, and its list of the images; on CUDA what its libraries take.
    pub program: u64,
    /// The model's weights.
    pub weights: u64,
    /// Their gradients.
    pub gradients: u64,
    /// The optimizer's moments.
    pub optimizer: u64,
    /// What a batch's forward and backward pass need.
    pub activations: u64,
    /// Batches between the loader and the model.
    pub batches: u64,
    /// All of it.
    pub total: u64,
}

impl RunMemory {
    /// What a run of `config` needs beside `program` bytes of main memory that it has before it begins.
    ///
    /// # Errors
    /// If the configuration describes no model.
    pub fn estimate(config: &RunConfig, program: u64, workers: usize) -> Result<Self> {
        let optim = &config.optim;
        let computation = Computation {
            kernels: config.run.kernels,
            device: config.device,
            precision: config.precision.kind(),
        };
        let training = (config.method.model).training_memory(
            optim.batch_size,
            config.method.mask.ratio,
            computation,
        )?;
        let batch = batch_bytes(&config.grid, optim.batch_size);
        let (program, batches) = match config.device {
            // The loader's batches are in main memory; the device has one, and the next on its way.
            Device::Cuda(_) => (CUDA_LIBRARIES, 2 * batch),
            _ => {
                let held = batches_held(optim.batch_size, optim.accumulate, workers);
                (program, batch * held as u64)
            }
        };
        Ok(Self {
            program,
            weights: training.weights,
            gradients: training.gradients,
            optimizer: training.optimizer,
            activations: training.activations,
            batches,
            total: program + training.total() + batches,
        })
    }
}

/// Bytes of a batch of `images`: pixels, `ids_shuffle` as i64, number and class.
pub fn batch_bytes(grid: &PatchGrid, images: usize) -> u64 {
    const NUMBER_AND_CLASS: usize = size_of::<usize>() + size_of::<Option<u32>>();
    let ids = grid.patches() * size_of::<i64>();
    images as u64 * (grid.image_len() as u64 * VALUE + (ids + NUMBER_AND_CLASS) as u64)
}

/// Batches that are in main memory at once: those that wait, as many as [`data::loader`](crate::data::loader) asks
/// for; those being made, see `mae-data/src/loader/epoch.rs`; those of the update, and one of them as tensors.
pub fn batches_held(batch_size: usize, accumulate: usize, workers: usize) -> usize {
    let (waiting, being_made) = (2 * accumulate, 1 + workers.div_ceil(batch_size));
    waiting + being_made + accumulate + 1
}

/// Bytes of a checkpoint: the model, and AdamW's two moments of what is trained.
///
/// # Errors
/// If the configuration describes no model.
pub fn checkpoint_bytes(config: &RunConfig) -> Result<u64> {
    let count = config.method.model.parameter_count()?;
    Ok(4 * count.total() + 8 * count.trained())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::config;

    #[test]
    fn batches_counted_by_hand() {
        let grid = PatchGrid::new(16, 16, 4, 3).unwrap();
        assert_eq!(batch_bytes(&grid, 5), 5 * (16 * 16 * 3 + 16 * 8 + 8 + 8));
        // Two wait, two are being made, one is in use, and is copied.
        assert_eq!(batches_held(32, 1, 2), 2 + 2 + 1 + 1);
        assert_eq!(batches_held(2, 4, 7), 8 + 5 + 4 + 1);
    }

    #[test]
    fn the_parts_make_the_whole() {
        let config = config(&["optim.accumulate=2"]);
        let memory = RunMemory::estimate(&config, 1000, 2).unwrap();
        let parts = [
            memory.program,
            memory.weights,
            memory.gradients,
            memory.optimizer,
            memory.activations,
            memory.batches,
        ];
        assert_eq!(memory.total, parts.iter().sum::<u64>());
        assert_eq!(memory.program, 1000);
        assert_eq!(memory.batches, 9 * batch_bytes(&config.grid, 32));
    }
}

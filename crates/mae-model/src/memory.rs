//! How much memory training needs, for a reader who knows how much the machine has.

use mae_data::kept_patches;
use mae_kernels::BlockShape;
use serde::Serialize;
use tch::{Device, Kind};

use crate::kernels::pool;
use crate::{Kernels, LossRegion, MaeConfig, Result, Target};

/// Bytes of an f32.
const F32: u64 = 4;

/// Numbers that a model consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ParameterCount {
    /// Trained ones of the encoder, its class and mask token included.
    pub encoder: u64,
    /// Trained ones of the decoder, the head and the mask token included.
    pub decoder: u64,
    /// Those that do not train: positions and principal components. A tokenizer's are not counted.
    pub fixed: u64,
}

impl ParameterCount {
    /// Those that an optimizer moves.
    pub fn trained(&self) -> u64 {
        self.encoder + self.decoder
    }

    /// All that a weight file holds.
    pub fn total(&self) -> u64 {
        self.trained() + self.fixed
    }
}

/// How a step is computed, as far as it matters to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Computation {
    /// Which code computes transformer blocks.
    pub kernels: Kernels,
    /// Where.
    pub device: Device,
    /// The dtype that products are computed in, under autocast if it is not f32.
    pub precision: Kind,
}

/// Bytes that training holds on the device at once, by what they are for.
///
/// It is an estimate from above: what is needed at different moments of a step is added, for an allocator that keeps
/// what was freed seldom finds the same place for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TrainingMemory {
    /// The model, and under autocast its matrices once more, in half precision.
    pub weights: u64,
    /// One number a trained parameter.
    pub gradients: u64,
    /// AdamW's two moments.
    pub optimizer: u64,
    /// What the forward pass keeps for the way back, and the most that the way back works in.
    pub activations: u64,
}

impl TrainingMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations
    }
}

impl MaeConfig {
    /// How many numbers the model consists of.
    ///
    /// A block of width `d` and hidden width `h` has `4 d d + 2 d h` of them in matrices, `9 d + h` in biases and norms.
    ///
    /// # Errors
    /// If the model cannot be built.
    pub fn parameter_count(&self) -> Result<ParameterCount> {
        self.validate()?;
        let patch_dim = self.patch_dim() as u64;
        let patches = self.grid()?.patches() as u64;
        let (dim, decoder_dim) = (self.embed_dim as u64, self.decoder_embed_dim as u64);
        let target_dim = self.target_dim() as u64;
        let block = |d: u64| {
            let h = self.hidden(d as usize) as u64;
            4 * d * d + 2 * d * h + 9 * d + h
        };
        let (encoder_token, decoder_token) = match self.encoder_mask_tokens {
            true => (dim, 0),
            false => (0, decoder_dim),
        };
        // Embedding, class token, norm; embedding, norm, head.
        let encoder = (patch_dim + 1) * dim + dim + self.depth as u64 * block(dim) + 2 * dim;
        let decoder = (dim + 1) * decoder_dim
            + self.decoder_depth as u64 * block(decoder_dim)
            + 2 * decoder_dim
            + (decoder_dim + 1) * target_dim;
        let components = match self.target {
            Target::Pca => (1 + target_dim) * patch_dim,
            Target::Pixels | Target::Tokens => 0,
        };
        Ok(ParameterCount {
            encoder: encoder + encoder_token,
            decoder: decoder + decoder_token,
            fixed: (1 + patches) * (dim + decoder_dim) + components,
        })
    }

    /// What one update needs from batches of `batch` images with `mask_ratio` of their patches hidden.
    ///
    /// Of `n` tokens of width `d` that go into a block, `q` that come out, and hidden width `h`, there are kept,
    /// as numbers (`x`, the block's input; `a`, what attention gathers; `x1`, tokens after attention):
    ///
    /// ```text
    /// fused           n d (x) + q d + 2 n d (q, k, v) + q d (a) + q d (x1) + q h (before GELU)
    /// plain, f32      the same, and n d + q d (after the norms) + q h (after GELU)
    /// plain, 16 bit   x and x1 in 4 bytes, all else of the above in 2
    /// ```
    ///
    /// and `q` a head for the softmax's sums, in f32. To it come the normalised patches, target, prediction and their
    /// difference, what the last norms take and give, and the most that a block's way back works in.
    /// What a tokenizer needs is not counted, nor what libraries keep to themselves.
    ///
    /// Source: `mae-kernels/src/block.rs` for fused blocks; else what libtorch's operations save for their gradients.
    ///
    /// # Errors
    /// If the model cannot be built, or `mask_ratio` hides nothing or everything.
    pub fn training_memory(
        &self,
        batch: usize,
        mask_ratio: f64,
        computation: Computation,
    ) -> Result<TrainingMemory> {
        let count = self.parameter_count()?;
        let storage = Storage::of(computation);
        let halves = match storage {
            Storage::Half => 2 * self.matrix_values(),
            Storage::Fused | Storage::Plain => 0,
        };
        Ok(TrainingMemory {
            weights: F32 * count.total() + halves,
            gradients: F32 * count.trained(),
            optimizer: 2 * F32 * count.trained(),
            activations: self.activations(batch, mask_ratio, storage)?,
        })
    }

    /// Bytes that `batch` images need.
    fn activations(&self, batch: usize, mask_ratio: f64, storage: Storage) -> Result<u64> {
        let patches = self.grid()?.patches();
        let kept = kept_patches(patches, mask_ratio)?;
        let all = 1 + patches;
        let encoded = if self.encoder_mask_tokens {
            all
        } else {
            1 + kept
        };
        let first = match self.loss_region {
            LossRegion::Masked => 1 + kept,
            LossRegion::All => 1,
        };
        let encoder = self.block_shape(encoded, 0, self.embed_dim, self.num_heads);
        let decoder =
            |first| self.block_shape(all, first, self.decoder_embed_dim, self.decoder_num_heads);
        let blocks = [
            (self.depth as u64, encoder),
            (self.decoder_depth as u64 - 1, decoder(0)),
            (1, decoder(first)),
        ];
        let saved: u64 = blocks
            .iter()
            .map(|(count, shape)| count * storage.saved(shape))
            .sum();
        let work = blocks
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(_, shape)| {
                storage.work(&BlockShape {
                    images: batch,
                    ..*shape
                })
            });
        // The patches, normalised; those that are predicted as target, prediction, difference.
        let predicted = all - first;
        let pixels = patches * self.patch_dim() + 3 * predicted * self.target_dim();
        // What the two last norms take and give.
        let norms = 2 * (encoded * self.embed_dim + predicted * self.decoder_embed_dim);
        let work = work.max().unwrap_or(0);
        Ok(batch as u64 * (saved + F32 * (pixels + norms) as u64) + work)
    }

    /// Numbers of the matrices that autocast keeps in half precision while a batch is under way.
    fn matrix_values(&self) -> u64 {
        let block = |d: usize| 4 * d * d + 2 * d * self.hidden(d);
        let (dim, decoder_dim) = (self.embed_dim, self.decoder_embed_dim);
        let blocks = self.depth * block(dim) + self.decoder_depth * block(decoder_dim);
        let embeddings = self.patch_dim() * dim + dim * decoder_dim;
        (blocks + embeddings + decoder_dim * self.target_dim()) as u64
    }

    fn hidden(&self, dim: usize) -> usize {
        (dim as f64 * self.mlp_ratio) as usize
    }

    /// A block of one image.
    fn block_shape(
        &self,
        tokens: usize,
        first_query: usize,
        dim: usize,
        heads: usize,
    ) -> BlockShape {
        BlockShape {
            images: 1,
            tokens,
            first_query,
            dim,
            heads,
            hidden: self.hidden(dim),
            eps: self.layer_norm_eps as f32,
        }
    }
}

/// How a block keeps what it needs on the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storage {
    /// By `mae-kernels`: all in f32, whatever products are computed in.
    Fused,
    /// By libtorch, in f32.
    Plain,
    /// By libtorch under autocast, in 16 bits.
    Half,
}

impl Storage {
    fn of(computation: Computation) -> Self {
        let Computation {
            kernels,
            device,
            precision,
        } = computation;
        match precision {
            _ if kernels.fuses_on(device, precision) => Self::Fused,
            Kind::Float => Self::Plain,
            _ => Self::Half,
        }
    }

    /// Bytes from the forward pass on, for one image.
    fn saved(self, shape: &BlockShape) -> u64 {
        let (n, d, h) = (shape.tokens, shape.dim, shape.hidden);
        let q = n - shape.first_query;
        let (n, q, d, h) = (n as u64, q as u64, d as u64, h as u64);
        let heads = shape.heads as u64;
        let (input, products) = (n * d, q * d + 2 * n * d + q * d);
        let normed = n * d + q * d;
        match self {
            Self::Fused => F32 * (shape.input_len() + shape.saved_len()) as u64,
            Self::Plain => {
                F32 * (input + products + q * d + q * h + normed + q * h) + F32 * q * heads
            }
            Self::Half => {
                F32 * (input + q * d) + 2 * (products + q * h + normed + q * h) + F32 * q * heads
            }
        }
    }

    /// Bytes of the backward pass alone, for all images.
    fn work(self, shape: &BlockShape) -> u64 {
        let gradients = shape.output_len() + shape.input_len();
        let values = match self {
            Self::Fused => pool().install(|| shape.work_len()) + gradients,
            // Gradients of both sides of GELU, of q, k and v, and of a norm's result.
            Self::Plain | Self::Half => {
                let queries = shape.tokens - shape.first_query;
                2 * shape.images * queries * shape.hidden + 4 * shape.input_len() + gradients
            }
        };
        let bytes = if self == Self::Half { 2 } else { F32 };
        bytes * values as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MaskedAutoencoderViT, Normalization};

    const FUSED: Computation = Computation {
        kernels: Kernels::Fused,
        device: Device::Cpu,
        precision: Kind::Float,
    };

    /// 4 patches of 2 x 2 grey pixels; an encoder of 8 x 1, a decoder of 4 x 2, hidden widths 16 and 8.
    fn small() -> MaeConfig {
        MaeConfig {
            image_height: 4,
            image_width: 4,
            patch_size: 2,
            channels: 1,
            embed_dim: 8,
            depth: 1,
            num_heads: 2,
            decoder_embed_dim: 4,
            decoder_depth: 2,
            decoder_num_heads: 1,
            mlp_ratio: 2.0,
            ..MaeConfig::tiny(4)
        }
    }

    #[test]
    fn models_have_as_many_parameters_as_are_counted() {
        let pca = MaeConfig {
            target: Target::Pca,
            pca_components: Some(3),
            norm_pix_loss: false,
            ..small()
        };
        let with_tokens = MaeConfig {
            encoder_mask_tokens: true,
            ..small()
        };
        for config in [small(), pca, with_tokens, MaeConfig::tiny(32)] {
            let grey = Normalization::new(vec![0.5; config.channels], vec![0.2; config.channels]);
            let model = MaskedAutoencoderViT::new(&config, &grey, Device::Cpu, 0).unwrap();
            let sum = |trained| -> u64 {
                let parameters = model.parameters();
                let found = parameters.values().filter(|t| t.requires_grad() == trained);
                found.map(|tensor| tensor.numel() as u64).sum()
            };
            let count = config.parameter_count().unwrap();
            assert_eq!(
                (count.trained(), count.fixed),
                (sum(true), sum(false)),
                "{config:?}"
            );
        }
        // The published encoder, without its head: 86 million.
        let base = MaeConfig::base(224).parameter_count().unwrap();
        assert_eq!(base.encoder, 85_647_360);
    }

    #[test]
    fn a_small_model_summed_by_hand() {
        let memory = |computation| {
            let memory = small().training_memory(3, 0.5, computation).unwrap();
            (memory, memory.activations / 3 / 4)
        };
        // 2 of 4 patches are kept: 3 tokens to the encoder, 5 to the decoder, whose last block gives 2.
        let encoder = 3 * 8 + (3 * 8 + 2 * 3 * 8 + 3 * 8 + 3 * 2 + 3 * 8 + 3 * 16);
        let block = 5 * 4 + (5 * 4 + 2 * 5 * 4 + 5 * 4 + 5 + 5 * 4 + 5 * 8);
        let last = 5 * 4 + (2 * 4 + 2 * 5 * 4 + 2 * 4 + 2 + 2 * 4 + 2 * 8);
        // norm1, norm2, GELU, both branches, q, kv, before GELU; the gradients of output and input.
        let work =
            3 * 8 + 3 * 8 + 3 * 16 + 2 * (3 * 8) + 3 * 8 + 2 * (3 * 8) + 3 * 16 + 2 * (3 * 8);
        let others = 4 * 4 + 3 * (2 * 4) + 2 * (3 * 8 + 2 * 4);
        let (fused, values) = memory(FUSED);
        assert_eq!(values, encoder + block + last + work + others);

        let count = small().parameter_count().unwrap();
        assert_eq!(fused.weights, 4 * (count.trained() + count.fixed));
        assert_eq!(fused.gradients, 4 * count.trained());
        assert_eq!(fused.optimizer, 8 * count.trained());
        let parts = [
            fused.weights,
            fused.gradients,
            fused.optimizer,
            fused.activations,
        ];
        assert_eq!(fused.total(), parts.iter().sum::<u64>());

        // After both norms and after GELU, too.
        let plain = Computation {
            kernels: Kernels::Plain,
            ..FUSED
        };
        let more = (2 * 3 * 8 + 3 * 16) + (2 * 5 * 4 + 5 * 8) + (5 * 4 + 2 * 4 + 2 * 8);
        let plain_work = 2 * 3 * 16 + 4 * 3 * 8 + 2 * 3 * 8;
        assert_eq!(
            memory(plain).1,
            encoder + block + last + more + plain_work + others
        );
    }

    #[test]
    fn half_precision_halves_what_is_not_a_residual() {
        let fused = Computation {
            precision: Kind::BFloat16,
            ..FUSED
        };
        let half = Computation {
            kernels: Kernels::Plain,
            ..fused
        };
        let shape = small().block_shape(5, 0, 4, 1);
        // x and x1 in 4 bytes; q, k, v, attended, two norms, both sides of GELU in 2; the sums in 4.
        let bytes = 4 * (2 * 5 * 4) + 2 * (3 * 20 + 20 + 2 * 20 + 2 * 40) + 4 * 5;
        assert_eq!(Storage::of(half).saved(&shape), bytes);
        // Embeddings, blocks, head.
        let matrices = (4 * 8 + 8 * 4) + (4 * 64 + 2 * 8 * 16) + 2 * (4 * 16 + 2 * 4 * 8) + 4 * 4;
        let memory = small().training_memory(1, 0.5, half).unwrap();
        let count = small().parameter_count().unwrap();
        assert_eq!(memory.weights, 4 * count.total() + 2 * matrices);
        // Fused blocks, where the processor has them in bf16, keep f32.
        let expected = match Kernels::bf16_instructions() {
            Some(_) => Storage::Fused,
            None => Storage::Half,
        };
        assert_eq!(Storage::of(fused), expected);
        // A GPU in f32 has no fused blocks.
        let cuda = Computation {
            device: Device::Cuda(0),
            ..FUSED
        };
        assert_eq!(Storage::of(cuda), Storage::Plain);
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        assert!(small().training_memory(1, 1.0, FUSED).is_err());
        let config = MaeConfig {
            depth: 0,
            ..small()
        };
        assert!(config.parameter_count().is_err());
    }
}

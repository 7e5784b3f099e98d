//! Numbers of other implementations, reproduced.
//!
//! The fixtures come from Hugging Face's `ViTMAEForPreTraining`; `fixtures/make_fixtures.py` made them.
//! Each holds weights, images, noise, and what that implementation computed from them.
//! A larger file of the same layout, from the authors' own implementation, is used as well where it is found.
//! Both codes that compute transformer blocks are compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mae_data::{Mask, PatchGrid, kept_patches, patchify};
use mae_model::tensor_file::{read_tensors, write_tensors};
use mae_model::{Kernels, MaeConfig, MaskedAutoencoderViT, Normalization, pos_embed};
use mae_train::train::optim::Optimizer;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// Norm of the difference over the norm.
const TOLERANCE: f64 = 1e-5;
/// AdamW divides by the root of the second moment, which magnifies rounding where a gradient is almost 0.
const AFTER_TRAINING: f64 = 1e-4;

#[derive(Deserialize)]
struct FixtureConfig {
    img_size: Sides,
    patch_size: usize,
    in_chans: usize,
    embed_dim: usize,
    depth: usize,
    num_heads: usize,
    decoder_embed_dim: usize,
    decoder_depth: usize,
    decoder_num_heads: usize,
    mlp_ratio: f64,
    layer_norm_eps: f64,
    mask_ratio: f64,
    norm_pix_loss: bool,
    steps: i64,
    lr: f64,
    betas: [f64; 2],
    weight_decay: f64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Sides {
    Square(usize),
    HeightWidth([usize; 2]),
}

struct Fixture {
    config: FixtureConfig,
    tensors: BTreeMap<String, Tensor>,
    model: MaskedAutoencoderViT,
    grid: PatchGrid,
    kept: usize,
}

/// One batch in shuffled order.
struct Batch {
    visible: Tensor,
    masked: Tensor,
    ids_shuffle: Tensor,
    masks: Vec<Mask>,
}

impl Fixture {
    fn open(path: &Path, kernels: Kernels) -> Self {
        let (tensors, metadata) = read_tensors(path).unwrap();
        let config: FixtureConfig = serde_json::from_str(&metadata["config"]).unwrap();
        let (image_height, image_width) = match config.img_size {
            Sides::Square(side) => (side, side),
            Sides::HeightWidth([height, width]) => (height, width),
        };
        let model_config = MaeConfig {
            image_height,
            image_width,
            patch_size: config.patch_size,
            channels: config.in_chans,
            embed_dim: config.embed_dim,
            depth: config.depth,
            num_heads: config.num_heads,
            decoder_embed_dim: config.decoder_embed_dim,
            decoder_depth: config.decoder_depth,
            decoder_num_heads: config.decoder_num_heads,
            mlp_ratio: config.mlp_ratio,
            layer_norm_eps: config.layer_norm_eps,
            norm_pix_loss: config.norm_pix_loss,
            ..MaeConfig::tiny(0)
        };
        // The fixtures hold normalised values.
        let normalization = Normalization::identity(config.in_chans);
        let mut model =
            MaskedAutoencoderViT::new(&model_config, &normalization, Device::Cpu, 0).unwrap();
        model.set_kernels(kernels);

        // Our own positions must be theirs, before theirs are loaded with the weights.
        for key in ["pos_embed", "decoder_pos_embed"] {
            let error = relative(
                &model.parameters()[key],
                &tensors[&format!("weights.{key}")],
            );
            assert!(error < 1e-6, "{key}: {error}");
        }
        let weights: BTreeMap<String, Tensor> = tensors
            .iter()
            .filter_map(|(key, tensor)| {
                Some((key.strip_prefix("weights.")?.into(), tensor.shallow_clone()))
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights.safetensors");
        write_tensors(&file, &weights, Default::default()).unwrap();
        model.load_weights(&file).unwrap();

        let grid = model_config.grid().unwrap();
        let kept = kept_patches(grid.patches(), config.mask_ratio).unwrap();
        Self {
            config,
            tensors,
            model,
            grid,
            kept,
        }
    }

    /// The batch of a training step, through mae-data's patches and masks.
    fn batch(&self, step: i64) -> Batch {
        let images = self.tensors["images"]
            .get(step)
            .permute([0, 2, 3, 1])
            .contiguous();
        let noise = self.tensors["noise"].get(step);
        let (size, dim) = (images.size()[0], self.grid.patch_dim() as i64);
        let (mut visible, mut masked, mut ids_shuffle, mut masks) =
            (vec![], vec![], vec![], vec![]);
        for i in 0..size {
            let pixels = Vec::<f32>::try_from(images.get(i).flatten(0, -1)).unwrap();
            let noise = Vec::<f32>::try_from(noise.get(i)).unwrap();
            let mask = Mask::from_noise(&noise, self.kept).unwrap();
            let patches = patchify(&pixels, &self.grid).unwrap();
            let (seen, hidden) = mae_data::shuffle(&patches, self.grid.patch_dim(), &mask).unwrap();
            visible.extend(seen);
            masked.extend(hidden);
            ids_shuffle.extend(mask.ids_shuffle().iter().map(|&id| i64::from(id)));
            masks.push(mask);
        }
        Batch {
            visible: Tensor::from_slice(&visible).view([size, -1, dim]),
            masked: Tensor::from_slice(&masked).view([size, -1, dim]),
            ids_shuffle: Tensor::from_slice(&ids_shuffle).view([size, -1]),
            masks,
        }
    }

    fn check_forward(&self, report: &mut Report) {
        let batch = self.batch(0);
        for (i, mask) in batch.masks.iter().enumerate() {
            let ids: Vec<i64> = mask.ids_restore().iter().map(|&id| id.into()).collect();
            assert_eq!(
                Tensor::from_slice(&ids),
                self.tensors["ids_restore"].get(i as i64)
            );
            let binary: Vec<f32> = mask.to_binary().iter().map(|&bit| bit.into()).collect();
            assert_eq!(
                Tensor::from_slice(&binary),
                self.tensors["mask"].get(i as i64)
            );
        }
        let latent = self
            .model
            .forward_encoder(&batch.visible, &batch.ids_shuffle)
            .unwrap();
        let pred = self.model.predict(&latent, &batch.ids_shuffle).unwrap();
        report.check(
            "latent",
            relative(&latent, &self.tensors["latent"]),
            TOLERANCE,
        );
        report.check("pred", relative(&pred, &self.tensors["pred"]), TOLERANCE);
    }

    fn check_gradients(&self, report: &mut Report) {
        self.loss(0).backward();
        let parameters = self.model.parameters();
        let trainable = parameters
            .iter()
            .filter(|(_, tensor)| tensor.requires_grad());
        let mut worst = ("", 0.0);
        let mut count = 0;
        for (key, tensor) in trainable {
            let error = relative(&tensor.grad(), &self.tensors[&format!("grad.{key}")]);
            if error > worst.1 {
                worst = (key, error);
            }
            count += 1;
        }
        assert_eq!(
            count,
            self.tensors
                .keys()
                .filter(|key| key.starts_with("grad."))
                .count()
        );
        report.check(
            &format!("{count} gradients, worst {}", worst.0),
            worst.1,
            TOLERANCE,
        );
    }

    /// Trains from the loaded weights with the library's optimizer.
    fn check_training(&self, report: &mut Report) {
        let config = &self.config;
        let parameters = self.model.parameters();
        let mut optimizer = Optimizer::new(&parameters, config.weight_decay, config.betas);
        torch_ext::clear_grads(
            &parameters
                .values()
                .map(Tensor::shallow_clone)
                .collect::<Vec<_>>(),
        )
        .unwrap();
        let found_inf = Tensor::zeros([], (Kind::Float, Device::Cpu));
        let losses: Vec<f64> = (0..config.steps)
            .map(|step| {
                let loss = self.loss(step);
                loss.backward();
                let grads = optimizer.grads().unwrap();
                optimizer.step(grads, config.lr, None, &found_inf).unwrap();
                loss.double_value(&[])
            })
            .collect();
        let expected = Vec::<f64>::try_from(&self.tensors["losses"]).unwrap();
        assert_eq!(losses.len(), expected.len());
        let worst = losses
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a / b - 1.0).abs())
            .fold(0.0, f64::max);
        report.check(&format!("{} losses", losses.len()), worst, TOLERANCE);
        for (key, tensor) in &self.tensors {
            if let Some(name) = key.strip_prefix("after.") {
                report.check(key, relative(&parameters[name], tensor), AFTER_TRAINING);
            }
        }
    }

    fn loss(&self, step: i64) -> Tensor {
        let batch = self.batch(step);
        self.model
            .forward(&batch.visible, &batch.masked, &batch.ids_shuffle)
            .unwrap()
    }
}

/// Prints every comparison, so that `cargo test -- --nocapture fidelity` shows the numbers.
struct Report {
    name: String,
    failed: bool,
}

impl Report {
    fn check(&mut self, what: &str, error: f64, tolerance: f64) {
        let verdict = if error < tolerance {
            ""
        } else {
            "  <-- too far"
        };
        println!(
            "{:20} {what:58} {error:.1e} (limit {tolerance:.0e}){verdict}",
            self.name
        );
        // Also catches NaN.
        self.failed |= !verdict.is_empty();
    }
}

fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    ((a - b).norm() / b.norm()).double_value(&[])
}

fn check(path: &Path) {
    for kernels in [Kernels::Fused, Kernels::FusedMkl, Kernels::Plain] {
        let fixture = Fixture::open(path, kernels);
        let name = path.file_stem().unwrap().to_string_lossy();
        let mut report = Report {
            name: format!("{name} {kernels:?}"),
            failed: false,
        };
        fixture.check_forward(&mut report);
        fixture.check_gradients(&mut report);
        fixture.check_training(&mut report);
        assert!(!report.failed, "{}: see above", report.name);
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(format!("{name}.safetensors"))
}

#[test]
fn fidelity_norm_pix_at_ratio_75() {
    check(&fixture("norm_pix_r75"));
}

#[test]
fn fidelity_pixels_at_ratio_60() {
    check(&fixture("pixels_r60"));
}

#[test]
fn fidelity_rectangular() {
    check(&fixture("rectangular"));
}

#[test]
fn fidelity_one_channel() {
    check(&fixture("one_channel"));
}

#[test]
fn fidelity_deep_decoder() {
    check(&fixture("deep_decoder"));
}

#[test]
fn fidelity_where_the_ratio_leaves_a_part_of_a_patch() {
    check(&fixture("uneven_r60"));
}

#[test]
fn fidelity_to_the_authors_implementation() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/mae_tiny.safetensors");
    if path.exists() {
        check(&path);
    } else {
        println!(
            "no file of the authors' numbers beside this checkout: the fixtures alone were compared"
        );
    }
}

#[test]
fn fidelity_positions() {
    let (tensors, metadata) = read_tensors(&fixture("pos_embed")).unwrap();
    let grids: BTreeMap<String, [usize; 3]> = serde_json::from_str(&metadata["config"]).unwrap();
    assert_eq!(grids.len(), 2);
    for (name, [rows, columns, dim]) in grids {
        let error = relative(&pos_embed::sincos_2d(rows, columns, dim), &tensors[&name]);
        println!("{name}: {error:.1e}");
        assert!(error < 1e-6);
    }
}

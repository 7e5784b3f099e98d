//! Numbers of other implementations of supervised evaluation, reproduced.
//!
//! The fixtures come from timm, torch and NumPy; the scripts in `fixtures` made them and say what they hold.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use mae_data::{PatchGrid, patchify};
use mae_model::classifier::{ClassifierConfig, HeadInit, Pass, Pooling};
use mae_model::drop_path::drop_path_rates;
use mae_model::tensor_file::{read_tensors, write_tensors};
use mae_model::{MaeConfig, Normalization, VitClassifier, pos_embed};
use mae_train::eval::attentive::AttentivePooling;
use mae_train::eval::ema::Ema;
use mae_train::eval::lars::Lars;
use mae_train::eval::layer_decay::param_group;
use mae_train::eval::mix::{Mix, smooth_one_hot, soft_cross_entropy};
use mae_train::eval::spectrum;
use mae_train::train::schedule::Schedule;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor, no_grad};

/// Norm of the difference over the norm.
const TOLERANCE: f64 = 1e-5;

struct Fixture {
    tensors: BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
}

impl Fixture {
    fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let (tensors, metadata) = read_tensors(&folder.join(name)).unwrap();
        Self { tensors, metadata }
    }

    fn numbers<T: DeserializeOwned>(&self, key: &str) -> T {
        serde_json::from_str(&self.metadata[key]).unwrap()
    }

    /// The tensors under a prefix, by what follows it.
    fn under(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        self.tensors
            .iter()
            .filter_map(|(key, tensor)| {
                Some((key.strip_prefix(prefix)?.into(), tensor.shallow_clone()))
            })
            .collect()
    }
}

/// Prints the error, so that `cargo test -- --nocapture` shows the numbers, and fails if it is too large.
fn check(what: &str, error: f64) {
    println!("{what:60} {error:.1e} (limit {TOLERANCE:.0e})");
    assert!(error < TOLERANCE, "{what}: {error}");
}

fn check_tensors(what: &str, ours: &Tensor, theirs: &Tensor) {
    assert_eq!(ours.size(), theirs.size(), "{what}");
    let error = ((ours - theirs).norm() / theirs.norm()).double_value(&[]);
    check(what, error);
}

/// Checks all and prints the worst.
fn check_numbers(what: &str, pairs: impl Iterator<Item = (f64, f64)>) {
    let errors = pairs.map(|(ours, theirs)| {
        if theirs == 0.0 {
            ours.abs()
        } else {
            (ours / theirs - 1.0).abs()
        }
    });
    // NaN must not be lost in a maximum.
    check(
        what,
        errors.fold(
            0.0,
            |worst, error| if error <= worst { worst } else { error },
        ),
    );
}

#[derive(Deserialize)]
struct ClassifierNumbers {
    img_size: (usize, usize),
    patch_size: usize,
    in_chans: usize,
    num_classes: usize,
    embed_dim: usize,
    depth: usize,
    num_heads: usize,
    mlp_ratio: f64,
}

struct Classifier {
    fixture: Fixture,
    name: &'static str,
    model: VitClassifier,
    patches: Tensor,
}

impl Classifier {
    /// Our model with their weights, and their images through mae-data's patches.
    fn open(name: &'static str, pooling: Pooling) -> Self {
        let fixture = Fixture::open(&format!("classifier_{name}.safetensors"));
        let numbers: ClassifierNumbers = fixture.numbers("config");
        let encoder = MaeConfig {
            image_height: numbers.img_size.0,
            image_width: numbers.img_size.1,
            patch_size: numbers.patch_size,
            channels: numbers.in_chans,
            embed_dim: numbers.embed_dim,
            depth: numbers.depth,
            num_heads: numbers.num_heads,
            mlp_ratio: numbers.mlp_ratio,
            ..MaeConfig::tiny(numbers.img_size.0)
        };
        let config = ClassifierConfig {
            pooling,
            head_init: HeadInit::Scratch,
            ..ClassifierConfig::linear_probe(encoder, numbers.num_classes)
        };
        let model =
            VitClassifier::new(&config, &Normalization::identity(3), Device::Cpu, 0).unwrap();
        let weights = fixture.under("weights.");
        let parameters = model.parameters();
        assert!(parameters.keys().eq(weights.keys()), "{name}: other keys");
        no_grad(|| {
            for (key, mut parameter) in parameters {
                assert_eq!(parameter.size(), weights[&key].size(), "{key}");
                parameter.copy_(&weights[&key]);
            }
        });

        let grid = config.encoder.grid().unwrap();
        let patches = host_patches(&fixture.tensors["images"], &grid);
        Self {
            fixture,
            name,
            model,
            patches,
        }
    }

    fn loss(&self, logits: &Tensor) -> Tensor {
        soft_cross_entropy(logits, &self.fixture.tensors["targets"])
    }

    fn check_forward(&self) {
        let theirs = &self.fixture.tensors;
        let features = self.model.features(&self.patches).unwrap();
        check_tensors(
            &format!("{} features", self.name),
            &features,
            &theirs["features"],
        );
        for pass in [Pass::Eval, Pass::Train { seed: 1, step: 2 }] {
            let logits = self.model.forward(&self.patches, pass).unwrap();
            check_tensors(
                &format!("{} logits, {pass:?}", self.name),
                &logits,
                &theirs["logits"],
            );
        }
    }

    fn check_gradients(&self) {
        let loss = self.loss(&self.model.forward(&self.patches, Pass::Eval).unwrap());
        check_tensors(
            &format!("{} loss", self.name),
            &loss.to_kind(Kind::Double),
            &self.fixture.tensors["loss"],
        );
        loss.backward();
        let grads = self.fixture.under("grad.");
        let parameters = self.model.parameters();
        assert_eq!(parameters.len(), grads.len());
        for (key, parameter) in &parameters {
            check_tensors(
                &format!("{} gradient of {key}", self.name),
                &parameter.grad(),
                &grads[key],
            );
        }
    }

    /// With a frozen prefix the gradients of what is after it are the same, and before it there are none.
    fn check_partial_gradients(&self) {
        let parameters = self.model.parameters();
        let all: Vec<Tensor> = parameters.values().map(Tensor::shallow_clone).collect();
        torch_ext::clear_grads(&all).unwrap();
        let trainable = self.model.trainable_keys(1.0).unwrap();
        let tokens = self.model.tokens_after(&self.patches, 1).unwrap();
        let logits = self.model.forward_from(&tokens, 1, Pass::Eval).unwrap();
        self.loss(&logits).backward();
        let grads = self.fixture.under("grad.");
        for (key, parameter) in &parameters {
            let grad = parameter.grad();
            assert_eq!(grad.defined(), trainable.contains(key), "{key}");
            if grad.defined() {
                check_tensors(
                    &format!("{} partial gradient of {key}", self.name),
                    &grad,
                    &grads[key],
                );
            }
        }
    }
}

fn host_patches(images: &Tensor, grid: &PatchGrid) -> Tensor {
    let pixels = Vec::<f32>::try_from(images.flatten(0, -1)).unwrap();
    let patches: Vec<f32> = pixels
        .chunks_exact(grid.image_len())
        .flat_map(|image| patchify(image, grid).unwrap())
        .collect();
    let (n, dim) = (grid.patches() as i64, grid.patch_dim() as i64);
    Tensor::from_slice(&patches).view([-1, n, dim])
}

fn check_classifier(name: &'static str, pooling: Pooling) {
    let classifier = Classifier::open(name, pooling);
    classifier.check_forward();
    classifier.check_gradients();
    classifier.check_partial_gradients();
}

#[test]
fn fidelity_classifier_mean_then_norm() {
    check_classifier("mean_then_norm", Pooling::MeanThenNorm);
}

#[test]
fn fidelity_classifier_norm_then_mean() {
    check_classifier("norm_then_mean", Pooling::NormThenMean);
}

#[test]
fn fidelity_classifier_class_token() {
    check_classifier("class_token", Pooling::ClassToken);
}

#[test]
fn fidelity_device_patches() {
    let classifier = Classifier::open("class_token", Pooling::ClassToken);
    let images = &classifier.fixture.tensors["images"];
    assert_eq!(mae_model::patchify(images, 4).unwrap(), classifier.patches);
}

#[test]
fn fidelity_lars() {
    let fixture = Fixture::open("eval.safetensors");
    for (weight_decay, prefix) in [(0.0, "lars.no_decay."), (0.05, "lars.decay.")] {
        let parameters: BTreeMap<String, Tensor> = fixture
            .under("lars.before.")
            .into_iter()
            .map(|(key, tensor)| (key, tensor.copy().set_requires_grad(true)))
            .collect();
        let slopes = fixture.under("lars.grads.");
        let mut optimizer = Lars::new(&parameters, weight_decay);
        for step in 0..3 {
            let loss = parameters
                .iter()
                .map(|(key, p)| (p * slopes[key].get(step)).sum(Kind::Float))
                .fold(Tensor::from(0f32), |sum, term| sum + term);
            loss.backward();
            let grads = optimizer.grads().unwrap();
            optimizer.step(grads, 100.0).unwrap();
        }
        for (key, theirs) in fixture.under(prefix) {
            check_tensors(&format!("{prefix}{key}"), &parameters[&key], &theirs);
        }
    }
}

#[test]
fn fidelity_layer_decay() {
    #[derive(Deserialize)]
    struct LayerDecay {
        decay: f64,
        weight_decay: f64,
        depth: usize,
        groups: BTreeMap<String, (f64, f64)>,
    }
    let theirs: LayerDecay = Fixture::open("eval.safetensors").numbers("layer_decay");
    let encoder = MaeConfig {
        depth: theirs.depth,
        ..MaeConfig::tiny(32)
    };
    let config = ClassifierConfig::fine_tune(encoder, 10);
    let model = VitClassifier::new(&config, &Normalization::identity(3), Device::Cpu, 0).unwrap();
    let parameters = model.parameters();
    assert!(parameters.keys().eq(theirs.groups.keys()));
    let groups: Vec<_> = parameters
        .iter()
        .map(|(key, tensor)| {
            param_group(key, tensor, theirs.depth, theirs.decay, theirs.weight_decay)
        })
        .collect();
    let scales = groups.iter().map(|group| group.lr_scale);
    let decays = groups.iter().map(|group| group.weight_decay);
    let theirs = || theirs.groups.values();
    check_numbers("layer-wise scales", scales.zip(theirs().map(|row| row.0)));
    check_numbers("decays of groups", decays.zip(theirs().map(|row| row.1)));
}

#[test]
fn fidelity_drop_path_rates() {
    let theirs: Vec<f64> = Fixture::open("eval.safetensors").numbers("drop_path");
    let ours = drop_path_rates(theirs.len(), 0.1);
    check_numbers("drop-path rates", ours.into_iter().zip(theirs));
}

#[test]
fn fidelity_schedule() {
    #[derive(Deserialize)]
    struct Rates {
        lr: f64,
        min_lr: f64,
        warmup_epochs: f64,
        epochs: f64,
        steps_per_epoch: f64,
        rates: Vec<f64>,
    }
    let theirs: Rates = Fixture::open("eval.safetensors").numbers("schedule");
    let schedule = Schedule {
        peak_lr: theirs.lr,
        min_lr: theirs.min_lr,
        warmup_steps: theirs.warmup_epochs * theirs.steps_per_epoch,
        total_steps: theirs.epochs * theirs.steps_per_epoch,
    };
    let ours = (0..).map(|step| schedule.lr(step));
    check_numbers("learning rates", ours.zip(theirs.rates));
}

#[test]
fn fidelity_mix() {
    let fixture = Fixture::open("eval.safetensors");
    let theirs = fixture.under("mix.");
    let targets = smooth_one_hot(&theirs["labels"], 10, 0.1);

    let [top, bottom, left, right] = Vec::<i64>::try_from(&theirs["cutmix.box"]).unwrap()[..]
    else {
        panic!("a box has four sides")
    };
    let cutmix = Mix::Cutmix {
        rows: top..bottom,
        columns: left..right,
        lam: theirs["cutmix.lam"].double_value(&[]),
    };
    for (name, mix) in [("mixup", Mix::Mixup { lam: 0.7 }), ("cutmix", cutmix)] {
        check_tensors(
            &format!("{name} images"),
            &mix.images(&theirs["images"]),
            &theirs[&format!("{name}.images")],
        );
        check_tensors(
            &format!("{name} targets"),
            &mix.targets(&targets),
            &theirs[&format!("{name}.targets")],
        );
    }

    let logits = &theirs["logits"];
    for (name, targets) in [
        ("smoothed_loss", &targets),
        ("mixup.loss", &Mix::Mixup { lam: 0.7 }.targets(&targets)),
    ] {
        let loss = soft_cross_entropy(logits, targets).to_kind(Kind::Double);
        check_tensors(name, &loss, &theirs[name]);
    }
}

#[test]
fn fidelity_cutmix_boxes() {
    type Row = (f64, i64, i64, i64, i64, i64, i64, f64);
    let rows: Vec<Row> = Fixture::open("eval.safetensors").numbers("cutmix_boxes");
    let ours =
        rows.iter()
            .map(|&(lam, row, column, top, bottom, left, right, _)| {
                match Mix::cutmix(6, 9, lam, (row, column)) {
                    Mix::Cutmix { rows, columns, lam } => {
                        assert_eq!((rows, columns), (top..bottom, left..right));
                        lam
                    }
                    Mix::Mixup { .. } => unreachable!("cutmix makes a box"),
                }
            });
    let theirs = rows.iter().map(|row| row.7);
    check_numbers("lam of clipped boxes", ours.zip(theirs));
}

#[test]
fn fidelity_ema() {
    let fixture = Fixture::open("eval.safetensors");
    let weights = &fixture.tensors["ema.weights"];
    let parameters = |step| BTreeMap::from([("weight".to_string(), weights.get(step))]);
    let mut ema = Ema::new(&parameters(0), 0.9);
    for step in 1..4 {
        ema.follow(&parameters(step));
    }
    check_tensors(
        "moving average",
        &ema.parameters()["weight"],
        &fixture.tensors["ema.after"],
    );
}

#[test]
fn fidelity_interpolated_positions() {
    let fixture = Fixture::open("eval.safetensors");
    let learned = &fixture.tensors["pos_embed"];
    for to in [(5, 6), (2, 3)] {
        let name = format!("pos_embed.{}x{}", to.0, to.1);
        let ours = pos_embed::interpolate(learned, (3, 4), to);
        check_tensors(&name, &ours, &fixture.tensors[&name]);
    }
}

/// Learned positions of a checkpoint with another grid reach the classifier interpolated.
#[test]
fn fidelity_loaded_positions() {
    let fixture = Fixture::open("eval.safetensors");
    let config = |rows: usize, columns: usize| MaeConfig {
        image_height: 2 * rows,
        image_width: 2 * columns,
        patch_size: 2,
        embed_dim: 8,
        depth: 1,
        num_heads: 2,
        ..MaeConfig::tiny(2)
    };
    let mae = mae_model::MaskedAutoencoderViT::new(
        &config(3, 4),
        &Normalization::identity(3),
        Device::Cpu,
        0,
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    mae.save(&file).unwrap();
    let (mut tensors, metadata) = read_tensors(&file).unwrap();
    let learned = fixture.tensors["pos_embed"].shallow_clone();
    tensors.insert("pos_embed".into(), learned);
    write_tensors(&file, &tensors, metadata).unwrap();

    let classifier = VitClassifier::new(
        &ClassifierConfig::fine_tune(config(5, 6), 10),
        &Normalization::identity(3),
        Device::Cpu,
        0,
    )
    .unwrap();
    classifier.load_encoder(&file).unwrap();
    check_tensors(
        "positions of a loaded checkpoint",
        &classifier.parameters()["pos_embed"],
        &fixture.tensors["pos_embed.5x6"],
    );
}

/// Of the measures without labels, which `fixtures/make_spectrum.py` computes by NumPy.
#[derive(Deserialize)]
struct Expected {
    rank_me: f64,
    effective_rank: f64,
    alpha: Option<f64>,
    lidar: f64,
}

#[test]
fn fidelity_spectra() {
    let fixture = Fixture::open("spectrum.safetensors");
    let expected: BTreeMap<String, Expected> = fixture.numbers("expected");
    assert_eq!(expected.len(), 5);
    for (name, expected) in expected {
        let features = &fixture.tensors[&format!("{name}.features")];
        let views = &fixture.tensors[&format!("{name}.views")];
        let alpha = spectrum::alpha(features).unwrap();
        assert_eq!(alpha.is_some(), expected.alpha.is_some(), "{name}");
        let pairs = [
            (spectrum::rank_me(features).unwrap(), expected.rank_me),
            (
                spectrum::effective_rank(features).unwrap(),
                expected.effective_rank,
            ),
            (alpha.unwrap_or(0.0), expected.alpha.unwrap_or(0.0)),
            (spectrum::lidar(views).unwrap(), expected.lidar),
        ];
        for (ours, theirs) in pairs {
            assert!(
                (ours - theirs).abs() <= 1e-6 * theirs,
                "{name}: {ours}, {theirs}"
            );
        }
    }
}

/// `fixtures/make_attentive.py` has keys and values of every token, which are never made here.
#[test]
fn fidelity_attentive_probe() {
    let fixture = Fixture::open("attentive.safetensors");
    let tensor = |name: &str| &fixture.tensors[name];
    let head = AttentivePooling::new([24, 3, 5], 0, Device::Cpu);
    let parameters = head.parameters();
    no_grad(|| {
        for (key, mut parameter) in head.parameters() {
            parameter.copy_(tensor(&format!("weights.{key}")));
        }
    });
    let logits = head.forward(tensor("tokens.0"), true);
    check_tensors("attentive logits", &logits, tensor("logits.0"));
    let loss = logits.cross_entropy_for_logits(tensor("labels.0"));
    check_tensors("attentive loss", &loss, tensor("loss"));
    loss.backward();
    for (key, parameter) in &parameters {
        let what = format!("attentive gradient of {key}");
        check_tensors(&what, &parameter.grad(), tensor(&format!("grad.{key}")));
    }
    let second = no_grad(|| head.forward(tensor("tokens.1"), true));
    check_tensors(
        "attentive logits, second batch",
        &second,
        tensor("logits.1"),
    );
    for batch in ["0", "1"] {
        let judged = no_grad(|| head.forward(tensor(&format!("tokens.{batch}")), false));
        let expected = tensor(&format!("judged.{batch}"));
        check_tensors("attentive logits in judging", &judged, expected);
    }
}

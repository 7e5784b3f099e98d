//! Weights converted and pre-trained from; what is asked for, and what is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mae_model::tensor_file::{read_tensors, write_tensors};
use mae_train::run::checkpoint::find_model;
use tch::Tensor;

use crate::program::{fail, program, small, succeed, text};

/// A folder of its own, and the weights of other programs that mae-model's tests read.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `convert FROM TO`, both in the folder; TO and further arguments in one text.
    fn convert(&self, from: impl AsRef<Path>, to: &str) -> Command {
        let mut words = to.split_whitespace();
        let mut command = program();
        command
            .arg("convert")
            .arg(self.folder.path().join(from))
            .arg(self.path(words.next().unwrap()))
            .args(words);
        command
    }

    /// A small run with these keys.
    fn run(&self, name: &str, keys: &[&str]) -> Command {
        let mut command = small(
            &self.path(name),
            &["optim.epochs=1", "optim.warmup_epochs=0"],
        );
        for key in keys {
            command.args(["--set", key]);
        }
        command
    }

    /// A run whose weights stay what they began as: its rate is too small to change any.
    fn still(&self, name: &str, init: &str, keys: &[&str]) -> Command {
        let init = format!("run.init={}", self.path(init).display());
        let keys = [&[init.as_str(), "optim.base_lr=1e-30"], keys].concat();
        self.run(name, &keys)
    }

    fn tensors(&self, name: &str) -> BTreeMap<String, Tensor> {
        read_tensors(&find_model(&self.path(name)).unwrap())
            .unwrap()
            .0
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../mae-model/tests/fixtures/formats")
        .join(name)
}

fn check_message(command: Command, parts: &[&str]) {
    let message = fail(command);
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in: {message}");
    }
}

fn says(command: Command, parts: &[&str]) {
    let output = succeed(command);
    let said = text(&output.stdout) + &text(&output.stderr);
    for part in parts {
        assert!(said.contains(part), "expected {part:?} in: {said}");
    }
}

#[test]
fn a_run_goes_to_other_programs_and_comes_back_the_same() {
    let world = World::new();
    succeed(world.run("run", &[]));
    says(
        world.convert("run", "hf --format huggingface"),
        &[
            "this program's model",
            "encoder 32 x 2 of 2 heads; decoder 16 x 1 of 2 heads, norm_pix_loss false",
            "images 16 x 16 of 3 channels in patches of 4",
            "wrote encoder and decoder to",
            "mask_ratio is no part of the weights",
            "ViTMAEForPreTraining.from_pretrained(\"",
        ],
    );
    says(
        world.convert("hf", "back.safetensors"),
        &["Hugging Face's Vision Transformer", "load_file(\""],
    );
    assert_eq!(world.tensors("back.safetensors"), world.tensors("run"));

    says(
        world.convert("run", "timm --format timm"),
        &[
            "the decoder is left out",
            "wrote the encoder to",
            "timm.create_model(\"local-dir:",
        ],
    );
    says(
        world.convert("timm", "encoder.safetensors"),
        &["a plain Vision Transformer", "no decoder"],
    );
    says(
        world.convert("back.safetensors", "same.safetensors --part encoder"),
        &["wrote the encoder to"],
    );
    let encoder = world.tensors("encoder.safetensors");
    assert_eq!(encoder, world.tensors("same.safetensors"));
    let whole = world.tensors("run");
    assert!(encoder.len() < whole.len());
    assert!(encoder.iter().all(|(key, tensor)| whole[key] == *tensor));

    // An encoder is judged as a run is.
    for i in 0..24u8 {
        let class = world
            .path("photos")
            .join(["ant", "bee"][usize::from(i) % 2]);
        std::fs::create_dir_all(&class).unwrap();
        image::RgbImage::from_pixel(16, 16, image::Rgb([i, i % 2 * 200, 9]))
            .save(class.join(format!("{i}.png")))
            .unwrap();
    }
    let mut eval = program();
    eval.arg("eval")
        .arg("--from")
        .arg(world.path("encoder.safetensors"))
        .arg("--data")
        .arg(world.path("photos"))
        .args(["--protocols", "knn", "--set", "run.device=cpu"])
        .args(["--set", "run.workers=1", "--set", "knn.k=[3]"])
        .arg("--out")
        .arg(world.path("eval"))
        .env("MAE_CACHE_DIR", world.path("cache"));
    says(eval, &["knn k=3", "2 classes"]);
}

#[test]
fn what_a_file_does_not_say_is_asked_for_by_flags_and_then_taken() {
    let world = World::new();
    let file = fixture("authors.pth");
    check_message(
        world.convert(&file, "a.safetensors"),
        &["does not say", "--num-heads N", "--decoder-num-heads N"],
    );
    assert!(!world.path("a.safetensors").exists());
    let said =
        "a.safetensors --num-heads 2 --decoder-num-heads 2 --mean 0.5,0.5,0.5 --std 0.2,0.2,0.2";
    says(
        world.convert(&file, said),
        &[
            "a file of torch.save",
            "norm_pix_loss true",
            "mean [0.5, 0.5, 0.5], std [0.2, 0.2, 0.2]",
        ],
    );
    let grey = "grey.safetensors --channels 1 --adapt mean";
    says(
        world.convert("a.safetensors", grey),
        &[
            "3 channels to 1: every new channel is the mean of the old ones",
            "times 3/1",
        ],
    );
    assert_eq!(
        world.tensors("grey.safetensors")["patch_embed.proj.weight"].size(),
        [16, 1, 4, 4]
    );
    check_message(
        world.convert("a.safetensors", "b.safetensors --channels 1"),
        &["--adapt"],
    );
    check_message(
        world.convert("a.safetensors", "b.safetensors --mean 0.5 --std 0.2"),
        &["`mean` is [0.5], expected 3 finite numbers"],
    );
    check_message(
        world.convert("a.safetensors", "b.safetensors --num-heads 4"),
        &["`num_heads` is 4, expected 2"],
    );
    check_message(
        world.convert("a.safetensors", "b.safetensors --image-size 12x"),
        &["HEIGHTxWIDTH"],
    );
}

#[test]
fn mistakes_are_told_with_the_remedy() {
    let world = World::new();
    let hf = fixture("huggingface");
    check_message(
        world.convert(&hf, "out"),
        &["which format?", "--format huggingface"],
    );
    check_message(
        world.convert(&hf, "out.safetensors --format timm"),
        &["--format timm writes a folder"],
    );
    check_message(
        world.convert(&hf, "out --format native"),
        &["a file whose name ends in .safetensors"],
    );
    check_message(
        world.convert("absent.pth", "out.safetensors"),
        &["absent.pth: there is no such file"],
    );
    std::fs::write(world.path("page.pth"), "<!DOCTYPE html><html>log in").unwrap();
    check_message(
        world.convert("page.pth", "out.safetensors"),
        &["page.pth: it is an HTML page", "download it anew"],
    );
    std::fs::remove_file(world.path("page.pth")).unwrap();
    check_message(
        world.convert(
            fixture("beside.pth"),
            "out.safetensors --weights-key absent",
        ),
        &["no weights under \"absent\"", "\"state_dict_ema"],
    );
    std::fs::write(world.path("taken.safetensors"), "mine").unwrap();
    check_message(
        world.convert(&hf, "taken.safetensors"),
        &["is there already: give another name"],
    );
    assert_eq!(
        std::fs::read(world.path("taken.safetensors")).unwrap(),
        b"mine"
    );
    check_message(
        world.convert("taken.safetensors", "out.safetensors"),
        &["not a complete safetensors file"],
    );
    std::fs::create_dir(world.path("other")).unwrap();
    std::fs::write(world.path("other/config.json"), r#"{"model_type": "swin"}"#).unwrap();
    std::fs::copy(
        hf.join("model.safetensors"),
        world.path("other/model.safetensors"),
    )
    .unwrap();
    check_message(
        world.convert("other", "out.safetensors"),
        &["`model_type` \"swin\", expected \"vit_mae\", \"vit\" or \"dinov2\""],
    );
    std::fs::write(world.path("other/config.json"), "{").unwrap();
    check_message(
        world.convert("other", "out.safetensors"),
        &["config.json", "not valid JSON"],
    );
    assert_eq!(
        std::fs::read_dir(world.folder.path()).unwrap().count(),
        2,
        "nothing else is left"
    );
}

#[test]
fn a_run_starts_from_weights() {
    let world = World::new();
    succeed(world.run("first", &[]));
    let first = world.tensors("first");
    says(
        world.still("second", "first", &[]),
        &["starting from encoder and decoder of", "model.safetensors"],
    );
    assert_eq!(world.tensors("second"), first);
    // It is in the run's configuration, and a resumed run does without it.
    let config = std::fs::read_to_string(world.path("second/config.toml")).unwrap();
    assert!(config.contains("init = \""), "{config}");
    std::fs::remove_dir_all(world.path("first/checkpoints")).unwrap();
    let mut resumed = world.still("second", "first", &[]);
    resumed.arg("--resume");
    succeed(resumed);

    // Another size of images: computed positions for it, all else the same.
    says(
        world.still("larger", "second", &["model.image_size=24"]),
        &["starting from encoder and decoder of"],
    );
    for (key, tensor) in world.tensors("larger") {
        match key.as_str() {
            "pos_embed" => assert_eq!(tensor, mae_model::pos_embed::sincos_2d(6, 6, 32)),
            "decoder_pos_embed" => assert_eq!(tensor, mae_model::pos_embed::sincos_2d(6, 6, 16)),
            _ => assert_eq!(tensor, first[&key], "{key}"),
        }
    }
}

#[test]
fn a_run_starts_from_an_encoder_with_a_fresh_decoder() {
    let world = World::new();
    succeed(world.run("first", &["seed=1"]));
    succeed(world.convert("first", "encoder.safetensors --part encoder"));
    let fresh = world.run("fresh", &["optim.base_lr=1e-30"]);
    succeed(fresh);
    says(
        world.still("second", "encoder.safetensors", &[]),
        &[
            "which has no decoder: the decoder starts fresh",
            "its weights were trained on pixels of mean",
        ],
    );
    let (first, fresh, second) = (
        world.tensors("first"),
        world.tensors("fresh"),
        world.tensors("second"),
    );
    for (key, tensor) in second {
        let is_decoder = key.starts_with("decoder_") || key == "mask_token";
        let expected = if is_decoder { &fresh } else { &first };
        // A step of 1e-32 moves what is exactly 0, as biases begin.
        let moved = (&tensor - &expected[&key]).abs().max().double_value(&[]);
        assert!(moved < 1e-20, "{key}: {moved}");
    }
}

#[test]
fn weights_that_do_not_fit_a_run_leave_no_run_behind() {
    let world = World::new();
    succeed(world.run("first", &[]));
    check_message(
        world.still("second", "first", &["model.embed_dim=48"]),
        &[
            "`run.init`",
            "of another architecture: `embed_dim` is 48, expected 32 as in the file: set model.embed_dim=32",
        ],
    );
    check_message(
        world.still("second", "first", &["model.depth=3", "model.channels=1"]),
        &[
            "`depth` is 3, expected 2",
            "the run's images have 1 channels, the file's 3",
            "--channels 1 --adapt mean",
        ],
    );
    check_message(
        world.still("second", "first", &["model.num_heads=4"]),
        &["`run.init`", "`num_heads` is 4, expected 2"],
    );
    check_message(
        world.still("second", "absent.safetensors", &[]),
        &["`run.init`", "there is no such file"],
    );
    assert!(!world.path("second").exists());
    succeed(world.still("second", "first", &[]));
}

/// Every command that takes weights, as it takes those of `from`.
fn takers(world: &World, from: &Path) -> Vec<Command> {
    let with = |name: &str, more: &[&str]| {
        let mut command = program();
        command.current_dir(&world.folder);
        command.args([name, "--from"]).arg(from).args(more);
        command
    };
    let mut pretrain = world.run("never", &[]);
    pretrain.args(["--set", &format!("run.init={}", from.display())]);
    vec![
        with("embed", &["photos", "--out", "a.npy"]),
        with("export", &["--torchscript", "a.pt"]),
        with("eval", &["--data", "photos", "--protocols", "knn"]),
        with("reconstruct", &["photos", "--out", "a.png"]),
        pretrain,
    ]
}

/// A world with a small run and labelled images.
fn trained() -> World {
    let world = World::new();
    succeed(world.run("run", &[]));
    for i in 0..24u8 {
        let class = ["ant", "bee"][usize::from(i) % 2];
        let class = world.path("photos").join(class);
        std::fs::create_dir_all(&class).unwrap();
        image::RgbImage::from_pixel(16, 16, image::Rgb([i * 9, 7, 9]))
            .save(class.join(format!("{i}.png")))
            .unwrap();
    }
    world
}

#[test]
fn weights_that_must_be_converted_first_are_named() {
    let world = trained();
    for (file, what) in [
        ("authors.pth", "a file of torch.save"),
        ("legacy.pth", "a file of torch.save"),
        (
            "huggingface",
            "a Masked Autoencoder in Hugging Face's layout",
        ),
        (
            "timm/model.safetensors",
            "a ViT with a head of classes in timm's layout",
        ),
    ] {
        for command in takers(&world, &fixture(file)) {
            check_message(command, &[what, "mae-train convert ", " base.safetensors"]);
        }
    }
    let folder = world.path("sharded");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("config.json"), "{}").unwrap();
    for command in takers(&world, &folder) {
        check_message(command, &["another program's model", "mae-train convert "]);
    }
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let world = trained();
    let file = find_model(&world.path("run")).unwrap();
    let (tensors, metadata) = read_tensors(&file).unwrap();
    let _ = (tensors["blocks.0.attn.qkv.bias"].narrow(0, 4, 3)).fill_(f64::NAN);
    let _ = tensors["norm.bias"].narrow(0, 0, 1).fill_(f64::INFINITY);
    write_tensors(&world.path("nan.safetensors"), &tensors, metadata).unwrap();
    let mut commands = takers(&world, &world.path("nan.safetensors"));
    commands.push(world.convert("nan.safetensors", "out --format huggingface"));
    for command in commands {
        check_message(
            command,
            &[
                "nan.safetensors: values are NaN or infinite in 2 tensors, blocks.0.attn.qkv.bias (3), norm.bias (1)",
            ],
        );
    }
    let mut inspect = program();
    inspect.arg("inspect").arg(world.path("nan.safetensors"));
    says(inspect, &["4 values of 2 tensors are NaN or infinite"]);
}

#[test]
fn embeddings_are_no_weights() {
    let world = trained();
    let mut embed = program();
    embed.current_dir(&world.folder);
    embed.args(["embed", "photos", "--from", "run", "--out", "a.safetensors"]);
    succeed(embed);
    let file = world.path("a.safetensors");
    let mut inspect = program();
    inspect.arg("inspect").arg(&file);
    says(
        inspect,
        &[
            "embeddings of images (mae-train embed), no weights",
            "features      [24, 32], of each image the mean of its patch tokens",
            "labels        of 2 classes",
        ],
    );
    let mut commands = takers(&world, &file);
    commands[0].arg("--overwrite");
    commands.push(world.convert("a.safetensors", "b.safetensors"));
    for command in commands {
        check_message(command, &["embeddings that mae-train embed wrote"]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_to_is_told_once() {
    let world = World::new();
    let hf = fixture("huggingface");
    for to in ["/proc/out.safetensors", "/proc/out --format timm"] {
        let message = fail(world.convert(&hf, to));
        assert!(message.contains("cannot write /proc/out"), "{message}");
        assert!(message.contains("may be written to"), "{message}");
        assert_eq!(message.matches("os error").count(), 1, "{message}");
    }
    check_message(
        world.convert(&hf, "/proc/a/out.safetensors"),
        &["cannot make the folder /proc/a", "may be written to"],
    );
}

#[cfg(unix)]
#[test]
fn files_of_weights_have_the_usual_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    std::fs::write(world.path("usual"), "").unwrap();
    succeed(world.run("run", &[]));
    succeed(world.convert("run", "timm --format timm"));
    succeed(world.convert("run", "copy.safetensors"));
    let mode = |file: &Path| file.metadata().unwrap().permissions().mode();
    let model = find_model(&world.path("run")).unwrap();
    for file in [
        model.with_file_name("state.safetensors"),
        model,
        world.path("timm/model.safetensors"),
        world.path("copy.safetensors"),
    ] {
        assert_eq!(mode(&file), mode(&world.path("usual")), "{file:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_nothing() {
    let world = World::new();
    let mut command = world.convert(fixture("huggingface"), "a.safetensors");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    assert!(world.path("a.safetensors").exists());
}

#[test]
fn an_empty_file_says_its_reason_once() {
    let world = World::new();
    std::fs::write(world.path("empty.pth"), "").unwrap();
    let message = fail(world.convert("empty.pth", "a.safetensors"));
    assert_eq!(message.matches("header too small").count(), 1, "{message}");
}

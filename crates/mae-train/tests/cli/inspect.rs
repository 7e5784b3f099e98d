//! What checkpoints, runs and data sets are said to be.

use std::path::{Path, PathBuf};
use std::process::Command;

use image::{GrayImage, Luma, Rgb, RgbImage};
use mae_model::classifier::ClassifierConfig;
use mae_model::tensor_file::{read_tensors, write_tensors};
use mae_model::{MaskedAutoencoderViT, VitClassifier};
use serde_json::Value;
use tch::{Device, Tensor};

use crate::program::{checkpoints, fail, program, small, succeed, text};

fn inspect(path: &Path) -> Command {
    let mut command = program();
    command.arg("inspect").arg(path);
    command
}

/// What is said in words, and in JSON.
fn facts(path: &Path) -> (String, Value) {
    let words = text(&succeed(inspect(path)).stdout);
    let mut command = inspect(path);
    command.arg("--json");
    let json = serde_json::from_slice(&succeed(command).stdout).unwrap();
    (words, json)
}

fn check(words: &str, expected: &[&str]) {
    for expected in expected {
        assert!(words.contains(expected), "{expected} in:\n{words}");
    }
}

fn a_run(folder: &Path, more: &[&str]) -> PathBuf {
    let run = folder.join("run");
    let quick = ["optim.epochs=2", "optim.warmup_epochs=0", "data.samples=40"];
    succeed(small(&run, &[&quick, more].concat()));
    run
}

#[test]
fn a_run_tells_its_story_and_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    let run = a_run(
        folder.path(),
        &["model.norm_pix_loss=true", "run.eval_every=1"],
    );
    let (words, json) = facts(&run);
    check(
        &words,
        &[
            "run: a pre-training run, finished\n",
            "images        source synthetic",
            "mask          ratio 0.75, sampler random\n",
            "optim         epochs 2, batch_size 8",
            "history       2 epochs, 10 steps, in ",
            " images/s in the median\n",
            "accuracy      knn k=20: top-1 ",
            " after epoch 2; best ",
            "checkpoints   2 checkpoints\n",
            "model.safetensors: a Masked Autoencoder, ",
            "image         16 x 16 pixels of 3 channels, in 4 x 4 patches of 4 x 4\n",
            "encoder       2 blocks, 32 wide, 2 heads, ",
            "decoder       1 block, 16 wide, 2 heads, ",
            "target        pixels, each patch normalised by its own mean and deviation (norm_pix_loss); loss on hidden",
            "damage        none",
            "  blocks.0..1.attn.qkv.weight        [96, 32] f32\n",
        ],
    );
    assert!(!words.contains("go on with"), "{words}");
    assert_eq!(json["kind"], "run");
    assert_eq!(json["is_finished"], true);
    assert_eq!(json["is_running"], false);
    assert_eq!(json["history"]["steps"], 10);
    assert_eq!(json["config"]["optim"]["batch_size"], 8);
    assert_eq!(json["checkpoints"].as_array().unwrap().len(), 2);
    assert_eq!(json["weights"]["model"]["what"], "masked-autoencoder");
    let model = checkpoints(&run).pop().unwrap().join("model.safetensors");
    let parameters = MaskedAutoencoderViT::load(&model, Device::Cpu)
        .unwrap()
        .parameters();
    let count = |is: &dyn Fn(&str) -> bool| -> usize {
        (parameters.iter().filter(|(key, _)| is(key)))
            .map(|(_, tensor)| tensor.numel())
            .sum()
    };
    let decoder = count(&|key| key.starts_with("decoder_") || key == "mask_token");
    let found = &json["weights"]["parameters"];
    assert_eq!(found["total"], count(&|_| true));
    assert_eq!(found["decoder"], decoder);
    assert_eq!(found["encoder"], count(&|_| true) - decoder);

    // A run whose end is missing, and one that has not begun.
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let first: String = metrics.split_inclusive('\n').take(3).collect();
    std::fs::write(run.join("metrics.jsonl"), first).unwrap();
    let (words, json) = facts(&run);
    check(
        &words,
        &[
            "not finished",
            "0 epochs, 3 steps",
            &format!(
                "go on with    mae-train pretrain --resume --out {}",
                run.display()
            ),
        ],
    );
    assert_eq!(json["is_finished"], false);
    std::fs::write(run.join("metrics.jsonl"), "").unwrap();
    std::fs::remove_dir_all(run.join("checkpoints")).unwrap();
    let (words, json) = facts(&run);
    check(&words, &["nothing has been noted yet", "0 checkpoints"]);
    assert_eq!(json["weights"], Value::Null);
}

#[test]
fn a_tokenizer_and_an_evaluation_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("tokenizer");
    let mut command = program();
    command.args(["tokenizer", "--out"]).arg(&run);
    for pair in [
        "model.image_size=16",
        "model.patch_size=4",
        "model.vocabulary=32",
        "model.width=16",
        "data.source=synthetic",
        "data.samples=40",
        "optim.epochs=1",
        "optim.warmup_epochs=0",
        "optim.batch_size=8",
        "run.device=cpu",
    ] {
        command.args(["--set", pair]);
    }
    succeed(command);
    let (words, json) = facts(&run);
    check(
        &words,
        &[
            "a tokenizer's run, finished",
            "tokens        ",
            "model.safetensors: a tokenizer, ",
            "vocabulary    32 tokens",
        ],
    );
    assert_eq!(json["command"], "tokenizer");

    let run = a_run(folder.path(), &[]);
    let mut command = program();
    command
        .args([
            "eval",
            "--protocols",
            "knn",
            "--set",
            "run.device=cpu",
            "--from",
        ])
        .arg(run)
        .arg("--out")
        .arg(folder.path().join("eval"))
        .env("MAE_CACHE_DIR", folder.path().join("cache"));
    succeed(command);
    let (words, json) = facts(&folder.path().join("eval"));
    check(&words, &["an evaluation of ", "knn k=20"]);
    assert_eq!(json["kind"], "evaluation");
    assert!(json["rows"][0]["top1"].is_number());
}

#[test]
fn weights_of_every_kind_are_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let run = a_run(folder.path(), &[]);
    let file = |name: &str| folder.path().join(name);
    let model = checkpoints(&run).pop().unwrap().join("model.safetensors");
    let (mut tensors, mut metadata) = read_tensors(&model).unwrap();

    // A checkpoint's folder is its model.
    let (words, _) = facts(model.parent().unwrap());
    check(&words, &["a Masked Autoencoder, "]);

    metadata.insert("part".into(), "encoder".into());
    metadata.insert("note".into(), "from elsewhere".into());
    tensors.insert("norm.bias".into(), Tensor::from_slice(&[f32::NAN; 32]));
    tensors.insert("norm.weight".into(), Tensor::from_slice(&[0f32; 32]));
    write_tensors(&file("encoder.safetensors"), &tensors, metadata).unwrap();
    let (words, json) = facts(&file("encoder.safetensors"));
    check(
        &words,
        &[
            "the encoder of a Masked Autoencoder (part = encoder)",
            "metadata      note = from elsewhere\n",
            "damage        32 values of 1 tensor are NaN or infinite\n  norm.bias: 32\n",
            "all zero      1 tensor, ",
        ],
    );
    assert_eq!(json["model"]["what"], "encoder");
    assert_eq!(json["not_finite"]["norm.bias"], 32);
    assert_eq!(json["all_zero"][0], "norm.weight");

    let model = MaskedAutoencoderViT::load(&model, Device::Cpu).unwrap();
    let config = ClassifierConfig::linear_probe(model.config().clone(), 3);
    let classifier = VitClassifier::new(&config, model.normalization(), Device::Cpu, 0).unwrap();
    classifier.save(&file("classifier.safetensors")).unwrap();
    let (words, json) = facts(&file("classifier.safetensors"));
    check(
        &words,
        &[
            "a classifier, ",
            "3 classes, of the class token; 99 parameters",
        ],
    );
    assert_eq!(json["model"]["config"]["classes"], 3);

    let foreign = |keys: &[&str], name: &str, seems: &str| {
        let tensors = (keys.iter())
            .map(|key| (key.to_string(), Tensor::from_slice(&[1f32])))
            .collect();
        write_tensors(&file(name), &tensors, Default::default()).unwrap();
        check(
            &facts(&file(name)).0,
            &["no file of this project", seems, "mae-train convert"],
        );
    };
    foreign(
        &["patch_embed.proj.weight", "head.weight"],
        "timm.safetensors",
        "a ViT with a head of classes in timm's layout",
    );
    foreign(
        &[
            "vit.embeddings.patch_embeddings.projection.weight",
            "decoder.decoder_layers.0.x",
        ],
        "hf.safetensors",
        "a Masked Autoencoder in Hugging Face's layout",
    );
}

#[test]
fn weights_of_other_programs_are_listed_by_where_they_are() {
    let fixture = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../mae-model/tests/fixtures/formats")
            .join(name)
    };
    let (words, json) = facts(&fixture("authors.pth"));
    check(
        &words,
        &[
            "a Masked Autoencoder in the MAE authors' layout",
            "mae-train convert",
            "weights       under model\n",
            "model.blocks.0..1.norm1.weight",
        ],
    );
    assert_eq!(json["models"], serde_json::json!(["model"]));
    let (words, _) = facts(&fixture("beside.pth"));
    let both =
        "under state_dict.module, which convert takes; with --weights-key also state_dict_ema";
    check(&words, &[both]);

    // A folder of shards, with and without a description beside them.
    let folder = tempfile::tempdir().unwrap();
    let shard = folder.path().join("pytorch_model-00001-of-00001.bin");
    std::fs::copy(fixture("authors.pth"), shard).unwrap();
    for description in ["config.json", "preprocessor_config.json"] {
        check(
            &facts(folder.path()).0,
            &["a Masked Autoencoder", "under model"],
        );
        std::fs::write(folder.path().join(description), "{}").unwrap();
    }
    // A folder of images is one, whatever describes it.
    images(&folder.path().join("images"));
    std::fs::write(folder.path().join("images/config.json"), "{}").unwrap();
    check(&facts(&folder.path().join("images")).0, &["cat", "dog"]);
    let damaged = folder.path().join("damaged.pth");
    std::fs::write(&damaged, b"PK\x03\x04....patch_embed.proj.weight").unwrap();
    let mut command = program();
    command.arg("inspect").arg(damaged);
    assert!(fail(command).contains("not a complete file of torch.save"));
}

/// Two classes, of which one has odd images.
fn images(folder: &Path) {
    let path = |name: &str| folder.join(name);
    for class in ["cat", "dog"] {
        std::fs::create_dir_all(path(class)).unwrap();
    }
    for i in 0..4u8 {
        let colour = RgbImage::from_pixel(30, 20 + u32::from(i), Rgb([50 * i, 0, 255]));
        colour.save(path(&format!("cat/{i}.png"))).unwrap();
    }
    let grey = GrayImage::from_pixel(300, 400, Luma([7]));
    grey.save(path("dog/grey.jpg")).unwrap();
    std::fs::copy(path("cat/1.png"), path("dog/copy.png")).unwrap();
    std::fs::write(path("dog/broken.jpg"), "no image at all").unwrap();
}

#[test]
fn images_are_counted_and_broken_ones_named() {
    let folder = tempfile::tempdir().unwrap();
    images(folder.path());
    let (words, json) = facts(folder.path());
    check(
        &words,
        &[
            ": 7 images in a folder\n",
            "size          20 x 30 to 400 x 300, median 21 x 30 pixels, height x width; 5 different ones\n",
            "stored as     RGB of 8 bits: 5, grey of 8 bits: 1\n",
            "files         jpg: 2, png: 5\n",
            "broken        1 of 7\n",
            "broken.jpg: the content is no image",
            "equal         1 group\n",
            "classes       2, with images each:\n  cat  4\n  dog  3\n",
            "note          14.3 % of the images are broken",
            "fewer images than a batch of 64",
            "5 of 7 images are smaller than 224 pixels",
            "images of 1 and 3 channels are mixed",
            "1 image is a copy of another, once in another class",
        ],
    );
    assert_eq!(json["kind"], "images");
    assert_eq!(
        json["broken"][0]["name"],
        folder.path().join("dog/broken.jpg").display().to_string()
    );
    assert_eq!(json["classes"][1]["images"], 3);
    assert_eq!(json["sizes"]["distinct"], 5);
    assert_eq!(json["warnings"].as_array().unwrap().len(), 5);

    // Fewer, without the sub-folders' names.
    let mut command = inspect(&folder.path().join("cat"));
    command.args(["--sample", "2"]);
    let words = text(&succeed(command).stdout);
    check(
        &words,
        &[
            "4 images",
            "looked at     2 of them",
            "broken        none",
            "no labels",
        ],
    );
}

#[test]
fn packed_images_tar_files_and_cifar_are_images_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    images(&file("images"));
    std::fs::remove_file(file("images/dog/broken.jpg")).unwrap();
    let mut command = program();
    command
        .arg("pack")
        .args([file("images"), file("images.mae")]);
    succeed(command);
    let (words, json) = facts(&file("images.mae"));
    check(
        &words,
        &[": 6 images in a packed file", "  cat  4\n  dog  2\n"],
    );
    assert_eq!(json["broken"].as_array().unwrap().len(), 0);

    let mut archive = tar::Builder::new(std::fs::File::create(file("0.tar")).unwrap());
    archive
        .append_path_with_name(file("images/cat/0.png"), "0.png")
        .unwrap();
    archive.finish().unwrap();
    let braces = facts(&file("{0..0}.tar"));
    check(
        &braces.0,
        &[": 1 image in tar files", "files         png: 1"],
    );

    std::fs::create_dir(file("cifar")).unwrap();
    let record: Vec<u8> = (0..3073u32)
        .map(|i| if i == 0 { 3 } else { (i % 251) as u8 })
        .collect();
    for batch in 1..=5 {
        let name = file("cifar").join(format!("data_batch_{batch}.bin"));
        std::fs::write(name, record.repeat(10_000)).unwrap();
    }
    let classes: String = (0..10).map(|class| format!("class {class}\n")).collect();
    std::fs::write(file("cifar/batches.meta.txt"), classes).unwrap();
    let mut command = inspect(&file("cifar"));
    command.args(["--sample", "5"]);
    let words = text(&succeed(command).stdout);
    check(
        &words,
        &[
            "50000 images in CIFAR-10's binary files",
            "size          32 x 32",
            "equal         1 group",
        ],
    );
}

#[test]
fn cifar_is_there_only_with_all_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::create_dir(file("images")).unwrap();
    images(&file("images"));
    for name in ["train.bin", "test.bin", "data_batch_1.bin"] {
        std::fs::write(file("images").join(name), "another program's").unwrap();
    }
    check(&facts(&file("images")).0, &[": 7 images in a folder\n"]);

    let said = |name: &str, expected: &str| {
        let said = fail(inspect(&file(name)));
        assert!(said.contains(expected), "{said}");
    };
    std::fs::create_dir(file("part")).unwrap();
    std::fs::write(file("part/batches.meta.txt"), "cat\n").unwrap();
    said("part", "found no data_batch_1.bin, data_batch_2.bin");
    std::fs::create_dir(file("cifar-10-batches-py")).unwrap();
    std::fs::write(file("cifar-10-batches-py/data_batch_1"), [0x80, 2]).unwrap();
    std::fs::remove_dir_all(file("images")).unwrap();
    for name in ["cifar-10-batches-py", ""] {
        said(name, "found the Python version");
        said(name, "unpack cifar-10-binary.tar.gz there");
    }
    std::fs::write(file("cifar-100-python.tar.gz"), [0x1f, 0x8b]).unwrap();
    said(
        "cifar-100-python.tar.gz",
        "take cifar-100-binary.tar.gz from",
    );
}

#[test]
fn a_contact_sheet_shows_all_classes() {
    let folder = tempfile::tempdir().unwrap();
    images(&folder.path().join("images"));
    let mut command = inspect("images".as_ref());
    command
        .current_dir(folder.path())
        .args(["--contact-sheet", "--json"]);
    let output = succeed(command);
    assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok());
    check(&text(&output.stderr), &["contact sheet: contact-sheet.png"]);
    let sheet = image::open(folder.path().join("contact-sheet.png"))
        .unwrap()
        .to_rgb8();
    // Six whole images in a row, the first enlarged fourfold: 20 x 30 becomes 80 x 120, centred in 128 x 128.
    assert_eq!(sheet.dimensions(), (6 * 134 + 6, 151 + 6));
    assert_eq!(sheet.get_pixel(6 + 64, 6 + 64), &Rgb([0, 0, 255]));
    assert_eq!(sheet.get_pixel(6 + 64, 6 + 10), &Rgb([255, 255, 255]));
    // The last is grey and shrunk: 400 x 300 becomes 128 x 96.
    assert_eq!(sheet.get_pixel(6 + 5 * 134 + 64, 6 + 2), &Rgb([7, 7, 7]));

    let mut command = inspect(&folder.path().join("images"));
    let sheet = folder.path().join("b.png");
    command.arg(format!("--contact-sheet={}", sheet.display()));
    succeed(command);
    assert!(sheet.exists());

    let mut command = inspect(&folder.path().join("images"));
    command.arg(format!("--contact-sheet={}", sheet.display()));
    check(&fail(command), &["b.png is there already: give another"]);
}

#[test]
fn what_is_nothing_known_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("notes.txt"), "notes").unwrap();
    std::fs::write(file("cut.safetensors"), [9, 0, 0, 0, 0, 0, 0, 0, b'{']).unwrap();
    std::fs::write(file("empty.pth"), "").unwrap();
    let said = |name: &str, expected: &str| {
        let said = fail(inspect(&file(name)));
        assert!(said.contains(expected), "{said}");
    };
    said("absent", "there is no such file or folder");
    said(
        "notes.txt",
        "neither weights nor packed images nor an image",
    );
    said("cut.safetensors", "not a complete safetensors file");
    said("empty.pth", "the file is empty");
    said("", "expected images, found 0 images among 3 files");
    let run = a_run(folder.path(), &[]);
    let mut command = inspect(&run);
    command.arg("--contact-sheet");
    check(&fail(command), &["--contact-sheet draws images"]);
}

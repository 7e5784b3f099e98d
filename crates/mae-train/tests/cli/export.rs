//! The encoder as TorchScript and ONNX: what it computes, what is said of it, mistakes.

use std::path::{Path, PathBuf};
use std::process::Command;

use mae_model::classifier::Pooling;
use mae_model::onnx::OnnxFiles;
use mae_model::{VitClassifier, patchify};
use tch::{CModule, Device, Kind, Tensor};

use crate::program::{checkpoints, fail, program, small, succeed, text};

fn export(from: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = program();
    command.arg("export").arg("--from").arg(from);
    command.arg("--torchscript").arg(out).args(more);
    command
}

/// A pre-trained small model in `folder`, with more keys set.
fn pretrained(folder: &tempfile::TempDir, more: &[&str]) -> PathBuf {
    let run = folder.path().join("run");
    let keys = [&["optim.epochs=1", "optim.warmup_epochs=0"], more].concat();
    succeed(small(&run, &keys));
    run
}

fn model_of(run: &Path) -> PathBuf {
    checkpoints(run).last().unwrap().join("model.safetensors")
}

/// The file against the model that it came from, on numbers of images that it was not recorded with.
fn check(script: &Path, run: &Path) {
    let model = VitClassifier::open_encoder(&model_of(run), Pooling::ClassToken, Device::Cpu);
    let model = model.unwrap();
    let module = CModule::load(script).unwrap();
    for batch in [1, 4, 9] {
        let pixels: Vec<u8> = (0..batch * 16 * 16 * 3)
            .map(|i| (i * i % 251) as u8)
            .collect();
        let pixels = Tensor::from_slice(&pixels).view([batch, 16, 16, 3]);
        let expected = model.tokens(&patchify(&pixels, 4).unwrap()).unwrap();
        let images = pixels.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
        let tokens = module.forward_ts(&[images]).unwrap();
        assert_eq!(tokens.size(), [batch, 17, 32]);
        for size in [[1, 3, 8, 16], [1, 3, 32, 8], [1, 1, 16, 16], [1, 3, 16, 32]] {
            let other = Tensor::zeros(size, (Kind::Float, Device::Cpu));
            let error = module.forward_ts(&[other]).unwrap_err().to_string();
            let dim = size.iter().zip([1, 3, 16, 16]).position(|(a, b)| *a != b);
            let words = format!("don't multiply up to the size of dim {}", dim.unwrap());
            assert!(error.contains(&words), "{error}");
        }
        let difference = (tokens - expected).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{difference} in a batch of {batch}");
    }
}

#[test]
fn the_file_gives_what_the_model_gives() {
    let folder = tempfile::tempdir().unwrap();
    let run = pretrained(&folder, &[]);
    let out = folder.path().join("encoder.pt");
    let printed = text(&succeed(export(&run, &out, &[])).stdout);
    for words in [
        "verified with one of the run's own images (synthetic:0): in batches of 1 and 3",
        "encoder = torch.jit.load(\"",
        "tokens = encoder(images)  # [batch, 17, 32]",
    ] {
        assert!(printed.contains(words), "{words} in {printed}");
    }
    check(&out, &run);

    assert!(fail(export(&run, &out, &[])).contains("encoder.pt is there already: replace it with"));
    let onnx = folder.path().join("encoder.onnx");
    let mut command = program();
    command.arg("export").arg("--from").arg(&run);
    let message = fail(command);
    assert!(
        message.contains("--torchscript") && message.contains("--onnx"),
        "{message}"
    );
    let onnx_argument = onnx.to_str().unwrap();
    let message = fail(export(&run, &onnx, &["--onnx", onnx_argument]));
    assert!(message.contains("name the same file"), "{message}");
    let both = ["--overwrite", "--onnx", onnx_argument];
    let printed = text(&succeed(export(&run, &out, &both)).stdout);
    for words in [
        "encoder = torch.jit.load(\"",
        "encoder = onnxruntime.InferenceSession(\"",
        "tokens, = encoder.run(None, {\"images\": images})  # [batch, 17, 32]",
    ] {
        assert!(printed.contains(words), "{words} in {printed}");
    }
    assert_eq!(printed.matches("in batches of 1 and 3").count(), 2);
    let files = OnnxFiles {
        model: std::fs::read(&onnx).unwrap(),
        weights: None,
    };
    let images = Tensor::rand([2, 3, 16, 16], (Kind::Float, Device::Cpu));
    let by_torchscript = CModule::load(&out).unwrap().forward_ts(&[&images]).unwrap();
    let difference = files.compute(&images).unwrap() - by_torchscript;
    assert!(difference.abs().max().double_value(&[]) < 1e-5);
    // A file that a larger model would have its weights in.
    std::fs::write(folder.path().join("second.onnx.data"), "mine").unwrap();
    let second = folder.path().join("second.onnx");
    let arguments = ["--onnx", second.to_str().unwrap()];
    let third = folder.path().join("third.pt");
    let message = fail(export(&run, &third, &arguments));
    assert!(
        message.contains("second.onnx.data is there already"),
        "{message}"
    );
    assert!(!third.exists());

    let model = model_of(&run);
    let message = fail(export(&run, &model, &["--overwrite"]));
    assert!(message.contains("is what is to be read"), "{message}");
    let photo = folder.path().join("photo.png");
    image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 90]))
        .save(&photo)
        .unwrap();
    let arguments = ["--overwrite", "--image", photo.to_str().unwrap()];
    let printed = text(&succeed(export(&run, &out, &arguments)).stdout);
    assert!(printed.contains("the image that was given (") && printed.contains("photo.png)"));
    check(&out, &run);
}

#[test]
fn variants_and_files_from_elsewhere_are_exported() {
    let folder = tempfile::tempdir().unwrap();
    let run = pretrained(
        &folder,
        &[
            "model.encoder_mask_tokens=true",
            "model.target=pca",
            "model.pca_components=8",
        ],
    );
    let alone = folder.path().join("alone.safetensors");
    std::fs::copy(model_of(&run), &alone).unwrap();
    let out = folder.path().join("encoder.pt");
    let printed = text(&succeed(export(&alone, &out, &[])).stdout);
    assert!(printed.contains("verified with a drawn scene, as the run's own images are not there"));
    check(&out, &run);
}

#[test]
fn mistakes_are_explained_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = pretrained(&folder, &[]);
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("text.png"), "no image").unwrap();
    let check = |from: &Path, out: &str, more: &[&str], expected: &[&str]| {
        let message = fail(export(from, &path(out), more));
        for part in expected {
            assert!(message.contains(part), "expected {part:?} in: {message}");
        }
    };
    check(
        &path("absent"),
        "a.pt",
        &[],
        &["--from", "there is no such file"],
    );
    check(
        &path("text.png"),
        "a.pt",
        &[],
        &["not a complete safetensors file"],
    );
    check(
        &run,
        "no/a.pt",
        &[],
        &["no/a.pt", "check that the folder exists"],
    );
    let text = path("text.png").display().to_string();
    check(
        &run,
        "a.pt",
        &["--image", &text],
        &["no image to verify with", "text.png"],
    );
    let absent = path("absent.png").display().to_string();
    check(
        &run,
        "a.pt",
        &["--image", &absent],
        &["reading", "absent.png"],
    );
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["run", "text.png"]);
}

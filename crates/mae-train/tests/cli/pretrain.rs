//! Pre-training: runs, interruptions, mistakes.

use std::path::Path;
use std::process::{Command, Stdio};

use mae_report::{Record, read_metrics};
use tempfile::TempDir;

use crate::program::{
    Interruption, check_resume, checkpoints, fail, numbers, program, small, succeed, text,
    wait_for_checkpoint,
};

#[test]
fn kill_9_and_resume_gives_identical_losses() {
    check_resume(small, &Interruption::Kill, "2", &[]);
}

#[test]
fn ctrl_c_and_resume_gives_identical_losses() {
    check_resume(small, &Interruption::CtrlC, "1", &[]);
}

#[test]
fn sigterm_and_resume_gives_identical_losses_with_accumulation_and_fp16() {
    check_resume(
        small,
        &Interruption::Term,
        "1",
        &[
            "optim.accumulate=3",
            "data.drop_last=false",
            "optim.batch_size=7",
            "run.precision=fp16",
        ],
    );
}

#[test]
fn a_run_leaves_everything_that_the_documentation_names() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let output = succeed(small(&run, &[]));
    let last = text(&output.stdout).lines().last().unwrap().to_string();
    assert!(
        last.contains("pictures: ") && last.contains("curves: ") && last.contains("checkpoint: "),
        "{last}"
    );
    for file in [
        "config.toml",
        "metrics.jsonl",
        "loss.svg",
        "reconstructions/epoch-0004.png",
        "reconstructions/small.png",
    ] {
        assert!(run.join(file).metadata().unwrap().len() > 100, "{file}");
    }
    assert_eq!(
        std::fs::read_dir(run.join("tensorboard")).unwrap().count(),
        1
    );
    assert_eq!(checkpoints(&run).len(), 2, "the last two are kept");
    let picture = image::open(run.join("reconstructions/epoch-0004.png")).unwrap();
    assert!(
        picture.width() > 1000 && picture.height() > 500,
        "{picture:?}"
    );

    // The run's own configuration repeats it.
    let again = folder.path().join("again");
    let mut command = program();
    command
        .arg("--config")
        .arg(run.join("config.toml"))
        .arg("--out")
        .arg(&again);
    succeed(command);
    assert_eq!(numbers(&run), numbers(&again));

    // The model is found by those who want it.
    let model = checkpoints(&run).last().unwrap().join("model.safetensors");
    let model = mae_model::MaskedAutoencoderViT::load(&model, tch::Device::Cpu).unwrap();
    assert_eq!(model.config().embed_dim, 32);

    // Nothing is left to do.
    let before = numbers(&run);
    let mut command = program();
    command.args(["pretrain", "--resume", "--out"]).arg(&run);
    succeed(command);
    assert_eq!(before, numbers(&run));
}

#[test]
fn lower_precision_and_workers_train_too() {
    let folder = tempfile::tempdir().unwrap();
    let final_loss = |name: &str, more: &[&str]| {
        let run = folder.path().join(name);
        succeed(small(&run, more));
        match read_metrics(&run.join("metrics.jsonl")).unwrap().pop() {
            Some(Record::Epoch { loss, .. }) => loss,
            other => panic!("the last record is {other:?}"),
        }
    };
    let fp32 = final_loss("fp32", &[]);
    assert_eq!(
        fp32,
        final_loss("workers", &["run.workers=3"]),
        "the order depends on the workers"
    );
    for precision in ["bf16", "fp16"] {
        let loss = final_loss(precision, &[&format!("run.precision={precision}")]);
        assert!(
            (loss / fp32 - 1.0).abs() < 0.02,
            "{precision}: {loss} against {fp32}"
        );
    }
    let accumulated = final_loss("accumulated", &["optim.batch_size=4", "optim.accumulate=2"]);
    assert!(
        (accumulated / fp32 - 1.0).abs() < 1e-4,
        "{accumulated} against {fp32}"
    );
}

#[test]
fn divergence_stops_with_advice_and_keeps_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    succeed(small(&run, &["optim.epochs=1", "optim.warmup_epochs=0"]));
    let before = checkpoints(&run);

    let diverging = folder.path().join("diverging");
    let message = fail(small(
        &diverging,
        &[
            "optim.base_lr=1000",
            // Then each step multiplies the weights by -30.
            "optim.weight_decay=1",
            "optim.epochs=10",
            "optim.warmup_epochs=0",
        ],
    ));
    assert!(
        message.contains("was not finite in 4") && message.contains("smaller base_lr"),
        "{message}"
    );
    assert_eq!(before.len(), 1);
}

/// A folder of small PNG files.
fn images(count: u8) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..count {
        let picture = image::RgbImage::from_fn(20, 18, |x, y| {
            image::Rgb([i * 9, (x * 12) as u8, (y * 13) as u8])
        });
        picture
            .save(folder.path().join(format!("{i:03}.png")))
            .unwrap();
    }
    folder
}

fn on_folder(data: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = small(out, more);
    command.arg("--data").arg(data);
    command
}

#[test]
fn broken_images_are_named_counted_and_skipped_up_to_a_share() {
    let data = images(24);
    let out = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("005.png"), "not an image").unwrap();
    let tolerant = on_folder(
        data.path(),
        &out.path().join("a"),
        &["data.max_broken_share=0.05"],
    );
    let output = succeed(tolerant);
    assert_eq!(
        text(&output.stderr).matches("005.png").count(),
        1,
        "{}",
        text(&output.stderr)
    );
    let records = read_metrics(&out.path().join("a/metrics.jsonl")).unwrap();
    assert!(matches!(
        records.last(),
        Some(Record::Epoch {
            broken_images: 1,
            ..
        })
    ));

    let message = fail(on_folder(data.path(), &out.path().join("b"), &[]));
    assert!(
        message.contains("005.png") && message.contains("error: "),
        "{message}"
    );
}

#[test]
fn what_failed_before_its_first_update_is_begun_anew() {
    let data = images(24);
    let out = tempfile::tempdir().unwrap();
    let run = out.path().join("run");
    let broken = data.path().join("005.png");
    std::fs::write(&broken, "not an image").unwrap();
    let whole_batch = ["optim.batch_size=24"];
    fail(on_folder(data.path(), &run, &whole_batch));
    assert!(run.join("config.toml").exists());
    std::fs::remove_file(broken).unwrap();
    succeed(on_folder(data.path(), &run, &["optim.batch_size=23"]));
    let message = fail(on_folder(data.path(), &run, &["optim.batch_size=23"]));
    assert!(message.contains("holds a run already"), "{message}");

    // A file of another program stays as it is.
    let config = out.path().join("config.toml");
    std::fs::write(&config, "title = \"mine\"").unwrap();
    let message = fail(on_folder(data.path(), out.path(), &[]));
    assert!(message.contains("config.toml is not of a run"), "{message}");
    assert_eq!(std::fs::read(config).unwrap(), b"title = \"mine\"");
}

#[test]
fn mistakes_are_explained() {
    let out = tempfile::tempdir().unwrap();
    let run = |name: &str| out.path().join(name);
    let empty = tempfile::tempdir().unwrap();
    let few = images(3);
    let check = |command: Command, expected: &[&str]| {
        let message = fail(command);
        for part in expected {
            assert!(message.contains(part), "expected {part:?} in: {message}");
        }
    };

    check(
        small(&run("a"), &["optim.epoch=3"]),
        &["there is no key `optim.epoch`; did you mean `optim.epochs`?"],
    );
    check(
        small(&run("b"), &["run.device=cuda"]),
        &["run.device", "cuda", "cpu"],
    );
    check(on_folder(&run("absent"), &run("c"), &[]), &["absent"]);
    check(on_folder(empty.path(), &run("d"), &[]), &["found no files"]);
    check(on_folder(few.path(), &run("e"), &[]), &["batch_size", "3"]);
    let mut command = program();
    command.args(["pretrain", "--recipe", "quickstrat"]);
    check(command, &["quickstrat", "quickstart"]);
    let mut command = program();
    command.args(["pretrain", "--config", "absent.toml"]);
    check(command, &["absent.toml"]);

    // A folder that holds a run, resumed under another configuration, and damaged.
    let done = run("done");
    succeed(small(&done, &["optim.epochs=1", "optim.warmup_epochs=0"]));
    check(small(&done, &[]), &["holds a run already", "--resume"]);
    let mut command = program();
    command
        .args(["pretrain", "--resume", "--set", "optim.epochs=9", "--out"])
        .arg(&done);
    check(command, &["epochs = 9 (the run has epochs = 1)"]);
    let model = checkpoints(&done)[0].join("model.safetensors");
    let whole = std::fs::read(&model).unwrap();
    std::fs::write(&model, &whole[..whole.len() / 2]).unwrap();
    let mut command = program();
    command.args(["pretrain", "--resume", "--out"]).arg(&done);
    check(
        command,
        &[
            "model.safetensors: not a complete safetensors file",
            "no checkpoint of the run is whole",
            "to begin the run anew",
        ],
    );
}

#[test]
fn two_processes_cannot_train_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let keys = ["optim.epochs=2000", "run.checkpoint_minutes=0.0005"];
    let mut first = small(&run, &keys)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_checkpoint(&mut first, &run, 0);
    let mut command = small(&run, &keys);
    command.arg("--resume");
    let message = fail(command);
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(
        message.contains("another process is training in"),
        "{message}"
    );
}

#[test]
fn recipes_and_configurations_are_printed() {
    let mut command = program();
    command.arg("recipes");
    let listed = text(&succeed(command).stdout);
    for name in [
        "quickstart",
        "cifar10",
        "imagenet_vit_b16",
        "imagenet_vit_l16",
        "imagenet_vit_h14",
        "finetune_cifar10",
        "finetune_vit_b",
        "finetune_vit_l",
        "finetune_vit_h",
    ] {
        assert!(listed.contains(name), "{listed}");
    }
    let mut command = program();
    command.args([
        "config",
        "--recipe",
        "imagenet_vit_h14",
        "--data",
        "photos",
        "--set",
        "run.device=cpu",
    ]);
    let config = text(&succeed(command).stdout);
    for line in [
        "embed_dim = 1280",
        "decoder_depth = 8",
        "epochs = 1600",
        "path = \"photos\"",
        "precision = \"fp32\"",
    ] {
        assert!(config.contains(line), "{line} in {config}");
    }

    let mut command = program();
    command.args(["config", "--recipe", "finetune_vit_h"]);
    let config = text(&succeed(command).stdout);
    for line in ["drop_path = 0.2", "batch_size = 16384", "val_crop = 0.875"] {
        assert!(config.contains(line), "{line} in {config}");
    }
}

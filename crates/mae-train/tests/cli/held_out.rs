//! What is measured without labels: the loss of images that are held out, and the spectrum of features.

use std::path::{Path, PathBuf};
use std::process::Command;

use mae_report::{Record, read_metrics};
use mae_train::eval::report::Report;

use crate::program::{checkpoints, fail, numbers, program, small, succeed, text};

const QUICK: &[&str] = &["optim.epochs=2", "optim.warmup_epochs=0"];

/// Images of no classes, each of its own colours.
fn images(folder: &Path, name: &str, count: u8) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir(&path).unwrap();
    for i in 0..count {
        image::RgbImage::from_fn(16, 16, |x, y| {
            image::Rgb([9 * i, x as u8 * (i / 2), y as u8 * ((30 - i) / 2)])
        })
        .save(path.join(format!("{i:02}.png")))
        .unwrap();
    }
    path
}

fn losses(run: &Path) -> Vec<(u64, f64)> {
    let records = read_metrics(&run.join("metrics.jsonl")).unwrap();
    (records.iter())
        .filter_map(|record| match *record {
            Record::Validation {
                epoch, val_loss, ..
            } => Some((epoch, val_loss)),
            _ => None,
        })
        .collect()
}

fn spectrum(from: &Path, data: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = program();
    (command.arg("eval").arg("--from").arg(from).arg("--data")).arg(data);
    command
        .arg("--out")
        .arg(out)
        .args(["--protocols", "spectrum"]);
    command.args(["--set", "run.device=cpu", "--set", "spectrum.views=3"]);
    command.args(more);
    command
}

fn report(folder: &Path) -> Report {
    serde_json::from_slice(&std::fs::read(folder.join("eval.json")).unwrap()).unwrap()
}

#[test]
fn held_out_images_have_a_loss_that_a_resumed_run_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let keys = [QUICK, &["data.val_share=0.2", "run.eval_every=2"]].concat();
    let said = text(&succeed(small(&run, &keys)).stderr);
    assert!(
        said.contains("  val_loss ") && said.contains("  RankMe "),
        "{said}"
    );
    let first = losses(&run);
    assert_eq!(
        first.iter().map(|found| found.0).collect::<Vec<_>>(),
        [1, 2]
    );
    assert!(first.iter().all(|found| found.1 > 0.0));
    let records = read_metrics(&run.join("metrics.jsonl")).unwrap();
    // 130 of 160 images are trained on, as many of each class, 8 at a time.
    assert_eq!(records.iter().map(Record::step).max(), Some(32));
    let of_both = |record: &&Record| matches!(record, Record::Spectrum { epoch: 2, .. });
    assert_eq!(records.iter().filter(of_both).count(), 2);
    let shown = std::fs::read_to_string(run.join("loss.svg")).unwrap();
    assert!(shown.contains("held out") && shown.contains("RankMe"));

    // Of its own accord an evaluation judges by what the run held out.
    let mut eval = program();
    (eval.arg("eval").arg("--from").arg(&run).arg("--out")).arg(folder.path().join("eval"));
    eval.args(["--protocols", "spectrum", "--set", "spectrum.views=0"]);
    eval.args(["--set", "run.device=cpu"]);
    succeed(eval);
    let found = report(&folder.path().join("eval"));
    assert_eq!((found.train_images, found.val_images), (130, 30));
    assert_eq!(found.unlabelled[0].val_loss, Some(first[1].1));

    let before = numbers(&run);
    std::fs::remove_dir_all(checkpoints(&run).pop().unwrap()).unwrap();
    let mut resumed = program();
    resumed.args(["pretrain", "--resume", "--out"]).arg(&run);
    succeed(resumed);
    assert_eq!(numbers(&run), before);
    let mut other = program();
    other.args(["pretrain", "--resume", "--out"]).arg(&run);
    let message = fail({
        other.args(["--set", "data.val_share=0.3"]);
        other
    });
    assert!(message.contains("val_share"), "{message}");
}

#[test]
fn what_needs_no_labels_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (train, val) = (
        images(folder.path(), "train", 24),
        images(folder.path(), "val", 7),
    );
    let data = format!("data.path={}", train.display());
    let held_out = format!("data.val={}", val.display());
    let keys = [
        QUICK,
        &["data.source=folder", &data, &held_out, "run.eval_every=1"],
    ]
    .concat();
    succeed(small(&path("run"), &keys));
    let (_, last) = *losses(&path("run")).last().unwrap();

    // The same images with the same patches hidden, in another program.
    let arguments = ["--val", val.to_str().unwrap(), "--baseline"];
    let printed = text(&succeed(spectrum(&path("run"), &train, &path("eval"), &arguments)).stdout);
    for words in [
        "without labels, pre-trained encoder, 24 images",
        "without labels, random encoder",
        "effective rank",
        &format!("partly hidden: {last:.4}"),
    ] {
        assert!(printed.contains(words), "{words} in {printed}");
    }
    let found = report(&path("eval"));
    assert!(found.rows.is_empty() && found.classes.is_empty());
    let [pretrained, random] = &found.unlabelled[..] else {
        panic!("two starts: {found:?}")
    };
    assert_eq!(pretrained.val_loss, Some(last));
    assert_eq!(random.val_loss, None);
    let spectrum_of = pretrained.spectra.mean_patch;
    assert!((1.0..=24.0).contains(&spectrum_of.rank_me));
    assert!(spectrum_of.lidar.is_some() && spectrum_of.alpha.is_some());
    let mut inspect = program();
    let shown = text(
        &succeed({
            inspect.arg("inspect").arg(path("eval"));
            inspect
        })
        .stdout,
    );
    assert!(shown.contains("RankMe"), "{shown}");

    // An encoder alone predicts nothing.
    let mut convert = program();
    (convert.arg("convert").arg(path("run"))).arg(path("encoder.safetensors"));
    convert.args(["--part", "encoder"]);
    succeed(convert);
    let alone = ["--set", "spectrum.views=0"];
    succeed(spectrum(
        &path("encoder.safetensors"),
        &train,
        &path("alone"),
        &alone,
    ));
    let [found] = &report(&path("alone")).unlabelled[..] else {
        panic!("one start")
    };
    assert_eq!(
        (found.val_loss, found.spectra.mean_patch.lidar),
        (None, None)
    );

    let mut own = program();
    (own.arg("eval").arg("--from").arg(path("run")).arg("--out")).arg(path("own"));
    own.args(["--protocols", "spectrum", "--set", "spectrum.views=0"]);
    own.args(["--set", "run.device=cpu"]);
    succeed(own);
    assert_eq!(report(&path("own")).unlabelled[0].val_loss, Some(last));

    // One that cannot be read is told before anything is trained.
    std::fs::copy(val.join("00.png"), path("kept.png")).unwrap();
    std::fs::write(val.join("00.png"), "no image").unwrap();
    let message = fail(small(&path("broken"), &keys));
    assert!(
        message.contains("00.png") && !message.contains("epoch 1/"),
        "{message}"
    );
    std::fs::copy(path("kept.png"), val.join("00.png")).unwrap();

    // Held-out images must stay the same.
    std::fs::remove_file(val.join("03.png")).unwrap();
    let mut resumed = program();
    resumed
        .args(["pretrain", "--resume", "--out"])
        .arg(path("run"));
    let message = fail(resumed);
    assert!(
        message.contains("`data.val`") && message.contains("03.png"),
        "{message}"
    );
}

#[test]
fn mistakes_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (keys, expected) in [
        (
            &["data.val=photos", "data.val_share=0.1"][..],
            "two ways to the same",
        ),
        (
            &["data.val_share=1"],
            "`data.val_share` is 1, expected 0 to 0.999",
        ),
        (&["data.val=absent"], "`data.val`"),
    ] {
        let message = fail(small(&path("run"), &[QUICK, keys].concat()));
        assert!(message.contains(expected), "{expected} in {message}");
    }
    let mut tokenizer = program();
    tokenizer.args(["tokenizer", "--set", "data.val_share=0.1", "--out"]);
    tokenizer.arg(path("tokenizer"));
    let message = fail(tokenizer);
    assert!(
        message.contains("no effect on the training of a tokenizer"),
        "{message}"
    );

    succeed(small(&path("run"), QUICK));
    let one = images(folder.path(), "one", 3);
    std::fs::write(one.join("00.png"), "no image").unwrap();
    std::fs::write(one.join("01.png"), "no image").unwrap();
    let broken = [
        "--val",
        one.to_str().unwrap(),
        "--set",
        "data.max_broken_share=1",
    ];
    let message = fail(spectrum(&path("run"), &one, &path("eval"), &broken));
    assert!(message.contains("at least 2 images, found 1"), "{message}");
    let message = fail(spectrum(
        &path("run"),
        &one,
        &path("eval"),
        &["--set", "spectrum.views=1"],
    ));
    assert!(message.contains("`spectrum.views` is 1"), "{message}");
}

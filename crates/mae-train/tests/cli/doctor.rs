//! The doctor: what it says of a run against what the run does, and what it says of mistakes.

use std::path::Path;
use std::process::Command;

use mae_report::{Record, read_metrics};
use serde_json::Value;

use crate::program::{SMALL, checkpoints, program, small, succeed, text};

/// `doctor` of the small model, measuring briefly, with more keys set.
fn doctor(more: &[&str]) -> Command {
    let mut command = program();
    command.args(["doctor", "--seconds", "0.2"]);
    for pair in SMALL.iter().chain(more) {
        command.args(["--set", pair]);
    }
    command
}

/// What it prints as JSON; its exit code must say whether there are errors.
fn examine(mut command: Command) -> Value {
    let output = command.arg("--json").output().unwrap();
    let said = text(&output.stdout);
    let found: Value = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", text(&output.stderr)));
    let code = i32::from(!findings(&found, "error").is_empty());
    assert_eq!(output.status.code(), Some(code), "{said}");
    found
}

/// Keys of the findings of a severity.
fn findings<'a>(found: &'a Value, severity: &str) -> Vec<&'a str> {
    let findings = found["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["severity"] == severity)
        .map(|finding| finding["key"].as_str().unwrap())
        .collect()
}

fn number(found: &Value, pointer: &str) -> f64 {
    let value = found.pointer(pointer).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no number {pointer} in {found}"))
}

#[test]
fn the_plan_is_what_the_run_does() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let keys = [
        "optim.warmup_epochs=0.5",
        "optim.accumulate=2",
        "optim.batch_size=7",
        "data.drop_last=false",
        "run.keep_checkpoints=1",
    ];
    let mut command = doctor(&keys);
    command.arg("--out").arg(&run);
    let found = examine(command);
    assert!(!run.exists(), "the doctor writes nothing");
    succeed(small(&run, &keys));

    let mut rates = Vec::new();
    for record in read_metrics(&run.join("metrics.jsonl")).unwrap() {
        if let Record::Step { step, lr, .. } = record {
            rates.push(lr);
            assert_eq!(step as usize, rates.len());
        }
    }
    let plan = |key: &str| number(&found, &format!("/plan/{key}"));
    assert_eq!(plan("steps"), rates.len() as f64);
    // 160 images are 23 batches, two an update.
    assert_eq!(plan("steps_per_epoch"), 12.0);
    assert_eq!(plan("warmup_steps"), 6.0);
    let peak = rates.iter().copied().fold(0.0, f64::max);
    assert_eq!((plan("peak_lr"), peak), (rates[6], rates[6]));

    let on_disk = |path: &Path| -> u64 {
        let files = path.read_dir().unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum()
    };
    let checkpoint = on_disk(checkpoints(&run).last().unwrap()) as f64;
    // The names of the tensors are in it, too, twice: with their places and with their checksums.
    let predicted = number(&found, "/disk/checkpoint");
    assert!(
        (0.0..40_000.0).contains(&(checkpoint - predicted)),
        "{predicted} predicted, {checkpoint} written"
    );
    assert_eq!(number(&found, "/disk/checkpoints"), 2.0);

    // What it would be measured by has been there.
    for key in [
        "/speed/loader",
        "/speed/step",
        "/speed/together",
        "/time/total",
    ] {
        assert!(number(&found, key) > 0.0, "{key}");
    }
    if cfg!(target_os = "linux") {
        // A busy machine makes it measure fewer images at once, whose peak is not the run's.
        if number(&found, "/speed/batch") == 7.0 {
            assert!(number(&found, "/speed/peak_memory") > 1e6);
        }
        assert!(number(&found, "/device_memory/free") > 1e6);
    }
}

#[test]
fn a_person_reads_aligned_lines() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = doctor(&["optim.epochs=400"]);
    command.current_dir(folder.path());
    let said = text(&succeed(command).stdout);
    for words in [
        "images    160 of 16 x 16; 3 channels; 4 x 4 patches of 4 pixels a side\n",
        "mask      4 patches visible, 12 hidden; the encoder sees 5 tokens, the decoder 17, the loss 12\n",
        "update    8 images; learning rate up to 3.125e-4\n",
        "run       400 epochs of 20 updates: 8,000 updates, 10 of them warm-up; ",
        "\ndevice    cpu in fp32, ",
        "\nmemory    about ",
        " images/s",
        " device-hours: ",
        "\ndisk      ",
        "\nwarning   data.augmentation: each of 400 epochs",
    ] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    assert!(said.lines().count() < 40, "{said}");
    assert!(
        said.lines().all(|line| line.chars().count() <= 100),
        "{said}"
    );
    let left = folder.path().read_dir().unwrap().count();
    assert_eq!(left, 0, "something was written");
}

#[test]
fn all_errors_are_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), "").unwrap();
    let mut command = doctor(&["data.samples=7", "run.eval_every=1", "run.precision=fp16"]);
    command.arg("--out").arg(folder.path());
    let found = examine(command);
    let errors = findings(&found, "error");
    assert_eq!(errors, ["--out", "optim.batch_size", "run.eval_every"]);
    assert_eq!(findings(&found, "warning"), ["run.precision"]);
    // Nothing was trained, but the sizes are known.
    assert!(found["speed"].is_null());
    assert_eq!(number(&found, "/plan/images"), 7.0);
}

#[test]
fn what_is_no_configuration_or_no_data_is_an_error_too() {
    let found = examine(doctor(&["optim.epochs=0"]));
    assert_eq!(findings(&found, "error"), ["configuration"]);
    assert!(found["plan"].is_null() && found["device"].is_null());

    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let mut command = doctor(&["run.precision=fp16"]);
    command.arg("--data").arg(&missing);
    let output = command.output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("\nerror     data: ") && said.contains("missing"),
        "{said}"
    );
    assert!(
        said.contains("\nwarning   run.precision: this CPU"),
        "{said}"
    );

    let mut command = program();
    let output = command.args(["doctor", "--seconds", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("0.1 to 3600 seconds"));
}

#[test]
fn images_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..40 {
        let picture = image::RgbImage::from_fn(30, 5, |x, y| {
            image::Rgb([(i * 6) as u8, (x * 7) as u8, (y * 13) as u8])
        });
        let path = folder.path().join(format!("{i:02}.png"));
        picture.save(&path).unwrap();
        if i == 20 {
            std::fs::write(path, "no image").unwrap();
        }
    }
    let mut command = doctor(&["data.max_broken_share=0.1", "optim.epochs=30"]);
    command.arg("--data").arg(folder.path());
    let found = examine(command);
    assert_eq!(number(&found, "/sample/looked_at"), 40.0);
    assert_eq!(found["sample"]["broken"].as_array().unwrap().len(), 1);
    let warnings = findings(&found, "warning");
    for key in ["data.path", "model.image_size", "model.image_height"] {
        assert!(warnings.contains(&key), "{key} in {found}");
    }
}

#[test]
fn a_batch_that_would_take_too_long_is_measured_in_part() {
    let keys = ["data.samples=4096", "optim.batch_size=4096"];
    let started = std::time::Instant::now();
    let found = examine(doctor(&keys));
    assert!(number(&found, "/speed/batch") < 4096.0, "{found}");
    assert!(number(&found, "/speed/together") > 0.0, "{found}");
    assert!(found["speed"]["peak_memory"].is_null(), "{found}");
    // A batch would take seconds; what is not measuring takes some, too.
    assert!(started.elapsed().as_secs_f64() < 20.0);
    let said = text(&succeed(doctor(&keys)).stdout).replace("\n          ", " ");
    assert!(said.contains("instead of 4096"), "{said}");
    assert!(said.contains("time      at most "), "{said}");
}

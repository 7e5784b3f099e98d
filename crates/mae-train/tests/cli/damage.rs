//! Checkpoints that a disk or a copy has damaged.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{checkpoints, fail, numbers, program, small, succeed, text};

fn resume(run: &Path) -> Command {
    let mut command = program();
    command.args(["pretrain", "--resume", "--out"]).arg(run);
    command
}

fn inspect(run: &Path) -> String {
    let mut command = program();
    command.arg("inspect").arg(run);
    text(&succeed(command).stdout)
}

fn flip(file: &Path, place: impl Fn(&[u8]) -> usize) {
    let mut bytes = std::fs::read(file).unwrap();
    let place = place(&bytes);
    bytes[place] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
}

/// Where `text` is in a file's header.
fn place_of(text: &'static str) -> impl Fn(&[u8]) -> usize {
    move |bytes| {
        let found = bytes
            .windows(text.len())
            .position(|at| at == text.as_bytes());
        found.unwrap_or_else(|| panic!("no {text}"))
    }
}

/// The values of the latest checkpoint's files; the order of their headers is free.
fn values(run: &Path) -> Vec<Vec<u8>> {
    ["model", "state"]
        .map(|name| {
            let file = checkpoints(run)
                .pop()
                .unwrap()
                .join(format!("{name}.safetensors"));
            let bytes = std::fs::read(file).unwrap();
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            bytes[8 + header..].to_vec()
        })
        .to_vec()
}

#[test]
fn a_damaged_checkpoint_is_told_and_the_one_before_gone_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    succeed(small(&run, &["run.reconstruct_every=0"]));
    let (losses, weights) = (numbers(&run), values(&run));
    let said = inspect(&run);
    assert_eq!(said.matches("; as written").count(), 2, "{said}");
    assert!(!said.contains("go on with"), "{said}");

    let cut = |file: &Path, len: u64| {
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_len(len).unwrap();
    };
    let last = |bytes: &[u8]| bytes.len() - 7;
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Damage, &str); 8] = [
        (
            "model",
            &|file| flip(file, last),
            "model.safetensors: damaged",
        ),
        (
            "state",
            &|file| flip(file, last),
            "state.safetensors: damaged",
        ),
        // The number of the step, and what pixels are normalised with.
        (
            "state",
            &|file| flip(file, |b| place_of("step\\\":")(b) + 7),
            "state.safetensors",
        ),
        (
            "model",
            &|file| flip(file, |b| place_of("mean\\\":[")(b) + 10),
            "model.safetensors",
        ),
        (
            "model",
            &|file| flip(file, |_| 3),
            "not a complete safetensors file",
        ),
        (
            "state",
            &|file| cut(file, 5000),
            "not a complete safetensors file",
        ),
        (
            "model",
            &|file| cut(file, 0),
            "not a complete safetensors file",
        ),
        (
            "state",
            &|file| std::fs::remove_file(file).unwrap(),
            "state.safetensors",
        ),
    ];
    for (name, damage, expected) in cases {
        let latest = checkpoints(&run).pop().unwrap();
        damage(&latest.join(format!("{name}.safetensors")));
        let said = inspect(&run);
        for part in ["DAMAGED: ", expected, "; as written", "go on with"] {
            assert!(said.contains(part), "{part} in {said}");
        }

        let said = text(&succeed(resume(&run)).stderr);
        for part in [
            expected,
            "damaged-step-00000080",
            "goes on from ",
            "step-00000060",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert_eq!(said.matches("cannot be resumed from").count(), 1, "{said}");
        assert!(run.join("checkpoints/damaged-step-00000080").exists());
        assert_eq!(numbers(&run), losses, "{name} {expected}");
        assert!(values(&run) == weights, "{name} {expected}");
        // Once is enough.
        let said = text(&succeed(resume(&run)).stderr);
        assert!(!said.contains("damaged"), "{said}");
    }
}

#[test]
fn without_a_whole_checkpoint_it_is_said_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    succeed(small(&run, &["optim.epochs=2", "optim.warmup_epochs=0"]));
    let models: Vec<PathBuf> = (checkpoints(&run).iter())
        .map(|checkpoint| checkpoint.join("model.safetensors"))
        .collect();
    for model in &models {
        flip(model, |bytes| bytes.len() - 40);
    }
    let message = fail(resume(&run));
    for part in [
        "no checkpoint of the run is whole",
        "step-00000040",
        "to begin the run anew",
        "model.safetensors: damaged, for the checksums of ",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(checkpoints(&run).len(), 2, "nothing was renamed");
    let said = inspect(&run);
    assert_eq!(said.matches("DAMAGED").count(), 2, "{said}");

    // Whoever needs the weights alone is told the file and the tensor, too.
    let out = folder.path().join("features.npy");
    for more in [&["embed", "--out"][..], &["export", "--torchscript"]] {
        let mut command = program();
        command.args(more).arg(&out).arg("--from").arg(&run);
        let message = fail(command);
        for part in ["step-00000040/model.safetensors: damaged", "copy it again"] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
    let mut command = program();
    command.arg("inspect").arg(&models[0]);
    assert!(fail(command).contains("model.safetensors: damaged"));
}

#[test]
fn an_empty_configuration_is_not_filled_up() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    succeed(small(&run, &["optim.epochs=1", "optim.warmup_epochs=0"]));
    std::fs::write(run.join("config.toml"), "").unwrap();
    let message = fail(resume(&run));
    for part in ["config.toml is empty", "copy it again"] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

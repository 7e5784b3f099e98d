//! A run that began on a device that is not here.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{checkpoints, fail, numbers, program, small, succeed, text};

/// Makes a run of `from` one of `to`.
fn rename_device(run: &Path, from: &str, to: &str) {
    let config = run.join("config.toml");
    let toml = std::fs::read_to_string(&config).unwrap();
    let line = |device: &str| format!("device = {device:?}");
    assert!(toml.contains(&line(from)), "{toml}");
    std::fs::write(&config, toml.replace(&line(from), &line(to))).unwrap();
}

/// `mae-train COMMAND --OPTION PATH ARGUMENTS`.
fn command(name: &str, option: &str, path: &Path, arguments: &[&str]) -> Command {
    let mut command = program();
    command.args([name, option]).arg(path).args(arguments);
    command
}

#[test]
fn a_run_of_an_absent_device_goes_on_where_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    succeed(small(&run, &["run.precision=bf16"]));
    let whole = numbers(&run);
    // The last epoch is trained again.
    std::fs::remove_dir_all(checkpoints(&run).last().unwrap()).unwrap();

    for device in ["cuda:250", "mps"] {
        rename_device(&run, "cpu", device);
        let resume =
            |more: &[&str]| command("pretrain", "--out", &run, &[&["--resume"], more].concat());
        let message = fail(resume(&[]));
        assert!(
            message.contains(&format!("`run.device` is {device:?}")),
            "{message}"
        );
        assert!(
            message.contains("go on with --set run.device="),
            "{message}"
        );
        let said = text(&succeed(resume(&["--set", "run.device=cpu"])).stderr);
        assert!(
            said.contains("resuming the run") && said.contains("on cpu in bf16"),
            "{said}"
        );
        assert_eq!(numbers(&run), whole);
        rename_device(&run, device, "cpu");
    }
}

#[test]
fn what_only_reads_a_run_does_not_need_its_device() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let run = PathBuf::from(path("run"));
    succeed(small(&run, &["optim.epochs=1", "optim.warmup_epochs=0"]));
    rename_device(&run, "cpu", "cuda:250");

    let from = |name: &str, arguments: &[&str]| command(name, "--from", &run, arguments);
    let mut eval = from("eval", &["--protocols", "knn", "--out", &path("judged")]);
    eval.env("MAE_CACHE_DIR", path("cache"));
    succeed(eval);
    succeed(from("embed", &["--out", &path("features.npy")]));
    succeed(from("reconstruct", &["--out", &path("picture.png")]));
    succeed(from("export", &["--torchscript", &path("encoder.pt")]));
    let mut inspect = program();
    inspect.arg("inspect").arg(&run);
    succeed(inspect);
    let config = run.join("config.toml");
    succeed(command("plan", "--config", &config, &["--devices", "1"]));

    // Where a device is asked for, the refusal says what to give.
    let message = fail(from(
        "embed",
        &["--out", &path("b.npy"), "--device", "cuda:250"],
    ));
    assert!(message.contains("go on with --device "), "{message}");
    let set = ["--set", "run.device=cuda:250", "--out", &path("c")];
    let message = fail(from("eval", &set));
    assert!(
        message.contains("go on with --set run.device="),
        "{message}"
    );
    let message = fail(command("config", "--config", &config, &[]));
    assert!(
        message.contains("go on with --set run.device="),
        "{message}"
    );
    let here = ["--set", "run.device=cpu"];
    let printed = text(&succeed(command("config", "--config", &config, &here)).stdout);
    assert!(printed.contains("device = \"cpu\""), "{printed}");
}

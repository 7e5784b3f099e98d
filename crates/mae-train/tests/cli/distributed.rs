//! Several processes: they learn what one learns, and say who is gone.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use mae_model::tensor_file::read_tensors;
use mae_report::{Record, read_metrics};
use tch::{Kind, Tensor};
use tempfile::TempDir;

use crate::program::{
    checkpoints, fail, losses, program, small, succeed, text, wait_for_checkpoint,
};

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// The command of one of several processes, as torchrun would start it.
fn member(mut command: Command, rank: usize, size: usize, port: &str, timeout: &str) -> Command {
    for (name, value) in [
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("WORLD_SIZE", size.to_string()),
        ("LOCAL_WORLD_SIZE", size.to_string()),
        ("MASTER_ADDR", "127.0.0.1".into()),
        ("MASTER_PORT", port.into()),
    ] {
        command.env(name, value);
    }
    command.args(["--peer-timeout", timeout]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts `size` processes, the command of each by its rank.
fn start(size: usize, command: impl Fn(usize) -> Command) -> Vec<Child> {
    let port = free_port();
    (0..size)
        .map(|rank| {
            member(command(rank), rank, size, &port, "1")
                .spawn()
                .unwrap()
        })
        .collect()
}

/// What each process said when it failed, as it must.
fn failures(processes: Vec<Child>) -> Vec<String> {
    let ended = |process: Child| -> Output { process.wait_with_output().unwrap() };
    let outputs: Vec<Output> = processes.into_iter().map(ended).collect();
    outputs
        .iter()
        .map(|output| {
            let message = text(&output.stderr);
            assert!(!output.status.success(), "it succeeded: {message}");
            assert!(!message.contains("panicked"), "{message}");
            message
        })
        .collect()
}

fn weights(run: &Path) -> BTreeMap<String, Tensor> {
    let latest = checkpoints(run).pop().unwrap();
    read_tensors(&latest.join("model.safetensors")).unwrap().0
}

/// Losses and weights of two runs, which may differ by rounding alone.
fn check_equal(run: &Path, other: &Path, steps: usize) {
    let (ours, theirs) = (losses(run), losses(other));
    assert_eq!((ours.len(), theirs.len()), (steps, steps));
    for (step, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let error = (ours - theirs).abs() / ours;
        assert!(error < 1e-5, "step {}: {ours} against {theirs}", step + 1);
    }
    let (ours, theirs) = (weights(run), weights(other));
    assert_eq!(ours.len(), theirs.len());
    for (key, ours) in &ours {
        let mut pair = [ours, &theirs[key]].map(|tensor| tensor.to_kind(Kind::Double));
        if key.ends_with("attn.qkv.bias") {
            // The keys' bias has no gradient but for rounding, which AdamW makes large.
            pair = pair.map(|bias| {
                let parts = bias.chunk(3, 0);
                Tensor::cat(&[&parts[0], &parts[2]], 0)
            });
        }
        let [ours, theirs] = pair;
        let error = (&ours - &theirs).norm().double_value(&[]);
        let size = ours.norm().double_value(&[]);
        // Biases begin at zero, and are small still.
        assert!(error < 1e-5 * size + 1e-7, "{key}: {error} of {size}");
    }
}

fn shared(out: &Path, processes: &str, more: &[&str]) -> Command {
    let mut command = small(out, more);
    command.args(["--nproc", processes]);
    command
}

#[test]
fn two_processes_learn_what_one_learns() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    succeed(small(&path("one"), &["optim.epochs=1"]));
    succeed(shared(&path("two"), "2", &["optim.epochs=1"]));
    check_equal(&path("one"), &path("two"), 20);
    let accumulated = ["optim.epochs=1", "optim.batch_size=4", "optim.accumulate=2"];
    succeed(shared(&path("accumulated"), "2", &accumulated));
    check_equal(&path("one"), &path("accumulated"), 20);
}

#[test]
fn batches_that_do_not_divide_are_shared_nevertheless() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    // The last batch of an epoch is of one image, of which two of the three processes have none.
    let more = [
        "data.samples=36",
        "optim.batch_size=7",
        "data.drop_last=false",
        "optim.epochs=3",
    ];
    succeed(small(&path("one"), &more));
    succeed(shared(&path("three"), "3", &more));
    check_equal(&path("one"), &path("three"), 18);
}

#[test]
fn targets_and_measurements_are_of_all_processes() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let more = [
        "model.target=pca",
        "model.pca_components=8",
        "run.eval_every=1",
        "optim.epochs=1",
    ];
    succeed(small(&path("one"), &more));
    succeed(shared(&path("two"), "2", &more));
    check_equal(&path("one"), &path("two"), 20);
    let accuracies = |run: &str| -> Vec<(String, f64)> {
        let records = read_metrics(&path(run).join("metrics.jsonl")).unwrap();
        let accuracies = records.into_iter().filter_map(|record| match record {
            Record::Accuracy { protocol, top1, .. } => Some((protocol, top1)),
            _ => None,
        });
        accuracies.collect()
    };
    assert!(!accuracies("one").is_empty());
    assert_eq!(accuracies("one"), accuracies("two"));
}

#[test]
fn a_run_goes_on_with_another_number_of_processes() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    // What is held out is measured by all, also when some of them are new.
    let more = [
        "optim.epochs=8",
        "run.checkpoint_minutes=0.0005",
        "data.samples=200",
        "data.val_share=0.2",
    ];
    succeed(small(&path("one"), &more));
    let mut command = shared(&path("some"), "2", &more);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_checkpoint(&mut child, &path("some"), 0);
    // The launcher tells its processes, which stop at the same update.
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut resumed = program();
    resumed.args(["pretrain", "--resume", "--nproc", "3", "--out"]);
    resumed.arg(path("some"));
    succeed(resumed);
    check_equal(&path("one"), &path("some"), 160);
    let losses = |run: &str| -> Vec<f64> {
        let records = read_metrics(&path(run).join("metrics.jsonl")).unwrap();
        let losses = records.into_iter().filter_map(|record| match record {
            Record::Validation { val_loss, .. } => Some(val_loss),
            _ => None,
        });
        losses.collect()
    };
    let (one, some) = (losses("one"), losses("some"));
    assert_eq!((one.len(), some.len()), (8, 8));
    for (one, some) in one.iter().zip(some) {
        assert!((one - some).abs() < 1e-4, "{one} {some}");
    }
}

#[test]
fn a_process_that_was_killed_is_named_and_the_last_checkpoint_is_whole() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let more = ["optim.epochs=1000", "run.checkpoint_minutes=0.0005"];
    let mut processes = start(3, |_| small(&run, &more));
    wait_for_checkpoint(&mut processes[0], &run, 0);
    let mut victim = processes.remove(1);
    victim.kill().unwrap();
    victim.wait().unwrap();
    for message in failures(processes) {
        assert!(
            message.contains("process 1 gave no sign of life"),
            "{message}"
        );
    }
    let mut resumed = small(
        &run,
        &["optim.epochs=1000", "run.checkpoint_minutes=0.0005"],
    );
    let mut resumed = resumed
        .arg("--resume")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let step = crate::program::latest_step(&run);
    wait_for_checkpoint(&mut resumed, &run, step);
    resumed.kill().unwrap();
    resumed.wait().unwrap();
}

#[test]
fn when_one_process_fails_the_launcher_ends_with_its_words() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    succeed(small(&run, &["optim.epochs=1"]));
    let message = fail(shared(&run, "2", &["optim.epochs=1"]));
    assert!(message.contains("holds a run already"), "{message}");
    assert!(message.contains("process 1: process 0 ended"), "{message}");
}

#[test]
fn processes_that_differ_are_told_in_what() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let rates = ["optim.base_lr=0.01", "optim.base_lr=0.02"];
    for message in failures(start(2, |rank| small(&run, &[rates[rank]]))) {
        assert!(
            message.contains("process 1 has: base_lr = 0.02"),
            "{message}"
        );
    }
    let folders = ["a", "b"].map(|name| folder.path().join(name));
    for (shade, images) in folders.iter().enumerate() {
        std::fs::create_dir(images).unwrap();
        for i in 0..16 {
            let shade = (100 * shade + i) as u8;
            let image = image::RgbImage::from_pixel(16, 16, image::Rgb([shade; 3]));
            image.save(images.join(format!("{i}.png"))).unwrap();
        }
    }
    let own = |rank: usize| {
        let mut command = small(&folder.path().join("other"), &[]);
        command.arg("--data").arg(&folders[rank]);
        command
    };
    for message in failures(start(2, own)) {
        assert!(
            message.contains("the same images, but process 1"),
            "{message}"
        );
    }
}

#[test]
fn processes_that_do_not_come_or_meet_nobody_are_told_in_time() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let hurried = |rank: usize| member(small(&run, &[]), rank, 2, &free_port(), "0.02");
    let message = fail(hurried(0));
    assert!(message.contains("did not come: 1"), "{message}");
    let message = fail(hurried(1));
    assert!(message.contains("found nothing at 127.0.0.1:"), "{message}");
    assert!(!run.exists(), "nothing has begun");
    let mut partial = small(&run, &[]);
    partial.env("RANK", "0");
    let message = fail(partial);
    assert!(message.contains("no WORLD_SIZE"), "{message}");
}

#[test]
fn two_processes_judge_as_one_does() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    succeed(small(&run, &["optim.epochs=1"]));
    let judge = |out: &str, processes: &[&str]| {
        let mut command = program();
        command.args(["eval", "--protocols", "knn,linear,finetune"]);
        for pair in [
            "linear.epochs=2",
            "linear.warmup_epochs=0",
            "finetune.epochs=2",
            "finetune.warmup_epochs=0",
            "finetune.batch_size=16",
            "finetune.drop_path=0",
            "run.device=cpu",
            "run.workers=1",
            "run.log_every=1",
            "knn.k=[1]",
        ] {
            command.args(["--set", pair]);
        }
        command.env("MAE_CACHE_DIR", folder.path().join(format!("cache-{out}")));
        command.arg("--from").arg(&run).args(processes);
        command.arg("--out").arg(folder.path().join(out));
        succeed(command);
        let report = std::fs::read_to_string(folder.path().join(out).join("eval.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let losses = losses(&folder.path().join(out).join("finetune-pre-trained"));
        (report["rows"].clone(), losses)
    };
    let (one, one_losses) = judge("one", &[]);
    let (two, two_losses) = judge("two", &["--nproc", "2"]);
    for (one, two) in one.as_array().unwrap().iter().zip(two.as_array().unwrap()) {
        assert_eq!(one["protocol"], two["protocol"]);
        assert_eq!(one["confusion"], two["confusion"], "{}", one["protocol"]);
    }
    // Mixup, CutMix and erasing are the same, whoever has the images.
    assert!(one_losses.len() > 8 && one_losses.len() == two_losses.len());
    for (one, two) in one_losses.iter().zip(&two_losses) {
        assert!((one - two).abs() < 1e-4 * one, "{one} against {two}");
    }
}

#[test]
fn what_works_in_one_process_refuses_to_run_in_several() {
    let mut command = program();
    command.args(["recipes"]);
    for (name, value) in [
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "1"),
    ] {
        command.env(name, value);
    }
    let message = fail(command);
    assert!(
        message.contains("one process, but 2 were started"),
        "{message}"
    );
    let mut command = small(&TempDir::new().unwrap().path().join("run"), &[]);
    for (name, value) in [
        ("RANK", "0"),
        ("WORLD_SIZE", "1"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "1"),
    ] {
        command.env(name, value);
    }
    command.args(["--nproc", "2"]);
    let message = fail(command);
    assert!(message.contains("leave out --nproc"), "{message}");
}

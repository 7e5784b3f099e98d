//! The real binary, on a model and images so small that a step takes milliseconds.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mae_report::{Record, read_metrics};

/// A model and data set so small that a step takes milliseconds.
pub const SMALL: &[&str] = &[
    "model.image_size=16",
    "model.patch_size=4",
    "model.embed_dim=32",
    "model.depth=2",
    "model.num_heads=2",
    "model.decoder_embed_dim=16",
    "model.decoder_depth=1",
    "model.decoder_num_heads=2",
    "data.samples=160",
    "optim.epochs=4",
    "optim.batch_size=8",
    "run.device=cpu",
    "run.log_every=1",
    "run.checkpoint_every=1",
    "run.workers=1",
];

pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mae-train"));
    // The same number everywhere, for another may round differently; one, for tests run side by side.
    command
        .env("OMP_NUM_THREADS", "1")
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LOG");
    command
}

/// `pretrain` of the small model into `out`, with more keys set.
pub fn small(out: &Path, more: &[&str]) -> Command {
    let mut command = program();
    command.arg("pretrain").arg("--out").arg(out);
    for pair in SMALL.iter().chain(more) {
        command.args(["--set", pair]);
    }
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// What it says when it fails; it must not be a panic.
pub fn fail(mut command: Command) -> String {
    let output = command.output().unwrap();
    let message = text(&output.stderr);
    assert!(!output.status.success(), "{command:?} succeeded");
    assert!(!message.contains("panicked"), "{message}");
    message
}

pub fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(run.join("checkpoints")) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("step-")
    });
    paths.sort();
    paths
}

/// The step of the latest checkpoint, 0 if there is none.
pub fn latest_step(run: &Path) -> u64 {
    checkpoints(run).last().map_or(0, |path| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .trim_start_matches("step-")
            .parse()
            .unwrap()
    })
}

/// Waits until the child has saved a checkpoint inside an epoch of 20 steps, past step `after`.
pub fn wait_for_checkpoint(child: &mut Child, run: &Path, after: u64) {
    let started = Instant::now();
    loop {
        let step = latest_step(run);
        if step > after && !step.is_multiple_of(20) {
            return;
        }
        if child.try_wait().unwrap().is_some() {
            let mut said = String::new();
            if let Some(stderr) = &mut child.stderr {
                stderr.read_to_string(&mut said).unwrap();
            }
            panic!("it ended before it could be interrupted: {said}");
        }
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "no checkpoint in two minutes"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How a run is stopped.
pub enum Interruption {
    Kill,
    CtrlC,
    Term,
}

/// Interrupts a run several times, resumes it each time, and compares it with one that was left alone.
///
/// `command` makes a short run into a folder, with more keys set.
pub fn check_resume(
    command: impl Fn(&Path, &[&str]) -> Command,
    interruption: &Interruption,
    threads: &str,
    more: &[&str],
) {
    let (signal, exit_code) = match interruption {
        Interruption::Kill => ("-KILL", None),
        Interruption::CtrlC => ("-INT", Some(130)),
        Interruption::Term => ("-TERM", Some(143)),
    };
    let folder = tempfile::tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    // Enough epochs that three interruptions find it running, and a checkpoint every 30 ms.
    let keys = [
        &[
            "optim.epochs=40",
            "run.checkpoint_minutes=0.0005",
            "run.reconstruct_every=0",
        ],
        more,
    ]
    .concat();
    let start = |run: &Path| {
        let mut command = command(run, &keys);
        command.arg("--resume").env("OMP_NUM_THREADS", threads);
        command
    };
    succeed(start(&whole));

    for after in [0, 40, 90] {
        // A checkpoint of this process, so that it has begun to catch signals.
        let after = latest_step(&broken).max(after);
        let mut child = start(&broken)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_checkpoint(&mut child, &broken, after);
        let status = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            output.status.code(),
            exit_code,
            "{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        if exit_code.is_some() {
            assert!(text(&output.stdout).contains(" --resume --out"));
        }
    }
    succeed(start(&broken));

    assert_eq!(numbers(&whole), numbers(&broken));
    let model = |run: &Path| {
        std::fs::read(checkpoints(run).last().unwrap().join("model.safetensors")).unwrap()
    };
    // The order of a file's header is free: compare the tensors after it.
    let tensors = |run: &Path| {
        model(run)[8 + u64::from_le_bytes(model(run)[..8].try_into().unwrap()) as usize..].to_vec()
    };
    assert!(tensors(&whole) == tensors(&broken), "the weights differ");
}

/// What must be equal between two runs: all but times.
pub fn numbers(run: &Path) -> Vec<(u64, [u64; 3])> {
    let records = read_metrics(&run.join("metrics.jsonl")).unwrap();
    records
        .iter()
        .map(|record| match *record {
            Record::Step {
                step,
                loss,
                lr,
                grad_norm,
                ..
            } => (step, [loss.to_bits(), lr.to_bits(), grad_norm.to_bits()]),
            Record::Epoch { epoch, loss, .. } => (epoch, [loss.to_bits(), 0, 0]),
            Record::Accuracy {
                epoch, top1, top5, ..
            } => (epoch, [top1.to_bits(), top5.to_bits(), 0]),
            Record::Validation {
                epoch, val_loss, ..
            } => (epoch, [val_loss.to_bits(), 0, 0]),
            Record::Spectrum {
                epoch,
                rank_me,
                effective_rank,
                alpha,
                ..
            } => {
                let alpha = alpha.unwrap_or_default();
                let numbers = [rank_me, effective_rank, alpha];
                (epoch, numbers.map(f64::to_bits))
            }
            Record::Tokens {
                epoch,
                mse,
                used,
                perplexity,
                ..
            } => (epoch, [mse.to_bits(), used, perplexity.to_bits()]),
        })
        .collect()
}

/// The loss of every step.
pub fn losses(run: &Path) -> Vec<f64> {
    let records = read_metrics(&run.join("metrics.jsonl")).unwrap();
    let losses = records.iter().filter_map(|record| match record {
        Record::Step { loss, .. } => Some(*loss),
        _ => None,
    });
    losses.collect()
}

//! The tokenizer: runs, interruptions, mistakes.

use std::path::Path;
use std::process::Command;

use mae_model::Tokenizer;
use mae_report::{Record, read_metrics};

use crate::program::{
    Interruption, check_resume, checkpoints, fail, numbers, program, succeed, text,
};

/// A tokenizer and images so small that a step takes milliseconds.
const SMALL: &[&str] = &[
    "model.image_size=16",
    "model.patch_size=4",
    "model.vocabulary=32",
    "model.width=8",
    "data.samples=160",
    "optim.epochs=4",
    "optim.batch_size=8",
    "run.device=cpu",
    "run.log_every=1",
    "run.workers=1",
];

fn small(out: &Path, more: &[&str]) -> Command {
    let mut command = program();
    command.arg("tokenizer").arg("--out").arg(out);
    for pair in SMALL.iter().chain(more) {
        command.args(["--set", pair]);
    }
    command
}

#[test]
fn kill_9_and_resume_gives_an_identical_tokenizer() {
    check_resume(small, &Interruption::Kill, "1", &[]);
}

#[test]
fn ctrl_c_and_resume_gives_an_identical_tokenizer_with_accumulation() {
    check_resume(
        small,
        &Interruption::CtrlC,
        "1",
        &[
            "optim.accumulate=3",
            "data.drop_last=false",
            "optim.batch_size=7",
        ],
    );
}

#[test]
fn a_run_leaves_a_tokenizer_its_numbers_and_its_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let output = succeed(small(&run, &["run.reconstruct_every=3"]));
    let said = text(&output.stderr);
    assert!(
        said.contains("from tokens: mse") && said.contains("of 32 used"),
        "{said}"
    );

    let records = read_metrics(&run.join("metrics.jsonl")).unwrap();
    let tokens = records.iter().filter_map(|record| match *record {
        Record::Tokens {
            mse,
            used,
            perplexity,
            ..
        } => Some((mse, used, perplexity)),
        _ => None,
    });
    let tokens: Vec<_> = tokens.collect();
    assert_eq!(tokens.len(), 4);
    for (mse, used, perplexity) in tokens {
        assert!(mse.is_finite() && mse > 0.0);
        assert!((1..=32).contains(&used), "{used}");
        assert!(
            (1.0..=used as f64 + 1e-9).contains(&perplexity),
            "{perplexity} of {used}"
        );
    }
    for (epoch, is_drawn) in [(1, false), (3, true), (4, true)] {
        let path = run.join(format!("reconstructions/epoch-{epoch:04}.png"));
        assert_eq!(path.exists(), is_drawn, "{}", path.display());
    }
    let picture = image::open(run.join("reconstructions/epoch-0004.png")).unwrap();
    assert!(picture.width() > 1000 && picture.height() > 700);

    // The run's own configuration repeats it.
    let again = folder.path().join("again");
    let mut command = program();
    command.args(["tokenizer", "--config"]);
    command
        .arg(run.join("config.toml"))
        .arg("--out")
        .arg(&again);
    succeed(command);
    assert_eq!(numbers(&run), numbers(&again));

    let model = checkpoints(&run).last().unwrap().join("model.safetensors");
    let tokenizer = Tokenizer::load(&model, tch::Device::Cpu).unwrap();
    assert_eq!(tokenizer.config().vocabulary, 32);
}

#[test]
fn drawn_scenes_survive_being_tokens_and_the_vocabulary_stays_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    succeed(small(
        &run,
        &[
            "data.samples=512",
            "optim.epochs=12",
            "optim.batch_size=32",
            "model.width=16",
        ],
    ));
    let records = read_metrics(&run.join("metrics.jsonl")).unwrap();
    let Some(Record::Tokens {
        mse,
        used,
        perplexity,
        ..
    }) = records.last()
    else {
        panic!("the last record is {:?}", records.last())
    };
    // Pixels have unit variance: one token for everything leaves an error of 1.
    // Without the divergence it ends with 6 tokens and a perplexity of 3.
    assert!(*mse < 0.45, "{mse}");
    assert!(*used >= 20 && *perplexity >= 9.0, "{used}, {perplexity}");
}

#[test]
fn mistakes_are_explained() {
    let out = tempfile::tempdir().unwrap();
    let run = |name: &str| out.path().join(name);
    let check = |command: Command, expected: &[&str]| {
        let message = fail(command);
        for part in expected {
            assert!(message.contains(part), "expected {part:?} in: {message}");
        }
    };
    check(
        small(&run("a"), &["model.patch_size=1"]),
        &["`patch_size` is 1, expected at least 2"],
    );
    check(
        small(&run("b"), &["model.patch_size=5"]),
        &["patch", "5", "16"],
    );
    check(
        small(&run("c"), &["mask.ratio=0.5"]),
        &["there is no key `mask`"],
    );
    let mut command = program();
    command.args(["tokenizer", "--recipe", "cifar10"]);
    check(command, &["cifar10", "expected one of tokenizer"]);

    let done = run("done");
    succeed(small(&done, &["optim.epochs=1"]));
    check(small(&done, &[]), &["holds a run already", "--resume"]);
    let mut command = program();
    command
        .args([
            "tokenizer",
            "--resume",
            "--set",
            "model.vocabulary=33",
            "--out",
        ])
        .arg(&done);
    check(command, &["vocabulary = 33 (the run has vocabulary = 32)"]);
    // Of another command.
    let mut command = program();
    command.args(["pretrain", "--resume", "--out"]).arg(&done);
    check(
        command,
        &[
            "config.toml is of a run of `mae-train tokenizer`, not of `mae-train pretrain`",
            "another --out",
        ],
    );
}

#[test]
fn its_recipe_is_listed_and_printed() {
    let mut command = program();
    command.arg("recipes");
    let listed = text(&succeed(command).stdout);
    assert!(listed.contains("tokenizer tokenizer "), "{listed}");
    let mut command = program();
    command.args(["config", "--recipe", "tokenizer", "--data", "photos"]);
    let config = text(&succeed(command).stdout);
    for line in [
        "vocabulary = 512",
        "temperature_end = ",
        "path = \"photos\"",
    ] {
        assert!(config.contains(line), "{line} in {config}");
    }
}

//! Ablations through the real binary, where mae-train and sbatch are scripts.
#![cfg(target_os = "linux")]

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// A mae-train that logs what it is asked for and takes no time, unless the file `slow` is there.
///
/// A pre-training resumes: what it has done is in `begun`.
const MAE_TRAIN: &str = r#"
command="$1"; shift
ratio=0.75 data= width=32 heads=2 epochs=4 others= out= config= protocols= from=
while [ $# -gt 0 ]; do
    case "$1" in
    --out) out="$2"; shift ;;
    --config) config="$2"; shift ;;
    --protocols) protocols="$2"; shift ;;
    --from) from="$2"; shift ;;
    --data) data="[data]
source = \"folder\"
path = \"$2\""; shift ;;
    --set)
        case "$2" in
        "$REFUSED") echo "error: this is too much" >&2; exit 1 ;;
        mask.ratio=*) ratio="${2#*=}" ;;
        model.decoder_embed_dim=*) width="${2#*=}" ;;
        model.decoder_num_heads=*) heads="${2#*=}" ;;
        optim.epochs=*) epochs="${2#*=}" ;;
        *) others="$others$2 " ;;
        esac
        shift ;;
    esac
    shift
done
case "$command" in
config)
    echo "seed = 0
$data
[model]
embed_dim = 64
depth = 4
num_heads = 2
decoder_embed_dim = $width
decoder_num_heads = $heads
others = \"$others\"
patch_size = 4
channels = 3
[mask]
ratio = $ratio
[optim]
epochs = $epochs" ;;
pretrain)
    ratio=$(grep ratio "$config")
    mkdir -p "$out/reconstructions"
    if [ -e "$out/begun" ]; then echo "resume $ratio" >> "$LOG"; else echo "pretrain $ratio" >> "$LOG"; fi
    echo "threads $OMP_NUM_THREADS" > "$out/begun"
    if [ "$ratio" = "ratio = $BROKEN" ]; then echo "error: no such images" >&2; exit 1; fi
    trap 'echo "saved $ratio" >> "$LOG"; exit 143' TERM
    while [ -e "$SLOW" ]; do sleep 0.05; done
    echo '{"kind":"step","step":4,"epoch":4.0,"loss":0.5,"lr":0.1,"grad_norm":1.0,"images_per_s":100.0,"data_wait":0.0,"skipped":0,"elapsed_s":8.0}
{"kind":"epoch","epoch":4,"step":4,"loss":0.25,"seconds":2.0,"broken_images":0,"flops_per_image":1000}' > "$out/metrics.jsonl" ;;
eval)
    echo "eval $protocols" >> "$LOG"
    mkdir -p "$out"
    row() { echo "{\"protocol\":\"$1\",\"start\":\"pre-trained\",\"top1\":$2,\"top5\":1,\"seconds\":3}"; }
    rows="$(row 'knn k=20' 0.25), $(row linear 0.5)"
    case "$protocols" in *partial:0.5*) rows="$rows, $(row partial:0.5 0.6)" ;; esac
    case "$protocols" in *partial:1*) rows="$rows, $(row partial:1 0.7)" ;; esac
    case "$protocols" in *partial:2*) rows="$rows, $(row partial:2 0.75)" ;; esac
    case "$protocols" in *finetune*) rows="$rows, $(row finetune 0.8)" ;; esac
    echo "{\"rows\": [$rows]}" > "$out/eval.json" ;;
tokenizer) echo "tokenizer" >> "$LOG"; mkdir -p "$out" ;;
--version) echo "mae-train 0.1.0" ;;
esac"#;

/// A folder to work in, with programs of its own on the search path.
struct World {
    directory: TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(world.path("bin")).unwrap();
        world.script("mae-train", MAE_TRAIN);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a program on the search path.
    fn script(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mae-ablate"));
        let mut path = vec![self.path("bin")];
        path.extend(env::split_paths(&env::var_os("PATH").unwrap()));
        command
            .args(arguments)
            .env("PATH", env::join_paths(path).unwrap())
            .env("MAE_TRAIN", self.path("bin/mae-train"))
            .env("MAE_REVISION", "abc1234")
            .env("LOG", self.path("log"))
            .env("SLOW", self.path("slow"))
            .env("CUDA_VISIBLE_DEVICES", "")
            .env_remove("OMP_NUM_THREADS")
            .current_dir(self.path("."))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What mae-train was asked for since the last call, sorted: cells run side by side.
    fn take_log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let _ = fs::remove_file(self.path("log"));
        let mut lines: Vec<String> = log.lines().map(str::to_string).collect();
        lines.sort();
        lines
    }

    /// The lines of results.jsonl.
    fn results(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("runs/ablation/results.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until the log has a line that begins so.
    #[track_caller]
    fn wait_for(&self, words: &str) {
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            if log.lines().any(|line| line.starts_with(words)) {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "no {words:?} in: {log}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What it printed.
#[track_caller]
fn succeeds(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    (said, errors)
}

#[track_caller]
fn fails(output: &Output, words: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it succeeded: {errors}");
    for word in words {
        assert!(errors.contains(word), "no {word:?} in: {errors}");
    }
}

#[track_caller]
fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill")
        .args(["-s", signal, &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

fn count(log: &[String], words: &str) -> usize {
    log.iter().filter(|line| line.starts_with(words)).count()
}

const GRID: &str = "[grid]\n\"mask.ratio\" = [0.5, 0.6, 0.75]\n";

#[test]
fn cells_run_once_and_are_kept() {
    let world = World::new();
    fs::write(world.path("ratios.toml"), GRID).unwrap();
    let arguments = ["ratios.toml", "--seeds", "2", "--jobs", "2"];
    succeeds(&world.run(&arguments));
    let log = world.take_log();
    assert_eq!(
        (count(&log, "pretrain"), count(&log, "eval knn,linear")),
        (6, 6),
        "{log:?}"
    );

    succeeds(&world.run(&arguments));
    assert!(world.take_log().is_empty(), "finished cells are kept");

    // The base configuration, which two of the studies have in common, needs no more than other protocols.
    succeeds(&world.run(&["partial-finetune", "--seeds", "2"]));
    let log = world.take_log();
    let wanted = "eval knn,linear,partial:0.5,partial:1,partial:2,finetune";
    assert_eq!(
        (count(&log, "pretrain"), count(&log, wanted)),
        (0, 2),
        "{log:?}"
    );

    let results = world.results();
    assert_eq!(results.len(), 3 * 2 + 5 * 2);
    let of = |study: &str, label: &str| -> Vec<&Value> {
        (results.iter())
            .filter(|line| line["study"] == study && line["value"] == label)
            .collect()
    };
    let [first, second] = of("ratios", "0.6")[..] else {
        panic!("{results:?}")
    };
    assert_eq!(
        (&first["seed"], &second["seed"]),
        (&Value::from(0), &Value::from(1))
    );
    assert_eq!(first["scores"]["linear"], 0.5);
    assert_eq!(first["loss"], 0.25);
    assert_eq!(first["flops_per_image"], 1000);
    let scores = &of("partial-finetune", "2")[0]["scores"];
    assert_eq!(
        scores.as_object().unwrap().values().collect::<Vec<_>>(),
        [0.75]
    );
    let scores = of("ratios", "0.75")[0]["scores"].as_object().unwrap();
    assert_eq!(scores.keys().collect::<Vec<_>>(), ["knn k=20", "linear"]);
    for file in ["report.html", "report.md", "plan.json"] {
        assert!(world.path("runs/ablation").join(file).exists(), "{file}");
    }
}

/// The settings of every study, which mae-train's own tests resolve; of the model in [`MAE_TRAIN`].
const SETTINGS: &str = include_str!("fixtures/studies.txt");

#[test]
fn the_studies_set_what_mae_train_is_tested_with() {
    let world = World::new();
    let mut found = String::new();
    let (listing, _) = succeeds(&world.run(&["list"]));
    let names: Vec<&str> = (listing.lines())
        .filter_map(|line| line.split(' ').next())
        .collect();
    for name in names {
        let (said, _) = succeeds(&world.run(&[name, "--dry-run"]));
        for line in said.lines().filter(|line| line.contains("  [")) {
            let (settings, _) = line.trim().split_once("  [").unwrap();
            let (label, settings) = settings.split_at(22);
            found += &format!("{name}\t{}\t{}\n", label.trim(), settings.trim());
        }
    }
    assert_eq!(found, SETTINGS, "see tests/fixtures/studies.txt");
}

#[test]
fn nothing_is_started_by_a_dry_run_or_where_a_value_is_refused() {
    let world = World::new();
    let (said, _) = succeeds(&world.run(&["decoder-width", "partial-finetune", "--dry-run"]));
    for words in [
        "1/8, 1/4, 1/2",
        "model.decoder_embed_dim=8",
        "15 cells, one for each value and seed",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    let refused = (world.command(&["decoder-depth"]))
        .env("REFUSED", "model.decoder_depth=12")
        .output();
    fails(
        &refused.unwrap(),
        &["nothing was started", "decoder-depth 12: this is too much"],
    );
    fails(
        &world.run(&["decoder-length"]),
        &["decoder-length", "mask-ratio"],
    );
    fails(&world.run(&["schedule", "schedule"]), &["given twice"]);
    let cell =
        |label: &str| format!("[[cell]]\nlabel = {label:?}\nset = {{ \"mask.ratio\" = 0.5 }}\n");
    fs::write(world.path("same.toml"), cell("one") + &cell("other")).unwrap();
    fails(
        &world.run(&["same.toml"]),
        &["same one and other", "the same configuration"],
    );
    fails(
        &world.run(&["report"]),
        &["runs/ablation holds no ablation"],
    );
    assert!(world.take_log().is_empty());
    assert!(!world.path("runs").exists());
}

#[test]
fn a_cell_that_fails_stops_no_other_and_is_tried_again() {
    let world = World::new();
    fs::write(world.path("ratios.toml"), GRID).unwrap();
    let output = (world.command(&["ratios.toml", "--seeds", "1"]))
        .env("BROKEN", "0.5")
        .output();
    fails(
        &output.unwrap(),
        &[
            "ratios 0.5, seed 0: pre-training: no such images",
            "1 cells failed",
        ],
    );
    let log = world.take_log();
    assert_eq!(
        (count(&log, "pretrain"), count(&log, "eval")),
        (3, 2),
        "{log:?}"
    );
    assert_eq!(
        world.results()[0]["outcome"]["failed"],
        "pre-training: no such images"
    );

    succeeds(&world.run(&["ratios.toml", "--seeds", "1"]));
    assert_eq!(world.take_log(), ["eval knn,linear", "resume ratio = 0.5"]);
    assert_eq!(world.results()[0]["outcome"], "finished");
}

#[test]
fn ctrl_c_lets_cells_save_and_the_same_command_resumes_them() {
    let world = World::new();
    fs::write(world.path("ratios.toml"), GRID).unwrap();
    fs::write(world.path("slow"), "").unwrap();
    let arguments = ["ratios.toml", "--seeds", "1"];
    let child = world.command(&arguments).spawn().unwrap();
    world.wait_for("pretrain");
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stdout).contains("the same command goes on"));
    assert_eq!(
        world.take_log(),
        ["pretrain ratio = 0.5", "saved ratio = 0.5"]
    );

    fs::remove_file(world.path("slow")).unwrap();
    succeeds(&world.run(&arguments));
    let log = world.take_log();
    assert_eq!(
        (
            count(&log, "resume"),
            count(&log, "pretrain"),
            count(&log, "eval")
        ),
        (1, 2, 3)
    );
}

#[test]
fn killed_at_any_point_only_unfinished_work_is_repeated() {
    let world = World::new();
    fs::write(world.path("ratios.toml"), GRID).unwrap();
    let arguments = ["ratios.toml", "--seeds", "1"];
    // One cell finishes, the next is killed.
    let mut child = world.command(&arguments).spawn().unwrap();
    world.wait_for("eval");
    fs::write(world.path("slow"), "").unwrap();
    world.wait_for("pretrain ratio = 0.6");
    signal(&child, "KILL");
    child.wait().unwrap();
    fs::remove_file(world.path("slow")).unwrap();
    let before = world.take_log();

    succeeds(&world.run(&arguments));
    let log = world.take_log();
    assert!(count(&before, "eval") >= 1);
    assert_eq!(
        count(&before, "eval") + count(&log, "eval"),
        3,
        "{before:?} {log:?}"
    );
    assert_eq!(
        count(&before, "pretrain") + count(&log, "pretrain"),
        3,
        "{before:?} {log:?}"
    );
    assert_eq!(count(&log, "pretrain ratio = 0.5"), 0);
}

#[test]
fn other_settings_need_another_folder() {
    let world = World::new();
    fs::write(world.path("ratios.toml"), GRID).unwrap();
    succeeds(&world.run(&["ratios.toml", "--seeds", "1"]));
    fails(
        &world.run(&[
            "ratios.toml",
            "--seeds",
            "1",
            "--set",
            "optim.epochs=3",
            "--finetune",
        ]),
        &[
            "runs/ablation holds an ablation of other settings (--set, --finetune)",
            "another --out",
        ],
    );
    assert_eq!(count(&world.take_log(), "tokenizer"), 0);
    fails(
        &world.run(&[
            "target",
            "--seeds",
            "1",
            "--set",
            "optim.epochs=3",
            "--dry-run",
        ]),
        &["other settings (--set)", "delete it"],
    );
    fails(
        &(world.command(&["target", "--out", "x", "--eval-set", "linear.epoch=1"]))
            .env("REFUSED", "linear.epoch=1")
            .output()
            .unwrap(),
        &["--eval-set (nothing was started): this is too much"],
    );
    // More seeds are no other settings.
    world.take_log();
    succeeds(&world.run(&["ratios.toml", "--seeds", "2"]));
    assert_eq!(count(&world.take_log(), "pretrain"), 3);
}

#[test]
fn a_study_of_tokens_trains_its_tokenizer_first() {
    let world = World::new();
    let (said, _) = succeeds(&world.run(&["target", "--dry-run"]));
    assert!(
        said.contains("a tokenizer is trained first, into runs/ablation/tokenizer"),
        "{said}"
    );
    succeeds(&world.run(&["target", "--seeds", "1"]));
    assert_eq!(count(&world.take_log(), "tokenizer"), 1);
    let settings = &world.results()[3]["settings"];
    assert!(
        settings
            .to_string()
            .contains("data.tokenizer=runs/ablation/tokenizer"),
        "{settings}"
    );

    let world = World::new();
    succeeds(&world.run(&["target", "--seeds", "1", "--tokenizer", "mine.safetensors"]));
    assert_eq!(count(&world.take_log(), "tokenizer"), 0);
}

/// An sbatch that keeps what it got, and runs each task of the array.
const SBATCH: &str = r#"
echo "sbatch $*" >> "$LOG"
for script in "$@"; do :; done
cp_of() { cat "$1"; }
cp_of "$script" > "$SCRIPT"
last=$(grep array= "$script"); last="${last#*0-}"; last="${last%%%*}"
task=0
while [ "$task" -le "$last" ]; do
    SLURM_CPUS_PER_TASK=3 SLURM_JOB_ID=7 SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task sh "$script" >&2 || exit 1
    task=$((task + 1))
done
echo "7;cluster""#;

#[test]
fn slurm_runs_the_cells_as_one_array() {
    let world = World::new();
    fs::write(world.path("ratios.toml"), GRID).unwrap();
    world.script("sbatch", SBATCH);
    let arguments = [
        "ratios.toml",
        "--seeds",
        "1",
        "--launcher",
        "slurm",
        "--jobs",
        "2",
        "--sbatch=--partition=gpu",
    ];
    let submit = || {
        let mut command = world.command(&arguments);
        command
            .env("SCRIPT", world.path("script"))
            .output()
            .unwrap()
    };
    let (said, _) = succeeds(&submit());
    assert!(said.contains("submitted 3 cells as job array 7;"), "{said}");
    let script = fs::read_to_string(world.path("script")).unwrap();
    assert!(script.contains("#SBATCH --array=0-2%2\n"), "{script}");
    let log = world.take_log();
    assert_eq!(
        (count(&log, "pretrain"), count(&log, "eval")),
        (3, 3),
        "{log:?}"
    );
    assert!(
        log.iter()
            .any(|line| line.starts_with("sbatch --parsable --partition=gpu ")),
        "{log:?}"
    );
    assert!(!world.path("runs/ablation/report.html").exists());

    let (said, _) = succeeds(&world.run(&["report"]));
    assert!(said.contains("3 of 3 cells are finished"), "{said}");
    let results = world.results();
    assert_eq!(results[2]["outcome"], "finished");
    let folder = results[0]["folder"].as_str().unwrap();
    let begun = fs::read_to_string(Path::new(&world.path(folder)).join("run/begun")).unwrap();
    assert_eq!(begun, "threads 3\n");

    let (said, _) = succeeds(&submit());
    assert!(said.contains("every cell is finished"), "{said}");
    assert!(world.take_log().is_empty());

    world.script("sbatch", "echo 'invalid partition' >&2; exit 1");
    let output = world.run(&["schedule", "--seeds", "1", "--launcher", "slurm"]);
    fails(&output, &["sbatch did not take", "invalid partition"]);
    fails(
        &world.run(&["schedule", "--sbatch=-x"]),
        &["--sbatch is for --launcher slurm"],
    );
}

#[test]
fn the_report_names_the_code_and_the_command_that_repeats_it() {
    let world = World::new();
    let (_, errors) = succeeds(&world.run(&["partial-finetune", "--seeds", "1"]));
    let report = fs::read_to_string(world.path("runs/ablation/report.md")).unwrap();
    let folder = world.results()[0]["folder"].as_str().unwrap().to_owned();
    let hash = folder.rsplit('/').next().unwrap();
    let repeated = format!("--out runs/{hash}\n");
    for words in [
        "abc1234",
        "mae-ablate partial-finetune --seeds 1",
        &repeated,
    ] {
        assert!(report.contains(words), "no {words:?} in {report}{errors}");
    }

    // Called by another name, it tells of that one.
    let called = (world.command(&["schedule", "--help"]))
        .arg0("cargo xtask ablate")
        .output();
    let (said, _) = succeeds(&called.unwrap());
    assert!(said.contains("Usage: cargo xtask ablate "), "{said}");

    let without = (world.command(&["schedule"]))
        .env("MAE_TRAIN", world.path("bin/none"))
        .output();
    fails(&without.unwrap(), &["bin/none", "MAE_TRAIN"]);
    let other = (world.command(&["schedule"]))
        .env("MAE_TRAIN", "true")
        .output();
    fails(&other.unwrap(), &["true is no mae-train"]);
}

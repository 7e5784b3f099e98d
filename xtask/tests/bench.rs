//! `cargo xtask bench` through the real binary, where cargo, Python and all that is measured are scripts.
#![cfg(target_os = "linux")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use support::{World, users_libtorch};

impl World {
    /// One with peers' scripts, photographs and a cargo, and without Python.
    fn new() -> Self {
        let world = Self::with(
            &["workspace/benches/peers", "photos/class"],
            &["sh", "cat", "cp", "sleep", "mkdir"],
        );
        users_libtorch(&world.path("mine"), "2.13.0");
        fs::write(world.path("photos/a.jpg"), [0; 1000]).unwrap();
        fs::write(world.path("photos/class/b.JPEG"), [0; 3000]).unwrap();
        fs::write(
            world.path("workspace/benches/steps.json"),
            r#"{"small": {"batch_size": 8, "model": {}}}"#,
        )
        .unwrap();
        fs::write(world.path("workspace/benches/peers/make_photos.py"), "1").unwrap();
        world.script(
            "cargo",
            r#"while [ "$1" != --example ]; do shift; done
               echo "{\"executable\": \"$BIN/$2\"}""#,
        );
        world.script(
            "load",
            r#"echo load >> "$LOG"
               echo '{"images_per_s": 1, "peak_rss_mb": 10}'
               echo '{"images_per_s": 200, "peak_rss_mb": 50}'"#,
        );
        world.script(
            "train_step",
            r#"echo train_step "$@" >> "$LOG"
               echo '{"images_per_s": 20, "gflops_per_image": 4, "matmul_gflops": 90, "peak_rss_mb": 9}'"#,
        );
        world
    }

    /// A python3 whose environments log what they are asked for, and print measurements; DALI does not run.
    fn add_python(&self) {
        self.script(
            "python3",
            r#"case "$*" in
               "-c "*) echo "${PYTHON_VERSION-3.12}" ;;
               "-m venv --clear "*) mkdir -p "$4/bin"; cp "$BIN/environment" "$4/bin/python" ;;
               esac"#,
        );
        self.script(
            "environment",
            r#"if [ "$1" = -m ]; then
                   shift 3
                   echo "pip $*" >> "$LOG"
                   case "$*" in *dali*) exit 1 ;; esac
                   exit 0
               fi
               name="${2##*/}"
               shift 2
               echo "${LD_PRELOAD:+jemalloc }$name $*" >> "$LOG"
               case "$name" in
               make_photos.py) mkdir -p "$1"; echo 1 > "$1/1.jpg"; echo 2 > "$1/2.jpg" ;;
               loader_dali.py) echo "Traceback"; echo "ModuleNotFoundError: no nvidia" >&2; exit 1 ;;
               loader_torchvision.py)
                   echo '{"images_per_s": 100, "peak_rss_mb": 70, "repeat_with": ["--backend", "threads"]}' ;;
               matmul.py) echo '{"matmul_gflops": 100}' ;;
               *) echo 'warning'; echo '{"images_per_s": 50, "peak_rss_mb": 60, "versions": {"torch": "2.13.0"}}' ;;
               esac"#,
        );
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .arg("bench")
            .args(arguments)
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("BIN", self.path("bin"))
            .env("LOG", self.path("log"))
            .env("CARGO", self.path("bin/cargo"))
            .env("CARGO_MANIFEST_DIR", self.path("workspace/xtask"))
            .env("LIBTORCH", self.path("mine"))
            .env("MAE_CACHE_DIR", self.path("cache"))
            .current_dir(self.path("."))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What was started, in order.
    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().map(str::to_string).collect()
    }

    fn results(&self) -> Value {
        let path = self.path("workspace/docs/results/bench.json");
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    fn page(&self) -> PathBuf {
        self.path("workspace/docs/results/performance.md")
    }
}

/// What it printed.
#[track_caller]
fn succeeds(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{errors}");
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

#[test]
fn without_peers_ours_is_measured_and_kept() {
    let world = World::new();
    let arguments = [
        "loader",
        "--photos",
        "photos",
        "--rounds",
        "2",
        "--workers",
        "3",
    ];
    let (said, errors) = succeeds(&world.run(&arguments));
    let row = "| mae-rs |      200 |    200 to 200 |  1.00 x |       50 MB |";
    assert!(
        said.contains(row) && said.contains("**3 workers**"),
        "{said}"
    );
    assert!(
        said.contains("There are 2 files of 2.00 kB on average"),
        "{said}"
    );
    assert_eq!(world.log(), ["load", "load"]);

    assert!(
        errors.contains("performance.md: the part loader changed:\n"),
        "{errors}"
    );
    assert!(errors.contains(&format!("+ {row}")), "{errors}");
    let page = fs::read_to_string(world.page()).unwrap();
    let begin = page.find("<!-- bench:loader:begin -->").unwrap();
    let end = page.find("<!-- bench:loader:end -->").unwrap();
    assert!(page[begin..end].contains(row), "{page}");

    let record = &world.results()["loader"][0];
    for key in ["cpu", "cores", "os"] {
        assert!(!record["machine"][key].is_null(), "{record}");
    }
    for key in ["rustc", "libtorch"] {
        assert!(record[key].is_string(), "{record}");
    }
    assert_eq!(record["rounds"], 2);
    assert!(record["date"].as_str().unwrap().ends_with('Z'), "{record}");
    let contender = &record["groups"][0]["contenders"][0];
    let command = contender["command"].as_str().unwrap();
    assert!(
        command.starts_with("cargo run --release -p mae-data --example load -- PHOTOS --size 224 "),
        "{command}"
    );
    let runs = contender["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[1]["round"], 2);
    assert_eq!(runs[1]["lines"][0]["images_per_s"], 1);
    assert_eq!(runs[1]["lines"][1]["images_per_s"], 200);
}

#[test]
fn peers_are_measured_in_turn_and_what_does_not_run_is_left_out() {
    let world = World::new();
    world.add_python();
    let (said, errors) =
        succeeds(&world.run(&["loader", "--peers", "--rounds", "2", "--workers", "1"]));
    let log = world.log();
    let photos = world.path("cache/bench-photos");
    let options = format!("{} --size 224 --batch 64 --workers 1", photos.display());
    assert_eq!(
        log,
        [
            "pip --only-binary=:all: numpy==2.4.6 pillow==13.0.0".to_string(),
            format!("make_photos.py {}", photos.display()),
            "pip --only-binary=:all: torch==2.13.0 torchvision==0.28.0".into(),
            "pip --only-binary=:all: nvidia-dali-cuda130==2.4.0".into(),
            "load".into(),
            format!("loader_pil.py {options}"),
            format!("loader_torchvision.py {options}"),
            format!("loader_dali.py {options}"),
            "load".into(),
            format!("loader_pil.py {options}"),
            // What it found best in the first round.
            format!("loader_torchvision.py {options} --backend threads"),
        ]
    );
    for expect in ["GB", "pip config list", "going on without", "nvidia-dali"] {
        assert!(errors.contains(expect), "no {expect:?} in: {errors}");
    }
    for expect in [
        "|  2.00 x |       70 MB |",
        "|  4.00 x |       60 MB |",
        "Left out of 1 worker: NVIDIA DALI on the CPU",
        "ModuleNotFoundError: no nvidia",
        "torch 2.13.0",
    ] {
        assert!(said.contains(expect), "no {expect:?} in: {said}");
    }

    // Only what is missing is installed the next time, and the photographs are kept.
    fs::remove_file(world.path("log")).unwrap();
    succeeds(&world.run(&["loader", "--peers", "--rounds", "1"]));
    let installed: Vec<_> = world.log().into_iter().take(2).collect();
    assert_eq!(
        installed,
        ["pip --only-binary=:all: nvidia-dali-cuda130==2.4.0", "load"]
    );
}

#[test]
fn steps_are_measured_and_the_other_section_is_kept() {
    let world = World::new();
    world.add_python();
    succeeds(&world.run(&["loader", "--photos", "photos", "--rounds", "1"]));
    fs::remove_file(world.path("log")).unwrap();
    let (said, _) = succeeds(&world.run(&["step", "--peers", "--rounds", "2"]));
    let round = [
        "train_step --config small --precision fp32",
        "step_huggingface.py --config small --precision fp32",
        "step_huggingface.py --config small --precision fp32 --compile",
        "matmul.py --precision fp32",
    ];
    // Peers with jemalloc are there where the system has it.
    let jemalloc = |line: &&String| !line.starts_with("jemalloc ");
    let log: Vec<_> = world.log();
    let log: Vec<_> = log.iter().filter(jemalloc).collect();
    assert_eq!(log[log.len() - 8..log.len() - 4], round);
    assert_eq!(log[log.len() - 4..], round);
    for expect in [
        "**small, batches of 8**",
        "|  1.00 x |    80 % |        9 MB |",
        "|  0.40 x |   200 % |       60 MB |",
        "(torch.matmul): 100 GFLOP/s",
    ] {
        assert!(said.contains(expect), "no {expect:?} in: {said}");
    }
    let results = world.results();
    assert!(results["loader"].is_array() && results["step"].is_array());
    let page = fs::read_to_string(world.page()).unwrap();
    assert!(
        page.contains("**small, ") && page.contains(" worker"),
        "{page}"
    );
}

#[test]
fn wrong_arguments_are_refused() {
    let world = World::new();
    fails(&world.run(&["loaders"]), &["loader, step, all"]);
    fails(
        &world.run(&["loader", "--precision", "bf16"]),
        &["--precision is of the step", "`step` or `all`"],
    );
    fails(
        &world.run(&["loader", "--rounds", "0"]),
        &["--rounds", "1.."],
    );
    fails(
        &world.run(&["loader", "--workers", "0"]),
        &["--workers", "1.."],
    );
    fails(
        &world.run(&["loader", "--photos", "mine"]),
        &["mine has no jpg files", "--photos"],
    );
    fails(&world.run(&["loader", "--photos", "nowhere"]), &["nowhere"]);
    assert!(world.log().is_empty());
}

#[test]
fn without_python_the_error_says_what_to_install() {
    let world = World::new();
    let words = ["Python 3.11", "apt install python3-venv"];
    fails(&world.run(&["loader"]), &words);
    fails(&world.run(&["step", "--peers"]), &words);
    world.add_python();
    let old = world
        .command(&["step", "--peers"])
        .env("PYTHON_VERSION", "3.9")
        .output()
        .unwrap();
    fails(&old, &["Python 3.11", "python3 is 3.9"]);
    assert!(world.log().is_empty());
}

#[test]
fn a_page_or_results_that_cannot_be_written_are_found_before_measuring() {
    let world = World::new();
    fs::create_dir_all(world.page().parent().unwrap()).unwrap();
    let arguments = ["loader", "--photos", "photos"];
    fs::write(world.page(), "# Performance\n").unwrap();
    fails(
        &world.run(&arguments),
        &["performance.md", "<!-- bench:loader:begin -->"],
    );
    fs::remove_file(world.page()).unwrap();
    fs::write(world.page().with_file_name("bench.json"), "[1]").unwrap();
    fails(
        &world.run(&arguments),
        &["bench.json", "correct or remove it"],
    );
    assert!(world.log().is_empty());
}

#[test]
fn ours_must_run() {
    let world = World::new();
    world.script("load", "echo 'no such folder' >&2; exit 3");
    let output = world.run(&["loader", "--photos", "photos"]);
    fails(
        &output,
        &["no such folder", "--example load", "exit status: 3"],
    );
    world.script("load", "echo nothing");
    fails(
        &world.run(&["loader", "--photos", "photos"]),
        &["it printed no measurement"],
    );
    assert!(!world.page().exists());
}

#[test]
fn an_interrupt_ends_what_is_measured_and_its_workers() {
    let world = World::new();
    // A program whose worker does not end with it.
    world.script(
        "load",
        r#"sleep 600 & echo $! > "$LOG.part"; cp "$LOG.part" "$LOG"; wait"#,
    );
    let mut child = world
        .command(&["loader", "--photos", "photos"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until(|| !world.log().is_empty());
    let worker = PathBuf::from(format!("/proc/{}", world.log()[0]));
    assert!(runs(&worker));

    let interrupt = Command::new("sh")
        .args(["-c", r#"kill -s INT "$0""#, &child.id().to_string()])
        .status();
    assert!(interrupt.unwrap().success());
    wait_until(|| child.try_wait().unwrap().is_some());
    fails(&child.wait_with_output().unwrap(), &["interrupted"]);
    wait_until(|| !runs(&worker));
    assert!(!world.page().exists());
}

/// Whether a process is there, and not only its exit code.
fn runs(process: &Path) -> bool {
    fs::read_to_string(process.join("stat")).is_ok_and(|stat| {
        !stat
            .rsplit(") ")
            .next()
            .unwrap_or_default()
            .starts_with('Z')
    })
}

#[track_caller]
fn wait_until(mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !reached() {
        assert!(Instant::now() < deadline, "it takes too long");
        thread::sleep(Duration::from_millis(5));
    }
}

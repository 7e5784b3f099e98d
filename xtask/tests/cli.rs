//! The commands through the real binary, offline: archives come from files, and cargo, pip and Python are scripts.
// The archive's name and the pins are those of the one system that is tested.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use zip::{ZipWriter, write::SimpleFileOptions};

use support::{World, users_libtorch};

/// Takes some tenths of a second to unpack, and no space in the archive.
const FILLER: u64 = 1 << 29;

const ARCHIVE: &str = "mirror/cpu/libtorch-shared-with-deps-2.13.0+cpu.zip";

impl World {
    /// One with a mirror of PyTorch's archives and the tools that an installation from one needs, and without pip.
    fn new() -> Self {
        Self::with(&["mirror/cpu"], &["curl", "df", "sh", "cat", "cp", "sleep"])
    }

    fn libtorch(&self) -> PathBuf {
        self.path("cache/libtorch-2.13.0-cpu/torch")
    }

    fn config(&self) -> Option<String> {
        fs::read_to_string(self.path("workspace/.cargo/libtorch.toml")).ok()
    }

    /// Puts an archive on the mirror; `filler` zeros make it take its time to unpack.
    fn publish(&self, version: &str, filler: u64) {
        let mut writer = ZipWriter::new(fs::File::create(self.path(ARCHIVE)).unwrap());
        let options = SimpleFileOptions::default();
        let mut add = |name: &str, bytes: &mut dyn Read| {
            writer.start_file(name, options).unwrap();
            io::copy(bytes, &mut writer).unwrap();
        };
        add("libtorch/lib/libtorch_cpu.so", &mut &b"library"[..]);
        add("libtorch/include/torch/script.h", &mut &b"header"[..]);
        add("libtorch/lib/libfiller.so", &mut io::repeat(0).take(filler));
        add(
            "libtorch/build-version",
            &mut format!("{version}+cpu\n").as_bytes(),
        );
        writer.finish().unwrap();
    }

    /// A python3 with a pip that copies what is in `wheels`, whatever it is asked for.
    fn add_pip(&self) {
        fs::create_dir_all(self.path("wheels")).unwrap();
        let wheels = self.path("wheels");
        self.script(
            "python3",
            &format!(
                r#"case "$3" in
                --version) echo "pip 23.2.1 from /nowhere (python 3.11)" ;;
                download)
                    while [ "$#" -gt 0 ]; do
                        case "$1" in
                        --dest) cp {}/*.whl "$2"/ ;;
                        --requirement) cat "$2" >&2 ;;
                        esac
                        shift
                    done ;;
                esac"#,
                wheels.display()
            ),
        );
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("CARGO_MANIFEST_DIR", self.path("workspace/xtask"))
            // Whatever GPU the machine has, these are about the libtorch for CPUs.
            .env("CUDA_VISIBLE_DEVICES", "-1")
            .env("MAE_CACHE_DIR", self.path("cache"))
            .env(
                "MAE_LIBTORCH_URL",
                format!("file://{}", self.path("mirror").display()),
            )
            .current_dir(self.path("workspace"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    errors
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
fn an_archive_is_installed_and_recorded() {
    let world = World::new();
    world.publish("2.13.0", 0);
    let said = succeeds(&world.run(&["setup", "--cpu"]));
    assert!(
        said.contains("libtorch-shared-with-deps-2.13.0%2Bcpu.zip") && said.contains(" B"),
        "{said}"
    );
    let libtorch = world.libtorch();
    assert_eq!(
        fs::read_to_string(libtorch.join("lib/libtorch_cpu.so")).unwrap(),
        "library"
    );
    assert_eq!(
        fs::read_to_string(libtorch.join("build-version")).unwrap(),
        "2.13.0\n"
    );
    assert!(
        world
            .config()
            .unwrap()
            .contains(&format!("[env]\nLIBTORCH = \"{}\"", libtorch.display()))
    );
}

#[test]
fn an_archive_is_installed_over_http() {
    let world = World::new();
    world.publish("2.13.0", 0);
    let Some(server) = Server::start(&world.path("mirror")) else {
        eprintln!("skipped: there is no python3 to serve the archive");
        return;
    };
    let url = format!("http://127.0.0.1:{}/", server.port);
    succeeds(
        &world
            .command(&["setup", "--cpu"])
            .env("MAE_LIBTORCH_URL", url)
            .output()
            .unwrap(),
    );
    assert!(world.libtorch().join("lib/libtorch_cpu.so").is_file());
}

#[test]
fn a_second_set_up_touches_nothing() {
    let world = World::new();
    world.publish("2.13.0", 0);
    succeeds(&world.run(&["setup", "--cpu"]));
    // What is not there any more cannot be fetched again.
    fs::remove_dir_all(world.path("mirror")).unwrap();
    let config = fs::File::options()
        .write(true)
        .open(world.path("workspace/.cargo/libtorch.toml"))
        .unwrap();
    config.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    for arguments in [&["setup", "--cpu"][..], &["setup"]] {
        // cargo exports what the file says to the programs that it runs.
        let output = world
            .command(arguments)
            .env("LIBTORCH", world.libtorch())
            .output()
            .unwrap();
        let said = succeeds(&output);
        assert!(
            said.contains("is set up") && !said.contains("downloading"),
            "{said}"
        );
        assert_eq!(
            config.metadata().unwrap().modified().unwrap(),
            SystemTime::UNIX_EPOCH
        );
    }
}

#[test]
fn a_deleted_or_damaged_cache_is_repaired() {
    let world = World::new();
    world.publish("2.13.0", 0);
    succeeds(&world.run(&["setup", "--cpu"]));
    fs::remove_dir_all(world.path("cache")).unwrap();
    succeeds(
        &world
            .command(&["setup", "--cpu"])
            .env("LIBTORCH", world.libtorch())
            .output()
            .unwrap(),
    );
    let library = world.libtorch().join("lib/libtorch_cpu.so");
    fs::write(&library, "").unwrap();
    let said = succeeds(
        &world
            .command(&["setup", "--cpu"])
            .env("LIBTORCH", world.libtorch())
            .output()
            .unwrap(),
    );
    assert!(said.contains("damaged"), "{said}");
    assert_eq!(fs::read_to_string(library).unwrap(), "library");
}

#[test]
fn a_killed_set_up_leaves_no_installation_and_the_next_one_completes() {
    let world = World::new();
    world.publish("2.13.0", FILLER);
    let mut child = world
        .command(&["setup", "--cpu"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let partial = world.path(&format!(
        "cache/partial-cpu-{}/tree/torch/lib/libfiller.so",
        child.id()
    ));
    wait_until(&mut child, || {
        partial.metadata().is_ok_and(|file| file.len() > 0)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        partial.metadata().unwrap().len() < FILLER,
        "it was killed too late for this test"
    );
    assert!(!world.path("cache/libtorch-2.13.0-cpu").exists());
    assert_eq!(world.config(), None);

    world.publish("2.13.0", 0);
    let said = succeeds(&world.run(&["setup", "--cpu"]));
    assert!(said.contains("interrupted"), "{said}");
    assert!(world.libtorch().join("lib/libtorch_cpu.so").is_file());
    let mut left: Vec<_> = fs::read_dir(world.path("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["libtorch-2.13.0-cpu", "lock"]);
}

#[test]
fn concurrent_set_ups_install_once() {
    let world = World::new();
    world.publish("2.13.0", 1 << 26);
    let start = || {
        world
            .command(&["setup", "--cpu"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let outputs = [start(), start(), start()].map(|child| child.wait_with_output().unwrap());
    let downloads = outputs
        .iter()
        .filter(|output| succeeds(output).contains("downloading"))
        .count();
    assert_eq!(downloads, 1);
}

#[test]
fn a_wrong_or_damaged_archive_is_not_installed() {
    let world = World::new();
    world.publish("2.12.0", 0);
    fails(&world.run(&["setup", "--cpu"]), &["2.12.0", "2.13.0"]);
    fs::write(world.path(ARCHIVE), "<html>not found</html>").unwrap();
    fails(&world.run(&["setup", "--cpu"]), &["no valid zip"]);
    fs::remove_file(world.path(ARCHIVE)).unwrap();
    fails(
        &world.run(&["setup", "--cpu"]),
        &["could not download", "pip"],
    );
    assert!(!world.path("cache/libtorch-2.13.0-cpu").exists());
    assert_eq!(world.config(), None);
}

#[test]
fn a_machine_with_an_nvidia_driver_gets_cuda() {
    let world = World::new();
    world.script("nvidia-smi", "echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'");
    let run = |visible: &str| {
        world
            .command(&["setup"])
            .env("CUDA_VISIBLE_DEVICES", visible)
            .output()
            .unwrap()
    };
    fails(
        &run("0"),
        &[
            "(cuda)",
            "/cu130/libtorch-shared-with-deps-2.13.0%2Bcu130.zip",
        ],
    );
    fails(
        &run("-1"),
        &["(cpu)", "/cpu/libtorch-shared-with-deps-2.13.0%2Bcpu.zip"],
    );
}

#[test]
fn without_pip_and_curl_the_error_says_what_to_install() {
    let world = World::new();
    fs::remove_file(world.path("bin/curl")).unwrap();
    fails(
        &world.run(&["setup", "--cpu"]),
        &["pip", "curl", "install Python 3"],
    );
}

#[test]
fn a_wheel_that_differs_from_its_pin_is_not_installed() {
    let world = World::new();
    world.add_pip();
    fs::write(
        world.path("wheels/torch-2.13.0-cp312-cp312-manylinux_2_28_x86_64.whl"),
        "another",
    )
    .unwrap();
    let output = world.run(&["setup", "--cpu"]);
    fails(
        &output,
        &[
            "downloading torch 2.13.0",
            "torch==2.13.0 --hash=sha256:",
            "is not the wheel that it should be",
        ],
    );
    assert!(!world.path("cache/libtorch-2.13.0-cpu").exists());
}

#[test]
fn the_users_libtorch_is_used_if_its_version_is_right() {
    let world = World::new();
    let libtorch = world.path("mine");
    let run = |arguments: &[&str]| {
        world
            .command(arguments)
            .env("LIBTORCH", &libtorch)
            .output()
            .unwrap()
    };
    let path = libtorch.display().to_string();

    fails(&run(&["setup"]), &["LIBTORCH", &path, "not a directory"]);
    users_libtorch(&libtorch, "2.12.1+cu128\n");
    fails(&run(&["setup"]), &["LIBTORCH", &path, "2.12.1", "2.13.0"]);
    assert_eq!(world.config(), None);

    users_libtorch(&libtorch, "2.13.0+cu130\n");
    fails(&run(&["setup", "--cuda"]), &["unset LIBTORCH"]);
    succeeds(&run(&["setup"]));
    assert!(world.config().unwrap().contains(&path));
    // Later without the variable, and as cargo then exports it.
    succeeds(&world.run(&["setup"]));
    succeeds(&run(&["setup"]));
    assert!(world.config().unwrap().contains(&path));
    assert!(!world.path("cache").exists());
}

#[test]
fn a_recorded_libtorch_that_is_gone_is_replaced() {
    let world = World::new();
    world.publish("2.13.0", 0);
    users_libtorch(&world.path("mine"), "2.13.0");
    succeeds(
        &world
            .command(&["setup"])
            .env("LIBTORCH", world.path("mine"))
            .output()
            .unwrap(),
    );
    fs::remove_dir_all(world.path("mine")).unwrap();
    let said = succeeds(
        &world
            .command(&["setup"])
            .env("LIBTORCH", world.path("mine"))
            .output()
            .unwrap(),
    );
    assert!(said.contains("cannot be used any more"), "{said}");
    assert!(
        world
            .config()
            .unwrap()
            .contains(&world.libtorch().display().to_string())
    );
}

/// A cargo that writes down how it was called.
fn with_cargo(world: &World, arguments: &[&str]) -> Output {
    users_libtorch(&world.path("mine"), "2.13.0");
    succeeds(
        &world
            .command(&["setup"])
            .env("LIBTORCH", world.path("mine"))
            .output()
            .unwrap(),
    );
    world.script(
        "cargo",
        r#"[ "$1" = build ] && exit "${BUILD_CODE:-0}"
           for argument in "$@"; do echo "<$argument>"; done
           echo "LIBTORCH=${LIBTORCH-unset} PKG=${CARGO_PKG_NAME-unset} TARGET=${CARGO_TARGET_DIR-unset}"
           exit 7"#,
    );
    world
        .command(arguments)
        .env("CARGO", world.path("bin/cargo"))
        .env("CARGO_PKG_NAME", "xtask")
        .env("CARGO_TARGET_DIR", "/elsewhere")
        .env("LIBTORCH", world.path("mine"))
        .output()
        .unwrap()
}

#[test]
fn train_passes_arguments_exit_code_and_a_clean_environment() {
    let world = World::new();
    let output = with_cargo(&world, &["train", "--help", "--set", "a b", "--", "-x"]);
    assert_eq!(output.status.code(), Some(7));
    let said = String::from_utf8(output.stdout).unwrap();
    let (arguments, environment) = said.trim_end().rsplit_once('\n').unwrap();
    assert!(
        arguments.starts_with("<run>\n<--quiet>\n<--release>\n<--package>\n<mae-train>\n"),
        "{arguments}"
    );
    assert!(
        arguments.ends_with("<--bin>\n<mae-train>\n<-->\n<--help>\n<--set>\n<a b>\n<-->\n<-x>"),
        "{arguments}"
    );
    assert_eq!(environment, "LIBTORCH=unset PKG=unset TARGET=/elsewhere");
    assert_eq!(output.stderr, b"", "a set-up that is done is silent");
}

#[test]
fn ablate_builds_what_it_needs_and_passes_the_rest_on() {
    let world = World::new();
    world.script(
        "mae-ablate",
        r#"echo "MAE_TRAIN=${MAE_TRAIN-unset} REVISION=${MAE_REVISION-unset}"; for argument in "$@"; do echo "<$argument>"; done
           exit 7"#,
    );
    world.script(
        "cargo",
        r#"echo "$LIBTORCH $*" >> built
           echo "{\"executable\": \"${0%/*}/$5\"}""#,
    );
    users_libtorch(&world.path("mine"), "2.13.0");
    let run = |arguments: &[&str]| {
        let output = (world.command(arguments))
            .env("CARGO", world.path("bin/cargo"))
            .env("LIBTORCH", world.path("mine"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        let built = fs::read_to_string(world.path("workspace/built")).unwrap();
        fs::remove_file(world.path("workspace/built")).unwrap();
        (String::from_utf8(output.stdout).unwrap(), built)
    };
    let (said, built) = run(&["ablate", "list"]);
    assert_eq!(said, "MAE_TRAIN=unset REVISION=unset\n<list>\n");
    assert_eq!(built.lines().count(), 1, "{built}");

    let (said, built) = run(&["ablate", "mask-ratio", "--set", "a b"]);
    let train = world.path("bin/mae-train");
    assert_eq!(
        said,
        format!(
            "MAE_TRAIN={} REVISION=unknown\n<mask-ratio>\n<--set>\n<a b>\n",
            train.display()
        )
    );
    assert_eq!(built.lines().count(), 2, "{built}");
}

#[test]
fn test_passes_its_arguments_to_cargo_test() {
    let world = World::new();
    let output = with_cargo(&world, &["test", "--release", "--", "--nocapture"]);
    assert_eq!(output.status.code(), Some(7));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.starts_with("<test>\n<--workspace>\n<--release>\n<-->\n<--nocapture>\n"),
        "{said}"
    );
}

#[test]
fn every_command_has_help() {
    let world = World::new();
    for (command, word) in [
        ("setup", "--cuda"),
        ("train", "mae-train"),
        ("test", "cargo test"),
        ("ablate", "mae-ablate"),
        ("bench", "--peers"),
    ] {
        let said = String::from_utf8(world.run(&["help", command]).stdout).unwrap();
        assert!(said.contains(word), "{said}");
    }
}

fn wait_until(child: &mut Child, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !reached() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        assert!(Instant::now() < deadline, "it takes too long");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Python's own web server, on a free port.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(directory: &Path) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .ok()?
            .local_addr()
            .ok()?
            .port();
        let child = Command::new("python3")
            .args([
                "-m",
                "http.server",
                "--bind",
                "127.0.0.1",
                &port.to_string(),
                "--directory",
            ])
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut server = Self { child, port };
        wait_until(&mut server.child, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

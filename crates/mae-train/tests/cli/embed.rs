//! Embeddings: their numbers, their files, interruptions, mistakes.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mae_model::classifier::Pooling;
use mae_model::tensor_file::{read_tensors, write_tensors};
use mae_model::{VitClassifier, patchify};
use tch::{Device, Kind, Tensor};

use crate::program::{checkpoints, fail, program, small, succeed, text};

/// A pre-trained small model, and images of its size in a folder of their own.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new(keys: &[&str]) -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let keys = [&["optim.epochs=1", "optim.warmup_epochs=0"], keys].concat();
        succeed(small(&world.path("run"), &keys));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn model(&self) -> PathBuf {
        let checkpoints = checkpoints(&self.path("run"));
        checkpoints.last().unwrap().join("model.safetensors")
    }

    fn embed(&self, data: &str, out: &str, more: &[&str]) -> Command {
        let mut command = program();
        command.arg("embed").arg("--from").arg(self.path("run"));
        command
            .arg(self.path(data))
            .arg("--out")
            .arg(self.path(out));
        command.args(["--device", "cpu"]).args(more);
        command
    }

    /// Saves image `number` of the test's as `name`.
    fn draw(&self, name: &str, number: usize) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_raw(16, 16, pixels(number))
            .unwrap()
            .save(path)
            .unwrap();
    }

    /// What the model makes of images `0..count`, `[count, 17, 32]`.
    fn tokens(&self, count: usize) -> Tensor {
        let model = VitClassifier::open_encoder(&self.model(), Pooling::ClassToken, Device::Cpu);
        let pixels: Vec<u8> = (0..count).flat_map(pixels).collect();
        let images = Tensor::from_slice(&pixels).view([count as i64, 16, 16, 3]);
        let patches = patchify(&images, 4).unwrap();
        model.unwrap().tokens(&patches).unwrap()
    }

    /// The names of what is in the folder.
    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn pixels(number: usize) -> Vec<u8> {
    (0..16 * 16 * 3)
        .map(|i| ((i + 1) * (number + 3) % 251) as u8)
        .collect()
}

pub fn check_message(command: Command, parts: &[&str]) {
    let message = fail(command);
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in: {message}");
    }
}

fn assert_close(found: &Tensor, expected: &Tensor) {
    assert_eq!(found.size(), expected.size());
    let difference = (found - expected).abs().max().double_value(&[]);
    assert!(difference < 1e-5, "{difference}");
}

/// Reads a NumPy file of f32.
pub fn read_npy(path: &Path) -> Tensor {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\0");
    let start = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    assert_eq!(start % 64, 0);
    let header = text(&bytes[10..start]);
    assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': ("));
    assert!(header.ends_with('\n'));
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let shape: Vec<i64> = shape.split(", ").map(|n| n.parse().unwrap()).collect();
    Tensor::from_data_size(&bytes[start..], &shape, Kind::Float)
}

#[test]
fn the_files_hold_what_the_model_makes_of_the_images() {
    let world = World::new(&[]);
    // More than one batch, the second not full; names that CSV must quote.
    for i in 0..150 {
        let class = if i < 70 { "a, \"b\"" } else { "c" };
        world.draw(&format!("photos/{class}/{i:03}.png"), i);
    }
    let tokens = world.tokens(150);
    let patches = tokens.narrow(1, 1, 16);
    let mean = patches.mean_dim(1i64, false, None);

    let printed = text(&succeed(world.embed("photos", "mean.npy", &[])).stdout);
    assert!(printed.contains("mean.npy, [150, 32] in f32") && printed.contains("mean.csv"));
    assert_close(&read_npy(&world.path("mean.npy")), &mean);
    succeed(world.embed("photos", "bf16.npy", &["--precision", "bf16"]));
    let rounded = (read_npy(&world.path("bf16.npy")) - &mean).abs().max();
    assert!((1e-5..0.1).contains(&rounded.double_value(&[])));
    succeed(world.embed("photos", "cls.npy", &["--tokens", "cls"]));
    assert_close(&read_npy(&world.path("cls.npy")), &tokens.select(1, 0));
    succeed(world.embed("photos", "all.npy", &["--tokens", "patches"]));
    assert_close(&read_npy(&world.path("all.npy")), &patches);
    succeed(world.embed(
        "photos",
        "all.safetensors",
        &["--tokens", "patches", "--overwrite"],
    ));
    let (found, metadata) = read_tensors(&world.path("all.safetensors")).unwrap();
    assert_close(&found["features"], &patches);
    let indices = Tensor::arange(150, (Kind::Int64, Device::Cpu));
    assert_eq!(found["indices"], indices);
    assert_eq!(found["labels"], indices.ge(70).to_kind(Kind::Int64));
    assert_eq!(metadata["tokens"], "patches");
    assert_eq!(metadata["classes"], r#"["a, \"b\"","c"]"#);
    assert!(metadata["config"].contains("\"embed_dim\":32"));
    assert_eq!(metadata["model_sha256"].len(), 64);

    let csv = std::fs::read(world.path("all.csv")).unwrap();
    let csv_of_mean = std::fs::read(world.path("mean.csv")).unwrap();
    assert_eq!(csv, csv_of_mean);
    let mut csv = csv::Reader::from_reader(csv.as_slice());
    assert_eq!(csv.headers().unwrap(), &["index", "path", "label"][..]);
    let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 150);
    assert_eq!((&rows[69][0], &rows[69][2]), ("69", "a, \"b\""));
    assert!(rows[69][1].ends_with("photos/a, \"b\"/069.png"));
    assert_eq!((&rows[149][0], &rows[149][2]), ("149", "c"));
    // Stopped when all numbers are there, by what is in the way of the last steps.
    std::fs::create_dir(world.path("late.csv")).unwrap();
    let late = || world.embed("photos", "late.npy", &["--overwrite"]);
    check_message(late(), &["late.csv"]);
    assert!(world.path("late.npy.partial.json").exists());
    std::fs::remove_dir(world.path("late.csv")).unwrap();
    succeed(late());
    let bytes = |name: &str| std::fs::read(world.path(name)).unwrap();
    assert_eq!(bytes("late.npy"), bytes("mean.npy"));
    for name in world.files() {
        assert!(!name.contains("partial") && !name.contains("tmp"), "{name}");
    }
}

#[test]
fn images_without_labels_variants_and_the_runs_own_are_embedded() {
    let world = World::new(&["model.encoder_mask_tokens=true"]);
    for i in 0..4 {
        world.draw(&format!("flat/{i}.png"), i);
    }
    succeed(world.embed("flat", "flat.safetensors", &["--tokens", "cls"]));
    let (found, _) = read_tensors(&world.path("flat.safetensors")).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["features", "indices"]);
    assert_close(&found["features"], &world.tokens(4).select(1, 0));
    let csv = std::fs::read_to_string(world.path("flat.csv")).unwrap();
    assert!(csv.lines().nth(4).unwrap().ends_with("3.png,"), "{csv}");

    let own = |from: PathBuf, out: &str| {
        let mut command = program();
        command
            .arg("embed")
            .arg("--from")
            .arg(from)
            .arg("--out")
            .arg(world.path(out));
        command
    };
    succeed(own(world.path("run"), "own.npy"));
    assert_eq!(read_npy(&world.path("own.npy")).size(), [160, 32]);
    std::fs::copy(world.model(), world.path("alone.safetensors")).unwrap();
    check_message(
        own(world.path("alone.safetensors"), "alone.npy"),
        &["the images are missing", "lies in no run's folder"],
    );
}

/// Images of which a broken one is in the first batch, and from the sixth on so many that what is said of them fills a
/// pipe: a process whose pipe nobody reads stops there, and its first batches are behind.
fn broken_in_the_middle(world: &World) {
    for i in 0..1200 {
        let name = format!("photos/x/{i:04}-{}.png", "n".repeat(200));
        match i {
            5 | 640..1100 => {
                std::fs::create_dir_all(world.path("photos/x")).unwrap();
                std::fs::write(world.path(&name), "no image").unwrap();
            }
            _ => world.draw(&name, i),
        }
    }
}

/// Starts it, and waits until it has noted a batch and can go no further than the pipe lets it.
pub fn stuck(mut command: Command, journal: &Path) -> Child {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !journal.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "no journal in two minutes"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

#[cfg(unix)]
#[test]
fn stopped_in_the_middle_it_goes_on_and_the_files_are_the_same() {
    let world = World::new(&[]);
    broken_in_the_middle(&world);
    let start = |out: &str, workers: &str| {
        let more = ["--workers", workers, "--max-broken-share", "0.5"];
        world.embed("photos", out, &more)
    };
    let printed = text(&succeed(start("whole.safetensors", "1")).stdout);
    assert!(printed.contains("[739, 32]"), "{printed}");
    assert!(printed.contains("left out 461 broken images:"), "{printed}");
    assert!(
        printed.contains("0005-nnn") && printed.contains("and 451 more"),
        "{printed}"
    );

    for signal in ["-KILL", "-INT"] {
        let out = format!("stopped{signal}.safetensors");
        let journal = world.path(&format!("{out}.partial.json"));
        let mut child = stuck(start(&out, "2"), &journal);
        check_message(start(&out, "1"), &["another process is writing", &out]);
        let status = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
        // Now it may go on, to where it looks for a signal.
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        let output = child.wait_with_output().unwrap();
        if signal == "-INT" {
            assert_eq!(output.status.code(), Some(130), "{said}");
            assert!(text(&output.stdout).contains("go on with the same command"));
        }
        assert!(!world.path(&out).exists());
        assert!(journal.exists());

        // Another model, other settings or other images make no whole with it.
        let with = |more: &[&str]| {
            let mut command = start(&out, "1");
            command.args(more);
            command
        };
        check_message(
            with(&["--tokens", "cls"]),
            &[
                "unfinished",
                "other settings (tokens mean, in fp32 on the CPU, not tokens cls",
                "--overwrite",
            ],
        );
        let (mut tensors, metadata) = read_tensors(&world.model()).unwrap();
        tensors.insert(
            "cls_token".into(),
            Tensor::ones([1, 1, 32], (Kind::Float, Device::Cpu)),
        );
        write_tensors(&world.path("other.safetensors"), &tensors, metadata).unwrap();
        let mut command = program();
        command
            .arg("embed")
            .arg(world.path("photos"))
            .arg("--out")
            .arg(world.path(&out));
        command.arg("--from").arg(world.path("other.safetensors"));
        command.args(["--device", "cpu"]);
        check_message(
            command,
            &[
                "another model (",
                "model.safetensors, not ",
                "other.safetensors)",
            ],
        );
        world.draw("few/a/1.png", 1);
        check_message(
            world.embed("few", &out, &[]),
            &["begun with other images: give what"],
        );

        let printed = text(&succeed(start(&out, "3")).stdout);
        assert!(printed.contains("left out 461 broken images:"), "{printed}");
        assert!(printed.contains("0005-nnn"), "{printed}");
        let bytes = |name: &str| std::fs::read(world.path(name)).unwrap();
        assert!(
            bytes(&out) == bytes("whole.safetensors"),
            "the files differ"
        );
        assert!(bytes(&out.replace("safetensors", "csv")) == bytes("whole.csv"));
        assert!(!journal.exists() && !world.path(&format!("{out}.partial")).exists());
    }
    let (found, _) = read_tensors(&world.path("whole.safetensors")).unwrap();
    let kept: Vec<i64> = (0..1200)
        .filter(|i| *i != 5 && !(640..1100).contains(i))
        .collect();
    let kept = Tensor::from_slice(&kept);
    assert_eq!(found["indices"], kept);
    let mean = world
        .tokens(1200)
        .narrow(1, 1, 16)
        .mean_dim(1i64, false, None);
    assert_close(&found["features"], &mean.index_select(0, &kept));
}

#[test]
fn mistakes_are_explained() {
    let world = World::new(&[]);
    for i in 0..4 {
        world.draw(&format!("photos/{i}.png"), i);
    }
    check_message(
        world.embed("photos", "a.csv", &[]),
        &["a.csv: expected a name that ends in .npy", ".safetensors"],
    );
    check_message(
        world.embed("photos", "a.npy", &["--tokens", "all"]),
        &["expected cls, mean or patches"],
    );
    check_message(
        world.embed("photos", "no/a.npy", &[]),
        &["check that the folder exists"],
    );
    check_message(
        world.embed("absent", "a.npy", &[]),
        &["cannot read", "absent"],
    );
    let mut command = program();
    command.args(["embed", "--device", "tpu", "--out", "a.npy", "--from"]);
    command.arg(world.path("run"));
    check_message(command, &["--device", "\"tpu\""]);
    let mut command = program();
    command.args(["embed", "--from", "absent", "--out", "a.npy"]);
    check_message(command, &["--from", "there is no such file"]);

    succeed(world.embed("photos", "a.npy", &[]));
    check_message(
        world.embed("photos", "a.npy", &[]),
        &["a.npy is there already: replace it with --overwrite"],
    );
    // The CSV file of another name's sake is not to be lost either.
    check_message(
        world.embed("photos", "a.safetensors", &[]),
        &["a.csv is there already: replace it with --overwrite"],
    );
    // What it reads stays, whatever the flag says.
    std::fs::copy(world.model(), world.path("own.safetensors")).unwrap();
    let mut command = program();
    command.current_dir(world.path(""));
    command.args(["embed", "photos", "--from", "own.safetensors"]);
    command.args(["--out", "./own.safetensors", "--overwrite"]);
    check_message(command, &["own.safetensors is of what is to be read"]);
    let before = std::fs::read(world.path("a.npy")).unwrap();
    succeed(world.embed("photos", "a.npy", &["--overwrite", "--tokens", "cls"]));
    assert_ne!(before, std::fs::read(world.path("a.npy")).unwrap());

    std::fs::write(world.path("photos/1.png"), "no image").unwrap();
    check_message(
        world.embed("photos", "b.npy", &[]),
        &[
            "1 of 4 images is broken",
            "1.png",
            "more than data.max_broken_share",
            "--max-broken-share",
        ],
    );
    for i in 0..4 {
        std::fs::write(world.path(&format!("photos/{i}.png")), "no image").unwrap();
    }
    check_message(
        world.embed("photos", "c.npy", &["--max-broken-share", "1"]),
        &["no image of 4 can be read"],
    );
    assert!(!world.path("c.npy.partial").exists());
}

#[test]
fn a_map_is_a_page_or_a_picture_and_the_same_again() {
    let world = World::new(&[]);
    for number in 0..24 {
        world.draw(&format!("images/{}/{number:02}.png", number % 3), number);
    }
    std::fs::write(world.path("images/1/broken.png"), "no image").unwrap();
    let map = |file: &str, more: &[&str]| {
        let mut command = program();
        (command.arg("embed").arg("--from").arg(world.path("run"))).arg(world.path("images"));
        command.arg("--map").arg(world.path(file));
        command.args(["--device", "cpu", "--max-broken-share", "1"]);
        command.args(more);
        command
    };
    let printed = text(&succeed(map("map.html", &[])).stdout);
    assert!(printed.contains("map.npy, [24, 32]"), "{printed}");
    assert!(printed.contains("map.html, 24 images by "), "{printed}");
    let page = std::fs::read_to_string(world.path("map.html")).unwrap();
    assert_eq!(page.matches("data:image/jpeg;base64,").count(), 24);
    assert!(page.contains("00.png") && !page.contains("broken.png"));

    for name in ["a.png", "b.png"] {
        succeed(map(name, &[]));
    }
    let read = |name: &str| std::fs::read(world.path(name)).unwrap();
    assert_eq!(read("a.png"), read("b.png"));
    assert!(image::load_from_memory(&read("a.png")).unwrap().width() > 900);
    // What is kept as tensors is drawn the same.
    let out = world.path("c.safetensors").display().to_string();
    succeed(map("c.png", &["--out", &out, "--tokens", "mean"]));
    assert_eq!(read("a.png"), read("c.png"));

    for (file, more, expected) in [
        ("map.html", &[][..], "map.html is there already"),
        ("map.svg", &[], "a map ends in .html or .png"),
        ("d.png", &["--tokens", "patches"], "one vector an image"),
    ] {
        let message = fail(map(file, more));
        assert!(message.contains(expected), "{expected} in {message}");
    }
    assert!(!world.path("d.npy").exists());
}

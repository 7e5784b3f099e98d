//! Packed files and tar shards: made, trained from, damaged, interrupted.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mae_data::{Dataset, PackedDataset};
use mae_report::{Record, read_metrics};

use crate::program::{fail, numbers, program, small, succeed, text};

/// 24 images in two classes, in a folder of their own.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for i in 0..24 {
            let picture = image::RgbImage::from_fn(20 + i, 18, |x, y| {
                image::Rgb([(i * 9) as u8, (x * 7) as u8, (y * 13) as u8])
            });
            let class = world.path("photos").join(["ant", "bee"][i as usize % 2]);
            std::fs::create_dir_all(&class).unwrap();
            picture.save(class.join(format!("{i:02}.png"))).unwrap();
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn pack(&self, data: &str, out: &str, more: &[&str]) -> Command {
        let mut command = program();
        command
            .arg("pack")
            .arg(self.path(data))
            .arg(self.path(out))
            .args(more);
        command
    }

    /// One epoch on `data`.
    fn pretrain(&self, data: &str, out: &str) -> Command {
        let keys = ["optim.epochs=1", "optim.warmup_epochs=0"];
        let mut command = small(&self.path(out), &keys);
        command.arg("--data").arg(self.path(data));
        command
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

fn check_message(command: Command, parts: &[&str]) {
    let message = fail(command);
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in: {message}");
    }
}

#[test]
fn a_packed_file_trains_as_the_folder_does() {
    let world = World::new();
    let printed = text(&succeed(world.pack("photos", "a.mae", &[])).stdout);
    assert!(
        printed.contains("packed 24 images into") && printed.contains("use it with --data"),
        "{printed}"
    );
    assert_eq!(world.files(), ["a.mae", "photos"], "nothing else is left");
    let packed = PackedDataset::open(world.path("a.mae"), 3).unwrap();
    assert_eq!(packed.classes(), ["ant", "bee"]);
    assert!(packed.name(12).ends_with("bee/01.png"));

    succeed(world.pretrain("photos", "from-folder"));
    succeed(world.pretrain("a.mae", "from-packed"));
    assert_eq!(
        numbers(&world.path("from-folder")),
        numbers(&world.path("from-packed"))
    );

    // It goes on from the same file, and from a copy of it, but not from the folder.
    std::fs::copy(world.path("a.mae"), world.path("copy.mae")).unwrap();
    for data in ["a.mae", "copy.mae"] {
        let mut command = world.pretrain(data, "from-packed");
        command.arg("--resume");
        succeed(command);
    }
    let mut command = world.pretrain("photos", "from-packed");
    command.arg("--resume");
    check_message(
        command,
        &["source = \"folder\" (the run has source = \"packed\")"],
    );
}

#[test]
fn smaller_images_and_jpegs_take_less() {
    let world = World::new();
    let bytes = |out: &str, more: &[&str]| {
        succeed(world.pack("photos", out, more));
        std::fs::metadata(world.path(out)).unwrap().len()
    };
    let raw = bytes("raw.mae", &[]);
    assert!(bytes("small.mae", &["--size", "9"]) < raw / 2);
    let small = PackedDataset::open(world.path("small.mae"), 3).unwrap();
    assert_eq!(small.image(3).unwrap().height(), 9);
    assert!(bytes("jpeg.mae", &["--quality", "90"]) < raw);
    succeed(world.pretrain("jpeg.mae", "run"));
    check_message(
        world.pack("photos", "b.mae", &["--quality", "0"]),
        &["quality: expected 1 to 100"],
    );
    check_message(
        world.pack("photos", "b.mae", &["--size", "0"]),
        &["size: expected at least 1 pixel"],
    );
}

#[test]
fn a_file_is_replaced_only_when_told_to() {
    let world = World::new();
    succeed(world.pack("photos", "a.mae", &[]));
    let precious = std::fs::read(world.path("a.mae")).unwrap();
    check_message(
        world.pack("photos", "a.mae", &[]),
        &["a.mae is there already: replace it with --overwrite"],
    );
    check_message(
        world.pack("a.mae", "a.mae", &["--overwrite"]),
        &["a.mae is what is to be packed"],
    );
    check_message(
        world.pack("photos", "photos/bee/01.png", &["--overwrite"]),
        &["01.png is there already and is no packed file"],
    );
    // A failure leaves it, too.
    std::fs::write(world.path("photos/ant/02.png"), "no image").unwrap();
    check_message(
        world.pack("photos", "a.mae", &["--overwrite"]),
        &["error: packing", "1 of 24 images is broken", "02.png"],
    );
    assert_eq!(std::fs::read(world.path("a.mae")).unwrap(), precious);
    assert_eq!(world.files(), ["a.mae", "photos"]);

    let output = succeed(world.pack(
        "photos",
        "a.mae",
        &["--overwrite", "--max-broken-share", "0.05"],
    ));
    let (said, printed) = (text(&output.stderr), text(&output.stdout));
    assert_eq!(said.matches("02.png").count(), 1, "{said}");
    assert!(printed.contains("left out 1 broken image:"), "{printed}");
    assert!(
        printed.contains("02.png: the content is no image"),
        "{printed}"
    );
    assert_eq!(
        PackedDataset::open(world.path("a.mae"), 3).unwrap().len(),
        23
    );
    check_message(
        world.pack("photos", "photos", &["--overwrite"]),
        &["photos is a folder"],
    );
    let left = world.path(".b.mae.1-0.tmp");
    std::fs::write(&left, "half").unwrap();
    check_message(
        world.pack("absent", "b.mae", &[]),
        &[
            ".b.mae.1-0.tmp (0.0 kB) is left of a pack that was killed",
            "cannot read",
            "absent",
            "check its name",
        ],
    );
    std::fs::remove_file(left).unwrap();
    check_message(
        world.pack("photos", "no/b.mae", &[]),
        &["no/b.mae", "check that the folder exists"],
    );
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let world = World::new();
    succeed(world.pack("photos", "a.mae", &[]));
    let whole = std::fs::read(world.path("a.mae")).unwrap();
    let check = |content: &[u8], parts: &[&str]| {
        std::fs::write(world.path("b.mae"), content).unwrap();
        check_message(world.pretrain("b.mae", "run"), parts);
        check_message(world.pack("b.mae", "c.mae", &[]), parts);
    };
    check(
        &whole[..whole.len() / 2],
        &["b.mae", "that its header tells of", "copy it again"],
    );
    check(
        b"PK\x03\x04 a zip file",
        &["found a file that begins with", "mae-train pack wrote"],
    );
    let mut flipped = whole.clone();
    flipped[whole.len() - 20] ^= 4;
    check(&flipped, &["b.mae", "a damaged index"]);
    // A damaged record is a broken image: more than one in a hundred of 24.
    let mut flipped = whole.clone();
    flipped[100] ^= 4;
    check(
        &flipped,
        &["ant/00.png", "b.mae is damaged", "its checksum differs"],
    );
    std::fs::write(world.path("b.mae"), flipped).unwrap();
    let mut command = world.pretrain("b.mae", "tolerant");
    command.args(["--set", "data.max_broken_share=0.05"]);
    succeed(command);
    let records = read_metrics(&world.path("tolerant/metrics.jsonl")).unwrap();
    let Some(Record::Epoch { broken_images, .. }) = records.last() else {
        panic!("the last record is {:?}", records.last());
    };
    assert_eq!(*broken_images, 1);
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_file_and_says_how_to_go_on() {
    let world = World::new();
    let large = world.path("large");
    std::fs::create_dir(&large).unwrap();
    image::RgbImage::from_fn(1000, 1000, |x, y| image::Rgb([x as u8, y as u8, 0]))
        .save(large.join("0.png"))
        .unwrap();
    // Seconds of work that take no room.
    for i in 1..2000 {
        std::fs::hard_link(large.join("0.png"), large.join(format!("{i}.png"))).unwrap();
    }
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut child = world
            .pack("large", "a.mae", &[])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It catches signals before it says this.
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("packing 2000 images"), "{line}");
        let status = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{rest}");
        let printed = text(&output.stdout);
        assert!(
            printed.contains("start again with the same command"),
            "{printed}"
        );
        assert_eq!(world.files(), ["large", "photos"]);
    }
}

/// Writes the images below `photos` into two shards in WebDataset's layout.
fn write_shards(world: &World) {
    for (shard, class) in ["ant", "bee"].into_iter().enumerate() {
        let file = std::fs::File::create(world.path(&format!("s-{shard}.tar"))).unwrap();
        let mut builder = tar::Builder::new(file);
        let mut append = |name: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content).unwrap();
        };
        let mut paths: Vec<PathBuf> = std::fs::read_dir(world.path("photos").join(class))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        for path in paths {
            let name = Path::new(path.file_name().unwrap());
            append(name.to_str().unwrap(), &std::fs::read(&path).unwrap());
            append(
                name.with_extension("cls").to_str().unwrap(),
                shard.to_string().as_bytes(),
            );
        }
        builder.finish().unwrap();
    }
}

#[test]
fn tar_shards_train_as_the_folder_does_and_are_judged_and_packed() {
    let world = World::new();
    write_shards(&world);
    succeed(world.pretrain("photos", "from-folder"));
    succeed(world.pretrain("s-{0..1}.tar", "from-tar"));
    assert_eq!(
        numbers(&world.path("from-folder")),
        numbers(&world.path("from-tar"))
    );

    succeed(world.pack("s-{0..1}.tar", "a.mae", &[]));
    for data in ["s-{0..1}.tar", "a.mae"] {
        let mut command = program();
        command
            .arg("eval")
            .arg("--from")
            .arg(world.path("from-tar"))
            .arg("--data")
            .arg(world.path(data))
            .args(["--protocols", "knn", "--set", "run.device=cpu", "--out"])
            .arg(world.path(&format!("eval-{data}")))
            .env("MAE_CACHE_DIR", world.path("cache"));
        let printed = text(&succeed(command).stdout);
        assert!(
            printed.contains("22 training images, 2 validation images, 2 classes"),
            "{printed}"
        );
    }

    check_message(
        world.pretrain("s-{0..2}.tar", "a"),
        &["cannot read", "s-2.tar"],
    );
    check_message(
        world.pretrain("s-{0...tar", "b"),
        &["shards", "a { without a }"],
    );
    let whole = std::fs::read(world.path("s-1.tar")).unwrap();
    std::fs::write(world.path("s-1.tar"), &whole[..560]).unwrap();
    check_message(
        world.pretrain("s-{0..1}.tar", "c"),
        &["s-1.tar", "at byte 0", "in the middle of 01.png"],
    );
    std::fs::write(world.path("s.tar.gz"), b"\x1f\x8b\x08\0").unwrap();
    check_message(
        world.pretrain("s.tar.gz", "d"),
        &["compressed with gzip", "gunzip"],
    );
}

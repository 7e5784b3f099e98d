//! Tar shards as people have them: labels that are missing or wrong, folders and patterns, files beside the images.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use tar::{Builder, Header};

use crate::program::{fail, program, small, succeed, text};

/// A shard of eight images, numbered from `first`, with the files that `beside` gives for each.
fn shard(path: &Path, first: u8, beside: impl Fn(u8) -> Vec<(&'static str, &'static str)>) {
    let mut builder = Builder::new(Vec::new());
    let mut append = |name: String, content: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    };
    for number in first..first + 8 {
        let mut png = Cursor::new(Vec::new());
        image::RgbImage::from_fn(16, 16, |x, y| {
            image::Rgb([x as u8 * 9, y as u8 * 7, number])
        })
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
        append(format!("{number:03}.png"), &png.into_inner());
        for (ending, content) in beside(number) {
            append(format!("{number:03}.{ending}"), content.as_bytes());
        }
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, builder.into_inner().unwrap()).unwrap();
}

struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// Two shards in a folder.
    fn new(beside: impl Fn(u8) -> Vec<(&'static str, &'static str)>) -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        shard(&world.path("shards/a.tar"), 0, &beside);
        shard(&world.path("shards/b.tar"), 8, &beside);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Pre-trains on what `data` stands for; returns what it said.
    fn pretrain(&self, data: &str) -> String {
        let mut command = small(
            &self.path("run"),
            &["optim.epochs=1", "optim.warmup_epochs=0"],
        );
        command.arg("--data").arg(self.path(data));
        text(&succeed(command).stderr)
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = program();
        command
            .current_dir(self.folder.path())
            .env("MAE_CACHE_DIR", self.path("cache"))
            .args(words);
        command
    }
}

#[test]
fn labels_stop_only_what_learns_from_them() {
    // Half have a label: none, no label, no JSON, a name.
    let world = World::new(|number| match number % 4 {
        0 => vec![("cls", "-1")],
        1 => vec![("json", "")],
        2 => vec![("json", "{\"similarity\": NaN, \"label\": 3.0}")],
        _ => vec![("cls", "3\n"), ("txt", "a caption")],
    });
    let said = world.pretrain("shards");
    assert!(
        said.contains("left out 4 files of other kinds (.txt: 4)"),
        "{said}"
    );
    succeed(world.command(&["pack", "shards/*.tar", "packed.mae"]));
    succeed(world.command(&[
        "embed", "--from", "run", "shards", "--out", "a.npy", "--device", "cpu",
    ]));
    let csv = std::fs::read_to_string(world.path("a.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 16, "{csv}");
    let words = text(&succeed(world.command(&["inspect", "shards"])).stdout);
    assert!(words.contains("16 images in tar files"), "{words}");
    assert!(
        words.contains("mae-train eval needs all labels, pre-training none"),
        "{words}"
    );
    for data in ["shards", "packed.mae"] {
        let message = fail(world.command(&[
            "eval",
            "--from",
            "run",
            "--data",
            data,
            "--out",
            "out",
            "--set",
            "run.device=cpu",
        ]));
        let expected = match data {
            "shards" => "found \"-1\", which stands for no label; 8 of 16 images have no label",
            _ => "expected one for every image, found 8 of 16 images without one",
        };
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn class_numbers_with_gaps_take_no_room() {
    let world = World::new(|number| vec![("cls", if number % 2 == 0 { "7" } else { "30000" })]);
    world.pretrain("shards/{a,b}.tar");
    let mut command = world.command(&["eval", "--from", "run", "--data", "shards"]);
    command.args(["--protocols", "knn,linear", "--out", "out"]);
    for pair in [
        "run.device=cpu",
        "linear.epochs=2",
        "linear.warmup_epochs=0",
    ] {
        command.args(["--set", pair]);
    }
    succeed(command);
    let report = std::fs::read_to_string(world.path("out/eval.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["classes"], serde_json::json!(["7", "30000"]));
}

#[test]
fn a_run_begun_on_shards_goes_on_with_the_same() {
    let world = World::new(|_| vec![]);
    world.pretrain("shards");
    // One more shard in the folder is other images.
    shard(&world.path("shards/c.tar"), 16, |_| vec![]);
    let message = fail(world.command(&["pretrain", "--resume", "--out", "run"]));
    assert!(message.contains("added"), "{message}");
    std::fs::remove_file(world.path("shards/c.tar")).unwrap();
    succeed(world.command(&["pretrain", "--resume", "--out", "run"]));
}

#[test]
fn a_pattern_without_quotes_is_told() {
    let world = World::new(|_| Vec::new());
    let message = |before: &[&str], after: &[&str]| {
        let mut command = program();
        command.current_dir(world.path("."));
        let shards = ["shards/a.tar", "shards/b.tar"];
        command.args([before, &shards, after].concat());
        fail(command)
    };
    for (before, after) in [
        (&["pretrain", "--data"][..], &[][..]),
        (&["--data"], &[]),
        (&["inspect"], &[]),
        (&["pack"], &["out.mae"]),
    ] {
        let message = message(before, after);
        assert!(
            message.contains("put it in quotes, as 'shards/*.tar'"),
            "{message}"
        );
    }
    let other = |words: [&str; 3]| {
        let mut command = program();
        command.current_dir(world.path(".")).args(words);
        fail(command)
    };
    assert!(!other(["inspect", "a", "b"]).contains("pattern"));
    std::fs::write(world.path("1.png"), "").unwrap();
    std::fs::write(world.path("2.png"), "").unwrap();
    let message = other(["inspect", "1.png", "2.png"]);
    assert!(message.contains("read from their folder, .,"), "{message}");
}

#[test]
fn labels_that_differ_are_told_where_they_are_used() {
    let world = World::new(|number| match number {
        0 => vec![("cls", "1"), ("json", "{\"label\": 2}")],
        _ => vec![("cls", "1"), ("json", "{\"label\": 1}")],
    });
    let words = "1 image has a .cls and a .json file with different labels, ";
    assert!(!world.pretrain("shards").contains(words));
    let mut command = program();
    command.arg("inspect").arg(world.path("shards"));
    let said = text(&succeed(command).stdout);
    assert!(said.contains(words), "{said}");
    assert!(said.contains("000.png with \"1\" and \"2\""), "{said}");
}

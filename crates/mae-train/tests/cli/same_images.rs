//! A run goes on with the same images, or not at all.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{fail, numbers, program, small, succeed, text};

const QUICK: [&str; 2] = ["optim.epochs=1", "optim.warmup_epochs=0"];

struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// 24 images in two classes.
    fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        world.make("photos");
        world
    }

    fn make(&self, name: &str) {
        for i in 0..24 {
            let class = self.path(name).join(["ant", "bee"][i as usize % 2]);
            std::fs::create_dir_all(&class).unwrap();
            self.paint(&class.join(format!("{i:02}.bmp")), i);
        }
    }

    /// Of the same size in bytes, whatever the colours.
    fn paint(&self, file: &Path, colour: u8) {
        let picture = image::RgbImage::from_fn(20, 18, |x, y| {
            image::Rgb([colour * 9, (x * 7) as u8, (y * 13) as u8])
        });
        picture.save(file).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn begin(&self, data: &str, run: &str) {
        let mut command = small(&self.path(run), &QUICK);
        command.arg("--data").arg(self.path(data));
        succeed(command);
    }

    fn resume(&self, run: &str) -> Command {
        let mut command = program();
        command.args(["pretrain", "--resume", "--out"]);
        command.arg(self.path(run));
        command
    }

    /// What `change` makes it say, and that it goes on once that is undone.
    fn check(&self, run: &str, change: impl Fn(), expected: &str, undo: impl Fn()) {
        let before = numbers(&self.path(run));
        change();
        let message = fail(self.resume(run));
        for part in [
            "not those that it was begun with",
            expected,
            "put them back",
            "--set run.init=",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert_eq!(numbers(&self.path(run)), before);
        undo();
        succeed(self.resume(run));
    }
}

#[test]
fn every_change_of_a_folder_is_named() {
    let world = World::new();
    world.begin("photos", "run");
    let file = |name: &str| world.path("photos").join(name);
    let rename = |from: &str, to: &str| std::fs::rename(file(from), file(to)).unwrap();

    world.check(
        "run",
        || rename("ant/02.bmp", "ant/99.bmp"),
        "of 24, 1 renamed (ant/02.bmp to ant/99.bmp);",
        || rename("ant/99.bmp", "ant/02.bmp"),
    );
    world.check(
        "run",
        || rename("ant/02.bmp", "bee/02.bmp"),
        "1 renamed (ant/02.bmp to bee/02.bmp);",
        || rename("bee/02.bmp", "ant/02.bmp"),
    );
    world.check(
        "run",
        || world.paint(&file("ant/022.bmp"), 7),
        "1 added (ant/022.bmp);",
        || std::fs::remove_file(file("ant/022.bmp")).unwrap(),
    );
    world.check(
        "run",
        || std::fs::remove_file(file("bee/23.bmp")).unwrap(),
        "1 removed (bee/23.bmp);",
        || world.paint(&file("bee/23.bmp"), 23),
    );
    // Of the same size and name.
    world.check(
        "run",
        || world.paint(&file("bee/01.bmp"), 5),
        "1 replaced (bee/01.bmp);",
        || world.paint(&file("bee/01.bmp"), 1),
    );
    world.check(
        "run",
        || {
            rename("ant/00.bmp", "swap.tmp");
            rename("bee/01.bmp", "ant/00.bmp");
            rename("swap.tmp", "bee/01.bmp");
        },
        "2 replaced (ant/00.bmp, bee/01.bmp);",
        || {
            rename("ant/00.bmp", "swap.tmp");
            rename("bee/01.bmp", "ant/00.bmp");
            rename("swap.tmp", "bee/01.bmp");
        },
    );
    // Neither the place nor the dates matter.
    world.make("copy");
    let mut elsewhere = world.resume("run");
    elsewhere.arg("--data").arg(world.path("copy"));
    succeed(elsewhere);
    // A run of an earlier version, which has no list, goes on.
    let list = world.path("run/images.csv.gz");
    std::fs::remove_file(&list).unwrap();
    succeed(world.resume("run"));
    assert!(list.exists());
    std::fs::write(&list, b"\x1f\x8b and no more").unwrap();
    let said = text(&succeed(world.resume("run")).stderr);
    assert!(said.contains("images.csv.gz is damaged"), "{said}");
}

#[test]
fn another_packed_file_is_another_data_set() {
    let world = World::new();
    world.make("copy");
    let pack = |data: &str| {
        let mut command = program();
        command.arg("pack").arg(world.path(data));
        command.arg(world.path("photos.mae")).arg("--overwrite");
        succeed(command);
    };
    pack("photos");
    world.begin("photos.mae", "run");
    pack("copy");
    succeed(world.resume("run"));
    world.check(
        "run",
        || {
            world.paint(&world.path("photos/bee/05.bmp"), 6);
            pack("photos");
        },
        "1 replaced (bee/05.bmp);",
        || pack("copy"),
    );
}

#[test]
fn a_run_follows_images_that_moved() {
    let world = World::new();
    let (run, moved) = ("a run", "the moved");
    world.begin("photos", run);
    std::fs::rename(world.path("photos"), world.path(moved)).unwrap();
    let message = fail(world.resume(run));
    assert!(
        message.contains("say where they are with --data"),
        "{message}"
    );
    let mut follow = world.resume(run);
    follow.arg("--data").arg(world.path(moved));
    succeed(follow);
    // What is written can be typed, spaces and all.
    let config = std::fs::read_to_string(world.path(run).join("config.toml")).unwrap();
    let quoted = format!(
        "--config '{}'",
        world.path(run).join("config.toml").display()
    );
    assert!(config.contains(&quoted), "{config}");
    succeed(world.resume(run));
    let mut embed = program();
    embed
        .arg("embed")
        .arg("--from")
        .arg(world.path(run))
        .arg("--out");
    succeed({
        embed.arg(world.path("features.npy"));
        embed
    });
    // An evaluation of other images in the run's own folder leaves its list alone.
    world.make("others");
    std::fs::remove_file(world.path("others/ant/00.bmp")).unwrap();
    let mut eval = program();
    eval.args([
        "eval",
        "--protocols",
        "knn",
        "--set",
        "run.device=cpu",
        "--from",
    ]);
    eval.arg(world.path(run)).arg("--out").arg(world.path(run));
    eval.arg("--data").arg(world.path("others"));
    succeed({
        eval.env("MAE_CACHE_DIR", world.path("cache"));
        eval
    });
    succeed(world.resume(run));
}

#[test]
fn an_evaluation_follows_images_that_moved() {
    let world = World::new();
    world.begin("photos", "run");
    world.make("copy");
    let begin = |out: &str, more: &[&str]| {
        let mut command = program();
        command.arg("eval").arg("--from").arg(world.path("run"));
        command.args(["--protocols", "knn", "--set", "run.device=cpu", "--out"]);
        command.arg(world.path(out)).args(more);
        command.env("MAE_CACHE_DIR", world.path("cache"));
        command
    };
    let photos = world.path("photos").display().to_string();
    let copy = world.path("copy").display().to_string();
    succeed(begin("out", &["--data", &photos]));
    let resume = |more: &[&str]| begin("out", &[&["--resume"], more].concat());
    std::fs::rename(&photos, world.path("moved")).unwrap();
    let message = fail(resume(&[]));
    assert!(message.contains(&photos), "{message}");
    succeed(resume(&["--data", &copy]));
    // Where they are now is remembered, and what they are not is no place for them.
    succeed(resume(&[]));
    world.paint(&world.path("moved/bee/05.bmp"), 6);
    let moved = world.path("moved").display().to_string();
    let message = fail(resume(&["--data", &moved]));
    assert!(message.contains("1 replaced (bee/05.bmp);"), "{message}");
    succeed(resume(&[]));
    // Of images that are held out, too, the one that is gone is named.
    std::fs::remove_file(world.path("copy/ant/02.bmp")).unwrap();
    let message = fail(resume(&[]));
    assert!(
        message.contains("of 24, 1 removed (ant/02.bmp);"),
        "{message}"
    );
}

#[test]
fn another_order_in_shards_is_another_data_set() {
    let world = World::new();
    let write = |folder: &str, order: &[u8]| {
        std::fs::create_dir_all(world.path(folder)).unwrap();
        let file = std::fs::File::create(world.path(folder).join("a.tar")).unwrap();
        let mut tar = tar::Builder::new(file);
        for &i in order {
            let class = ["ant", "bee"][i as usize % 2];
            let image = world.path("photos").join(class).join(format!("{i:02}.bmp"));
            tar.append_path_with_name(image, format!("{i:02}.bmp"))
                .unwrap();
        }
        tar.finish().unwrap();
    };
    let order: Vec<u8> = (0..24).collect();
    write("shards", &order);
    world.begin("shards/a.tar", "run");
    let mut swapped = order.clone();
    swapped.swap(3, 4);
    world.check(
        "run",
        || write("shards", &swapped),
        "in another order from 03.bmp on"
            .replace("03", "a.tar:03")
            .as_str(),
        || write("shards", &order),
    );
    // Elsewhere, and with other dates in it.
    write("moved", &order);
    let mut elsewhere = world.resume("run");
    elsewhere.arg("--data").arg(world.path("moved/a.tar"));
    succeed(elsewhere);
}

#[test]
fn an_evaluation_goes_on_with_the_same_images_to_judge_by() {
    let world = World::new();
    world.make("val");
    world.begin("photos", "run");
    let eval = || {
        let mut command = program();
        command
            .args(["eval", "--protocols", "knn", "--resume", "--from"])
            .arg(world.path("run"))
            .arg("--data")
            .arg(world.path("photos"))
            .arg("--val")
            .arg(world.path("val"))
            .arg("--out")
            .arg(world.path("judged"))
            .args(["--set", "run.device=cpu", "--set", "run.workers=1"])
            .env("MAE_CACHE_DIR", world.path("cache"));
        command
    };
    succeed(eval());
    succeed(eval());
    world.paint(&world.path("val/ant/00.bmp"), 20);
    let message = fail(eval());
    for part in [
        "val-images.csv.gz: the images are not those",
        "1 replaced (ant/00.bmp)",
        "another --out",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_tokenizer_goes_on_with_the_same_images() {
    let world = World::new();
    let mut command = program();
    command
        .args(["tokenizer", "--resume", "--out"])
        .arg(world.path("run"));
    command.arg("--data").arg(world.path("photos"));
    for pair in QUICK.iter().chain(&[
        "model.image_size=16",
        "model.patch_size=4",
        "model.vocabulary=32",
        "model.width=8",
        "optim.batch_size=8",
        "run.device=cpu",
        "run.workers=1",
    ]) {
        command.args(["--set", pair]);
    }
    succeed(command);
    let file = |name: &str| world.path("photos").join(name);
    std::fs::rename(file("bee/03.bmp"), file("bee/30.bmp")).unwrap();
    let mut command = program();
    command
        .args(["tokenizer", "--resume", "--out"])
        .arg(world.path("run"));
    let message = fail(command);
    assert!(
        message.contains("1 renamed (bee/03.bmp to bee/30.bmp)"),
        "{message}"
    );
}

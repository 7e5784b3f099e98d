//! Evaluation: results, caches, interruptions, mistakes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mae_report::{Record, read_metrics};
use mae_train::eval::report::{Report, Row};

use crate::program::{
    fail, latest_step, numbers, program, small, succeed, text, wait_for_checkpoint,
};

/// A pre-trained small model in a folder of its own, and a cache of its own.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        succeed(small(
            &world.path("run"),
            &["optim.epochs=1", "optim.warmup_epochs=0"],
        ));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `eval` into `out` of the pre-trained model on its own scenes.
    fn eval(&self, out: &str, protocols: &str) -> Command {
        let mut command = program();
        command
            .arg("eval")
            .arg("--from")
            .arg(self.path("run"))
            .args(["--protocols", protocols, "--out"])
            .arg(self.path(out))
            .env("MAE_CACHE_DIR", self.path("cache"));
        let keys = [
            "run.device=cpu",
            "run.workers=1",
            "run.log_every=1",
            "finetune.epochs=3",
            "finetune.batch_size=8",
            "linear.epochs=5",
            "linear.warmup_epochs=1",
            "linear.batch_size=32",
            "attentive.epochs=2",
            "attentive.warmup_epochs=0",
        ];
        for pair in keys {
            command.args(["--set", pair]);
        }
        command
    }

    fn report(&self, out: &str) -> Report {
        let text = std::fs::read_to_string(self.path(out).join("eval.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

fn accuracies(folder: &Path) -> usize {
    let records = read_metrics(&folder.join("metrics.jsonl")).unwrap();
    let is_accuracy = |record: &&Record| matches!(record, Record::Accuracy { .. });
    records.iter().filter(is_accuracy).count()
}

/// Three images of each class, in folders.
fn images(classes: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for class in classes {
        std::fs::create_dir_all(folder.path().join(class)).unwrap();
        for i in 0..3u8 {
            let picture = image::RgbImage::from_pixel(20, 20, image::Rgb([40 * i, 0, 0]));
            picture
                .save(folder.path().join(class).join(format!("{i}.png")))
                .unwrap();
        }
    }
    folder
}

/// How many images of a class were judged.
fn of_class(row: &Row, class: u32) -> u32 {
    (row.confusion.cells())
        .filter(|&(truth, ..)| truth == class)
        .map(|(.., count)| count)
        .sum()
}

#[test]
fn all_protocols_are_in_one_table_and_a_second_time_gives_the_same() {
    let world = World::new();
    let mut command = world.eval("a", "knn,linear,attentive,partial:0.5,finetune");
    command.arg("--baseline");
    let printed = text(&succeed(command).stdout);
    for words in [
        "140 training images, 20 validation images, 10 classes",
        "knn k=200",
        "partial:0.5",
    ] {
        assert!(printed.contains(words), "{words} in {printed}");
    }
    assert!(printed.contains("pre-trained: top-1 %") && printed.contains("random: top-1 %"));

    let first = world.report("a");
    let names: Vec<&str> = first.rows.iter().map(|row| row.protocol.as_str()).collect();
    let once = [
        "knn k=20",
        "knn k=200",
        "linear",
        "attentive",
        "partial:0.5",
        "finetune",
    ];
    assert_eq!(names, [once, once].concat());
    for row in &first.rows {
        assert_eq!(row.confusion.images(), 20, "{}", row.protocol);
        let hits: u32 = (0..10).map(|class| row.confusion.get(class, class)).sum();
        assert_eq!(row.top1, f64::from(hits) / 20.0, "{}", row.protocol);
        assert!(row.top5 >= row.top1);
    }
    for file in [
        "knn-pre-trained/confusion-k20.svg",
        "linear-random/loss.svg",
        "finetune-pre-trained/confusion.svg",
        "finetune-pre-trained/best.safetensors",
        "partial-0.5-random/loss.svg",
        "attentive-random/loss.svg",
        "attentive-pre-trained/confusion.svg",
    ] {
        assert!(world.path("a").join(file).exists(), "{file}");
    }
    assert_eq!(accuracies(&world.path("a/finetune-pre-trained")), 3);
    assert_eq!(accuracies(&world.path("a/linear-pre-trained")), 5);
    assert_eq!(accuracies(&world.path("a/attentive-pre-trained")), 2);
    // Images of 16 pixels eight times as large: 12 of them, each with 5 neighbours, framed light or dark.
    let picture = image::open(world.path("a/knn-pre-trained/neighbours.png")).unwrap();
    let picture = picture.to_rgb8();
    assert!(printed.contains("nearest neighbours: ") && printed.contains("neighbours.png"));
    let cell = 128 + 10 + 6;
    assert_eq!(picture.width(), 6 * cell + 12);
    let of_colour = |colour: [u8; 3]| picture.pixels().filter(|pixel| pixel.0 == colour).count();
    let frame = 138 * 138 - 128 * 128;
    let (right, wrong) = (of_colour([125, 211, 168]), of_colour([140, 25, 50]));
    assert!(
        right + wrong >= 12 * 5 * frame && wrong > frame,
        "{right} {wrong}"
    );

    // Features of two sets of images by two encoders, used again.
    let cached = || {
        std::fs::read_dir(world.path("cache/features"))
            .unwrap()
            .count()
    };
    assert_eq!(cached(), 4);
    succeed(world.eval("b", "linear,knn"));
    assert_eq!(cached(), 4);
    let again = world.report("b");
    let score = |report: &Report, name: &str| {
        let row = report.rows.iter().find(|row| row.protocol == name).unwrap();
        (row.top1, row.confusion.clone())
    };
    for name in ["knn k=20", "knn k=200", "linear"] {
        assert_eq!(score(&first, name), score(&again, name), "{name}");
    }

    // A random start alone is the baseline.
    let mut command = world.eval("c", "linear");
    command.args(["--init", "random"]);
    succeed(command);
    let random = &first.rows[once.len() + 2];
    assert_eq!(world.report("c").rows[0].confusion, random.confusion);

    // Crops through the encoder are other features.
    let mut command = world.eval("d", "linear");
    command.arg("--augment");
    succeed(command);
    assert_ne!(
        numbers(&world.path("d/linear-pre-trained")),
        numbers(&world.path("a/linear-pre-trained"))
    );
}

#[test]
fn killed_fine_tuning_goes_on_as_if_it_had_not_been() {
    let world = World::new();
    // Everything that is random or kept between steps is on.
    let start = |out: &str| {
        let mut command = world.eval(out, "finetune");
        for pair in [
            "finetune.epochs=8",
            "finetune.mixup=0.8",
            "finetune.cutmix=1.0",
            "finetune.rand_augment=9",
            "finetune.erase=0.25",
            "finetune.drop_path=0.1",
            "finetune.ema=0.9",
            "finetune.accumulate=2",
            "run.checkpoint_minutes=0.0005",
        ] {
            command.args(["--set", pair]);
        }
        command.arg("--resume");
        command
    };
    succeed(start("whole"));
    for (signal, after) in [("-KILL", 0), ("-INT", 20)] {
        // A checkpoint of this process, so that it has begun to catch signals.
        let folder = world.path("broken/finetune-pre-trained");
        let after = latest_step(&folder).max(after);
        let mut child = start("broken")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_checkpoint(&mut child, &folder, after);
        let status = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
        child.wait().unwrap();
    }
    succeed(start("broken"));
    let folder = |out: &str| world.path(out).join("finetune-pre-trained");
    assert_eq!(numbers(&folder("whole")), numbers(&folder("broken")));
    assert_eq!(
        world.report("whole").rows[0].confusion,
        world.report("broken").rows[0].confusion
    );
}

#[test]
fn a_signal_stops_what_is_not_training_too() {
    let world = World::new();
    let mut command = world.eval("out", "knn,linear");
    command.args(["--set", "linear.epochs=1000000"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let metrics = world.path("out/linear-pre-trained/metrics.jsonl");
    while !std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut interrupt = Command::new("kill");
    succeed({
        interrupt.args(["-INT", &child.id().to_string()]);
        interrupt
    });
    let stopped = child.wait_with_output().unwrap();
    let (out, said) = (text(&stopped.stdout), text(&stopped.stderr));
    assert_eq!(stopped.status.code(), Some(130), "{said}");
    let how = "stopped; go on with: mae-train eval --resume --out";
    assert!(out.contains(how), "{out}");
    assert_eq!(world.report("out").rows.len(), 2, "kNN is finished");
}

/// `eval --resume --out OUT` and nothing else, but for where the cache is.
fn resume(world: &World, out: &str, more: &[&str]) -> Command {
    let mut command = program();
    command
        .args(["eval", "--resume", "--out"])
        .arg(world.path(out));
    command.args(more).env("MAE_CACHE_DIR", world.path("cache"));
    command
}

#[test]
fn an_evaluation_goes_on_without_being_told_again() {
    let world = World::new();
    let start = |out: &str| {
        let mut command = world.eval(out, "knn,finetune,partial:0.5,linear");
        for pair in ["finetune.epochs=8", "run.checkpoint_minutes=0.0005"] {
            command.args(["--set", pair]);
        }
        command.arg("--baseline");
        command
    };
    let printed = text(&succeed(start("whole")).stdout);
    let rows = |out: &str| {
        let rows = world.report(out).rows.into_iter();
        rows.map(|row| (row.protocol, row.start, row.top1, row.top5, row.confusion))
            .collect::<Vec<_>>()
    };

    // Killed in the first fine-tuning, then in the second one.
    let kill = |mut command: Command, folder: &Path| {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        wait_for_checkpoint(&mut child, folder, 0);
        child.kill().unwrap();
        child.wait().unwrap();
    };
    kill(start("broken"), &world.path("broken/finetune-pre-trained"));
    assert_eq!(rows("broken").len(), 2, "kNN alone is finished");
    let folder = world.path("broken/partial-0.5-pre-trained");
    kill(resume(&world, "broken", &[]), &folder);
    let mut inspect = program();
    inspect.arg("inspect").arg(&folder);
    let said = text(&succeed(inspect).stdout);
    let how = format!(
        "mae-train eval --resume --out {}",
        world.path("broken").display()
    );
    assert!(said.contains(&how), "{said}");
    let finished = world.report("broken").rows;
    succeed(resume(&world, "broken", &[]));
    assert_eq!(rows("broken"), rows("whole"));
    for name in ["finetune-pre-trained", "partial-0.5-pre-trained"] {
        let folder = |out: &str| world.path(out).join(name);
        assert_eq!(numbers(&folder("broken")), numbers(&folder("whole")));
    }

    // What is finished is not done again: its times are the same.
    let after = world.report("broken");
    assert_eq!(after.rows[..finished.len()], finished);
    let again = text(&succeed(resume(&world, "broken", &[])).stdout);
    assert_eq!(world.report("broken"), after);
    let header = |printed: &str| printed.lines().next().unwrap().to_owned();
    assert_eq!(header(&again), header(&printed));
}

#[test]
fn an_evaluation_goes_on_as_it_began_or_not_at_all() {
    let world = World::new();
    succeed(world.eval("out", "knn"));
    let out = world.path("out").display().to_string();
    for (more, expected) in [
        (
            ["--set", "knn.k=[3]"],
            "k = [3] (the evaluation has k = [20, 200])",
        ),
        (["--recipe", "finetune_cifar10"], "epochs = "),
        (["--set", "run.precision=bf16"], "precision = \"bf16\""),
    ] {
        let message = fail(resume(&world, "out", &more));
        assert!(message.contains(expected), "{message}");
        assert!(
            message.contains(&format!("{out} cannot go on")),
            "{message}"
        );
    }
    let message = fail(resume(&world, "new", &[]));
    assert!(message.contains("--from is missing"), "{message}");
    let message = fail({
        let mut command = program();
        command.arg("eval");
        command
    });
    assert!(message.contains("--from"), "{message}");

    // The same under another name, another number of threads, and one more protocol and start.
    let folder = world.path("run/../run").display().to_string();
    let more = ["--from", &folder, "--set", "run.workers=2"];
    succeed(resume(
        &world,
        "out",
        &[&more[..], &["--protocols", "linear", "--baseline"]].concat(),
    ));
    assert_eq!(world.report("out").rows.len(), 4);
    succeed(resume(&world, "out", &[]));
    let names: Vec<_> = world
        .report("out")
        .rows
        .into_iter()
        .map(|row| row.protocol + " " + &row.start)
        .collect();
    assert_eq!(names.len(), 6, "kNN of the random encoder, too: {names:?}");

    // On a device that is not here, with fine-tuning that has begun.
    let settings = world.path("out/eval.toml");
    let toml = std::fs::read_to_string(&settings).unwrap();
    let elsewhere = toml.replace("device = \"cpu\"", "device = \"cuda:250\"");
    assert_ne!(toml, elsewhere);
    std::fs::write(&settings, elsewhere).unwrap();
    let message = fail(resume(&world, "out", &[]));
    assert!(
        message.contains("go on with --set run.device="),
        "{message}"
    );
    succeed(resume(&world, "out", &["--set", "run.device=cpu"]));

    // Nothing has come of it yet: whatever is asked for begins.
    std::fs::remove_file(world.path("out/eval.json")).unwrap();
    let mut inspect = program();
    inspect.arg("inspect").arg(world.path("out"));
    assert!(fail(inspect).contains("no results yet"));
    succeed(world.eval("out", "knn"));
}

#[test]
fn pre_training_measures_what_it_learns() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    succeed(small(&run, &["run.eval_every=2"]));
    let records = read_metrics(&run.join("metrics.jsonl")).unwrap();
    let measured: Vec<(u64, &str)> = records
        .iter()
        .filter_map(|record| match record {
            Record::Accuracy {
                epoch, protocol, ..
            } => Some((*epoch, protocol.as_str())),
            _ => None,
        })
        .collect();
    let names = ["knn k=20", "knn k=200", "linear"];
    assert_eq!(
        measured,
        [names.map(|name| (2, name)), names.map(|name| (4, name))].concat()
    );
}

#[test]
fn of_many_classes_the_most_confused_are_drawn_and_no_square_is_kept() {
    let world = World::new();
    let photos = world.path("photos");
    for class in 0..150u8 {
        let folder = photos.join(format!("species {class}"));
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..2 {
            let picture = image::RgbImage::from_pixel(16, 16, image::Rgb([class, 100 * i, 0]));
            picture.save(folder.join(format!("{i}.png"))).unwrap();
        }
    }
    let mut command = world.eval("out", "knn,linear,finetune");
    command.arg("--data").arg(&photos);
    succeed(command);
    let report = world.report("out");
    assert_eq!(report.classes.len(), 150);
    for row in &report.rows {
        assert_eq!(row.confusion.images(), report.val_images as u64);
        assert!(
            row.confusion.cells().count() <= report.val_images,
            "{row:?}"
        );
    }
    for picture in [
        "knn-pre-trained/confusion-k20.svg",
        "finetune-pre-trained/confusion.svg",
    ] {
        let svg = std::fs::read_to_string(world.path("out").join(picture)).unwrap();
        assert!(
            svg.contains("40 of 150 classes: those most often"),
            "{picture}"
        );
    }
}

#[test]
fn features_that_cannot_be_kept_are_used() {
    let world = World::new();
    let judge = |out: &str, cache: Option<&Path>| {
        let mut command = world.eval(out, "knn,linear");
        command.arg("--baseline").env_remove("MAE_CACHE_DIR");
        for home in ["HOME", "XDG_CACHE_HOME"] {
            command.env_remove(home);
        }
        if let Some(cache) = cache {
            command.env("MAE_CACHE_DIR", cache);
        }
        let said = text(&succeed(command).stderr);
        let rows = world.report(out).rows.into_iter();
        let scores: Vec<_> = rows.map(|row| (row.top1, row.confusion)).collect();
        (said, scores)
    };
    let (said, scores) = judge("kept", Some(&world.path("cache")));
    assert!(!said.contains("not kept"), "{said}");

    let file = world.path("file");
    std::fs::write(&file, "no folder").unwrap();
    // A folder where a file is to be: that is found when all is computed.
    let taken = world.path("taken");
    for entry in std::fs::read_dir(world.path("cache/features")).unwrap() {
        let name = entry.unwrap().file_name();
        let name = Path::new(&name).with_extension("safetensors.partial");
        std::fs::create_dir_all(taken.join("features").join(name)).unwrap();
    }
    for (out, cache) in [("a", &file), ("b", &taken)] {
        let (said, found) = judge(out, Some(cache));
        assert_eq!(said.matches("not kept").count(), 1, "{said}");
        assert!(said.contains(&cache.display().to_string()), "{said}");
        assert_eq!(found, scores);
    }
    let (said, found) = judge("c", None);
    assert!(said.contains("set MAE_CACHE_DIR"), "{said}");
    assert_eq!(found, scores);
}

#[test]
fn labels_go_by_name_and_missing_classes_are_told() {
    let world = World::new();
    let folder = images(&[
        "train/ant",
        "train/bee",
        "train/cat",
        "val/cat",
        "more/cat",
        "more/dog",
    ]);
    let path = |name: &str| folder.path().join(name);
    let eval = |out: &str, data: &str, val: &str| {
        let mut command = world.eval(out, "knn");
        command.arg("--data").arg(path(data));
        command.arg("--val").arg(path(val));
        command
    };
    let said = text(&succeed(eval("a", "train", "val")).stderr);
    assert!(said.contains("of 1 of the 3 classes"), "{said}");
    assert!(said.contains("none is of ant, bee"), "{said}");
    let report = world.report("a");
    assert_eq!(report.classes, ["ant", "bee", "cat"]);
    // All images count as cats, which come last.
    for row in &report.rows {
        assert_eq!(of_class(row, 2), 3, "{row:?}");
    }
    assert!(fail(eval("b", "train", "more")).contains("only in validation: dog"));

    // Features that were kept are those of images with these labels: of other classes, they are others.
    for class in ["ape", "bat"] {
        std::fs::create_dir(path("train").join(class)).unwrap();
        for i in 0..3u8 {
            let picture = image::RgbImage::from_pixel(20, 20, image::Rgb([0, 0, 80 * i]));
            picture
                .save(path("train").join(class).join(format!("{i}.png")))
                .unwrap();
        }
    }
    succeed(eval("c", "train", "val"));
    for row in &world.report("c").rows {
        assert_eq!(of_class(row, 4), 3, "{row:?}");
    }
}

#[test]
fn broken_images_are_told_beside_the_results_each_time() {
    let world = World::new();
    let (train, val) = (images(&["ant", "bee"]), images(&["ant", "bee"]));
    std::fs::write(val.path().join("ant/0.png"), "no image").unwrap();
    for out in ["a", "b"] {
        let mut command = world.eval(out, "knn");
        command.arg("--data").arg(train.path());
        command.arg("--val").arg(val.path());
        command.args(["--set", "data.max_broken_share=0.5"]);
        let said = text(&succeed(command).stdout);
        let told = "1 validation image is broken and was not judged";
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn parts_of_a_data_set_are_no_classes() {
    let world = World::new();
    let folder = images(&["train/ant", "train/bee", "val/ant", "val/bee"]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let meant = format!("give --data {} --val {}", path("train"), path("val"));
    let check = |arguments: &[&str], expected: &str| {
        let mut command = world.eval("x", "knn");
        command.args(arguments);
        let message = fail(command);
        assert!(
            message.contains(expected),
            "expected {expected:?} in: {message}"
        );
    };
    let root = folder.path().display().to_string();
    check(&["--data", &root], &meant);
    check(&["--data", &root, "--val", &path("val")], &meant);
    let judged = ["--data", &path("train"), "--val", &root];
    check(&judged, &format!("give --val {}", path("val")));
    let mut command = world.eval("y", "knn");
    command.args(["--data", &path("train"), "--val", &path("val")]);
    succeed(command);

    // Packed, they are the same two.
    let packed = world.path("all.mae");
    let mut command = program();
    command.arg("pack").arg(&root).arg(&packed);
    succeed(command);
    check(
        &["--data", &packed.display().to_string()],
        "the classes are a data set's parts: train, val; give each part by itself",
    );

    let mut command = program();
    command.arg("inspect").arg(&root);
    let words = text(&succeed(command).stdout);
    assert!(words.contains(&meant), "{words}");
    // Pre-training needs no classes; what measures meanwhile does.
    let pretrain = |out: &str, more: &[&str]| {
        let keys = [&["optim.epochs=1", "optim.warmup_epochs=0"], more].concat();
        let mut command = small(&world.path(out), &keys);
        command.args(["--data", &root]);
        command
    };
    let said = text(&succeed(pretrain("all", &[])).stderr);
    assert!(
        said.contains("trains on the images of all of them"),
        "{said}"
    );
    let message = fail(pretrain("some", &["run.eval_every=1"]));
    assert!(
        message.contains("`run.eval_every` needs one sub-folder a class"),
        "{message}"
    );
}

#[test]
fn mistakes_are_explained() {
    let world = World::new();
    let (flat, cats, dogs) = (
        images(&["."]),
        images(&["cat", "cow"]),
        images(&["cow", "dog"]),
    );
    let check = |arguments: &[&str], expected: &[&str]| {
        let mut command = world.eval("x", "knn");
        command.args(arguments);
        let message = fail(command);
        for part in expected {
            assert!(message.contains(part), "expected {part:?} in: {message}");
        }
    };
    let path = |folder: &tempfile::TempDir| folder.path().display().to_string();
    check(&["--data", &path(&flat)], &["sub-folder"]);
    let both = ["--data", &path(&cats), "--val", &path(&dogs)];
    check(&both, &["only in training: cat", "only in validation: dog"]);
    check(
        &["--protocols", "nearest"],
        &["no protocol", "knn, linear, attentive, finetune"],
    );
    check(&["--protocols", "partial:x"], &["partial:0.5"]);
    check(
        &["--protocols", "partial:7"],
        &["`partial` is 7", "depth of 2"],
    );
    check(
        &["--set", "linear.epoch=3"],
        &["did you mean `linear.epochs`?"],
    );
    check(
        &["--set", "finetune.drop_path=2"],
        &["`finetune.drop_path` is 2"],
    );
    check(&["--set", "data.image_size=17"], &["17"]);
    check(&["--set", "knn.k=[]"], &["`knn.k`"]);
    check(&["--recipe", "finetune"], &["finetune_cifar10"]);
    for (from, expected) in [
        ("absent", "there is no such file"),
        (&path(&cats), "no checkpoints"),
    ] {
        let mut command = program();
        command.args(["eval", "--from", from]);
        let message = fail(command);
        assert!(message.contains(expected), "{message}");
    }

    succeed(world.eval("done", "knn"));
    assert!(fail(world.eval("done", "knn")).contains("holds an evaluation already"));

    // Going on adds rows; other settings would make them incomparable.
    let mut command = world.eval("done", "linear");
    command.arg("--resume");
    succeed(command);
    assert_eq!(world.report("done").rows.len(), 3);
    let mut command = world.eval("done", "knn");
    command.args(["--resume", "--set", "seed=5"]);
    assert!(fail(command).contains("seed = 5 (the evaluation has seed = 0)"));
}

//! The commands in the README and in the book: all of them parse, and those marked with `<!-- run -->` run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{GrayImage, Luma, Rgb, RgbImage};

use self::blocks::{commands, pages};
use crate::program::program;

#[path = "../../../../xtask/src/docs/blocks.rs"]
mod blocks;

/// What makes a command quick, by its name; the empty one stands for pre-training without its name.
const QUICK: &[(&[&str], &[&str])] = &[
    (&["", "pretrain", "doctor"], PRETRAIN),
    (
        &["eval"],
        &[
            "linear.epochs=1",
            "linear.warmup_epochs=0",
            "finetune.epochs=1",
            "finetune.warmup_epochs=0",
            "finetune.batch_size=8",
        ],
    ),
    (
        &["tokenizer"],
        &[
            "model.width=16",
            "optim.epochs=1",
            "optim.warmup_epochs=0",
            "optim.batch_size=8",
        ],
    ),
];

const PRETRAIN: &[&str] = &[
    "model.image_size=16",
    "model.patch_size=4",
    "model.embed_dim=32",
    "model.depth=4",
    "model.num_heads=2",
    "model.decoder_embed_dim=16",
    "model.decoder_depth=1",
    "model.decoder_num_heads=2",
    "data.samples=80",
    "optim.epochs=1",
    "optim.warmup_epochs=0",
    "optim.batch_size=8",
    "run.device=cpu",
    "run.workers=1",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The arguments of `mae-train`, if these words run it: itself, or by a launcher or a command of the workspace.
fn arguments(words: &[String]) -> Option<&[String]> {
    let words_of = |word: &str| words.iter().position(|other| other == word);
    let after = |place: usize| Some(&words[place + 1..]);
    match words {
        [cargo, xtask, train, rest @ ..]
            if [cargo, xtask, train] == ["cargo", "xtask", "train"] =>
        {
            Some(rest)
        }
        [cargo, xtask, launch, ..] if [cargo, xtask, launch] == ["cargo", "xtask", "launch"] => {
            after(words_of("--")?)
        }
        [cargo, ..] if cargo == "cargo" => None,
        _ => after(words_of("mae-train")?),
    }
}

#[test]
fn every_command_of_the_documentation_parses() {
    let mut parsed = 0;
    for command in pages(&root()).iter().flat_map(|page| commands(page)) {
        let Some(arguments) = arguments(&command.words) else {
            continue;
        };
        // What comes before it is parsed first: it lets nothing pass that is unknown.
        let help = (arguments.first().is_none_or(|name| name != "help")).then_some("--help");
        let output = program().args(arguments).args(help).output().unwrap();
        assert!(
            output.status.success(),
            "{}: {}\n{}",
            command.place,
            command.words.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        parsed += 1;
    }
    assert!(parsed > 50, "only {parsed} commands were found");
}

/// What the documentation speaks of: labelled photos, two files, and two runs.
fn make_world(folder: &Path) {
    for (split, class) in [("train", 0), ("train", 1), ("test", 0), ("test", 1)] {
        let folder = folder
            .join("photos")
            .join(split)
            .join(["cat", "dog"][class]);
        fs::create_dir_all(&folder).unwrap();
        for number in 0..12 {
            let (width, height) = (24, 20);
            let photo = RgbImage::from_fn(width, height, |x, y| {
                let along = [x, y][class];
                Rgb([(along * 10) as u8, (number * 20) as u8, (x * y) as u8])
            });
            photo.save(folder.join(format!("{number}.png"))).unwrap();
        }
    }
    fs::copy(folder.join("photos/test/cat/0.png"), folder.join("cat.png")).unwrap();
    let cat = image::open(folder.join("cat.png")).unwrap();
    cat.save(folder.join("cat.jpg")).unwrap();
    let mask = GrayImage::from_fn(16, 16, |x, _| Luma([if x < 8 { 255 } else { 0 }]));
    mask.save(folder.join("mask.png")).unwrap();
    for (run, more) in [("quickstart", &[][..]), ("photos", &["--data", "photos"])] {
        let mut command = program();
        command
            .args(["pretrain", "--out", &format!("runs/{run}")])
            .args(more);
        for key in PRETRAIN {
            command.args(["--set", key]);
        }
        succeed_in(folder, &mut command);
    }
}

fn succeed_in(folder: &Path, command: &mut Command) -> Vec<u8> {
    let features = folder.join("cache");
    command.current_dir(folder).env("MAE_CACHE_DIR", features);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}");
    output.stdout
}

/// What has to be added to make it quick; keys that it sets itself stay.
fn quick(arguments: &[String]) -> impl Iterator<Item = [&'static str; 2]> {
    let name = arguments.first().map_or("", String::as_str);
    let name = if name.starts_with('-') { "" } else { name };
    let of_name = QUICK.iter().find(|(names, _)| names.contains(&name));
    let keys = of_name.map_or(&[][..], |(_, keys)| keys);
    let is_set = |key: &str| {
        let name = key.split('=').next();
        arguments.iter().any(|word| word.split('=').next() == name)
    };
    let keys = keys.iter().filter(|key| !is_set(key));
    keys.map(|key| ["--set", *key])
        .collect::<Vec<_>>()
        .into_iter()
}

fn check_page(page: &Path) {
    let marked: Vec<_> = commands(page)
        .into_iter()
        .filter(|command| command.is_run)
        .collect();
    if marked.is_empty() {
        return;
    }
    let world = tempfile::tempdir().unwrap();
    make_world(world.path());
    for command in marked {
        let arguments = arguments(&command.words)
            .unwrap_or_else(|| panic!("{}: no command of mae-train", command.place));
        // What it makes may be there as another page left it.
        if let Some(out) = arguments.iter().position(|word| word == "--out") {
            let _ = fs::remove_dir_all(world.path().join(&arguments[out + 1]));
        }
        println!("{}: {}", command.place, command.words.join(" "));
        let mut quick_one = program();
        quick_one.args(arguments).args(quick(arguments).flatten());
        let said = succeed_in(world.path(), &mut quick_one);
        if let Some(file) = command.output {
            fs::write(world.path().join(file), said).unwrap();
        }
    }
}

#[test]
fn the_commands_of_the_documentation_that_are_marked_run() {
    for page in pages(&root()) {
        check_page(&page);
    }
}

//! Pictures of what a model makes of masked images.

use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Rgb, RgbImage};
use mae_model::classifier::ClassifierConfig;
use mae_model::tensor_file::{read_tensors, write_tensors};
use mae_model::{MaskedAutoencoderViT, VitClassifier, patchify};
use tch::{Device, Tensor};

use crate::program::{checkpoints, fail, program, small, succeed, text};

const QUICK: &[&str] = &["optim.epochs=1", "optim.warmup_epochs=0", "data.samples=32"];
const NORMALISED: &str = "model.norm_pix_loss=true";
const SIDE: u32 = 16;
const PATCH: u32 = 4;
const PATCHES: u32 = 16;
/// Images are shown eight times as large, with a gap after each.
const SCALE: u32 = 8;
const TILE: u32 = SIDE * SCALE + 4;
const LINE: u32 = 17;
const GREY: Rgb<u8> = Rgb([127; 3]);

/// A pre-trained small model, and images of its size that no other resembles.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        succeed(small(&folder.path().join("run"), &[QUICK, more].concat()));
        std::fs::create_dir(folder.path().join("images")).unwrap();
        for (seed, name) in [(1, "a.png"), (2, "b.png"), (3, "c.png")] {
            let path = folder.path().join("images").join(name);
            drawn(seed).save(path).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn model(&self) -> PathBuf {
        let latest = checkpoints(&self.path("run")).pop().unwrap();
        latest.join("model.safetensors")
    }

    /// `reconstruct` in the folder, which paths in `more` are relative to.
    fn reconstruct(&self, more: &[&str]) -> Command {
        let mut command = program();
        command
            .current_dir(self.folder.path())
            .args(["reconstruct", "--from", "run"])
            .args(more);
        command
    }

    fn picture(&self, name: &str) -> RgbImage {
        image::open(self.path(name)).unwrap().to_rgb8()
    }
}

fn drawn(seed: u32) -> RgbImage {
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let value = |channel: u32| ((x * 13 + y * 7 * seed + channel * 50 + seed * 31) % 256) as u8;
        Rgb([value(0), value(1), value(2)])
    })
}

/// The image whose top left corner is at `(x, y)` of a picture, at its own size.
fn tile(picture: &RgbImage, (x, y): (u32, u32)) -> RgbImage {
    let tile = RgbImage::from_fn(SIDE, SIDE, |i, j| {
        *picture.get_pixel(x + i * SCALE, y + j * SCALE)
    });
    let enlarged = image::imageops::crop_imm(picture, x, y, SIDE * SCALE, SIDE * SCALE).to_image();
    for (i, j, pixel) in enlarged.enumerate_pixels() {
        assert_eq!(
            pixel,
            tile.get_pixel(i / SCALE, j / SCALE),
            "pixels stay pixels"
        );
    }
    tile
}

fn patch(image: &RgbImage, number: u32) -> RgbImage {
    let columns = SIDE / PATCH;
    let (x, y) = (number % columns * PATCH, number / columns * PATCH);
    image::imageops::crop_imm(image, x, y, PATCH, PATCH).to_image()
}

/// The patches of four tiles of a row that are hidden; checks that the tiles are what they are called.
fn check_row(picture: &RgbImage, (x, y): (u32, u32), original: &RgbImage) -> Vec<u32> {
    let at = |version: u32| tile(picture, (x + version * TILE, y));
    let (first, masked, prediction, beside) = (at(0), at(1), at(2), at(3));
    assert_eq!(&first, original);
    let mut hidden = Vec::new();
    for number in 0..PATCHES {
        if patch(&masked, number).pixels().all(|pixel| *pixel == GREY) {
            hidden.push(number);
            assert_eq!(patch(&beside, number), patch(&prediction, number));
            assert_ne!(patch(&beside, number), patch(original, number));
        } else {
            assert_eq!(patch(&masked, number), patch(original, number));
            assert_eq!(patch(&beside, number), patch(original, number));
            assert_ne!(patch(&prediction, number), patch(original, number));
        }
    }
    hidden
}

#[test]
fn visible_patches_stay_and_hidden_ones_are_predicted() {
    let world = World::new(&[NORMALISED, "mask.sampler=block", "mask.ratio=0.5"]);
    let more = ["images", "--statistics", "visible", "--out", "a.png"];
    let said = text(&succeed(world.reconstruct(&more)).stdout);
    // What was hidden in training, unless something else is asked for.
    assert!(
        said.contains("8 of 16 patches hidden, by sampler block;"),
        "{said}"
    );
    assert!(said.contains("mean squared error of hidden, normalised patches"));
    assert!(said.ends_with("picture: a.png\n"), "{said}");

    // Two images a row, a line of words and one of titles above, a line with the name below each.
    let picture = world.picture("a.png");
    let width = 4 * TILE + 8;
    let height = TILE + LINE;
    assert_eq!(picture.dimensions(), (2 * width, 2 * LINE + 2 * height + 4));
    let places = [(0, 0), (1, 0), (0, 1)].map(|(x, y)| (4 + x * width, 2 * LINE + y * height));
    let hidden: Vec<Vec<u32>> = (places.into_iter().zip(1..))
        .map(|(place, seed)| check_row(&picture, place, &drawn(seed)))
        .collect();
    assert!(hidden.iter().all(|hidden| hidden.len() == 8), "{hidden:?}");
    assert_ne!(hidden[0], hidden[1], "each image has a mask of its own");

    // A model outside of a run has no habits.
    std::fs::copy(world.model(), world.path("model.safetensors")).unwrap();
    let mut command = program();
    command.current_dir(world.folder.path());
    command.args(["reconstruct", "--from", "model.safetensors", "images/b.png"]);
    let said = text(&succeed(command).stdout);
    assert!(
        said.contains("12 of 16 patches hidden, by sampler random;"),
        "{said}"
    );
    assert!(said.contains("  images/b.png\n") && !said.contains("mean of"));
}

#[test]
fn the_seed_decides_the_picture() {
    let world = World::new(&[]);
    let draw = |seed: &str, out: &str| {
        let more = ["images", "--images", "2", "--seed", seed, "--out", out];
        let said = text(&succeed(world.reconstruct(&more)).stdout);
        assert!(said.contains("mean of 2 images"), "{said}");
        std::fs::read(world.path(out)).unwrap()
    };
    let first = draw("5", "a.png");
    assert!(first == draw("5", "b.png"));
    assert!(first != draw("6", "c.png"));

    // The run's own images, and names that are free.
    for name in ["reconstruct.png", "reconstruct-2.png"] {
        let said = text(&succeed(world.reconstruct(&["--images", "1"])).stdout);
        assert!(said.contains("synthetic:"), "{said}");
        assert!(said.ends_with(&format!("picture: {name}\n")), "{said}");
        assert!(world.path(name).exists());
    }
}

#[test]
fn a_drawn_mask_hides_what_is_white() {
    let world = World::new(&[]);
    let mask = |colours: [u8; 4], name: &str| {
        let drawing =
            image::GrayImage::from_fn(8, 6, |x, _| image::Luma([colours[x as usize / 2]]));
        drawing.save(world.path(name)).unwrap();
    };
    mask([255, 0, 200, 40], "mask.png");
    let more = ["images", "--mask", "mask.png", "--out", "a.png"];
    let said = text(&succeed(world.reconstruct(&more)).stdout);
    let expected = "8 of 16 patches hidden, those more than half white in mask.png; mean squared error of hidden pixels";
    assert!(said.contains(expected), "{said}");
    let picture = world.picture("a.png");
    let width = 4 * TILE + 8;
    for (i, seed) in [(0, 1), (1, 2)] {
        // Nothing is to be said of statistics: titles only.
        let hidden = check_row(&picture, (4 + i * width, LINE), &drawn(seed));
        assert_eq!(hidden, [0, 2, 4, 6, 8, 10, 12, 14]);
    }

    // The loss of the first image is the model's.
    let model = MaskedAutoencoderViT::load(&world.model(), Device::Cpu).unwrap();
    let pixels = Tensor::from_slice(drawn(1).as_raw()).view([1, SIDE.into(), SIDE.into(), 3]);
    let patches = patchify(&pixels, PATCH as usize).unwrap();
    let ids: Vec<i64> = (0..16)
        .filter(|id| id % 2 == 1)
        .chain((0..16).filter(|id| id % 2 == 0))
        .collect();
    let ids = Tensor::from_slice(&ids);
    let shuffled = patches.index_select(1, &ids);
    let (visible, masked) = (shuffled.narrow(1, 0, 8), shuffled.narrow(1, 8, 8));
    let loss = model.forward(&visible, &masked, &ids.unsqueeze(0)).unwrap();
    let line = format!("{:8.4}  a.png\n", loss.double_value(&[]));
    assert!(said.contains(&line), "{line} in {said}");

    for (colours, visible) in [([0; 4], 16), ([255; 4], 0)] {
        mask(colours, "all.png");
        let said = fail(world.reconstruct(&["images", "--mask", "all.png"]));
        let expected = format!("found {visible} visible of 16");
        assert!(
            said.contains("black is visible") && said.contains(&expected),
            "{said}"
        );
    }
}

#[test]
fn normalised_predictions_are_shown_in_three_ways() {
    let world = World::new(&[NORMALISED]);
    succeed(world.reconstruct(&["images", "--out", "all.png"]));
    let picture = world.picture("all.png");
    // Three lines of words, one of groups, one of titles; an image a row.
    let top = 5 * LINE;
    assert_eq!(
        picture.dimensions(),
        (8 * TILE + 8, top + 3 * (TILE + LINE) + 4)
    );
    let of = |picture: &RgbImage, version: u32, top: u32| tile(picture, (4 + version * TILE, top));
    let hidden = check_row(&picture, (4, top), &drawn(1));
    let predictions = [2, 4, 6].map(|version| of(&picture, version, top));
    for (i, j) in [(0, 1), (0, 2), (1, 2)] {
        assert_ne!(predictions[i], predictions[j]);
    }
    // The oracle has the mean of each true patch; a value that is clipped or rounded moves it a little.
    let mean = |image: &RgbImage| {
        let values = image.as_raw();
        values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64
    };
    let far = |image: &RgbImage| -> f64 {
        (hidden.iter())
            .map(|&number| (mean(&patch(image, number)) - mean(&patch(&drawn(1), number))).abs())
            .sum::<f64>()
            / hidden.len() as f64
    };
    assert!(
        far(&predictions[1]) < far(&predictions[0]),
        "the oracle is second"
    );

    // Each alone is the same.
    for (i, statistics) in ["visible", "oracle", "raw"].into_iter().enumerate() {
        let out = format!("{statistics}.png");
        let more = ["images", "--statistics", statistics, "--out", &out];
        succeed(world.reconstruct(&more));
        let picture = world.picture(&out);
        assert_eq!(of(&picture, 2, 2 * LINE), predictions[i], "{statistics}");
    }
    succeed(world.reconstruct(&["images", "--statistics", "raw,visible", "--out", "two.png"]));
    let picture = world.picture("two.png");
    assert_eq!(picture.width(), 6 * TILE + 8);
    assert_eq!(of(&picture, 4, 4 * LINE), predictions[0]);
}

#[test]
fn what_cannot_be_drawn_is_explained() {
    let world = World::new(&["model.target=pca", "model.pca_components=12"]);
    succeed(world.reconstruct(&["images/a.png"]));
    let refused = |more: &[&str], expected: &str| {
        let said = fail(world.reconstruct(more));
        assert!(said.contains(expected), "{more:?}: {said}");
    };
    refused(
        &["images", "--statistics", "oracle"],
        "--statistics oracle: run predicts patches that are not normalised",
    );
    refused(&["absent"], "cannot read absent");
    refused(
        &["run/config.toml"],
        "run/config.toml: the content is no image",
    );
    refused(
        &["images", "--mask-ratio", "1.5"],
        "--mask-ratio: mask_ratio: expected",
    );
    refused(&["images", "--mask-ratio", "1.5"], "found 1.5");
    refused(
        &["images", "--sampler", "grid", "--mask-ratio", "0.5"],
        "expected 0.75",
    );
    refused(
        &["images", "--mask", "absent.png"],
        "--mask: reading absent.png",
    );
    refused(
        &["images", "--mask", "a.png", "--sampler", "block"],
        "cannot be used with",
    );
    refused(&["images", "--images", "0"], "no images");
    refused(
        &["images/a.png", "--out", "images/a.png"],
        "give the picture another name",
    );
    refused(&["images", "--out", "images"], "this is a folder");
    refused(
        &["images", "--out", "images/../images/b.png", "--overwrite"],
        "give the picture another name",
    );
    std::fs::copy(world.path("images/a.png"), world.path("mask.png")).unwrap();
    refused(
        &["images", "--mask", "mask.png", "--out", "./mask.png"],
        "give the picture another name",
    );
    refused(
        &["images", "--out", "reconstruct.png"],
        "is there already: replace it with --overwrite",
    );
    refused(
        &["images", "--out", "run/config.toml", "--overwrite"],
        "give a name that ends in .png",
    );
    std::fs::write(world.path("notes.png"), "mine").unwrap();
    refused(
        &["images", "--out", "notes.png", "--overwrite"],
        "is no PNG, which is all that --overwrite replaces",
    );
    succeed(world.reconstruct(&["images", "--out", "reconstruct.png", "--overwrite"]));

    let from = |file: &Path, expected: &str| {
        let mut command = program();
        command.args(["reconstruct", "--from"]).arg(file);
        let said = fail(command);
        assert!(said.contains(expected), "{said}");
    };
    std::fs::copy(world.model(), world.path("model.safetensors")).unwrap();
    from(
        &world.path("model.safetensors"),
        "which images? give an image",
    );
    let (tensors, mut metadata) = read_tensors(&world.model()).unwrap();
    metadata.insert("part".into(), "encoder".into());
    write_tensors(&world.path("encoder.safetensors"), &tensors, metadata).unwrap();
    from(
        &world.path("encoder.safetensors"),
        "holds an encoder alone: there is no decoder in it",
    );
    let model = MaskedAutoencoderViT::load(&world.model(), Device::Cpu).unwrap();
    let config = ClassifierConfig::linear_probe(model.config().clone().without_target(), 3);
    let classifier = VitClassifier::new(&config, model.normalization(), Device::Cpu, 0).unwrap();
    classifier
        .save(&world.path("classifier.safetensors"))
        .unwrap();
    from(&world.path("classifier.safetensors"), "holds a classifier");
}

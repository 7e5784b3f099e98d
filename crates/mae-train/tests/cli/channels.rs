//! Images that are not 8-bit squares in colour: from their files to the picture.

use std::path::{Path, PathBuf};
use std::process::Command;

use mae_report::{Record, read_metrics};
use tempfile::TempDir;

use crate::program::{checkpoints, fail, numbers, program, small, succeed, text};

const HEIGHT: usize = 20;
const WIDTH: usize = 36;

/// A smooth scene of a kind, its bands in different phases, from 0 to 1.
fn scene(index: usize, row: usize, column: usize, band: usize) -> f64 {
    let phase = index as f64 * 0.02 + band as f64;
    let stripes = match index % 2 {
        0 => row as f64 * 0.35,
        _ => column as f64 * 0.35,
    };
    0.5 + 0.45 * (stripes + phase).sin()
}

/// All values of a scene of `bands`, in the order `[height, width, bands]`.
fn values(index: usize, bands: usize) -> impl Iterator<Item = f64> {
    (0..HEIGHT * WIDTH * bands).map(move |at| {
        let (pixel, band) = (at / bands, at % bands);
        scene(index, pixel / WIDTH, pixel % WIDTH, band)
    })
}

/// An array as NumPy saves it.
fn npy(path: &Path, descr: &str, bands: usize, data: &[u8]) {
    let shape = format!("({HEIGHT}, {WIDTH}, {bands})");
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\0".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(data);
    std::fs::write(path, file).unwrap();
}

/// A TIFF file of bands of 16 bits, uncompressed, in one strip.
fn tiff(path: &Path, bands: usize, values: &[u16]) {
    let mut file = b"II*\0\0\0\0\0".to_vec();
    let bits_at = file.len() as u32;
    file.extend(
        [16_u16]
            .repeat(bands)
            .iter()
            .flat_map(|bits| bits.to_le_bytes()),
    );
    let data_at = file.len() as u32;
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let directory_at = file.len() as u32;
    file[4..8].copy_from_slice(&directory_at.to_le_bytes());
    let entries: [(u16, u16, u32, u32); 9] = [
        (256, 4, 1, WIDTH as u32),
        (257, 4, 1, HEIGHT as u32),
        (258, 3, bands as u32, bits_at),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, data_at),
        (277, 3, 1, bands as u32),
        (278, 4, 1, HEIGHT as u32),
        (279, 4, 1, 2 * values.len() as u32),
    ];
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    file.extend([0; 4]);
    std::fs::write(path, file).unwrap();
}

struct World {
    folder: TempDir,
}

impl World {
    /// A folder `data` of 24 images in two classes, each written by `write` under a path without an extension.
    fn new(write: impl Fn(usize, &Path)) -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for index in 0..24 {
            let class = world.path("data").join(["rows", "columns"][index % 2]);
            std::fs::create_dir_all(&class).unwrap();
            write(index, &class.join(format!("{index:02}")));
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Pre-training of `channels` on rectangles of `data`.
    fn pretrain(&self, data: &str, out: &str, channels: usize, more: &[&str]) -> Command {
        let channels = format!("model.channels={channels}");
        let keys = [
            "model.image_height=16",
            "model.image_width=32",
            channels.as_str(),
            "optim.warmup_epochs=0",
            "optim.base_lr=0.1",
            "model.norm_pix_loss=false",
        ];
        let mut command = program();
        command.arg("pretrain").arg("--out").arg(self.path(out));
        let square = "model.image_size=16";
        let small = crate::program::SMALL.iter().filter(|key| **key != square);
        for pair in small.chain(&keys).chain(more) {
            command.args(["--set", pair]);
        }
        command.arg("--data").arg(self.path(data));
        command
    }

    fn losses(&self, run: &str) -> Vec<f64> {
        let records = read_metrics(&self.path(run).join("metrics.jsonl")).unwrap();
        (records.iter())
            .filter_map(|record| match record {
                Record::Epoch { loss, .. } => Some(*loss),
                _ => None,
            })
            .collect()
    }

    fn config(&self, run: &str) -> toml::Table {
        let text = std::fs::read_to_string(self.path(run).join("config.toml")).unwrap();
        text.parse().unwrap()
    }

    /// A list of numbers in `[data]` of a run's configuration.
    fn numbers_of(&self, run: &str, key: &str) -> Vec<f64> {
        let config = self.config(run);
        let list = config["data"][key].as_array().unwrap();
        list.iter().map(|value| value.as_float().unwrap()).collect()
    }
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let scale = expected.abs().max(1e-3);
        assert!(
            (found - expected).abs() < 0.1 * scale,
            "{found}, {expected}"
        );
    }
}

/// The colours in the first row of tiles of a run's picture, below its words.
fn picture(run: &Path, epoch: u64) -> image::RgbImage {
    let path = run.join(format!("reconstructions/epoch-{epoch:04}.png"));
    image::open(path).unwrap().to_rgb8()
}

/// Five bands of 16 bits in rectangles: trained on, resumed, shown, judged, packed.
#[test]
fn five_bands_of_16_bits_are_learned() {
    let world = World::new(|index, path| {
        let values: Vec<u16> = values(index, 5).map(|v| (v * 65_535.0) as u16).collect();
        match index % 4 {
            0 => {
                let data: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
                npy(&path.with_extension("npy"), ">u2", 5, &data);
            }
            _ => tiff(&path.with_extension("tif"), 5, &values),
        }
    });
    succeed(world.pretrain("data", "run", 5, &["optim.epochs=12"]));
    let losses = world.losses("run");
    assert!(losses[11] < 0.8 * losses[0], "{losses:?}");
    assert_eq!(world.config("run")["data"]["values"].as_str(), Some("f32"));
    close(&world.numbers_of("run", "mean"), &[0.5; 5]);
    close(&world.numbers_of("run", "std"), &[0.45 / 2_f64.sqrt(); 5]);

    let picture = picture(&world.path("run"), 12);
    // Eight images of four tiles, two images in a row, each tile four times as large as the image of 16 x 32.
    assert!(picture.width() > 2 * 4 * 4 * 32 && picture.height() > 4 * 4 * 16);
    let colours: std::collections::BTreeSet<_> = picture.pixels().map(|pixel| pixel.0).collect();
    assert!(colours.len() > 500, "{} colours", colours.len());

    // Interrupted after the first epochs, it gives the same.
    let halfway = world.path("broken");
    let mut command = world.pretrain("data", "broken", 5, &["optim.epochs=12"]);
    command.args(["--set", "run.keep_checkpoints=12"]);
    succeed(command);
    for path in &checkpoints(&halfway)[4..] {
        std::fs::remove_dir_all(path).unwrap();
    }
    let mut command = program();
    command
        .args(["pretrain", "--resume", "--out"])
        .arg(&halfway);
    succeed(command);
    assert_eq!(numbers(&world.path("run")), numbers(&halfway));
    // As does the command that began it, which does not say what was measured.
    let mut command = world.pretrain("data", "broken", 5, &["optim.epochs=12"]);
    command.arg("--resume");
    succeed(command);

    let mut command = program();
    command.env("MAE_CACHE_DIR", world.path("cache"));
    command.args(["eval", "--protocols", "knn", "--set", "knn.k=[3]"]);
    command.args(["--set", "data.val_share=0.25", "--set", "run.device=cpu"]);
    command.arg("--from").arg(world.path("run"));
    command.arg("--out").arg(world.path("eval"));
    let table = text(&succeed(command).stdout);
    assert!(table.contains("knn k=3"), "{table}");

    // A packed file holds the same numbers.
    let mut command = program();
    command.args(["pack", "--channels", "5"]);
    command.arg(world.path("data")).arg(world.path("data.mae"));
    succeed(command);
    succeed(world.pretrain("data.mae", "packed", 5, &["optim.epochs=12"]));
    assert_eq!(world.losses("packed"), losses);
    let mut command = program();
    command.args(["pack", "--channels", "5", "--quality", "90"]);
    command.arg(world.path("data")).arg(world.path("jpeg.mae"));
    let message = fail(command);
    assert!(message.contains("a JPEG holds 8 bits"), "{message}");
}

/// Fine-tuning mixes, erases and crops numbers in their own units; what is for colours alone is refused by name.
#[test]
fn numbers_in_their_own_units_are_learned_and_fine_tuned() {
    let world = World::new(|index, path| {
        let data: Vec<u8> = values(index, 2)
            .map(|value| (value * 4000.0 - 1000.0) as i16)
            .flat_map(i16::to_le_bytes)
            .collect();
        npy(&path.with_extension("npy"), "<i2", 2, &data);
    });
    succeed(world.pretrain("data", "run", 2, &["optim.epochs=12"]));
    let losses = world.losses("run");
    assert!(losses[11] < 0.8 * losses[0], "{losses:?}");
    close(&world.numbers_of("run", "mean"), &[1000.0; 2]);
    close(&world.numbers_of("run", "std"), &[1800.0 / 2_f64.sqrt(); 2]);

    let finetune = |more: &[&str]| {
        let mut command = program();
        command.args([
            "eval",
            "--protocols",
            "finetune,linear",
            "--set",
            "data.val_share=0.25",
        ]);
        command.env("MAE_CACHE_DIR", world.path("cache"));
        for key in [
            "run.device=cpu",
            "finetune.epochs=2",
            "finetune.warmup_epochs=0",
        ] {
            command.args(["--set", key]);
        }
        for key in [
            "finetune.batch_size=6",
            "linear.epochs=2",
            "linear.warmup_epochs=0",
        ] {
            command.args(["--set", key]);
        }
        for key in more {
            command.args(["--set", key]);
        }
        command.arg("--from").arg(world.path("run"));
        command.arg("--out").arg(world.path("eval"));
        command
    };
    let message = fail(finetune(&["finetune.rand_augment=9"]));
    assert!(
        message.contains("`finetune.rand_augment` is 9")
            && message.contains("set finetune.rand_augment=0"),
        "{message}"
    );
    let table = text(&succeed(finetune(&["finetune.rand_augment=0"])).stdout);
    assert!(
        table.contains("finetune") && table.contains("linear"),
        "{table}"
    );
}

#[test]
fn grey_of_16_bits_and_alpha_are_learned() {
    let grey = World::new(|index, path| {
        let pixels: Vec<u16> = values(index, 1).map(|v| (v * 65_535.0) as u16).collect();
        image::ImageBuffer::<image::Luma<u16>, _>::from_raw(WIDTH as u32, HEIGHT as u32, pixels)
            .unwrap()
            .save(path.with_extension("png"))
            .unwrap();
    });
    succeed(grey.pretrain("data", "run", 1, &[]));
    assert_eq!(grey.config("run")["data"]["values"].as_str(), Some("f32"));
    close(&grey.numbers_of("run", "mean"), &[0.5]);
    // As colours, too, and as bytes only if it is said that no bits may be lost.
    succeed(grey.pretrain("data", "colours", 3, &["data.normalization=imagenet"]));
    let message = fail(grey.pretrain("data", "bytes", 1, &["data.values=u8"]));
    assert!(
        message.contains("more than 8 bits") && message.contains("data.values=\"f32\""),
        "{message}"
    );

    let alpha = World::new(|index, path| {
        let pixels: Vec<u8> = values(index, 4).map(|v| (v * 255.0) as u8).collect();
        image::RgbaImage::from_raw(WIDTH as u32, HEIGHT as u32, pixels)
            .unwrap()
            .save(path.with_extension("png"))
            .unwrap();
    });
    succeed(alpha.pretrain("data", "run", 4, &[]));
    assert_eq!(alpha.config("run")["data"]["values"].as_str(), Some("u8"));
    assert_eq!(alpha.numbers_of("run", "mean").len(), 4);
    // Eight bits are widened where it is asked for, and give the same losses.
    succeed(alpha.pretrain("data", "wide", 4, &["data.values=f32"]));
    for (wide, narrow) in alpha.losses("wide").iter().zip(alpha.losses("run")) {
        assert!((wide / narrow - 1.0).abs() < 1e-3, "{wide}, {narrow}");
    }
}

#[test]
fn mistakes_name_the_file_and_the_remedy() {
    let world = World::new(|index, path| {
        let values: Vec<u16> = values(index, 5).map(|v| (v * 65_535.0) as u16).collect();
        tiff(&path.with_extension("tif"), 5, &values);
    });
    let check = |command: Command, expected: &[&str]| {
        let message = fail(command);
        for part in expected {
            assert!(message.contains(part), "expected {part:?} in: {message}");
        }
    };
    check(
        world.pretrain("data", "a", 3, &[]),
        &[
            ".tif",
            "it has 5 channels, expected 3",
            "set model.channels=5",
        ],
    );
    // Without a number, that of the first file is taken.
    let inspect = |more: &[&str]| {
        let mut command = program();
        command.arg("inspect").arg(world.path("data")).args(more);
        text(&succeed(command).stdout)
    };
    let sheet = world.path("sheet.png");
    let said = inspect(&[&format!("--contact-sheet={}", sheet.display())]);
    assert!(said.contains("broken        none"), "{said}");
    // Rows of images of 151 pixels, and above them a line on how values are shown.
    let height = image::open(sheet).unwrap().height();
    assert_eq!((height - 6) % 151, 17);
    let said = inspect(&["--channels", "3"]);
    assert!(
        said.matches("give --channels 5 to inspect or pack").count() == 1,
        "{said}"
    );
    let mut pack = program();
    pack.arg("pack").arg(world.path("data"));
    pack.arg(world.path("data.mae"));
    check(pack, &["give --channels 5 to inspect or pack"]);
    let mut pack = program();
    pack.arg("pack").arg(world.path("data"));
    pack.arg(world.path("data.mae")).args(["--channels", "5"]);
    succeed(pack);
    let mut packed = program();
    packed.arg("inspect").arg(world.path("data.mae"));
    let said = text(&succeed(packed).stdout);
    assert!(said.contains("broken        none"), "{said}");
    check(
        world.pretrain("data", "b", 5, &["data.normalization=imagenet"]),
        &["\"imagenet\", which has 3 channels"],
    );
    check(
        world.pretrain("data", "c", 5, &["data.color_jitter={}"]),
        &[
            "`data.color_jitter` changes the colours",
            "5 channels",
            "leave it out",
        ],
    );
    check(
        world.pretrain("data", "d", 5, &["data.values=f16"]),
        &["values", "u8", "f32"],
    );
    check(
        small(&world.path("e"), &["model.channels=5"]),
        &["`model.channels` is 5, but drawn scenes have 3 or 1"],
    );
    let floats = World::new(|index, path| {
        let data: Vec<u8> = values(index, 3)
            .flat_map(|value| (300.0 * value as f32).to_le_bytes())
            .collect();
        npy(&path.with_extension("npy"), "<f4", 3, &data);
    });
    check(
        floats.pretrain("data", "run", 3, &["data.normalization=imagenet"]),
        &[
            "for values in 0..1, but some images have mean",
            "data.normalization=auto",
        ],
    );
}

/// One deep file among bytes makes all of them numbers, and a value far from all others may mean nothing: both are said.
#[test]
fn what_decides_on_the_values_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    for index in 0..16_u8 {
        let shade = |x: u32, y: u32| image::Luma([(x * 5 + y * 3) as u8 ^ index]);
        let photo = image::GrayImage::from_fn(20, 20, shade);
        photo.save(photos.join(format!("{index:02}.jpg"))).unwrap();
    }
    let values: Vec<f32> = (0..HEIGHT * WIDTH)
        .map(|at| if at < 40 { -9999.0 } else { at as f32 })
        .collect();
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    npy(&photos.join("stray.npy"), "<f4", 1, &bytes);
    let words = "stray.npy has values of more than 8 bits";

    let quick = [
        "model.channels=1",
        "optim.epochs=1",
        "optim.warmup_epochs=0",
    ];
    let mut command = small(&folder.path().join("run"), &quick);
    command.arg("--data").arg(&photos);
    let said = text(&succeed(command).stderr);
    assert!(said.contains(words), "{said}");
    let as_bytes = ["data.values=u8", "data.max_broken_share=0.1"];
    let mut command = small(
        &folder.path().join("bytes"),
        &[&quick[..], &as_bytes].concat(),
    );
    command.arg("--data").arg(&photos);
    let said = text(&succeed(command).stderr);
    assert!(!said.contains(words), "{said}");

    let mut command = program();
    command.arg("doctor").arg("--data").arg(&photos);
    command.args(["--seconds", "0.1", "--set", "model.channels=1"]);
    command.args(["--set", "run.device=cpu"]);
    let said = text(&command.output().unwrap().stdout);
    assert!(said.contains(words), "{said}");
    let mut command = program();
    command
        .arg("inspect")
        .arg(&photos)
        .args(["--channels", "1"]);
    let said = text(&succeed(command).stdout);
    assert!(said.contains(words), "{said}");
    assert!(
        said.contains("of the values of channel 0 are -9999, far from all others"),
        "{said}"
    );
    assert!(said.contains("set data.nodata=-9999"), "{said}");
}

//! Pictures of attention and components.

use std::path::Path;
use std::process::Command;

use crate::program::{checkpoints, fail, program, small, succeed, text};

fn attend(folder: &Path, more: &[&str]) -> Command {
    let mut command = program();
    command.current_dir(folder).arg("attend").args(more);
    command
}

#[test]
fn what_an_encoder_looks_at_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let quick = ["optim.epochs=1", "optim.warmup_epochs=0", "data.samples=32"];
    succeed(small(&path("run"), &quick));
    std::fs::create_dir(path("images")).unwrap();
    for seed in 1..4_u8 {
        image::RgbImage::from_fn(20, 16, |x, y| image::Rgb([x as u8 * 12, y as u8 * seed, 9]))
            .save(path("images").join(format!("{seed}.png")))
            .unwrap();
    }
    // The run's own images.
    let printed = text(&succeed(attend(folder.path(), &["--from", "run"])).stdout);
    for words in [
        "in block 2 of 2, the mean of 2 heads",
        "of all 8 images",
        "picture: attend.png",
    ] {
        assert!(printed.contains(words), "{words} in {printed}");
    }
    // Eight images, two a row, four tiles each.
    let size = |name: &str| image::image_dimensions(path(name)).unwrap();
    assert_eq!(size("attend.png").0, 2 * (4 * 132 + 8));

    let arguments = ["--from", "run", "images", "--heads"];
    let printed = text(&succeed(attend(folder.path(), &arguments)).stdout);
    assert!(printed.contains("picture: attend-2.png") && printed.contains("of all 3 images"));
    assert_eq!(size("attend-2.png").0, 6 * 132 + 8);
    let again = [&arguments[..], &["--out", "again.png"]].concat();
    succeed(attend(folder.path(), &again));
    assert_eq!(
        std::fs::read(path("attend-2.png")).unwrap(),
        std::fs::read(path("again.png")).unwrap()
    );
    assert!(fail(attend(folder.path(), &again)).contains("again.png is there already"));

    let weights = checkpoints(&path("run"))
        .pop()
        .unwrap()
        .join("model.safetensors");
    std::fs::copy(weights, path("alone.safetensors")).unwrap();
    let message = fail(attend(folder.path(), &["--from", "alone.safetensors"]));
    assert!(message.contains("which images?"), "{message}");
}

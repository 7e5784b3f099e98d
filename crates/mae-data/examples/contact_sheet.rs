//! Draws the first scenes of the synthetic data set side by side:
//! `cargo run --release -p mae-data --example contact_sheet -- scenes.png`.

use std::process::ExitCode;

use mae_data::{Dataset, SyntheticDataset};

const ROWS: usize = 6;
const COLUMNS: usize = 10;
const SIDE: usize = 96;
const GAP: usize = 4;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("expected the path of the picture to write");
        return Ok(ExitCode::from(2));
    };
    let scenes = SyntheticDataset::new(ROWS * COLUMNS, SIDE, SIDE, 3, 0)?;
    let side = |tiles: usize| (tiles * (SIDE + GAP) + GAP) as u32;
    let mut sheet = image::RgbImage::from_pixel(side(COLUMNS), side(ROWS), image::Rgb([255; 3]));
    for index in 0..scenes.len() {
        let scene = scenes.image(index)?;
        let pixels = scene.pixels().as_u8().ok_or("a scene is of bytes")?;
        let tile = image::RgbImage::from_raw(SIDE as u32, SIDE as u32, pixels.to_vec())
            .ok_or("a scene has another size than it was asked for")?;
        let place = |tile: usize| (tile * (SIDE + GAP) + GAP) as i64;
        image::imageops::replace(
            &mut sheet,
            &tile,
            place(index % COLUMNS),
            place(index / COLUMNS),
        );
    }
    sheet.save(path)?;
    Ok(ExitCode::SUCCESS)
}

//! How fast the loader alone makes masked batches of a folder of images or of a packed file, and in how much memory.
//!
//! ```sh
//! cargo run --release -p mae-data --example load -- DATA \
//!     [--size 224] [--batch 64] [--workers 2] [--epochs 3] [--center]
//! ```
//!
//! Images get the paper's augmentation, a random resized crop and a flip; with `--center` the largest centred crop.
//! Each epoch prints one line of JSON; `peak_rss_mb`, in MB of 10^6 bytes, is null where the system does not tell.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mae_data::{
    Augmentation, Dataset, FolderDataset, Loader, LoaderConfig, PackedDataset, PatchGrid, Transform,
};

const PATCH_SIZE: usize = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = arguments
        .next()
        .ok_or("expected a folder of images or a packed file as the first argument")?;
    let data = Path::new(&data);
    let dataset: Arc<dyn Dataset> = if data.is_file() {
        Arc::new(PackedDataset::open(data, 3)?)
    } else {
        Arc::new(FolderDataset::open(data, 3)?)
    };
    let mut is_centered = false;
    let mut settings = HashMap::from([
        ("--size".to_owned(), 224),
        ("--batch".to_owned(), 64),
        ("--workers".to_owned(), 2),
        ("--epochs".to_owned(), 3),
    ]);
    while let Some(name) = arguments.next() {
        if name == "--center" {
            is_centered = true;
            continue;
        }
        let setting = settings.get_mut(&name).ok_or_else(|| {
            format!("expected --size, --batch, --workers, --epochs or --center: {name}")
        })?;
        let value = arguments
            .next()
            .ok_or_else(|| format!("{name}: expected a number"))?;
        *setting = value
            .parse()
            .map_err(|_| format!("{name}: expected a number, found {value}"))?;
    }
    let size = settings["--size"];

    let grid = PatchGrid::new(size, size, PATCH_SIZE, 3)?;
    let center = Transform::center_crop(size, size);
    let config = LoaderConfig {
        workers: settings["--workers"],
        transform: if is_centered {
            center
        } else {
            Transform {
                augmentation: Augmentation::random_resized_crop(),
                hflip: true,
                ..center
            }
        },
        ..LoaderConfig::new(grid, settings["--batch"])
    };
    let loader = Loader::new(dataset, config)?;
    for epoch in 0..settings["--epochs"] {
        let begin = Instant::now();
        let mut images = 0;
        for batch in loader.epoch(epoch as u64, 0) {
            images += batch?.len();
        }
        let seconds = begin.elapsed().as_secs_f64();
        println!(
            r#"{{"epoch": {epoch}, "images": {images}, "seconds": {seconds:.4}, "images_per_s": {:.1}, "peak_rss_mb": {}}}"#,
            images as f64 / seconds,
            peak_rss_mb().map_or("null".to_owned(), |mb| format!("{mb:.1}")),
        );
    }
    Ok(())
}

/// The most memory that this process has held so far: `VmHWM` of Linux.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

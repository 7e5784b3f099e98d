//! The loaders: a folder of photographs to batches of random crops.

use std::{path::Path, thread};

use anyhow::Result;

use super::{
    measure::{Competition, Entry, Role, Suite},
    photos::Photos,
    python::Python,
};
use crate::libtorch::Source;
use crate::{
    built::{self, Target},
    process::Interrupt,
};

const SIZE: u32 = 224;
const BATCH: u32 = 64;

/// Images that ours loads for each worker, in whole epochs: some seconds' work.
const IMAGES_PER_WORKER: usize = 8_000;

const PEERS: [(&str, &str); 3] = [
    ("PIL, torchvision, worker processes", "loader_pil.py"),
    (
        "torchvision decode_jpeg, v2 on tensors",
        "loader_torchvision.py",
    ),
    ("NVIDIA DALI on the CPU", "loader_dali.py"),
];

/// Ours, and the peers if there is a Python for them.
pub fn suite(
    root: &Path,
    photos: &Photos,
    workers: Option<u32>,
    peers: Option<&Python>,
    interrupt: &Interrupt,
) -> Result<Suite> {
    let workers = match workers {
        Some(workers) => workers as usize,
        None => thread::available_parallelism().map_or(1, usize::from),
    };
    // mae-data is without libtorch, so wherever that comes from is right.
    let program = built::build(
        root,
        Target::Example("mae-data", "load"),
        Source::Config,
        interrupt,
    )?;
    // The first epoch is the warm-up.
    let epochs = 1 + (IMAGES_PER_WORKER * workers).div_ceil(photos.count);
    let options = format!("--size {SIZE} --batch {BATCH} --workers {workers}");
    let ours = Entry::new("mae-rs", Role::Ours, program)
        .argument(&photos.folder)
        .options(&options)
        .options(&format!("--epochs {epochs}"))
        .shown(format!(
            "cargo run --release -p mae-data --example load -- PHOTOS {options} --epochs {epochs}"
        ));
    let mut entries = vec![ours];
    if let Some(python) = peers {
        entries.extend(PEERS.map(|(name, script)| {
            python
                .entry(root, name, script)
                .argument(&photos.folder)
                .options(&options)
                .shown(format!("python benches/peers/{script} PHOTOS {options}"))
        }));
    }
    Ok(Suite {
        notes: vec![
            format!(
                "Each makes batches of {BATCH} random resized crops (0.2 to 1 of the area, sides 3:4 to 4:3) \
                 of {SIZE} x {SIZE} u8 pixels, bicubic with antialiasing, half of them flipped, \
                 of JPEG files in the page cache."
            ),
            "Ours also draws masks and cuts the crops into shuffled patches.".to_string(),
            photos.describe(),
            "Peak memory is that of the process and its workers added; \
             pages that they share count once for each (in bench.json, `pss_mb` counts them once)."
                .to_string(),
        ],
        groups: vec![Competition {
            title: match workers {
                1 => "1 worker".to_string(),
                _ => format!("{workers} workers"),
            },
            entries,
        }],
    })
}

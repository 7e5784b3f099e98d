//! The wheels that set-up installs, each to the last bit.
//!
//! The table is `xtask/libtorch-pins.toml`, and nothing else decides: set-up never asks what a wheel requires.
//! `cargo xtask refresh-pins` asks pip, and writes the table.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The table's path in the workspace.
pub const PATH: &str = "xtask/libtorch-pins.toml";

const TEXT: &str = include_str!("../../libtorch-pins.toml");

const HEADER: &str = "\
# The wheels that `cargo xtask setup` installs libtorch from.
# `cargo xtask refresh-pins` writes this file.

";

/// One wheel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The package's normalised name.
    pub name: String,
    /// The exact version.
    pub version: String,
    /// The wheel's file name.
    pub file: String,
    /// The wheel's size.
    pub bytes: u64,
    /// The wheel's SHA-256, in hexadecimal.
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    wheel: Vec<Pin>,
}

/// Every pin, that of torch first.
///
/// # Errors
/// If the table that this program was built with is damaged.
pub fn all() -> Result<Vec<Pin>> {
    let table: Table = toml::from_str(TEXT).with_context(|| {
        format!("{PATH} is damaged: restore it, or write it with `cargo xtask refresh-pins`")
    })?;
    Ok(table.wheel)
}

/// The table of `pins`: that of torch first, the others by name.
///
/// # Errors
/// None that is known; TOML can hold every pin.
pub fn to_toml(mut pins: Vec<Pin>) -> Result<String> {
    pins.sort_by_key(|pin| (pin.name != "torch", pin.name.clone()));
    Ok(format!(
        "{HEADER}{}",
        toml::to_string(&Table { wheel: pins })?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::VERSION;
    use std::collections::HashSet;

    #[test]
    fn the_table_is_as_refresh_pins_writes_it() {
        assert_eq!(to_toml(all().unwrap()).unwrap(), TEXT);
    }

    #[test]
    fn every_pin_says_one_wheel_for_the_one_system() {
        let pins = all().unwrap();
        for pin in &pins {
            let file = format!("{}-{}-", pin.name.replace('-', "_"), pin.version);
            assert!(
                pin.file.starts_with(&file) && pin.file.ends_with("_x86_64.whl"),
                "{pin:?}"
            );
            let digits = pin
                .sha256
                .chars()
                .filter(|c| "0123456789abcdef".contains(*c));
            assert_eq!((digits.count(), pin.sha256.len()), (64, 64), "{pin:?}");
            assert!(pin.bytes > 100_000, "{pin:?}");
        }
        let names: HashSet<_> = pins.iter().map(|pin| &pin.name).collect();
        assert_eq!(names.len(), pins.len());
    }

    #[test]
    fn every_library_that_torch_names_is_pinned() {
        // Of torch's METADATA, then of cuda-toolkit's, where torch asks for a part of it;
        // and the two packages of headers.
        let expect = [
            ("torch", VERSION),
            ("nvidia-cudnn-cu13", "9.20.0.48"),
            ("nvidia-cusparselt-cu13", "0.8.1"),
            ("nvidia-nccl-cu13", "2.29.7"),
            ("nvidia-nvshmem-cu13", "3.4.5"),
            ("nvidia-cublas", "13.1.1.3"),
            ("nvidia-cuda-cupti", "13.0."),
            ("nvidia-cuda-nvrtc", "13.0."),
            ("nvidia-cuda-runtime", "13.0."),
            ("nvidia-cufft", "12.0."),
            ("nvidia-cufile", "1.15."),
            ("nvidia-curand", "10.4."),
            ("nvidia-cusolver", "12.0."),
            ("nvidia-cusparse", "12.6."),
            ("nvidia-nvjitlink", "13.0.88"),
            ("nvidia-nvtx", "13.0."),
            ("nvidia-cuda-cccl", "13.0.85"),
            ("nvidia-cuda-crt", "13.0.88"),
        ];
        let pins = all().unwrap();
        for (name, version) in expect {
            let pin = pins.iter().find(|pin| pin.name == name);
            assert!(
                pin.is_some_and(|pin| pin.version.starts_with(version)),
                "{name} {version}: {pin:?}"
            );
        }
        assert_eq!(pins.len(), expect.len());
    }
}

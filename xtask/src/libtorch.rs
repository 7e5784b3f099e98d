//! Where libtorch is, and how it gets there.
//!
//! [`existing`] judges a libtorch that the user has.
//! [`install`] brings one into the [`cache`], on the one [`platform`] that was tried:
//! the pinned ([`pins`]) wheels ([`wheels`]) if [`pip`] is there, else an [`archive`].
//! [`config`] is how cargo learns of it.

pub mod archive;
pub mod cache;
pub mod config;
pub mod curl;
pub mod driver;
pub mod existing;
pub mod install;
pub mod pins;
pub mod pip;
pub mod platform;
pub mod unpack;
pub mod wheel;
pub mod wheels;

use std::fmt;

/// The version of libtorch that the workspace's `tch` is written for.
pub const VERSION: &str = "2.13.0";

/// The CUDA that PyTorch's wheel of that version is built for.
pub const CUDA: &str = "13.0";

/// What a libtorch can compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CPUs only.
    Cpu,
    /// CPUs and NVIDIA GPUs.
    Cuda,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::Cpu => "cpu",
            Kind::Cuda => "cuda",
        })
    }
}

/// Where the libtorch that cargo will find comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From `.cargo/libtorch.toml`.
    Config,
    /// From the user's own environment, which cargo prefers.
    Environment,
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cargo;

    #[test]
    fn every_file_that_names_the_version_names_this_one() {
        let (series, _) = VERSION.rsplit_once('.').unwrap();
        let (exactly, any) = (format!("torch=={VERSION}"), format!("torch=={series}.*"));
        let built = format!("libtorch {series},");
        for (file, words) in [
            ("crates/mae-train/pyproject.toml", &any),
            (".github/workflows/ci.yml", &any),
            ("xtask/src/bench/python.rs", &exactly),
            ("crates/torch-ext/README.md", &built),
            ("crates/mae-model/README.md", &built),
            ("crates/mae-train/README.md", &built),
            (
                "docs/book/src/getting-started.md",
                &format!("version {VERSION} from"),
            ),
            (
                "docs/book/src/getting-started.md",
                &format!("`torch` {series} in"),
            ),
        ] {
            let text = fs::read_to_string(cargo::workspace_root().join(file)).unwrap();
            assert!(text.contains(words), "{file}: no {words:?}");
        }
    }
}

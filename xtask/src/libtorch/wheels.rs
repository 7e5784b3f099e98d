//! libtorch from PyTorch's wheels.
//!
//! The wheel of torch is built for CPUs and NVIDIA GPUs at once, and loads CUDA's libraries from other wheels.
//! For CPUs alone, an eighth of it all is enough: see [`NOT_FOR_CPU`] and [`NEEDED_BY_CPU`].

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use indicatif::DecimalBytes;

use super::{
    Kind, VERSION,
    cache::{Staging, explain},
    pins::{self, Pin},
    pip::Pip,
    unpack::{hexadecimal, sha256},
    wheel::Wheel,
};

/// Files of `torch/lib` that only computing on GPUs, or Python, needs.
const NOT_FOR_CPU: [&str; 9] = [
    "libc10_cuda.so",
    // Only ties the others together; replaced by a text that ties libtorch_cpu.so alone.
    "libtorch.so",
    "libcaffe2_nvrtc.so",
    "libshm.so",
    "libtorch_cuda.so",
    "libtorch_cuda_linalg.so",
    "libtorch_global_deps.so",
    "libtorch_nvshmem.so",
    "libtorch_python.so",
];

/// The CUDA libraries that libtorch_cpu.so itself is linked with, for its profiler, and the wheels that have them.
const NEEDED_BY_CPU: [(&str, &str); 2] = [
    ("nvidia-cuda-runtime", "libcudart.so."),
    ("nvidia-cuda-cupti", "libcupti.so."),
];

/// Downloads the pinned wheels for `kind` and unpacks what is needed of them into the staging tree.
///
/// # Errors
/// If pip fails, a digest differs, or a file cannot be written.
pub fn fetch(pip: &Pip, kind: Kind, staging: &Staging) -> Result<()> {
    let mut pins = pins::all()?;
    pins.retain(|pin| is_wanted(&pin.name, kind));
    let wheels = match kind {
        Kind::Cpu => format!("torch {VERSION}"),
        Kind::Cuda => format!("torch {VERSION} and NVIDIA's libraries"),
    };
    let size = DecimalBytes(pins.iter().map(|pin| pin.bytes).sum());
    eprintln!("downloading {wheels} with `{pip} download`: {size}");

    let (tree, downloads) = (staging.tree(), staging.downloads());
    pip.download(&pins, &downloads)?;
    let wheels = pins
        .iter()
        .map(|pin| verified(pin, &downloads))
        .collect::<Result<Vec<_>>>()?;
    for wheel in wheels {
        Wheel::open(&wheel)?.unpack(&tree, |name| is_kept(name, kind))?;
        // Frees the space before the next one is unpacked.
        fs::remove_file(&wheel).map_err(|error| explain(error, "remove", &wheel))?;
    }
    if kind == Kind::Cpu {
        // `-ltorch`, which torch-sys links with, then means libtorch_cpu.so.
        let script = tree.join("torch/lib/libtorch.so");
        fs::write(&script, "INPUT(-ltorch_cpu)\n")
            .map_err(|error| explain(error, "write", &script))?;
    }
    Ok(())
}

/// The wheel of `pin` in `directory`, compared with it.
fn verified(pin: &Pin, directory: &Path) -> Result<PathBuf> {
    let wheel = directory.join(&pin.file);
    if !wheel.is_file() {
        bail!("pip did not put {} into {}", pin.file, directory.display());
    }
    let found = hexadecimal(&sha256(&wheel)?);
    if found != pin.sha256 {
        bail!(
            "{} is not the wheel that it should be: its SHA-256 is {found}, expected {}; \
             is pip configured to use an index other than PyTorch's and the Python Package Index?",
            wheel.display(),
            pin.sha256
        );
    }
    Ok(wheel)
}

/// True if the package `name` is needed for `kind`.
fn is_wanted(name: &str, kind: Kind) -> bool {
    kind == Kind::Cuda
        || name == "torch"
        || NEEDED_BY_CPU.iter().any(|(package, _)| *package == name)
}

/// True if the wheels' file `name` is to be installed.
fn is_kept(name: &str, kind: Kind) -> bool {
    let trimmed = kind == Kind::Cpu;
    let Some((top, rest)) = name.split_once('/') else {
        return false;
    };
    match top {
        "torch" => match rest.split_once('/') {
            Some(("include", _)) => true,
            Some(("lib", file)) => !trimmed || !(file.contains('/') || NOT_FOR_CPU.contains(&file)),
            _ => false,
        },
        "nvidia" if trimmed => {
            let file = rest.rsplit('/').next().unwrap_or(rest);
            NEEDED_BY_CPU
                .iter()
                .any(|(_, library)| file.starts_with(library))
        }
        "nvidia" => true,
        // Where auditwheel puts the libraries that it adds;
        // and the licences: whoever passes the directory on must pass them on.
        _ => top.ends_with(".libs") || top.ends_with(".dist-info"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wheel_that_cpus_need_is_pinned() {
        let pins = pins::all().unwrap();
        for name in NEEDED_BY_CPU.map(|(package, _)| package) {
            assert!(pins.iter().any(|pin| pin.name == name), "{name}");
        }
        let wanted = pins.iter().filter(|pin| is_wanted(&pin.name, Kind::Cpu));
        assert_eq!(wanted.count(), 1 + NEEDED_BY_CPU.len());
    }

    #[test]
    fn files_are_kept_by_kind() {
        // Kept for CPUs, and for GPUs.
        let check = |name: &str, expect: [bool; 2]| {
            let found = [Kind::Cpu, Kind::Cuda].map(|kind| is_kept(name, kind));
            assert_eq!(found, expect, "{name}");
        };
        check("torch/lib/libtorch_cpu.so", [true, true]);
        check("torch/lib/libgomp.so.1", [true, true]);
        check("torch/lib/libtorch_cuda.so", [false, true]);
        check("torch/lib/libtorch.so", [false, true]);
        check("torch/lib/libshm/libshm.h", [false, true]);
        check("torch/include/ATen/ATen.h", [true, true]);
        check("torch/nn/modules/linear.py", [false, false]);
        check("functorch/__init__.py", [false, false]);
        check("nvidia/cu13/lib/libcudart.so.13", [true, true]);
        check("nvidia/cu13/lib/libnvperf_host.so", [false, true]);
        check("torch-2.13.0.dist-info/licenses/LICENSE", [true, true]);
    }
}

//! libtorch from PyTorch's wheels.
//!
//! On Linux the wheel of torch is built for CPUs and NVIDIA GPUs at once, and loads CUDA's libraries from other wheels.
//! For CPUs alone, an eighth of it all is enough: see [`NOT_FOR_CPU`] and [`NEEDED_BY_CPU`].

use std::{fs, path::Path};

use anyhow::{Result, bail};
use indicatif::DecimalBytes;

use super::{
    Kind, VERSION,
    cache::{Staging, explain},
    pins,
    pip::{Package, Pip},
    platform::Platform,
    requirement::Requirement,
    unpack::{hexadecimal, sha256},
    wheel::{self, Wheel},
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

/// Headers that those of libtorch include and no wheel requires: to compile against NCCL.
const HEADERS: [&str; 2] = ["nvidia-cuda-cccl==13.0.85", "nvidia-cuda-crt==13.0.88"];

/// NVIDIA's package without files: its optional parts name the packages that make up a CUDA release.
const CUDA_TOOLKIT: &str = "cuda-toolkit";

/// Downloads the wheels for `kind` and unpacks what is needed of them into the staging tree.
///
/// # Errors
/// If pip fails, a digest differs, or a file cannot be written.
pub fn fetch(pip: &Pip, platform: Platform, kind: Kind, staging: &Staging) -> Result<()> {
    if kind == Kind::Cuda && !platform.is_linux() {
        bail!(
            "PyTorch publishes wheels for CUDA on Linux only: download libtorch for CUDA and set LIBTORCH to it"
        );
    }
    announce(pip, platform, kind);
    let (tree, downloads) = (staging.tree(), staging.downloads());

    let torch = Package::new(&Requirement::parse(&format!("torch=={VERSION}"))?, platform)?;
    let torch_wheel = download(pip, &[torch], platform, &downloads.join("torch"))?.remove(0);
    let required = Wheel::open(&torch_wheel)?.requirements()?;
    let mut libraries = Vec::new();
    for requirement in applying(required, platform, &[])? {
        if requirement.name == CUDA_TOOLKIT {
            let toolkit = [Package::new(&requirement, platform)?];
            let toolkit = download(pip, &toolkit, platform, &downloads.join("toolkit"))?.remove(0);
            libraries.extend(applying(
                Wheel::open(&toolkit)?.requirements()?,
                platform,
                &requirement.extras,
            )?);
        } else {
            libraries.push(requirement);
        }
    }
    if kind == Kind::Cuda {
        for headers in HEADERS {
            libraries.push(Requirement::parse(headers)?);
        }
    }
    let libraries = merged(libraries)
        .iter()
        .filter(|library| is_wanted(&library.name, kind))
        .map(|library| Package::new(library, platform))
        .collect::<Result<Vec<_>>>()?;
    let mut wheels = vec![torch_wheel];
    if !libraries.is_empty() {
        wheels.extend(download(
            pip,
            &libraries,
            platform,
            &downloads.join("libraries"),
        )?);
    }

    for wheel in wheels {
        Wheel::open(&wheel)?.unpack(&tree, |name| is_kept(name, platform, kind))?;
        // Frees the space before the next one is unpacked.
        fs::remove_file(&wheel).map_err(|error| explain(error, "remove", &wheel))?;
    }
    if platform.is_linux() && kind == Kind::Cpu {
        // `-ltorch`, which torch-sys links with, then means libtorch_cpu.so.
        let script = tree.join("torch/lib/libtorch.so");
        fs::write(&script, "INPUT(-ltorch_cpu)\n")
            .map_err(|error| explain(error, "write", &script))?;
    }
    Ok(())
}

/// One requirement for each package: several parts of the toolkit may require the same one.
fn merged(requirements: Vec<Requirement>) -> Vec<Requirement> {
    let mut merged: Vec<Requirement> = Vec::new();
    for requirement in requirements {
        match merged
            .iter_mut()
            .find(|other| other.name == requirement.name)
        {
            Some(other) if other.specifier == requirement.specifier => {}
            Some(other) => other.specifier = [&*other.specifier, &*requirement.specifier].join(","),
            None => merged.push(requirement),
        }
    }
    merged
}

/// Says what will be downloaded, and how large it is where that is known.
fn announce(pip: &Pip, platform: Platform, kind: Kind) {
    let pins: Vec<_> = pins::all(platform)
        .iter()
        .filter(|pin| ["torch", CUDA_TOOLKIT].contains(&pin.name) || is_wanted(pin.name, kind))
        .collect();
    let wheels = match kind {
        Kind::Cpu => format!("torch {VERSION}"),
        Kind::Cuda => format!("torch {VERSION} and NVIDIA's libraries"),
    };
    let size: u64 = pins.iter().map(|pin| pin.bytes).sum();
    // Where only torch is pinned, the sum would be too small.
    if platform == Platform::LinuxX86_64 {
        eprintln!(
            "downloading {wheels} with `{pip} download`: {}",
            DecimalBytes(size)
        );
    } else {
        eprintln!("downloading {wheels} with `{pip} download`, which shows the sizes");
    }
}

/// Downloads `packages` and compares each wheel with its pin; the wheels are in the packages' order.
fn download(
    pip: &Pip,
    packages: &[Package],
    platform: Platform,
    directory: &Path,
) -> Result<Vec<std::path::PathBuf>> {
    pip.download(packages, platform, directory)?;
    let mut wheels = Vec::new();
    for package in packages {
        let wheel = wheel::find(directory, &package.name)?;
        if let Some(pin) = package.pin {
            let found = hexadecimal(&sha256(&wheel)?);
            if found != pin.sha256 {
                bail!(
                    "{} is not the wheel that it should be: its SHA-256 is {found}, expected {}; \
                     is pip configured to use an index other than PyTorch's and the Python Package Index?",
                    wheel.display(),
                    pin.sha256
                );
            }
        }
        wheels.push(wheel);
    }
    Ok(wheels)
}

/// The requirements that apply on `platform` when `extras` are wanted, and are libraries rather than Python code.
fn applying(
    requirements: Vec<Requirement>,
    platform: Platform,
    extras: &[String],
) -> Result<Vec<Requirement>> {
    let environment = platform.environment();
    let mut found = Vec::new();
    for requirement in requirements {
        // First by name, for the markers of the others need not be understood.
        let is_library =
            requirement.name == CUDA_TOOLKIT || requirement.name.starts_with("nvidia-");
        if is_library && requirement.applies(&environment, extras)? {
            found.push(requirement);
        }
    }
    Ok(found)
}

/// True if the library package `name` is needed for `kind`.
fn is_wanted(name: &str, kind: Kind) -> bool {
    match kind {
        Kind::Cuda => true,
        Kind::Cpu => NEEDED_BY_CPU.iter().any(|(package, _)| *package == name),
    }
}

/// True if the wheels' file `name` is to be installed.
fn is_kept(name: &str, platform: Platform, kind: Kind) -> bool {
    let trimmed = platform.is_linux() && kind == Kind::Cpu;
    let Some((top, rest)) = name.split_once('/') else {
        return false;
    };
    match top {
        "torch" => match rest.split_once('/') {
            Some(("include", _)) => true,
            Some(("lib", file)) => !trimmed || !(file.contains('/') || NOT_FOR_CPU.contains(&file)),
            // Where the tools that make wheels portable put the libraries that they add.
            Some((".dylibs" | ".libs", _)) => true,
            _ => false,
        },
        "nvidia" if trimmed => {
            let file = rest.rsplit('/').next().unwrap_or(rest);
            NEEDED_BY_CPU
                .iter()
                .any(|(_, library)| file.starts_with(library))
        }
        "nvidia" => true,
        // The licences: whoever passes the directory on must pass them on.
        _ => top.ends_with(".libs") || top.ends_with(".dist-info"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::requirement::allows;

    /// `Requires-Dist` of torch 2.13.0.
    const TORCH: &str = r#"filelock
sympy>=1.13.3
cuda-toolkit[cublas,cudart,cufft,cufile,cupti,curand,cusolver,cusparse,nvjitlink,nvrtc,nvtx]==13.0.3; platform_system == "Linux"
cuda-bindings<14,>=13.0.3; platform_system == "Linux" and python_version < "3.15"
nvidia-cudnn-cu13==9.20.0.48; platform_system == "Linux"
nvidia-cusparselt-cu13==0.8.1; platform_system == "Linux"
nvidia-nccl-cu13==2.29.7; platform_system == "Linux"
nvidia-nvshmem-cu13==3.4.5; platform_system == "Linux"
triton==3.7.1; platform_system == "Linux" and python_version < "3.15"
optree>=0.13.0; extra == "optree""#;

    /// A part of cuda-toolkit 13.0.3's, whose every entry is there once for each extra and once for `all`.
    const TOOLKIT: &str = r#"nvidia-cublas==13.1.1.3.*; (sys_platform == 'linux' and platform_machine == 'x86_64' or sys_platform == 'win32' and platform_machine == 'AMD64') and extra == 'all'
nvidia-cublas==13.1.1.3.*; (sys_platform == 'linux' and platform_machine == 'x86_64' or sys_platform == 'win32' and platform_machine == 'AMD64') and extra == 'cublas'
nvidia-cublas==13.1.1.3.*; (sys_platform == 'linux' and platform_machine == 'x86_64') and extra == 'cusolver'
nvidia-npp==13.0.1.2.*; (sys_platform == 'linux' and platform_machine == 'x86_64') and extra == 'npp'
nvidia-nvjitlink<14,>=13.0.88; (sys_platform == 'linux' and platform_machine == 'x86_64') and extra == 'nvjitlink'"#;

    fn parse(lines: &str) -> Vec<Requirement> {
        lines
            .lines()
            .map(|line| Requirement::parse(line).unwrap())
            .collect()
    }

    #[test]
    fn torchs_metadata_names_the_libraries() {
        let names = |platform| -> Vec<_> {
            applying(parse(TORCH), platform, &[])
                .unwrap()
                .into_iter()
                .map(|requirement| requirement.name)
                .collect()
        };
        let expect = [
            "cuda-toolkit",
            "nvidia-cudnn-cu13",
            "nvidia-cusparselt-cu13",
            "nvidia-nccl-cu13",
            "nvidia-nvshmem-cu13",
        ];
        assert_eq!(names(Platform::LinuxX86_64), expect);
        assert!(names(Platform::MacosAarch64).is_empty());
    }

    #[test]
    fn the_toolkits_metadata_names_those_of_the_wanted_extras() {
        let toolkit = applying(parse(TORCH), Platform::LinuxX86_64, &[])
            .unwrap()
            .remove(0);
        let libraries =
            merged(applying(parse(TOOLKIT), Platform::LinuxX86_64, &toolkit.extras).unwrap());
        let names: Vec<_> = libraries
            .iter()
            .map(|library| library.name.as_str())
            .collect();
        assert_eq!(names, ["nvidia-cublas", "nvidia-nvjitlink"]);
        for library in &libraries {
            let pin = pins::find(Platform::LinuxX86_64, &library.name).unwrap();
            assert!(allows(&library.specifier, pin.version).unwrap(), "{pin:?}");
        }
    }

    #[test]
    fn what_is_required_twice_must_satisfy_both() {
        let requirements = merged(parse("a<14\na>=13\nb==1\na<14\nb==1"));
        let lines: Vec<_> = requirements
            .iter()
            .map(|r| format!("{}{}", r.name, r.specifier))
            .collect();
        assert_eq!(lines, ["a<14,>=13,<14", "b==1"]);
    }

    #[test]
    fn every_library_that_torch_names_is_pinned() {
        for library in applying(parse(TORCH), Platform::LinuxX86_64, &[]).unwrap() {
            assert!(
                Package::new(&library, Platform::LinuxX86_64)
                    .unwrap()
                    .pin
                    .is_some(),
                "{}",
                library.name
            );
        }
        for (package, _) in NEEDED_BY_CPU {
            assert!(
                pins::find(Platform::LinuxX86_64, package).is_some(),
                "{package}"
            );
        }
    }

    #[test]
    fn files_are_kept_by_kind() {
        // Kept on Linux for CPUs, on Linux for GPUs, on macOS.
        let check = |name: &str, expect: [bool; 3]| {
            let found = [
                is_kept(name, Platform::LinuxX86_64, Kind::Cpu),
                is_kept(name, Platform::LinuxX86_64, Kind::Cuda),
                is_kept(name, Platform::MacosAarch64, Kind::Cpu),
            ];
            assert_eq!(found, expect, "{name}");
        };
        check("torch/lib/libtorch_cpu.so", [true, true, true]);
        check("torch/lib/libgomp.so.1", [true, true, true]);
        check("torch/lib/libtorch_cuda.so", [false, true, true]);
        check("torch/lib/libtorch.so", [false, true, true]);
        check("torch/lib/libshm/libshm.h", [false, true, true]);
        check("torch/include/ATen/ATen.h", [true, true, true]);
        check("torch/nn/modules/linear.py", [false, false, false]);
        check("functorch/__init__.py", [false, false, false]);
        check("nvidia/cu13/lib/libcudart.so.13", [true, true, true]);
        check("nvidia/cu13/lib/libnvperf_host.so", [false, true, true]);
        check(
            "torch-2.13.0.dist-info/licenses/LICENSE",
            [true, true, true],
        );
    }
}

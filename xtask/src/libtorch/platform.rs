//! What differs between the systems that PyTorch publishes for.

use anyhow::{Result, bail};

use super::{Kind, VERSION, requirement::Environment};

/// A system that PyTorch publishes libtorch for.
///
/// Only [`Platform::LinuxX86_64`] has been tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Linux with glibc 2.28 or newer.
    LinuxX86_64,
    /// Linux with glibc 2.28 or newer.
    LinuxAarch64,
    /// macOS 14 or newer.
    MacosAarch64,
    /// Windows.
    WindowsX86_64,
}

impl Platform {
    /// The system that this program was built for.
    ///
    /// # Errors
    /// If PyTorch publishes nothing for it.
    pub fn current() -> Result<Self> {
        if cfg!(target_env = "musl") {
            bail!(
                "there is no libtorch for musl: use a system with glibc, or build libtorch and set LIBTORCH to it"
            );
        }
        match (std::env::consts::OS, std::env::consts::ARCH) {
            ("linux", "x86_64") => Ok(Self::LinuxX86_64),
            ("linux", "aarch64") => Ok(Self::LinuxAarch64),
            ("macos", "aarch64") => Ok(Self::MacosAarch64),
            ("windows", "x86_64") => Ok(Self::WindowsX86_64),
            (system, machine) => {
                bail!(
                    "PyTorch publishes no libtorch {VERSION} for {system} on {machine}: build it and set LIBTORCH to it"
                )
            }
        }
    }

    /// True for Linux, where one wheel serves CPUs and NVIDIA GPUs.
    pub fn is_linux(self) -> bool {
        matches!(self, Self::LinuxX86_64 | Self::LinuxAarch64)
    }

    /// The platform tags of the wheels that run here, as pip names them.
    pub fn wheel_tags(self) -> Vec<String> {
        // pip takes each tag by its letter, so every older glibc that wheels are built for is named.
        let glibc = |machine: &str| {
            let named = ["manylinux1", "manylinux2010", "manylinux2014"].map(str::to_owned);
            let numbered =
                [5, 12, 17, 18, 24, 25, 26, 27, 28].map(|minor| format!("manylinux_2_{minor}"));
            named
                .into_iter()
                .chain(numbered)
                .map(|tag| format!("{tag}_{machine}"))
                .collect()
        };
        match self {
            Self::LinuxX86_64 => glibc("x86_64"),
            Self::LinuxAarch64 => glibc("aarch64"),
            Self::MacosAarch64 => vec!["macosx_14_0_arm64".to_owned()],
            Self::WindowsX86_64 => vec!["win_amd64".to_owned()],
        }
    }

    /// What a wheel's requirements may ask about this system.
    pub fn environment(self) -> Environment {
        let (platform_system, sys_platform, platform_machine, os_name) = match self {
            Self::LinuxX86_64 => ("Linux", "linux", "x86_64", "posix"),
            Self::LinuxAarch64 => ("Linux", "linux", "aarch64", "posix"),
            Self::MacosAarch64 => ("Darwin", "darwin", "arm64", "posix"),
            Self::WindowsX86_64 => ("Windows", "win32", "AMD64", "nt"),
        };
        Environment {
            platform_system,
            sys_platform,
            platform_machine,
            os_name,
        }
    }

    /// The address of PyTorch's libtorch archive below `base`; nothing where there is none.
    pub fn archive_url(self, base: &str, kind: Kind) -> Option<String> {
        let build = match kind {
            Kind::Cpu => "cpu",
            Kind::Cuda => "cu130",
        };
        let file = match (self, kind) {
            (Self::LinuxX86_64, _) => format!("libtorch-shared-with-deps-{VERSION}%2B{build}.zip"),
            (Self::WindowsX86_64, _) => {
                format!("libtorch-win-shared-with-deps-{VERSION}%2B{build}.zip")
            }
            (Self::MacosAarch64, Kind::Cpu) => format!("libtorch-macos-arm64-{VERSION}.zip"),
            (Self::MacosAarch64, Kind::Cuda) | (Self::LinuxAarch64, _) => return None,
        };
        Some(format!("{}/{build}/{file}", base.trim_end_matches('/')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_have_pytorchs_addresses() {
        let check = |platform: Platform, kind, expect: Option<&str>| {
            assert_eq!(
                platform
                    .archive_url("https://host/libtorch/", kind)
                    .as_deref(),
                expect
            );
        };
        check(
            Platform::LinuxX86_64,
            Kind::Cpu,
            Some("https://host/libtorch/cpu/libtorch-shared-with-deps-2.13.0%2Bcpu.zip"),
        );
        check(
            Platform::LinuxX86_64,
            Kind::Cuda,
            Some("https://host/libtorch/cu130/libtorch-shared-with-deps-2.13.0%2Bcu130.zip"),
        );
        check(
            Platform::MacosAarch64,
            Kind::Cpu,
            Some("https://host/libtorch/cpu/libtorch-macos-arm64-2.13.0.zip"),
        );
        check(Platform::LinuxAarch64, Kind::Cpu, None);
    }
}

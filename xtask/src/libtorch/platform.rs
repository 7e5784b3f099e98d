//! The one system that set-up installs libtorch on.

use std::env::consts::{ARCH, OS};

use anyhow::{Result, bail};

use super::VERSION;

/// Checks that this program was built for the system of the pinned wheels: Linux on x86-64 with glibc.
///
/// # Errors
/// If it was built for another.
pub fn check() -> Result<()> {
    check_system(OS, ARCH, cfg!(target_env = "musl").then_some("musl"))
}

fn check_system(system: &str, machine: &str, other_libc: Option<&str>) -> Result<()> {
    if (system, machine, other_libc) == ("linux", "x86_64", None) {
        return Ok(());
    }
    let with = other_libc.map_or_else(String::new, |libc| format!(" with {libc}"));
    bail!(
        "set-up installs libtorch on linux on x86_64 with glibc only, and this is {system} on {machine}{with}: \
         download or build libtorch {VERSION} for it and set LIBTORCH to its directory, \
         or set LIBTORCH_USE_PYTORCH=1 where Python has torch {VERSION}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_systems_are_named_with_the_remedy() {
        check_system("linux", "x86_64", None).unwrap();
        for (system, machine, libc) in [
            ("linux", "aarch64", None),
            ("linux", "x86_64", Some("musl")),
            ("macos", "aarch64", None),
            ("windows", "x86_64", None),
        ] {
            let message = check_system(system, machine, libc).unwrap_err().to_string();
            for word in [
                system,
                machine,
                libc.unwrap_or_default(),
                "LIBTORCH",
                VERSION,
            ] {
                assert!(message.contains(word), "no {word:?} in: {message}");
            }
        }
    }
}

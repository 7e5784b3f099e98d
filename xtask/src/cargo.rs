//! Running cargo from a program that cargo runs.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::libtorch::Source;

/// The directory of the workspace's `Cargo.toml`.
///
/// Asked for at run time first: the workspace may have moved since this program was built.
pub fn workspace_root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
    let package = PathBuf::from(package);
    package
        .parent()
        .map_or_else(|| package.clone(), Path::to_path_buf)
}

/// cargo, in the environment of the user rather than that of the cargo that runs this program.
///
/// What the outer cargo adds would differ from what a plain `cargo build` sees:
/// build scripts that watch such a variable would run again at each change between the two.
pub fn command(libtorch: Source) -> Command {
    let mut command = Command::new(cargo());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_from_outer_cargo) {
            command.env_remove(name);
        }
    }
    if libtorch == Source::Config {
        // Possibly what the file said before set-up changed it; the inner cargo reads the file anew.
        command.env_remove("LIBTORCH");
    }
    if let Some(paths) = env::var_os("LD_LIBRARY_PATH") {
        match users_library_path(&paths, &directories_of_outer_cargo()) {
            Some(paths) => command.env("LD_LIBRARY_PATH", paths),
            None => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
    command
}

/// Replaces this process by `command`, so that signals and the exit code need no forwarding.
#[cfg(unix)]
pub fn become_command(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    // `exec` returns only if it fails.
    Err(command.exec()).with_context(|| format!("cannot run {}", command.get_program().display()))
}

/// Runs `command` and exits as it does.
#[cfg(not(unix))]
pub fn become_command(mut command: Command) -> Result<ExitCode> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    std::process::exit(status.code().unwrap_or(1));
}

/// The cargo that runs this program, which is the toolchain's own and not rustup's proxy.
fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

fn is_from_outer_cargo(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_BIN_")
        || [
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
            "CARGO_CRATE_NAME",
            "CARGO_PRIMARY_PACKAGE",
        ]
        .contains(&name)
}

/// Where the entries that cargo puts before the user's `LD_LIBRARY_PATH` lie: its target directory
/// and Rust's own libraries. (The toolchain's `lib` is of rustup's proxy, which a plain `cargo build` has, too.)
fn directories_of_outer_cargo() -> Vec<PathBuf> {
    let executable = env::current_exe().ok();
    let target = executable.as_deref().and_then(Path::parent);
    let cargo = PathBuf::from(cargo());
    let toolchain = cargo.is_absolute().then(|| {
        cargo
            .parent()
            .and_then(Path::parent)
            .map(|root| root.join("lib").join("rustlib"))
    });
    target
        .map(Path::to_path_buf)
        .into_iter()
        .chain(toolchain.flatten())
        .collect()
}

/// `paths` without those inside `foreign`; nothing if none is left.
fn users_library_path(paths: &OsString, foreign: &[PathBuf]) -> Option<OsString> {
    let users: Vec<_> = env::split_paths(paths)
        .filter(|path| {
            !path.as_os_str().is_empty()
                && !foreign.iter().any(|directory| path.starts_with(directory))
        })
        .collect();
    if users.is_empty() {
        None
    } else {
        env::join_paths(users).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_of_the_outer_cargo_are_told_from_the_users() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_BIN_NAME"] {
            assert!(is_from_outer_cargo(name), "{name}");
        }
        for name in [
            "CARGO_TARGET_DIR",
            "CARGO_HOME",
            "CARGO_BUILD_JOBS",
            "CARGO_PROFILE_DEV_DEBUG",
        ] {
            assert!(!is_from_outer_cargo(name), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_users_library_path_loses_the_outer_cargos_entries() {
        let foreign = [
            PathBuf::from("/w/target/xtask"),
            PathBuf::from("/toolchain/lib/rustlib"),
        ];
        let check = |paths: &str, expect: Option<&str>| {
            assert_eq!(
                users_library_path(&paths.into(), &foreign),
                expect.map(OsString::from),
                "{paths}"
            );
        };
        check("/w/target/xtask/deps:/toolchain/lib/rustlib/x/lib", None);
        check(
            "/w/target/xtask:/opt/cuda/lib64:/toolchain/lib",
            Some("/opt/cuda/lib64:/toolchain/lib"),
        );
        check("/opt/a:/opt/b", Some("/opt/a:/opt/b"));
        check("", None);
    }
}

//! What tests of the real program have in common.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// A workspace, and a search path of its own with few tools on it.
pub struct World {
    directory: TempDir,
}

impl World {
    /// One with these directories, besides its workspace's, and with those of the tools that are here.
    pub fn with(directories: &[&str], tools: &[&str]) -> Self {
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        for directory in [&["workspace/.cargo", "workspace/xtask", "bin"], directories].concat() {
            fs::create_dir_all(world.path(directory)).unwrap();
        }
        let path = env::var_os("PATH").unwrap();
        for tool in tools {
            let found = env::split_paths(&path)
                .map(|directory| directory.join(tool))
                .find(|path| path.is_file());
            if let Some(found) = found {
                symlink(found, world.path("bin").join(tool)).unwrap();
            }
        }
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a program on the search path.
    pub fn script(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// A libtorch of the user's own.
pub fn users_libtorch(directory: &Path, version: &str) {
    fs::create_dir_all(directory.join("lib")).unwrap();
    fs::write(directory.join("lib/libtorch_cpu.so"), "").unwrap();
    fs::write(directory.join("build-version"), version).unwrap();
}

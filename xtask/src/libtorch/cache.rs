//! The per-user directory that holds what set-up installs.
//!
//! ```text
//! <cache>/libtorch-2.13.0-cpu/       an installation, complete or absent
//!           torch/                   what LIBTORCH names: lib, include, build-version
//!           nvidia/                  where torch/lib's RPATH looks for CUDA's libraries
//!           manifest                 the size of every file
//! <cache>/partial-cpu-1234/          an installation in the making, on the same file system
//! <cache>/bench-python/              the environment of `cargo xtask bench`
//! <cache>/bench-photos/              its photographs
//! <cache>/lock                       held while something is being installed
//! ```

use std::{
    env,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::DecimalBytes;

use super::{Kind, VERSION};

/// Files of at least this size are flushed to the disk before an installation takes its place;
/// of smaller ones there are ten thousand, and the manifest tells if a power cut truncated one.
const FLUSHED_SIZE: u64 = 1 << 20;

const MANIFEST: &str = "manifest";
const PARTIAL: &str = "partial-";

/// The per-user directory that holds what set-up installs.
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `MAE_CACHE_DIR`, or `mae-rs` in the user's cache directory.
    ///
    /// # Errors
    /// If the environment does not say where that is.
    pub fn locate() -> Result<Self> {
        let set = |name: &str| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = if let Some(root) = set("MAE_CACHE_DIR") {
            std::path::absolute(&root)
                .with_context(|| format!("MAE_CACHE_DIR is {}", root.display()))?
        } else {
            // The XDG base directory specification has relative paths ignored.
            let user = set("XDG_CACHE_HOME")
                .filter(|path| path.is_absolute())
                .or_else(|| {
                    if cfg!(windows) {
                        set("LOCALAPPDATA")
                    } else {
                        set("HOME").map(|home| {
                            home.join(if cfg!(target_os = "macos") {
                                "Library/Caches"
                            } else {
                                ".cache"
                            })
                        })
                    }
                });
            user.context("no HOME is set: say with MAE_CACHE_DIR where to install libtorch")?
                .join("mae-rs")
        };
        Ok(Self { root })
    }

    /// The directory, which may not be there yet.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the libtorch of `kind` is or will be.
    pub fn installation(&self, kind: Kind) -> Installation {
        Installation {
            root: self.root.join(format!("libtorch-{VERSION}-{kind}")),
        }
    }

    /// Creates the directory and waits until nobody else installs.
    ///
    /// # Errors
    /// If the directory cannot be written or its file system has no locks.
    pub fn lock(&self) -> Result<Lock<'_>> {
        fs::create_dir_all(&self.root).map_err(|error| explain(error, "create", &self.root))?;
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(|error| explain(error, "create", &path))?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for another set-up to finish");
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        locked.map_err(|error| explain(error, "lock", &path))?;
        Ok(Lock {
            cache: self,
            _file: file,
        })
    }
}

/// The right to install; ends when dropped, or when the process is killed.
pub struct Lock<'a> {
    cache: &'a Cache,
    _file: File,
}

impl Lock<'_> {
    /// Removes what killed set-ups left behind: under the lock, no other can be at work.
    pub fn remove_leftovers(&self) -> Result<()> {
        let root = &self.cache.root;
        for entry in root
            .read_dir()
            .with_context(|| format!("cannot list {}", root.display()))?
        {
            let path = entry?.path();
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(PARTIAL))
            {
                eprintln!(
                    "removing what an interrupted set-up left: {}",
                    path.display()
                );
                fs::remove_dir_all(&path).map_err(|error| explain(error, "remove", &path))?;
            }
        }
        Ok(())
    }

    /// Begins an installation that will need `bytes` on the disk.
    pub fn stage(&self, kind: Kind, bytes: u64) -> Result<Staging> {
        let root = &self.cache.root;
        if let Some(free) = free_space(root)
            && free < bytes
        {
            bail!(
                "{} has {} free, and set-up needs {}: make room, or set MAE_CACHE_DIR to a directory on another disk",
                root.display(),
                DecimalBytes(free),
                DecimalBytes(bytes)
            );
        }
        let scratch = root.join(format!("{PARTIAL}{kind}-{}", process::id()));
        let staging = Staging { scratch };
        for directory in [staging.tree(), staging.downloads()] {
            fs::create_dir_all(&directory).map_err(|error| explain(error, "create", &directory))?;
        }
        Ok(staging)
    }
}

/// An installation in the making; removed when dropped.
pub struct Staging {
    scratch: PathBuf,
}

impl Staging {
    /// What will become the installation.
    pub fn tree(&self) -> PathBuf {
        self.scratch.join("tree")
    }

    /// A place for what is downloaded.
    pub fn downloads(&self) -> PathBuf {
        self.scratch.join("downloads")
    }

    /// Puts the tree in the installation's place, replacing a damaged one.
    pub fn commit(self, installation: &Installation) -> Result<()> {
        let tree = self.tree();
        write_manifest(&tree)?;
        let target = &installation.root;
        if target.exists() {
            // Renamed first, so that a kill during the removal leaves no half of it in place.
            let replaced = self.scratch.join("replaced");
            fs::rename(target, &replaced).map_err(|error| explain(error, "replace", target))?;
        }
        fs::rename(&tree, target).map_err(|error| explain(error, "create", target))?;
        if let Some(parent) = target.parent() {
            flush_directory(parent);
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now, the next set-up removes.
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// A libtorch in the cache.
pub struct Installation {
    root: PathBuf,
}

impl Installation {
    /// The installation in the directory `root`.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The directory that holds the installation.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What `LIBTORCH` must be.
    pub fn libtorch(&self) -> PathBuf {
        self.root.join("torch")
    }

    /// True if this is something that set-up installed.
    pub fn has_manifest(&self) -> bool {
        self.root.join(MANIFEST).is_file()
    }

    /// Checks that every file is there with its size: 10,000 files in some hundredths of a second.
    ///
    /// # Errors
    /// The first file that is not.
    pub fn check(&self) -> Result<()> {
        let path = self.root.join(MANIFEST);
        let manifest =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for line in manifest.lines() {
            let (size, name) = line
                .split_once(' ')
                .with_context(|| format!("{} has a damaged line: {line:?}", path.display()))?;
            let file = self.root.join(name);
            let found = fs::metadata(&file)
                .with_context(|| format!("{} is missing", file.display()))?
                .len();
            if size.parse() != Ok(found) {
                bail!("{} has {found} bytes instead of {size}", file.display());
            }
        }
        Ok(())
    }
}

/// An input or output error with the remedies for the usual ones.
pub fn explain(error: io::Error, action: &str, path: &Path) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": make room, or set MAE_CACHE_DIR to a directory on another disk"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ": set MAE_CACHE_DIR to a directory that you may write to"
        }
        io::ErrorKind::Unsupported => ": set MAE_CACHE_DIR to a directory on a local disk",
        _ => "",
    };
    anyhow!(error).context(format!("cannot {action} {}{remedy}", path.display()))
}

/// The free bytes on the disk of `directory`; nothing where `df` does not say, for it is only a courtesy.
fn free_space(directory: &Path) -> Option<u64> {
    let output = Command::new("df")
        .arg("-Pk")
        .arg(directory)
        .env("LC_ALL", "C")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // File system, size, used, available: counted from the end of the line, for the first may hold spaces.
    let available = text
        .lines()
        .nth(1)?
        .rsplit_once('%')?
        .0
        .split_whitespace()
        .rev()
        .nth(1)?;
    Some(available.parse::<u64>().ok()? * 1024)
}

fn write_manifest(tree: &Path) -> Result<()> {
    let mut files = Vec::new();
    list_files(tree, &mut files)?;
    files.sort();
    let mut manifest = String::new();
    for (path, size) in files {
        if size >= FLUSHED_SIZE {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|error| explain(error, "flush", &path))?;
        }
        let name = path
            .strip_prefix(tree)
            .context("a file outside its directory")?;
        let name = name
            .to_str()
            .with_context(|| format!("{} is not UTF-8", path.display()))?;
        manifest += &format!("{size} {name}\n");
    }
    let path = tree.join(MANIFEST);
    File::create(&path)
        .and_then(|mut file| {
            file.write_all(manifest.as_bytes())
                .and_then(|()| file.sync_all())
        })
        .map_err(|error| explain(error, "write", &path))?;
    flush_directory(tree);
    Ok(())
}

fn list_files(directory: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for entry in directory
        .read_dir()
        .with_context(|| format!("cannot list {}", directory.display()))?
    {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            list_files(&entry.path(), files)?;
        } else {
            files.push((entry.path(), metadata.len()));
        }
    }
    Ok(())
}

/// Flushes a directory's entries; only Unix can, and where it fails nothing is lost but that assurance.
fn flush_directory(directory: &Path) {
    if let Ok(directory) = File::open(directory) {
        let _ = directory.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache {
            root: directory.path().join("mae-rs"),
        };
        (directory, cache)
    }

    fn install(cache: &Cache, library: &str) -> Installation {
        let lock = cache.lock().unwrap();
        let staging = lock.stage(Kind::Cpu, 1).unwrap();
        fs::create_dir_all(staging.tree().join("torch/lib")).unwrap();
        fs::write(staging.tree().join("torch/lib/libtorch_cpu.so"), library).unwrap();
        let installation = cache.installation(Kind::Cpu);
        staging.commit(&installation).unwrap();
        installation
    }

    #[test]
    fn a_committed_installation_is_complete_and_nothing_else_is_left() {
        let (_directory, cache) = cache();
        let installation = install(&cache, "library");
        assert!(installation.has_manifest());
        installation.check().unwrap();
        let mut names: Vec<_> = cache
            .root
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["libtorch-2.13.0-cpu", "lock"]);
    }

    #[test]
    fn damage_is_found_and_replaced() {
        let (_directory, cache) = cache();
        let installation = install(&cache, "library");
        let library = installation.libtorch().join("lib/libtorch_cpu.so");
        fs::write(&library, "lib").unwrap();
        assert!(
            installation
                .check()
                .unwrap_err()
                .to_string()
                .contains("3 bytes instead of 7")
        );
        fs::remove_file(&library).unwrap();
        assert!(
            installation
                .check()
                .unwrap_err()
                .to_string()
                .contains("libtorch_cpu.so is missing")
        );
        install(&cache, "library").check().unwrap();
    }

    #[test]
    fn an_abandoned_staging_leaves_nothing() {
        let (_directory, cache) = cache();
        let lock = cache.lock().unwrap();
        drop(lock.stage(Kind::Cuda, 1).unwrap());
        assert!(
            cache
                .root
                .read_dir()
                .unwrap()
                .all(|entry| entry.unwrap().file_name() == "lock")
        );
    }

    #[test]
    fn what_a_killed_set_up_leaves_is_removed() {
        let (_directory, cache) = cache();
        let lock = cache.lock().unwrap();
        // A killed process runs no destructors.
        std::mem::forget(lock.stage(Kind::Cpu, 1).unwrap());
        lock.remove_leftovers().unwrap();
        assert!(
            cache
                .root
                .read_dir()
                .unwrap()
                .all(|entry| entry.unwrap().file_name() == "lock")
        );
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused_early() {
        let (_directory, cache) = cache();
        let lock = cache.lock().unwrap();
        if free_space(&cache.root).is_some() {
            let message = lock.stage(Kind::Cpu, u64::MAX).err().unwrap().to_string();
            assert!(message.contains("MAE_CACHE_DIR"), "{message}");
        }
    }
}

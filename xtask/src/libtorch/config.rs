//! `.cargo/libtorch.toml`: how cargo learns where libtorch is.
//!
//! `.cargo/config.toml` includes it if it exists, so the version-controlled file never changes,
//! and every `cargo build`, `run`, `test` and `bench` sees `LIBTORCH` without the user setting it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result, bail};

const KEY: &str = "LIBTORCH = ";

/// The file's path in the workspace at `root`.
pub fn path(root: &Path) -> PathBuf {
    root.join(".cargo").join("libtorch.toml")
}

/// The libtorch that `file` records; nothing if there is no such file.
pub fn read(file: &Path) -> Result<Option<PathBuf>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text
            .lines()
            .find_map(|line| line.strip_prefix(KEY))
            .and_then(unquote)
            .map(PathBuf::from)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Records `libtorch` in `file`.
///
/// A file that says so already is left alone: builds may depend on it.
pub fn write(file: &Path, libtorch: &Path) -> Result<()> {
    let Some(value) = libtorch.to_str() else {
        bail!(
            "{} is not UTF-8, and cargo's configuration must be: move it",
            libtorch.display()
        );
    };
    if value.chars().any(char::is_control) {
        bail!("{value:?} has a control character: move it");
    }
    let text = format!(
        "# Written by `cargo xtask setup`, for this machine only.\n[env]\n{KEY}{}\n",
        quote(value)
    );
    if fs::read_to_string(file).is_ok_and(|found| found == text) {
        return Ok(());
    }
    let beside = file.with_extension(format!("toml.{}", process::id()));
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// A TOML basic string of a text without control characters.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The reverse of [`quote`]; nothing for any other value.
fn unquote(value: &str) -> Option<String> {
    let inner = value.trim_end().strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        text.push(if character == '\\' {
            characters.next()?
        } else {
            character
        });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("libtorch.toml");
        assert_eq!(read(&file).unwrap(), None);
        for libtorch in [
            "/home/ann/.cache/mae-rs/torch",
            "/with \"quotes\" and spaces",
            r"C:\Users\ann\torch",
        ] {
            write(&file, Path::new(libtorch)).unwrap();
            assert_eq!(read(&file).unwrap().as_deref(), Some(Path::new(libtorch)));
        }
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "a temporary file is left"
        );
    }

    #[test]
    fn the_same_libtorch_leaves_the_file_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("libtorch.toml");
        write(&file, Path::new("/a")).unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        write(&file, Path::new("/a")).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), long_ago);
        write(&file, Path::new("/b")).unwrap();
        assert_ne!(fs::metadata(&file).unwrap().modified().unwrap(), long_ago);
    }

    #[test]
    fn a_path_that_toml_cannot_hold_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(write(&directory.path().join("libtorch.toml"), Path::new("/a\nb")).is_err());
    }
}

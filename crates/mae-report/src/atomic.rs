//! Files that are replaced as a whole.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ReportError;

/// Replaces the file at `path` by `bytes`, so that a reader sees the old content or the new, never a part of
/// either.
///
/// The bytes go to a hidden temporary file in the same folder, reach the disk, and only then take the name
/// `path`.
/// This holds through a crash or a loss of power at any moment.
///
/// # Errors
/// [`ReportError::Io`] if the folder cannot be written to.
/// No temporary file is left, and `path` is as it was; or new, if only the folder could not be synchronised.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    write_atomic_with(path, |temporary| fs::write(temporary, bytes))
}

/// Like [`write_atomic`], for content that is better written by parts than held in memory, such as a large
/// checkpoint.
///
/// `write` is given the path of the temporary file and creates it.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("numbers.txt");
/// use std::{fs::File, io::Write};
///
/// mae_report::write_atomic_with(&path, |temporary| {
///     let mut file = File::create(temporary)?;
///     (0..3).try_for_each(|number| writeln!(file, "{number}"))
/// })?;
/// assert_eq!(std::fs::read_to_string(&path)?, "0\n1\n2\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ReportError::Io`] if `write` fails, or as [`write_atomic`].
pub fn write_atomic_with(
    path: &Path,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), ReportError> {
    let temporary = Temporary::beside(path).map_err(ReportError::io("write", path))?;
    write(&temporary.0)
        .and_then(|()| {
            OpenOptions::new()
                .write(true)
                .open(&temporary.0)?
                .sync_all()
        })
        .and_then(|()| fs::rename(&temporary.0, path))
        .and_then(|()| sync_folder(path))
        .map_err(ReportError::io("write", path))
}

/// A file that is gone once this is dropped, be it by an error or a panic; after a rename there is nothing to
/// remove.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> io::Result<Self> {
        // Two threads of one process may write the same file.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(
            ".{}-{}.tmp",
            process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        Ok(Self(path.with_file_name(hidden)))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Usually already renamed; and an error here would hide the one that led here.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes the rename of a file or folder to `path` itself survive a loss of power.
///
/// # Errors
/// If its folder cannot be opened or synchronised; where a file system knows no such operation, that is none.
#[cfg(unix)]
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    match fs::File::open(folder)?.sync_all() {
        // Some network file systems have no such operation.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}

/// Other systems do not open folders as files, and order the rename themselves.
#[cfg(not(unix))]
pub fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    }

    #[test]
    fn replaces_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomic(&path, b"old and longer").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn failure_keeps_the_old_file_and_no_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomic(&path, b"old").unwrap();
        let error = write_atomic_with(&path, |temporary| {
            fs::write(temporary, "half")?;
            Err(io::Error::other("encoder gave up"))
        })
        .unwrap_err();
        assert!(
            error.to_string().contains("a.txt: encoder gave up"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn panic_leaves_no_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let outcome = std::panic::catch_unwind(|| {
            write_atomic_with(&path, |temporary| {
                fs::write(temporary, "half")?;
                panic!("on purpose")
            })
        });
        assert!(outcome.is_err());
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn rename_onto_a_folder_fails_cleanly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write_atomic(&path, b"x").is_err());
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn missing_folder_and_missing_name_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_atomic(&folder.path().join("no/such/a.txt"), b"x").unwrap_err();
        assert!(
            error.to_string().contains("check that the folder exists"),
            "{error}"
        );
        assert!(write_atomic(Path::new("/"), b"x").is_err());
    }
}

//! What is under a folder, links to other folders included, nothing twice.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::dataset::service;
use crate::error::DataError;

/// What a path leads to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    File,
    /// It is searched if the caller says so.
    Folder,
    /// A link to nothing.
    Nowhere,
    /// A link to a folder that holds it, or that is searched under another name; told after [`Found::Folder`].
    Again,
}

/// Calls `see` with each path below `root` that is a file, a folder or a link to one of these; the folders for which it
/// returns true are searched.
///
/// Links come last, in the order of their names, so that it does not depend on the file system which of two names of a
/// folder is the one that is read.
pub(super) fn walk(
    root: &Path,
    see: &mut dyn FnMut(&Path, Found) -> bool,
) -> Result<(), DataError> {
    let mut links = BTreeSet::new();
    let mut searched = HashSet::new();
    search(root, root, &mut searched, &mut links, see)?;
    while let Some(link) = links.pop_first() {
        match is_searched(&link, &searched) {
            true => {
                see(below(root, &link), Found::Again);
            }
            false => search(root, &link, &mut searched, &mut links, see)?,
        }
    }
    Ok(())
}

/// Whether a name is one of those that are not searched: it is hidden, or a system's own.
pub(super) fn is_kept_apart(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || service::keeps(name).is_some()
}

/// Searches the folder `start`, and adds the links to others in it to `links`.
fn search(
    root: &Path,
    start: &Path,
    searched: &mut HashSet<PathBuf>,
    links: &mut BTreeSet<PathBuf>,
    see: &mut dyn FnMut(&Path, Found) -> bool,
) -> Result<(), DataError> {
    let real = start.canonicalize().map_err(|source| DataError::Io {
        path: start.to_owned(),
        source,
    })?;
    searched.insert(real.clone());
    let mut entries = WalkDir::new(start).into_iter();
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|error| DataError::Io {
            path: error.path().unwrap_or(start).to_owned(),
            source: error.into(),
        })?;
        let Some(found) = found(&entry).filter(|_| entry.depth() > 0) else {
            continue;
        };
        let is_link = entry.path_is_symlink();
        let is_wanted = see(below(root, entry.path()), found);
        match (found, is_link) {
            (Found::Folder, true) if is_wanted => {
                links.insert(entry.into_path());
            }
            (Found::Folder, false) => {
                let place = real.join(below(start, entry.path()));
                if !is_wanted || searched.contains(&place) {
                    entries.skip_current_dir();
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn found(entry: &DirEntry) -> Option<Found> {
    let mut kind = entry.file_type();
    if kind.is_symlink() {
        let Ok(target) = entry.path().metadata() else {
            return Some(Found::Nowhere);
        };
        kind = target.file_type();
    }
    match (kind.is_dir(), kind.is_file()) {
        (true, _) => Some(Found::Folder),
        (_, true) => Some(Found::File),
        _ => None,
    }
}

/// Whether a link leads to a folder that holds it, or that lies in one that was searched.
fn is_searched(link: &Path, searched: &HashSet<PathBuf>) -> bool {
    let Ok(target) = link.canonicalize() else {
        return false;
    };
    let folder = link.parent().and_then(|folder| folder.canonicalize().ok());
    if folder.is_some_and(|folder| folder.starts_with(&target)) {
        return true;
    }
    let Some(start) = (target.ancestors()).find(|folder| searched.contains(*folder)) else {
        return false;
    };
    let is_apart = |part: Component| is_kept_apart(part.as_os_str());
    !below(start, &target).components().any(is_apart)
}

fn below<'a>(root: &Path, path: &'a Path) -> &'a Path {
    path.strip_prefix(root).unwrap_or(path)
}

//! Which tar files a path stands for.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, glob_with};
use walkdir::{DirEntry, WalkDir};

use super::braces::expand;
use super::passed::{Passed, Why};
use crate::dataset::content::{self, Content};
use crate::dataset::ending::{self, Ending};
use crate::dataset::service;
use crate::error::DataError;

/// How programs compress tar files, by the ending.
const COMPRESSED: [&str; 10] = [
    ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz",
    ".tar.lz4",
];

/// Linux maps 65,530 files of one process at most.
pub(super) const MAX_SHARDS: usize = 60_000;

/// Whether `path` leads to tar files: one file, by its name or content; braces or a pattern; or a folder that holds
/// tar files and no images.
pub(super) fn are_at(path: &Path) -> bool {
    let is_pattern = |path: &Path| {
        let text = path.to_string_lossy();
        text.contains('{') || is_glob(&text)
    };
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => are_in(path),
        Ok(metadata) => {
            metadata.is_file() && (is_tar(path) || is_compressed(path) || has_magic(path))
        }
        Err(_) => is_pattern(path) || is_tar(path) || is_compressed(path),
    }
}

/// The tar files that `paths` stand for, in their order; those of a folder or a pattern in the order of their paths.
/// Of these, what is no tar file is passed over.
pub(super) fn find<P: AsRef<Path>>(paths: &[P]) -> Result<(Vec<PathBuf>, Passed), DataError> {
    let (mut shards, mut passed) = (Vec::new(), Passed::default());
    for path in paths {
        for path in expand(path.as_ref())? {
            let text = path.to_str().filter(|text| is_glob(text) && !path.exists());
            let found = match text {
                Some(pattern) => matches(&path, pattern)?,
                None if path.is_dir() => files_in(&path)?,
                None => {
                    shards.push(path);
                    continue;
                }
            };
            let before = shards.len();
            let mut of_path = Passed::default();
            for file in &found {
                let ending = file.extension().unwrap_or_default().to_string_lossy();
                let why = match is_compressed(file) {
                    _ if is_tar(file) => {
                        shards.push(file.clone());
                        continue;
                    }
                    true => Why::Compressed,
                    false => Why::NoShard,
                };
                of_path.add(why, &ending, || file.display().to_string());
            }
            if shards.len() == before {
                return Err(none_at(&path, &found, &of_path));
            }
            passed.append(of_path);
        }
    }
    match shards.len() {
        0..=MAX_SHARDS => Ok((shards, passed)),
        count => Err(DataError::Config {
            key: "shards",
            expected: format!("at most {MAX_SHARDS} tar files"),
            found: count.to_string(),
            remedy: "write more images into each".to_owned(),
        }),
    }
}

/// Refuses a compressed tar file.
pub(super) fn refuse_compressed(path: &Path, kind: &str, program: &str) -> DataError {
    DataError::Dataset {
        path: path.to_owned(),
        expected: "a tar file that is not compressed, to read images from it in any order"
            .to_owned(),
        found: format!("one compressed with {kind}"),
        remedy: format!("unpack it with {program}: images are compressed already"),
    }
}

fn none_at(path: &Path, found: &[PathBuf], passed: &Passed) -> DataError {
    if let Some(first) = passed.first(Why::Compressed) {
        let name = first.to_ascii_lowercase();
        let (kind, program) = match name.rsplit('.').next().unwrap_or_default() {
            "gz" | "tgz" => ("gzip", "gunzip"),
            "zst" | "tzst" => ("zstd", "unzstd"),
            "xz" | "txz" => ("xz", "unxz"),
            "lz4" => ("lz4", "unlz4"),
            _ => ("bzip2", "bunzip2"),
        };
        return refuse_compressed(Path::new(first), kind, program);
    }
    DataError::Dataset {
        path: path.to_owned(),
        expected: "tar files".to_owned(),
        found: match found {
            [] => "none".to_owned(),
            [first, ..] => format!(
                "{} other files, the first {}",
                found.len(),
                first.display()
            ),
        },
        remedy: "give tar files, a folder of them, or a pattern in quotes, as 'shards/*.tar'; of images, the folder"
            .to_owned(),
    }
}

fn is_tar(path: &Path) -> bool {
    name_of(path).ends_with(".tar")
}

fn is_compressed(path: &Path) -> bool {
    let name = name_of(path);
    COMPRESSED.iter().any(|ending| name.ends_with(ending))
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.to_ascii_lowercase()
}

/// Whether a file begins with a member's header, whatever its name.
fn has_magic(path: &Path) -> bool {
    const MAGIC_AT: usize = 257;
    let mut start = [0; MAGIC_AT + 5];
    let read = std::fs::File::open(path)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    read.is_ok() && start.ends_with(b"ustar")
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The files that match a pattern, and those in the folders that do, in order.
fn matches(path: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    const OPTIONS: MatchOptions = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let refuse = |found: String| DataError::Config {
        key: "shards",
        expected: "a path with *, ?, [0-9] or ** in it".to_owned(),
        found,
        remedy: "write, for example, 'shards/*.tar'".to_owned(),
    };
    // What is there is called so, and is no pattern.
    let literal = path.ancestors().find(|folder| folder.exists());
    let literal = literal.and_then(Path::to_str).unwrap_or_default();
    let pattern = Pattern::escape(literal) + &pattern[literal.len()..];
    let found =
        glob_with(&pattern, OPTIONS).map_err(|error| refuse(format!("{pattern}: {error}")))?;
    let mut files = Vec::new();
    for path in found {
        let path = path.map_err(|error| DataError::Io {
            path: error.path().to_owned(),
            source: error.into(),
        })?;
        match path.is_dir() {
            true => files.extend(files_in(&path)?),
            false => files.push(path),
        }
    }
    // `**` matches a folder and what is in it.
    files.sort();
    files.dedup();
    Ok(files)
}

/// The files under a folder that are not hidden, in order.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for entry in walk(folder) {
        match entry {
            Ok(entry) if entry.file_type().is_file() => files.push(entry.into_path()),
            Ok(_) => {}
            // A link in a circle, or to nowhere.
            Err(error) if error.loop_ancestor().is_some() => log::warn!("skipped a link: {error}"),
            Err(error) if error.path().is_some_and(Path::is_symlink) => {
                log::warn!("skipped a link: {error}");
            }
            Err(error) => {
                return Err(DataError::Io {
                    path: error.path().unwrap_or(folder).to_owned(),
                    source: error.into(),
                });
            }
        }
    }
    files.sort();
    Ok(files)
}

fn are_in(folder: &Path) -> bool {
    let mut found = false;
    for entry in walk(folder)
        .flatten()
        .filter(|entry| entry.file_type().is_file())
    {
        match ending::of(entry.path()) {
            Ending::Image => return false,
            Ending::Unknown | Ending::Picture(_) if content::of(entry.path()) == Content::Image => {
                return false;
            }
            _ => {}
        }
        found |= is_tar(entry.path()) || is_compressed(entry.path());
    }
    found
}

fn walk(folder: &Path) -> impl Iterator<Item = walkdir::Result<DirEntry>> {
    let is_hidden = |entry: &DirEntry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(b".") || service::keeps(name).is_some()
    };
    WalkDir::new(folder)
        .follow_links(true)
        .into_iter()
        .filter_entry(move |entry| entry.depth() == 0 || !is_hidden(entry))
}

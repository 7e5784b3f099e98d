//! Which files of a folder are its images, and what the others are.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use walkdir::{DirEntry, WalkDir};

use crate::dataset::content::{self, Content};
use crate::dataset::ending::{self, Ending};
use crate::dataset::left_out::{Tally, Weight};
use crate::dataset::service;
use crate::error::DataError;

/// What is in a folder.
pub(super) struct Listing {
    /// Paths of the images, relative to the folder, sorted.
    pub(super) images: Vec<PathBuf>,
    /// What else there is.
    pub(super) left_out: Tally,
}

/// Searches `root` and its sub-folders.
///
/// Only files whose names do not say what they are are opened.
pub(super) fn list(root: &Path) -> Result<Listing, DataError> {
    let (mut images, mut unknown) = (Vec::new(), Vec::new());
    let mut left_out = Tally::default();
    let mut entries = WalkDir::new(root).follow_links(true).into_iter();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                left_out_link(error, root, &mut left_out)?;
                continue;
            }
        };
        let is_folder = entry.file_type().is_dir();
        let path = below(root, entry.path());
        if entry.depth() > 0 && is_kept_apart(&entry, path, &mut left_out) {
            if is_folder {
                entries.skip_current_dir();
            }
        } else if entry.file_type().is_file() {
            match ending::of(path) {
                Ending::Image => images.push(path.to_owned()),
                Ending::Unknown => unknown.push(path.to_owned()),
                Ending::Other(kind) => {
                    let ending = path.extension().unwrap_or_default().to_string_lossy();
                    let reason = kind.reason(&ending);
                    left_out.add(kind.weight, &ending::name(path), &reason, path);
                }
            }
        }
    }
    let contents: Vec<Content> = unknown
        .par_iter()
        .map(|path| content::of(&root.join(path)))
        .collect();
    for (path, content) in unknown.into_iter().zip(contents) {
        match content {
            Content::Image => images.push(path),
            Content::Tiff if ending::may_be_tiff(&path) => images.push(path),
            _ => left_out_by_content(&path, content, &mut left_out),
        }
    }
    images.sort();
    Ok(Listing { images, left_out })
}

/// What to say of a folder without images.
pub(super) fn no_images(root: &Path, left_out: Tally) -> DataError {
    const SHOWN: usize = 5;
    let remedy = left_out.remedy().map(str::to_owned);
    let groups = left_out.into_list();
    let files: usize = groups.iter().map(|group| group.count).sum();
    let mut shown: Vec<String> = (groups.iter().take(SHOWN))
        .map(|group| format!("{}: {}", group.what, group.count))
        .collect();
    if groups.len() > SHOWN {
        shown.push("...".to_owned());
    }
    let found = match files {
        0 => "no files".to_owned(),
        _ => format!("0 images among {files} files ({})", shown.join(", ")),
    };
    match remedy {
        None => DataError::NoImages {
            path: root.to_owned(),
            found,
        },
        Some(remedy) => DataError::Dataset {
            path: root.to_owned(),
            expected: "images".to_owned(),
            found,
            remedy: format!(
                "{remedy}; supported: {}",
                ending::SUPPORTED_EXTENSIONS.join(", ")
            ),
        },
    }
}

fn below<'a>(root: &Path, path: &'a Path) -> &'a Path {
    path.strip_prefix(root).unwrap_or(path)
}

/// Whether a file or folder is hidden or one that no person put there; such a one is counted.
fn is_kept_apart(entry: &DirEntry, path: &Path, left_out: &mut Tally) -> bool {
    let name = entry.file_name();
    let is_folder = entry.file_type().is_dir();
    if let Some(keeps) = service::keeps(name) {
        let what = match is_folder {
            true => format!("folders {}", name.to_string_lossy()),
            false => format!("files that are {keeps}"),
        };
        left_out.add(Weight::Beside, &what, keeps, path);
        return true;
    }
    if !name.as_encoded_bytes().starts_with(b".") {
        return false;
    }
    // A hidden text is missed by nobody.
    let (weight, what) = match (is_folder, ending::of(path)) {
        (true, _) => (Weight::Missed, "hidden folders"),
        (false, Ending::Image) => (Weight::Missed, "hidden images"),
        (false, _) => (Weight::Beside, "hidden files"),
    };
    let reason = "names that begin with a dot are not searched; rename what is meant to be read";
    left_out.add(weight, what, reason, path);
    true
}

fn left_out_by_content(path: &Path, content: Content, left_out: &mut Tally) {
    let name = ending::name(path);
    let known = match content {
        Content::Like(ending) => ending::kind(ending).map(|kind| (ending, kind)),
        _ => None,
    };
    match known {
        Some((ending, kind)) => left_out.add(
            kind.weight,
            &format!("{name} that hold {ending}"),
            &kind.reason(ending),
            path,
        ),
        None if content == Content::Tiff => left_out.add(
            Weight::Missed,
            &format!("{name} that begin like TIFF"),
            "cameras and scanners have TIFF files of their own, where an image is a thumbnail; \
             rename to .tif what is a picture",
            path,
        ),
        None => left_out.add(
            Weight::Beside,
            &name,
            "they do not begin like an image",
            path,
        ),
    }
}

/// Counts a link that cannot be followed; any other error is one.
///
/// A link to a folder that holds it would be followed for ever; one to nothing leads nowhere.
fn left_out_link(
    error: walkdir::Error,
    root: &Path,
    left_out: &mut Tally,
) -> Result<(), DataError> {
    let path = error.path().unwrap_or(root).to_owned();
    let shown = below(root, &path);
    if error.loop_ancestor().is_some() {
        let reason = "they lead to a folder that they are in";
        left_out.add(Weight::Beside, "links in circles", reason, shown);
        return Ok(());
    }
    if path.is_symlink() && !path.exists() {
        let reason = "what they name is not there; mount or fetch it, or remove them";
        left_out.add(Weight::Missed, "links that lead nowhere", reason, shown);
        return Ok(());
    }
    Err(DataError::Io {
        path,
        source: error.into(),
    })
}

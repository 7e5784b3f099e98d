//! Which files of a folder are its images, and what the others are.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::walk::{Found, walk};
use crate::dataset::content::{self, Content};
use crate::dataset::ending::{self, Ending};
use crate::dataset::left_out::{Tally, Weight};
use crate::dataset::service;
use crate::error::DataError;
use crate::extensions::SUPPORTED_EXTENSIONS;

/// What is in a folder.
#[derive(Default)]
pub(super) struct Listing {
    /// Paths of the images, relative to the folder, sorted.
    pub(super) images: Vec<PathBuf>,
    /// Names of the sub-folders that were searched.
    pub(super) folders: Vec<String>,
    /// What else there is.
    pub(super) left_out: Tally,
    /// Files whose content decides.
    undecided: Vec<PathBuf>,
}

/// Searches `root` and its sub-folders.
///
/// Only files whose names do not say that they are images, or nothing like them, are opened.
pub(super) fn list(root: &Path) -> Result<Listing, DataError> {
    let mut listing = Listing::default();
    walk(root, &mut |path, found| listing.see(path, found))?;
    listing.decide(root);
    listing.images.sort();
    listing.folders.sort();
    Ok(listing)
}

impl Listing {
    /// Notes a path; whether it is a folder that is to be searched.
    fn see(&mut self, path: &Path, found: Found) -> bool {
        let is_folder = found == Found::Folder;
        if left_out_by_name(path, is_folder, &mut self.left_out) {
            return false;
        }
        match found {
            Found::File => self.see_file(path),
            Found::Folder => {}
            Found::Nowhere => {
                let reason = "what they name is not there; mount or fetch it, or remove them";
                let what = "links that lead nowhere";
                self.left_out.add(Weight::Missed, what, reason, path);
            }
            Found::Again => {
                let what = "links to a folder that is read already, or to one above";
                let reason = "nothing is read under two names, and no folder from within itself";
                self.left_out.add(Weight::Beside, what, reason, path);
                self.folders.retain(|folder| Path::new(folder) != path);
            }
        }
        if is_folder && path.components().count() == 1 {
            self.folders.push(path.to_string_lossy().into_owned());
        }
        is_folder
    }

    fn see_file(&mut self, path: &Path) {
        match ending::of(path) {
            Ending::Image => self.images.push(path.to_owned()),
            Ending::Unknown | Ending::Picture(_) => self.undecided.push(path.to_owned()),
            Ending::Other(kind) => kind.leave_out(path, &mut self.left_out),
        }
    }

    /// Opens the files whose content decides.
    fn decide(&mut self, root: &Path) {
        let undecided = std::mem::take(&mut self.undecided);
        let contents: Vec<Content> = (undecided.par_iter())
            .map(|path| content::of(&root.join(path)))
            .collect();
        for (path, content) in undecided.into_iter().zip(contents) {
            match (content, ending::of(&path)) {
                (Content::Image, _) => self.images.push(path),
                (_, Ending::Picture(kind)) => kind.leave_out(&path, &mut self.left_out),
                (Content::Tiff, _) if ending::may_be_tiff(&path) => self.images.push(path),
                _ => left_out_by_content(&path, content, &mut self.left_out),
            }
        }
    }
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
            remedy: format!("{remedy}; supported: {}", SUPPORTED_EXTENSIONS.join(", ")),
        },
    }
}

/// Whether a file or folder is hidden or one that no person put there; such a one is counted.
fn left_out_by_name(path: &Path, is_folder: bool, left_out: &mut Tally) -> bool {
    let name = path.file_name().unwrap_or_default();
    if let Some(keeps) = service::keeps(name) {
        let what = match is_folder {
            true => format!("folders {}", name.to_string_lossy()),
            false => format!("files among {keeps}"),
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

use std::path::PathBuf;

use crate::extensions::SUPPORTED_EXTENSIONS;

/// Everything that can go wrong between a folder of images and a masked batch.
///
/// Messages are lower case, name the setting or the file, and say what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A setting is outside its range, or two settings contradict each other.
    #[error("{key}: expected {expected}, found {found}; {remedy}")]
    Config {
        /// The setting.
        key: &'static str,
        /// Its valid values.
        expected: String,
        /// The value that was given.
        found: String,
        /// What the user can do.
        remedy: String,
    },

    /// A slice has the wrong number of elements.
    #[error("{what}: expected {expected} elements, found {found}")]
    Shape {
        /// The slice.
        what: &'static str,
        /// The elements that the grid, the mask or the image calls for.
        expected: usize,
        /// The elements of the slice.
        found: usize,
    },

    /// `ids_shuffle` or the noise that it is made from is no order of the patches.
    #[error("mask: expected {expected}, found {found}")]
    Mask {
        /// The condition that is not met.
        expected: &'static str,
        /// The offending value.
        found: String,
    },

    /// A file or a folder cannot be read.
    #[error("cannot read {}; check its name and permissions", path.display())]
    Io {
        /// The file or the folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },

    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },

    /// One image cannot be used: the loader counts it as broken and goes on.
    #[error("{name}: {reason}")]
    Image {
        /// The name of the image: its path, or its file and record.
        name: String,
        /// Why it cannot be used.
        reason: String,
    },

    /// A folder holds no images.
    #[error(
        "{}: expected images, found {found}; supported: {}",
        path.display(),
        SUPPORTED_EXTENSIONS.join(", ")
    )]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// What the folder holds instead.
        found: String,
    },

    /// A path or a file is not the data set that it was opened as.
    #[error("{}: expected {expected}, found {found}; {remedy}", path.display())]
    Dataset {
        /// The file or the folder.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
        /// What the user can do.
        remedy: String,
    },

    /// An index past the end of a data set.
    #[error("image {index}: expected an index below {len}, the number of images")]
    Index {
        /// The index that was asked for.
        index: usize,
        /// The number of images.
        len: usize,
    },

    /// More images are broken than the loader may skip.
    #[error(
        "{broken} of {len} images {} broken, more than data.max_broken_share = {max_broken_share} \
         allows; remove or repair them, or raise it, which for pack, embed and predict is --max-broken-share: {}",
        if *broken == 1 { "is" } else { "are" },
        list_broken(first, *broken)
    )]
    TooManyBroken {
        /// Broken images so far, each counted once.
        broken: usize,
        /// Images in the data set.
        len: usize,
        /// The share of broken images that the loader was told to accept.
        max_broken_share: f64,
        /// Name and reason of the first ten broken images, in data set order.
        first: Vec<(String, String)>,
    },

    /// The code that reads or transforms an image panicked.
    #[error("{name}: the loader panicked: {message}; this is a bug, please report it")]
    Panic {
        /// The image that was being read.
        name: String,
        /// What the panic said.
        message: String,
    },

    /// The operating system refused to start the loader's threads.
    #[error("cannot start the loader's threads; lower run.workers")]
    Threads {
        /// What the operating system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DataError {
    /// Refuses `found` unless it has as many elements as `expected`.
    pub(crate) fn check_len(
        what: &'static str,
        expected: usize,
        found: usize,
    ) -> Result<(), DataError> {
        if expected == found {
            return Ok(());
        }
        Err(DataError::Shape {
            what,
            expected,
            found,
        })
    }
}

fn list_broken(first: &[(String, String)], broken: usize) -> String {
    const SHOWN: usize = 3;
    let shown = &first[..first.len().min(SHOWN)];
    let mut list = shown
        .iter()
        .map(|(name, reason)| format!("{name} ({reason})"))
        .collect::<Vec<_>>()
        .join(", ");
    if broken > shown.len() {
        list += &format!(", and {} more", broken - shown.len());
    }
    list
}

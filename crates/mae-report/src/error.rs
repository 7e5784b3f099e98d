//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate.
///
/// Every message is complete in itself (the cause is in the text, not in
/// [`source`](std::error::Error::source)), so it reads the same through `{}` and through a chain of `anyhow`
/// contexts.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The operating system refused to read or write a file or folder.
    #[error(
        "cannot {action} {}: {error}; \
         check that the folder exists, may be written to and has space left",
        .path.display()
    )]
    Io {
        /// What was tried: "read", "write", "create", ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system answered.
        error: io::Error,
    },

    /// A line of a metrics file is not a [`Record`](crate::Record).
    #[error(
        "{} line {line}: expected a metrics record in JSON, found {found:?} ({error}); remove that line",
        .path.display()
    )]
    Metrics {
        /// The metrics file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The beginning of the line.
        found: String,
        /// Why it is not a record.
        error: serde_json::Error,
    },

    /// An image given to [`EventWriter::image_png`](crate::EventWriter::image_png) is not the PNG it was said
    /// to be.
    #[error(
        "image {tag}: expected a PNG of {expected}, found {found}; \
         encode the image as PNG and pass its own height and width"
    )]
    Png {
        /// The tag that the image was to be stored under.
        tag: String,
        /// Height x width as the caller gave them.
        expected: String,
        /// What the bytes hold.
        found: String,
    },

    /// The plot could not be drawn.
    #[error("cannot draw {}: {reason}; the metrics are intact, plot them with another tool", .path.display())]
    Plot {
        /// The picture that was to be written.
        path: PathBuf,
        /// What the plotting library answered.
        reason: String,
    },
}

impl ReportError {
    /// For `map_err` after an operation on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io {
            action,
            path: path.to_owned(),
            error,
        }
    }
}

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

use crate::error::DataError;

/// The bytes of a file, read when they are looked at and kept by the system, not by the process.
pub(super) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a file; `expected` is what messages say should have been there.
    pub(super) fn open(path: &Path, expected: &str) -> Result<MappedFile, DataError> {
        let io = |source| DataError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(DataError::Dataset {
                path: path.to_owned(),
                expected: expected.to_owned(),
                found: "no regular file".to_owned(),
                remedy: "give the file itself".to_owned(),
            });
        }
        map(&file).map(MappedFile).map_err(io)
    }

    /// The bytes in `range`; `None` if the file ends before.
    pub(super) fn range(&self, range: Range<u64>) -> Option<&[u8]> {
        let start = usize::try_from(range.start).ok()?;
        let end = usize::try_from(range.end).ok()?;
        self.0.get(start..end)
    }
}

#[expect(unsafe_code, reason = "a file is read through memory")]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is only read, as bytes, for which every value is valid.
    // It is undefined what a read sees while another process changes the file in place, and one
    // that shortens it ends this process with SIGBUS.
    // The documentation of the data sets asks not to; mae-train replaces packed files as a whole,
    // which leaves the mapped one as it was.
    unsafe { Mmap::map(file) }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

//! Archives of arrays that NumPy saved.

use std::io::{Cursor, Read, Seek};

use zip::ZipArchive;

use super::MAX_DECODED;

/// Names of the array that is the image, where there are several.
const NAMES: [&str; 4] = ["x", "image", "images", "arr_0"];

/// Whether a file begins as zip archives do.
pub(super) fn is_npz(content: &[u8]) -> bool {
    content.starts_with(b"PK\x03\x04")
}

/// The file of the array that is the image: that of one of the usual names, else the first.
pub(super) fn array(reader: impl Read + Seek) -> Result<Vec<u8>, String> {
    let mut archive = ZipArchive::new(reader).map_err(|error| error.to_string())?;
    let names: Vec<String> = (archive.file_names())
        .flatten()
        .map(|name| name.into_owned())
        .collect();
    let arrays = || names.iter().filter(|name| name.ends_with(".npy"));
    let named = NAMES
        .iter()
        .find_map(|wanted| arrays().find(|name| name.strip_suffix(".npy") == Some(*wanted)));
    let name = named.or_else(|| arrays().next()).ok_or(
        "it is a zip archive without an array of NumPy, expected .npy files in it; unpack it or save it with numpy.savez",
    )?;
    let file = archive.by_name(name).map_err(|error| error.to_string())?;
    let mut array = Vec::new();
    // What is inflated may be of any size, whatever the archive says.
    let limit = MAX_DECODED + 1 + (1 << 20);
    let read = file.take(limit).read_to_end(&mut array);
    let read = read.map_err(|error| format!("{name} in it cannot be read: {error}"))?;
    match (read as u64) < limit {
        true => Ok(array),
        false => Err(format!(
            "{name} in it takes more than {} MiB; cut it into tiles",
            MAX_DECODED >> 20
        )),
    }
}

/// As [`array`], of the content of a file.
pub(super) fn array_of(content: &[u8]) -> Result<Vec<u8>, String> {
    array(Cursor::new(content))
}

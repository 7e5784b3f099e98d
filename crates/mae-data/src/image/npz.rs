//! Archives of arrays that NumPy saved.

use std::io::{Cursor, Read, Seek};

use zip::ZipArchive;

use super::MAX_DECODED;
use super::npy::MAX_HEADER;

/// Names of the array that is the image, where there are several.
const NAMES: [&str; 4] = ["x", "image", "images", "arr_0"];

/// Whether a file begins as zip archives do.
pub(super) fn is_npz(content: &[u8]) -> bool {
    content.starts_with(b"PK\x03\x04")
}

/// The array that is the image, and the name of its file: one of the usual names, else the first.
pub(super) fn array(content: &[u8]) -> Result<(String, Vec<u8>), String> {
    // What is inflated may be of any size, whatever the archive says.
    let limit = MAX_DECODED + 1 + (1 << 20);
    let (name, read) = beginning(Cursor::new(content), limit)?;
    let array = read.map_err(|error| damaged(&format!("{name} in it cannot be read: {error}")))?;
    match (array.len() as u64) < limit {
        true => Ok((name, array)),
        false => Err(format!(
            "{name} in it takes more than {} MiB; cut it into tiles",
            MAX_DECODED >> 20
        )),
    }
}

/// The header of the array that is the image, with some of its numbers; `None` if it cannot be read.
pub(super) fn header(reader: impl Read + Seek) -> Option<Vec<u8>> {
    let (_, read) = beginning(reader, 2 * MAX_HEADER as u64).ok()?;
    read.ok()
}

/// At most `limit` bytes of the file of the array that is the image, and its name.
fn beginning(
    reader: impl Read + Seek,
    limit: u64,
) -> Result<(String, std::io::Result<Vec<u8>>), String> {
    let not_read = |error| damaged(&format!("the archive cannot be read: {error}"));
    let mut archive = ZipArchive::new(reader).map_err(not_read)?;
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
    let file = archive.by_name(name).map_err(not_read)?;
    let mut array = Vec::new();
    let read = file.take(limit).read_to_end(&mut array);
    Ok((name.clone(), read.map(|_| array)))
}

fn damaged(what: &str) -> String {
    format!("{what}; fetch it again or remove it")
}

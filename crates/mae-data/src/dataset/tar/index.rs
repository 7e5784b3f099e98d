//! What is where in a tar file.

use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::Path;

use ::tar::{Archive, Entry, Header};

use super::labels::{BadLabel, Conflicts, Label};
use super::passed::{Passed, Why};
use super::samples::{LabelFile, Samples};
use super::shards::refuse_compressed;
use crate::dataset::content::{self, Content as Looks};
use crate::dataset::ending::{self, Ending};
use crate::dataset::left_out::Weight;
use crate::error::DataError;
use crate::extensions::SUPPORTED_EXTENSIONS;

/// An image in a shard.
pub(super) struct Member {
    /// The number of its shard; 0 until the shards are put together.
    pub(super) shard: usize,
    /// Its path in the shard.
    pub(super) name: String,
    /// Where its bytes are.
    pub(super) content: Range<u64>,
}

/// What is in a shard.
#[derive(Default)]
pub(super) struct Content {
    /// Files of all kinds.
    pub(super) files: usize,
    pub(super) images: Vec<(Member, Option<Label>)>,
    /// The first file that should give an image its label and does not.
    pub(super) bad_label: Option<BadLabel>,
    pub(super) conflicts: Conflicts,
    pub(super) passed: Passed,
}

/// Lists the images in the tar file `bytes`, which may be several ones after each other, as `tar -i` reads them.
pub(super) fn list_members(path: &Path, bytes: &[u8]) -> Result<Content, DataError> {
    check_uncompressed(path, bytes)?;
    check_is_no_text(path, bytes)?;
    let mut shard = Content::default();
    let mut start = 0;
    loop {
        let end = list_archive(path, bytes, start, &mut shard)?;
        let rest = &bytes[end..];
        let Some(zeros) = rest.iter().position(|byte| *byte != 0) else {
            return Ok(shard);
        };
        start = end + zeros / BLOCK * BLOCK;
        let rest = &bytes[start..];
        if !is_header(rest) {
            if memchr::memmem::find(rest, MAGIC).is_some() {
                let found = "a damaged one, or one that is out of place, after an archive's end";
                return Err(damaged(path, start, found));
            }
            let passed = &mut shard.passed;
            passed.add_many(Why::Tail, "", rest.len(), || path.display().to_string());
            return Ok(shard);
        }
    }
}

/// Lists the archive that begins at byte `start`; returns where the zeros after it begin.
fn list_archive(
    path: &Path,
    bytes: &[u8],
    start: usize,
    shard: &mut Content,
) -> Result<usize, DataError> {
    let mut archive = Archive::new(Cursor::new(&bytes[start..]));
    let entries = (archive.entries_with_seek()).map_err(|error| damaged(path, start, error))?;
    let mut samples = Samples::new(path);
    let mut end = start;
    for entry in entries {
        let mut entry = entry.map_err(|error| damaged(path, end, error))?;
        let (name, is_sparse) = name_of(&mut entry).map_err(|error| damaged(path, end, error))?;
        let content = content(&entry, start, bytes).ok_or_else(|| {
            let error = format!("the end of the file in the middle of {name}");
            damaged(path, start + entry.raw_header_position() as usize, error)
        })?;
        end = content.end.next_multiple_of(BLOCK);
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() || name.ends_with('/') {
            continue;
        }
        shard.files += 1;
        let Some((key, ending)) = split(&name) else {
            shard.pass(Why::Hidden, path, &name);
            continue;
        };
        if is_sparse || !(kind.is_file() || kind.is_contiguous()) {
            shard.pass(Why::Link, path, &name);
            continue;
        }
        samples.see(&name, shard);
        let bytes = &bytes[content.clone()];
        match (rank(&name, &ending, bytes), ending.as_str()) {
            (Some(rank), _) => {
                let content = content.start as u64..content.end as u64;
                let member = Member {
                    shard: 0,
                    name: name.clone(),
                    content,
                };
                samples.add_image(key, rank, member);
            }
            (None, "cls") => {
                let said = Label::of_cls(bytes).map(Some);
                samples.add_label(key, &name, LabelFile::Cls, said);
            }
            (None, "json") => {
                samples.add_label(key, &name, LabelFile::Json, Label::of_json(bytes));
            }
            (None, ending) => {
                let last = ending.rsplit('.').next().unwrap_or_default();
                let why = match rank(&name, last, bytes) {
                    Some(_) => Why::Dots,
                    None if is_missed(last, bytes) => Why::Format,
                    None => Why::Other,
                };
                shard.pass(why, path, &name);
            }
        }
    }
    samples.finish(shard);
    let read = start + archive.into_inner().position() as usize;
    check_end(path, bytes, end, read)?;
    Ok(end)
}

impl Content {
    /// Counts a member that is no image of the data set.
    pub(super) fn pass(&mut self, why: Why, path: &Path, name: &str) {
        let file = name.rsplit('/').next().unwrap_or(name);
        // A hidden file has no key; its ending is what follows the last dot.
        let (_, ending) = match why {
            Why::Hidden => file.rsplit_once('.'),
            _ => file.split_once('.'),
        }
        .unwrap_or_default();
        let ending = ending.to_ascii_lowercase();
        (self.passed).add(why, &ending, || format!("{}:{name}", path.display()));
    }
}

/// The path of a member, and whether its bytes are those of a sparse file.
fn name_of(entry: &mut Entry<'_, impl Read>) -> std::io::Result<(String, bool)> {
    let mut name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let mut is_sparse = entry.header().entry_type().is_gnu_sparse();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        is_sparse |= extension.key_bytes().starts_with(b"GNU.sparse.");
        if extension.key_bytes() == b"GNU.sparse.name" {
            name = String::from_utf8_lossy(extension.value_bytes()).into_owned();
        }
    }
    Ok((name, is_sparse))
}

/// The place of an image's ending among those of a key, of which the first one counts; `None` if it is no image.
fn rank(name: &str, ending: &str, bytes: &[u8]) -> Option<usize> {
    if ending.contains('.') {
        return None;
    }
    let path = Path::new(name);
    let is_image = match ending::of(path) {
        Ending::Image => {
            return (SUPPORTED_EXTENSIONS.iter()).position(|supported| *supported == ending);
        }
        kind @ (Ending::Unknown | Ending::Picture(_)) => match content::look(bytes) {
            Looks::Image => true,
            Looks::Tiff => kind == Ending::Unknown && ending::may_be_tiff(path),
            _ => false,
        },
        Ending::Other(_) => false,
    };
    is_image.then_some(SUPPORTED_EXTENSIONS.len())
}

/// Whether a file is one that may be missed among the images.
fn is_missed(ending: &str, bytes: &[u8]) -> bool {
    let kind = ending::kind(ending).or_else(|| match content::look(bytes) {
        Looks::Like(ending) => ending::kind(ending),
        _ => None,
    });
    kind.is_some_and(|kind| kind.weight == Weight::Missed)
}

/// Key and ending, in lower case, of a file: what is before and after the first dot of its name; the ending is empty
/// if there is no dot.
///
/// Hidden files, whose names begin with a dot, have neither.
///
/// Source: WebDataset's `base_plus_ext`.
fn split(name: &str) -> Option<(&str, String)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].find('.') {
        Some(0) => None,
        None => Some((name, String::new())),
        Some(dot) => Some((
            &name[..file + dot],
            name[file + dot + 1..].to_ascii_lowercase(),
        )),
    }
}

const BLOCK: usize = 512;
/// What is in the header of every member, but for those of the seventies.
const MAGIC: &[u8] = b"ustar";

/// Where the bytes of an entry are, if the file holds them all.
fn content(entry: &Entry<'_, impl Read>, start: usize, bytes: &[u8]) -> Option<Range<usize>> {
    // Of a sparse file the size is more than the archive holds; it has no use but to be stepped over.
    let len = match entry.header().entry_type().is_gnu_sparse() {
        true => entry.header().entry_size().ok()?,
        false => entry.size(),
    };
    let start = start.checked_add(usize::try_from(entry.raw_file_position()).ok()?)?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    (end <= bytes.len()).then_some(start..end)
}

/// Whether `bytes` begin with a header, by its checksum.
fn is_header(bytes: &[u8]) -> bool {
    const CHECKSUM: Range<usize> = 148..156;
    let Some(block) = bytes.get(..BLOCK) else {
        return false;
    };
    let sum: u32 = (block.iter().enumerate())
        .map(|(at, byte)| match CHECKSUM.contains(&at) {
            true => u32::from(b' '),
            false => u32::from(*byte),
        })
        .sum();
    Header::from_byte_slice(block).cksum().ok() == Some(sum)
}

/// Refuses an archive that was cut off between two entries, the last of which ends at byte `end`: of a whole one, a
/// block of zeros was `read`.
fn check_end(path: &Path, bytes: &[u8], end: usize, read: usize) -> Result<(), DataError> {
    let block = bytes.get(read.saturating_sub(BLOCK).max(end)..read);
    match block {
        Some(block) if block.len() == BLOCK && block.iter().all(|byte| *byte == 0) => Ok(()),
        _ => Err(damaged(
            path,
            end,
            "the end of the file, but no mark of the archive's end",
        )),
    }
}

fn damaged(path: &Path, at: usize, found: impl std::fmt::Display) -> DataError {
    DataError::Dataset {
        path: path.to_owned(),
        expected: format!("a whole tar file, the next header at byte {at}"),
        found: found.to_string(),
        remedy: "fetch it or write it again".to_owned(),
    }
}

fn check_uncompressed(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    const COMPRESSED: [(&[u8], &str, &str); 5] = [
        (&[0x1f, 0x8b], "gzip", "gunzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "unzstd"),
        (b"\xfd7zXZ\0", "xz", "unxz"),
        (b"BZh", "bzip2", "bunzip2"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4", "unlz4"),
    ];
    match COMPRESSED
        .iter()
        .find(|(magic, ..)| bytes.starts_with(magic))
    {
        None => Ok(()),
        Some((_, kind, program)) => Err(refuse_compressed(path, kind, program)),
    }
}

/// Refuses what came in the place of a tar file, whose headers hold zeros.
fn check_is_no_text(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    const SHOWN: usize = 40;
    let start = &bytes[..bytes.len().min(BLOCK)];
    let is_of_text = |byte: &u8| *byte >= b' ' || b"\t\r\n".contains(byte);
    if start.is_empty() || !start.iter().all(is_of_text) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let begins = |words: &str| {
        (text.get(..words.len())).is_some_and(|found| found.eq_ignore_ascii_case(words))
    };
    let (found, remedy) = if begins("<!doctype html") || begins("<html") {
        let remedy =
            "a server sent it in place of the file: open it to see why, and fetch the file again";
        ("a web page".to_owned(), remedy)
    } else if begins("version https://git-lfs") {
        let found = "a pointer of Git LFS to the file".to_owned();
        (found, "fetch the file by `git lfs pull`")
    } else {
        let start: String = text.chars().take(SHOWN).collect();
        let found = format!("a text that begins with {start:?}");
        (found, "fetch the file again or remove it")
    };
    Err(DataError::Dataset {
        path: path.to_owned(),
        expected: "a whole tar file".to_owned(),
        found,
        remedy: remedy.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_the_place_of_a_tar_file_is_named() {
        for (content, expected) in [
            (
                "\u{feff}\n<!DOCTYPE html><title>Sign in</title>",
                "a web page; a server sent",
            ),
            ("<HTML>", "a web page"),
            (
                "version https://git-lfs.github.com/spec/v1\n",
                "a pointer of Git LFS",
            ),
            (
                "Not Found",
                "a text that begins with \"Not Found\"; fetch the file again",
            ),
        ] {
            let error = list_members("a.tar".as_ref(), content.as_bytes()).err();
            let message = error.unwrap().to_string();
            let start = format!("a.tar: expected a whole tar file, found {expected}");
            assert!(message.starts_with(&start), "{message}");
        }
    }

    #[test]
    fn keys_end_at_the_first_dot_of_the_name() {
        let check = |name, expected: Option<(&str, &str)>| {
            let found = split(name);
            let found = found.as_ref().map(|(key, ending)| (*key, ending.as_str()));
            assert_eq!(found, expected, "{name}");
        };
        check("a.b/0001.seg.png", Some(("a.b/0001", "seg.png")));
        check("./0001.JPG", Some(("./0001", "jpg")));
        check("a/2020.01.02.jpg", Some(("a/2020", "01.02.jpg")));
        check("a.b/IMG", Some(("a.b/IMG", "")));
        check("a/._1.png", None);
    }
}

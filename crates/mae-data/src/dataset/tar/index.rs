//! What is where in a tar file.

use std::collections::{BTreeSet, HashMap};
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use ::tar::{Archive, Entry};
use serde_json::Value;

use crate::dataset::SUPPORTED_EXTENSIONS;
use crate::error::DataError;

/// An image in a shard.
pub(super) struct Member {
    /// The number of its shard; 0 until the shards are put together.
    pub(super) shard: usize,
    /// Its path in the shard.
    pub(super) name: String,
    /// Where its bytes are.
    pub(super) content: Range<u64>,
}

/// A label as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Number(u32),
    Name(String),
}

/// What is in a shard.
pub(super) struct Content {
    /// Files of all kinds.
    pub(super) files: usize,
    pub(super) images: Vec<(Member, Option<Label>)>,
}

/// So that a slip of the pen does not make a million names.
const MAX_CLASS: u32 = 999_999;

/// Lists the images in the tar file `bytes`.
pub(super) fn list_members(path: &Path, bytes: &[u8]) -> Result<Content, DataError> {
    check_uncompressed(path, bytes)?;
    let mut archive = Archive::new(Cursor::new(bytes));
    let entries = (archive.entries_with_seek()).map_err(|error| damaged(path, 0, error))?;
    let mut images: Vec<(String, Member)> = Vec::new();
    let mut labels = Labels::default();
    let (mut files, mut end) = (0, 0);
    for entry in entries {
        let entry = entry.map_err(|error| damaged(path, end, error))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let content = content(&entry, bytes).ok_or_else(|| {
            let error = format!("the end of the file in the middle of {name}");
            damaged(path, entry.raw_header_position(), error)
        })?;
        end = content.end.next_multiple_of(BLOCK);
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        }
        files += 1;
        let Some((key, extension)) = split(&name) else {
            continue;
        };
        let is_image = SUPPORTED_EXTENSIONS.contains(&extension.as_str());
        if is_image && !kind.is_file() {
            let reason = "a link or a sparse file, of which a tar file holds no whole content";
            log::warn!("left out {}:{name}: {reason}", path.display());
        } else if is_image {
            let member = Member {
                shard: 0,
                name: name.clone(),
                content,
            };
            images.push((key.to_owned(), member));
        } else if kind.is_file() {
            let content = &bytes[content.start as usize..content.end as usize];
            labels.read(path, &name, key, &extension, content)?;
        }
    }
    check_end(path, bytes, end)?;
    let images = images
        .into_iter()
        .map(|(key, member)| {
            let label = labels.of(&key);
            (member, label)
        })
        .collect();
    Ok(Content { files, images })
}

/// The names of the classes, and each label as a place among them; or else the first label that is
/// a name where the others are numbers, or a number where they are names.
pub(super) fn number(labels: &[Label]) -> Result<(Vec<String>, Vec<u32>), usize> {
    let (mut numbers, mut names) = (Vec::new(), Vec::new());
    for (index, label) in labels.iter().enumerate() {
        match label {
            Label::Number(number) if names.is_empty() => numbers.push(*number),
            Label::Name(name) if numbers.is_empty() => names.push(name),
            _ => return Err(index),
        }
    }
    if let Some(last) = numbers.iter().max() {
        // Those that no image has, too, so that labels mean the same in every part of a data set.
        return Ok((
            (0..=*last).map(|class| class.to_string()).collect(),
            numbers,
        ));
    }
    let classes: Vec<&String> = BTreeSet::from_iter(names.iter().copied())
        .into_iter()
        .collect();
    let place = |name: &&String| classes.binary_search(name).unwrap_or_default() as u32;
    let labels = names.iter().map(place).collect();
    Ok((classes.into_iter().cloned().collect(), labels))
}

/// Labels by the key of their image; a `.cls` file goes before a `.json` file.
#[derive(Default)]
struct Labels {
    from_cls: HashMap<String, Label>,
    from_json: HashMap<String, Label>,
}

impl Labels {
    fn read(
        &mut self,
        path: &Path,
        name: &str,
        key: &str,
        extension: &str,
        content: &[u8],
    ) -> Result<(), DataError> {
        let refuse = |expected: &str, found: String| DataError::Dataset {
            path: path.to_owned(),
            expected: format!("{expected} in {name}"),
            found,
            remedy: "write the shard again, or without this file".to_owned(),
        };
        match extension {
            "cls" => {
                let text = String::from_utf8_lossy(content);
                let number = class_number(text.trim().parse().ok()).ok_or_else(|| {
                    let start: String = text.chars().take(40).collect();
                    refuse(
                        &format!("a class number, 0 to {MAX_CLASS},"),
                        format!("{start:?}"),
                    )
                })?;
                self.from_cls.insert(key.to_owned(), number);
            }
            "json" => {
                let value: Value = serde_json::from_slice(content)
                    .map_err(|error| refuse("JSON", error.to_string()))?;
                let label = match value.get("label").or_else(|| value.get("cls")) {
                    None | Some(Value::Null) => return Ok(()),
                    Some(Value::String(name)) => Some(Label::Name(name.clone())),
                    Some(number) => class_number(number.as_u64()),
                };
                let label = label.ok_or_else(|| {
                    refuse(
                        &format!("a class number, 0 to {MAX_CLASS}, or name as label or cls"),
                        "another value".to_owned(),
                    )
                })?;
                self.from_json.insert(key.to_owned(), label);
            }
            _ => {}
        }
        Ok(())
    }

    fn of(&self, key: &str) -> Option<Label> {
        (self.from_cls.get(key).or_else(|| self.from_json.get(key))).cloned()
    }
}

fn class_number(number: Option<u64>) -> Option<Label> {
    let number = u32::try_from(number?).ok()?;
    (number <= MAX_CLASS).then_some(Label::Number(number))
}

/// Key and extension, in lower case, of a file: what is before and after the first dot of its name.
///
/// Hidden files, whose names begin with a dot, have neither.
fn split(name: &str) -> Option<(&str, String)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    (dot > file).then(|| (&name[..dot], name[dot + 1..].to_ascii_lowercase()))
}

const BLOCK: u64 = 512;

/// Where the bytes of an entry are, if the file holds them all.
fn content(entry: &Entry<'_, impl std::io::Read>, bytes: &[u8]) -> Option<Range<u64>> {
    let start = entry.raw_file_position();
    // Of a sparse file this is more than the archive holds; it has no use but to be stepped over.
    let len = match entry.header().entry_type().is_gnu_sparse() {
        true => entry.header().entry_size().ok()?,
        false => entry.size(),
    };
    let end = start.checked_add(len)?;
    (end <= bytes.len() as u64).then_some(start..end)
}

/// Refuses a file that was cut off between two entries: a whole one ends in blocks of zeros.
fn check_end(path: &Path, bytes: &[u8], end: u64) -> Result<(), DataError> {
    let block = bytes
        .get(end as usize..)
        .and_then(|rest| rest.get(..BLOCK as usize));
    match block {
        Some(block) if block.iter().all(|byte| *byte == 0) => Ok(()),
        _ => Err(damaged(
            path,
            end,
            "the end of the file, but no mark of the archive's end",
        )),
    }
}

fn damaged(path: &Path, at: u64, found: impl std::fmt::Display) -> DataError {
    DataError::Dataset {
        path: path.to_owned(),
        expected: format!("a whole tar file, the next header at byte {at}"),
        found: found.to_string(),
        remedy: "fetch it or write it again".to_owned(),
    }
}

fn check_uncompressed(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    const COMPRESSED: [(&[u8], &str, &str); 4] = [
        (&[0x1f, 0x8b], "gzip", "gunzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "unzstd"),
        (b"\xfd7zXZ\0", "xz", "unxz"),
        (b"BZh", "bzip2", "bunzip2"),
    ];
    match COMPRESSED
        .iter()
        .find(|(magic, ..)| bytes.starts_with(magic))
    {
        None => Ok(()),
        Some((_, kind, program)) => Err(DataError::Dataset {
            path: path.to_owned(),
            expected: "a tar file that is not compressed, to read images from it in any order"
                .to_owned(),
            found: format!("one compressed with {kind}"),
            remedy: format!("unpack it with {program}: images are compressed already"),
        }),
    }
}

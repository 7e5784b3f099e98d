//! What the values of a data set's images are, found from a few of them.

use std::hash::Hasher;
use std::io::{BufRead, Seek};

use crate::image::{Nodata, kind_of};
use crate::pixels::PixelKind;

/// Files that are looked at, at most.
const LOOKED_AT: usize = 64;
/// Extensions of files that hold 8 bits a value; the others may hold more.
const SHALLOW: [&str; 9] = [
    "jpg", "jpeg", "webp", "bmp", "gif", "jfif", "jpe", "jif", "dib",
];

/// What a data set is best read as, and what to know of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Numbers if any file that was looked at has more than 8 bits a value, or may miss some.
    pub(super) kind: PixelKind,
    /// Which file that is, where others are of bytes.
    mixed: Option<String>,
    /// Which files cannot have missing values, though some are named.
    lossy: Option<String>,
}

impl Found {
    /// The same, but of a kind that was asked for, so that there is nothing to say of it.
    pub(super) fn read_as(self, kind: PixelKind) -> Found {
        Found {
            kind,
            mixed: None,
            ..self
        }
    }

    /// What to know, in words.
    pub(super) fn notes(&self) -> Vec<&str> {
        let notes = [&self.mixed, &self.lossy];
        notes.into_iter().flatten().map(String::as_str).collect()
    }
}

/// The files of a data set.
pub(super) struct Files<'a, R> {
    pub(super) len: usize,
    pub(super) name: &'a dyn Fn(usize) -> String,
    /// Of its name.
    pub(super) extension: &'a dyn Fn(usize) -> Option<String>,
    pub(super) open: &'a dyn Fn(usize) -> Option<R>,
    /// Whether it can be decoded.
    pub(super) is_whole: &'a dyn Fn(usize) -> bool,
}

/// What `files` are best read as, where `nodata` are missing.
///
/// All extensions are looked at, and the beginnings of some files, which are spread over the data set.
/// Among bytes, only a file that can be decoded makes all of them numbers.
pub(super) fn find<R: BufRead + Seek>(nodata: Nodata, files: &Files<R>) -> Found {
    let is_shallow = |index: &usize| {
        (files.extension)(*index).is_some_and(|extension| {
            (SHALLOW.iter()).any(|shallow| extension.eq_ignore_ascii_case(shallow))
        })
    };
    let candidates: Vec<usize> = (0..files.len).filter(|index| !is_shallow(index)).collect();
    let shallow = files.len - candidates.len();
    let looked_at = candidates.len().min(LOOKED_AT);
    let (mut has_bytes, mut deep) = (shallow > 0, Vec::new());
    'looking: for place in 0..looked_at {
        let index = candidates[place * candidates.len() / looked_at];
        match (files.open)(index).and_then(|file| kind_of(file, nodata)) {
            Some(PixelKind::F32) => deep.push(index),
            Some(PixelKind::U8) => has_bytes = true,
            None => {}
        }
        while has_bytes && let Some(&first) = deep.first() {
            if (files.is_whole)(first) {
                break 'looking;
            }
            deep.remove(0);
        }
    }
    let mixed = deep.first().filter(|_| has_bytes);
    let lossy = match nodata {
        Nodata::Value(_) => (0..files.len).find(is_shallow),
        Nodata::Auto | Nodata::None => None,
    };
    Found {
        kind: match deep.is_empty() {
            true => PixelKind::U8,
            false => PixelKind::F32,
        },
        mixed: mixed.map(|&index| deep_among_bytes(&(files.name)(index))),
        lossy: lossy.map(|index| without_nodata(nodata, shallow, &(files.name)(index))),
    }
}

fn deep_among_bytes(name: &str) -> String {
    format!(
        "{name} has values of more than 8 bits, or missing ones, and others have 8 bits: all are read as numbers, \
         unsigned ones of 8 and 16 bits from 0 to 1, others in their own units; if it is here by mistake, remove it or \
         set data.values=u8, which refuses it"
    )
}

/// Where compression changes values, none says that it was not measured.
fn without_nodata(nodata: Nodata, count: usize, first: &str) -> String {
    let files = match count {
        1 => format!("1 image is a JPEG, WebP, BMP or GIF file, {first}"),
        _ => format!("{count} images are JPEG, WebP, BMP or GIF files, the first {first}"),
    };
    format!(
        "{files}: data.nodata={nodata} is for TIFF, PNG and Netpbm files and arrays, so these have no missing values; \
         convert them from their source, or leave data.nodata out"
    )
}

/// Tells numbers from bytes, and what is missing among them; bytes add nothing, as before there was anything else.
pub(super) fn identify(kind: PixelKind, nodata: Nodata, hasher: &mut dyn Hasher) {
    if kind == PixelKind::F32 || nodata != Nodata::Auto {
        hasher.write(format!("{} but {nodata}", kind.name()).as_bytes());
    }
}

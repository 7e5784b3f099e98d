//! What the values of a data set's images are, found from a few of them.

use std::hash::Hasher;
use std::io::{BufRead, Seek};

use crate::image::{Nodata, kind_of};
use crate::pixels::PixelKind;

/// Files that are looked at, at most.
const LOOKED_AT: usize = 64;
/// Extensions of files that may hold more than 8 bits a value; the others cannot.
const MAYBE_DEEP: [&str; 5] = ["npy", "npz", "png", "tif", "tiff"];

/// What a data set of `len` files is best read as, where `nodata` are missing: numbers if any file that is
/// looked at has more than 8 bits a value, or may miss some.
///
/// All extensions are looked at, and the beginnings of some files, which are spread over the data set.
pub(super) fn find<R: BufRead + Seek>(
    len: usize,
    nodata: Nodata,
    extension: impl Fn(usize) -> Option<String>,
    open: impl Fn(usize) -> Option<R>,
) -> PixelKind {
    let candidates: Vec<usize> = (0..len)
        .filter(|&index| {
            extension(index).is_some_and(|extension| {
                (MAYBE_DEEP.iter()).any(|deep| extension.eq_ignore_ascii_case(deep))
            })
        })
        .collect();
    let looked_at = candidates.len().min(LOOKED_AT);
    let is_deep = (0..looked_at).any(|place| {
        let index = candidates[place * candidates.len() / looked_at];
        open(index).and_then(|file| kind_of(file, nodata)) == Some(PixelKind::F32)
    });
    match is_deep {
        true => PixelKind::F32,
        false => PixelKind::U8,
    }
}

/// Tells numbers from bytes, and what is missing among them; bytes add nothing, as before there was anything else.
pub(super) fn identify(kind: PixelKind, nodata: Nodata, hasher: &mut dyn Hasher) {
    if kind == PixelKind::F32 || nodata != Nodata::Auto {
        hasher.write(format!("{} but {nodata}", kind.name()).as_bytes());
    }
}

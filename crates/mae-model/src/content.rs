//! What a file is by its first bytes, whatever its name ends in.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::ModelError;

/// What a file of weights is, or what came in the place of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A length, and a header of JSON.
    Safetensors,
    /// As `torch.save` writes since PyTorch 1.6.
    Zip,
    /// As `torch.save` wrote before, and still does on request.
    LegacyTorch,
    /// Something else, and what to do about it.
    Other(String),
    /// Nothing that is known.
    Unknown,
}

/// The first bytes of what is no file of weights, what it is and what helps.
const OTHERS: [(&[u8], &str); 14] = [
    (
        b"\x89HDF",
        "a file of HDF5, as Keras writes; its weights are in another layout",
    ),
    (b"GGUF", "a file of GGUF, which llama.cpp reads"),
    (
        b"\x1f\x8b",
        "compressed by gzip: unpack it (gunzip, or tar -xzf)",
    ),
    (
        b"BZh",
        "compressed by bzip2: unpack it (bunzip2, or tar -xjf)",
    ),
    (
        b"\xfd7zXZ",
        "compressed by xz: unpack it (unxz, or tar -xJf)",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "compressed by zstd: unpack it (unzstd)",
    ),
    (b"7z\xbc\xaf", "an archive of 7-Zip: unpack it"),
    (b"Rar!", "an archive of RAR: unpack it"),
    (b"\x93NUMPY", "a NumPy array, which has no names of weights"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"mae-pack", "a packed data set"),
];

impl Content {
    /// How many of the first bytes it takes to know.
    pub const START: u64 = 512;

    /// By the first bytes of a file: [`START`](Self::START) of them, or all that there are.
    pub fn of(start: &[u8]) -> Self {
        let other = |what: &str| Self::Other(what.into());
        // Before 1.6 a file began with a pickle, of the number 0x1950a86a20f9469cfc6c.
        if start.starts_with(&[0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46])
            || start.starts_with(b"L119547037146038801333356L")
        {
            return Self::LegacyTorch;
        }
        if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
            return Self::Zip;
        }
        if let Some((_, what)) = OTHERS.iter().find(|(first, _)| start.starts_with(first)) {
            return other(what);
        }
        if start.get(257..262) == Some(b"ustar") {
            return other("a tar archive: unpack it (tar -xf), and give the file of weights in it");
        }
        if matches!(start, [0x80, 2..=5, ..]) {
            return other(
                "a pickle that torch.save did not write; save the weights with torch.save(model.state_dict(), \"weights.pth\")",
            );
        }
        let text = String::from_utf8_lossy(start);
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let begins = |word: &str| {
            text.get(..word.len())
                .is_some_and(|first| first.eq_ignore_ascii_case(word))
        };
        if begins("version https://git-lfs") {
            let size = (text.lines().find_map(|line| line.strip_prefix("size ")))
                .map_or(String::new(), |size| format!(" of a file of {size} bytes"));
            return Self::Other(format!(
                "a pointer of Git LFS{size}, not the file: fetch it with git lfs pull"
            ));
        }
        if begins("<!doctype html") || begins("<html") || begins("<head") || begins("<script") {
            return other(
                "an HTML page, not the file: the download needs a login, a confirmation or another address; download it anew",
            );
        }
        if begins("<?xml") || begins("<error") {
            return other(
                "an XML text, not the file, as servers answer that refuse a download; download it anew",
            );
        }
        if start.get(8) == Some(&b'{') {
            return Self::Safetensors;
        }
        if text.starts_with('{') || text.starts_with('[') {
            return other(
                "a JSON text: give the file of weights, or an index (*.index.json) of its shards",
            );
        }
        match start.is_empty() {
            true => other("empty: the download or copy did not finish"),
            false => Self::Unknown,
        }
    }

    /// By the first bytes of the file at `path`.
    pub fn at(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io {
            path: path.into(),
            source,
        };
        let mut start = Vec::new();
        let file = File::open(path).map_err(io)?;
        file.take(Self::START).read_to_end(&mut start).map_err(io)?;
        Ok(Self::of(&start))
    }

    /// Whether it is of `torch.save`.
    pub fn is_torch(&self) -> bool {
        matches!(self, Self::Zip | Self::LegacyTorch)
    }

    /// The refusal of a file that is not what was `expected`.
    pub(crate) fn refuse(&self, path: &Path, expected: &str) -> ModelError {
        let what = match self {
            Self::Safetensors => "a safetensors file".into(),
            Self::Zip => "a zip archive, as torch.save writes".into(),
            Self::LegacyTorch => "a file of torch.save in the format before PyTorch 1.6".into(),
            Self::Other(what) => what.clone(),
            Self::Unknown => "of no format that weights come in".into(),
        };
        ModelError::Foreign {
            path: path.into(),
            problem: format!("it is {what}; expected {expected}"),
        }
    }
}

//! What the ending of a file's name says: an image, something else that is known, or nothing.

use std::path::Path;

use super::left_out::{Tally, Weight};
use crate::extensions::SUPPORTED_EXTENSIONS;

/// Other endings of TIFF files whose first page is the image.
///
/// Cameras and slide scanners have TIFF files of their own, with a thumbnail there, under many endings.
const TIFF_EXTENSIONS: [&str; 6] = ["gtif", "gtiff", "geotiff", "btf", "tf8", "ptif"];

/// What a file is by the ending of its name.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) enum Ending {
    /// An image.
    Image,
    /// A picture of a format that is not read, unless the content is of one that is.
    Picture(&'static Kind),
    /// Something that is left out, and known to be.
    Other(&'static Kind),
    /// The content decides.
    Unknown,
}

/// Files that are no images, by their endings.
#[derive(Debug, PartialEq)]
pub(super) struct Kind {
    pub(super) weight: Weight,
    endings: &'static [&'static str],
    /// Why they are left out, and what can be done; `ENDING` stands for the ending.
    reason: &'static str,
}

impl Kind {
    /// Why a file of this ending is left out, and what can be done.
    pub(super) fn reason(&self, ending: &str) -> String {
        // In the case that it has, for shells tell one from the other.
        self.reason.replace("ENDING", ending)
    }

    /// Counts the file at `path` as left out, for it is of this kind.
    pub(super) fn leave_out(&self, path: &Path, left_out: &mut Tally) {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        left_out.add(self.weight, &name(path), &self.reason(&ending), path);
    }
}

/// Pictures of formats that are not read; programs and people give their endings to others, too.
const PICTURES: &[Kind] = &[
    Kind {
        weight: Weight::Missed,
        endings: &["heic", "heif", "hif", "avif", "avifs", "jxl", "jxr", "wdp"],
        reason: "ENDING is not read; in their folder, `magick mogrify -format jpg *.ENDING` makes JPEG files of them",
    },
    Kind {
        weight: Weight::Missed,
        endings: &["jp2", "j2k", "j2c", "jpc", "jpx", "jpf", "jpm"],
        reason: "JPEG 2000 is not read; `gdal_translate FILE.ENDING FILE.tif` keeps bands and bits, \
                 `magick mogrify -format png *.ENDING` is for pictures",
    },
    Kind {
        weight: Weight::Missed,
        endings: &[
            "tga", "ico", "cur", "pcx", "pam", "dds", "qoi", "ff", "xbm", "xpm", "sgi", "ras",
            "pict",
        ],
        reason: "ENDING is not read; in their folder, `magick mogrify -format png *.ENDING` makes PNG files of them",
    },
    Kind {
        weight: Weight::Missed,
        endings: &["exr", "hdr", "pfm"],
        reason: "ENDING is not read; `oiiotool FILE.ENDING -d float -o FILE.tif` keeps their numbers",
    },
    Kind {
        weight: Weight::Missed,
        endings: &[
            "psd", "psb", "xcf", "kra", "ai", "eps", "ps", "svg", "svgz", "pdf", "djvu",
        ],
        reason: "ENDING is not read; export each as PNG, as `magick FILE.ENDING FILE.png` does",
    },
];

const KINDS: &[Kind] = &[
    Kind {
        weight: Weight::Missed,
        endings: &[
            "cr2", "cr3", "crw", "nef", "nrw", "arw", "sr2", "srf", "dng", "orf", "rw2", "raf",
            "pef", "raw", "3fr", "fff", "iiq", "erf", "mef", "mos", "kdc", "dcr", "dcs", "x3f",
            "srw", "rwl", "mrw", "gpr", "cap", "k25",
        ],
        reason: "a camera's raw file must be developed; `darktable-cli FILE.ENDING FILE.tif` does it",
    },
    Kind {
        weight: Weight::Missed,
        endings: &[
            "svs", "ndpi", "ndpis", "mrxs", "scn", "vms", "vmu", "bif", "czi", "vsi", "isyntax",
            "lif", "nd2", "zvi", "svslide", "lsm", "qptiff",
        ],
        reason: "a slide or microscope scan is read as tiles; \
                 `vips dzsave FILE.ENDING tiles --depth one --tile-size 512 --overlap 0 --suffix .jpg` cuts them",
    },
    Kind {
        weight: Weight::Missed,
        endings: &["dcm", "dicom", "ima"],
        reason: "DICOM is not read; save the values as arrays: \
                 numpy.save(\"FILE.npy\", pydicom.dcmread(\"FILE.ENDING\").pixel_array)",
    },
    Kind {
        weight: Weight::Missed,
        endings: &["nii", "nrrd", "nhdr", "mha", "mhd", "mgz", "mgh", "mnc"],
        reason: "volumes are not read; save each slice as an array: \
                 numpy.save(\"FILE-000.npy\", SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(\"FILE.ENDING\"))[0])",
    },
    Kind {
        weight: Weight::Missed,
        endings: &["fits", "fit", "fts"],
        reason: "FITS is not read; save the values as arrays: numpy.save(\"FILE.npy\", astropy.io.fits.getdata(\"FILE.ENDING\"))",
    },
    Kind {
        weight: Weight::Missed,
        endings: &[
            "mp4", "mov", "avi", "mkv", "webm", "m4v", "mpg", "mpeg", "wmv", "flv", "3gp", "mts",
            "m2ts", "ogv", "mjpeg", "mjpg",
        ],
        reason: "videos are not read; `ffmpeg -i FILE.ENDING -vf fps=1 FILE-%06d.jpg` saves a picture a second",
    },
    Kind {
        weight: Weight::Missed,
        endings: &["tar"],
        reason: "tar files beside images are not read; give them alone: --data 'DIR/*.tar'",
    },
    Kind {
        weight: Weight::Missed,
        endings: &[
            "zip", "7z", "rar", "gz", "tgz", "bz2", "tbz", "tbz2", "xz", "txz", "zst", "lz4", "cab",
        ],
        reason: "what is packed in archives is not read; unpack them",
    },
    Kind {
        weight: Weight::Missed,
        endings: &[
            "h5",
            "hdf5",
            "hdf",
            "he5",
            "nc",
            "nc4",
            "grib",
            "grb",
            "zarr",
            "mat",
            "parquet",
            "arrow",
            "feather",
            "tfrecord",
            "tfrecords",
            "lmdb",
            "mdb",
            "rec",
            "beton",
            "pkl",
            "pickle",
            "bin",
            "mae",
        ],
        reason: "what is in them is not read from a folder; save each image as a file, as PNG or with numpy.save",
    },
    Kind {
        weight: Weight::Beside,
        endings: &[
            "thm",
            "jpg_original",
            "jpeg_original",
            "tif_original",
            "png_original",
            "lrprev",
        ],
        reason: "smaller or earlier copies of images, which a camera or a program keeps",
    },
    Kind {
        weight: Weight::Beside,
        endings: &[
            "bak",
            "old",
            "orig",
            "tmp",
            "temp",
            "part",
            "partial",
            "crdownload",
            "download",
            "filepart",
            "swp",
            "aria2",
            "lock",
        ],
        reason: "backups and files that are not finished",
    },
    Kind {
        weight: Weight::Beside,
        endings: &[
            "txt",
            "text",
            "json",
            "jsonl",
            "ndjson",
            "geojson",
            "xml",
            "csv",
            "tsv",
            "yaml",
            "yml",
            "toml",
            "ini",
            "cfg",
            "conf",
            "md",
            "rst",
            "html",
            "htm",
            "css",
            "js",
            "log",
            "rtf",
            "doc",
            "docx",
            "odt",
            "xls",
            "xlsx",
            "ods",
            "tex",
            "bib",
            "md5",
            "sha1",
            "sha256",
            "sha512",
            "sfv",
            "crc",
            "sig",
            "asc",
            "torrent",
            "url",
            "lnk",
            "webloc",
            "xmp",
            "aae",
            "pp3",
            "dop",
            "modd",
            "cls",
            "lst",
            "list",
            "names",
            "idx",
            "label",
            "labels",
            "bbox",
            "srt",
            "db",
            "sqlite",
            "sqlite3",
            "py",
            "pyc",
            "ipynb",
            "m",
            "r",
            "sh",
            "bat",
            "ps1",
            "c",
            "h",
            "cpp",
            "java",
            "rs",
            "shp",
            "shx",
            "dbf",
            "prj",
            "cpg",
            "qpj",
            "sbn",
            "sbx",
            "kml",
            "kmz",
            "gpkg",
            "gpx",
            "tfw",
            "tifw",
            "tfwx",
            "jgw",
            "pgw",
            "wld",
            "aux",
            "ovr",
            "rrd",
            "msk",
            "vrt",
            "wav",
            "mp3",
            "flac",
            "ogg",
            "m4a",
            "exe",
            "dll",
            "so",
            "safetensors",
            "pt",
            "pth",
            "ckpt",
            "onnx",
        ],
        reason: "no images: text, labels, notes, checksums and the like",
    },
];

/// Names without an ending of files that come with data sets.
const COMPANIONS: [&str; 22] = [
    "readme",
    "license",
    "licence",
    "copying",
    "changelog",
    "changes",
    "authors",
    "citation",
    "notice",
    "version",
    "makefile",
    "dockerfile",
    "md5",
    "md5sum",
    "md5sums",
    "sha1sums",
    "sha256sums",
    "sha512sums",
    "checksum",
    "checksums",
    "manifest",
    "index",
];
/// Where [`COMPANIONS`] and [`Kind`] meet.
const TEXT: &Kind = &KINDS[KINDS.len() - 1];

/// What the ending of `path` says.
pub(super) fn of(path: &Path) -> Ending {
    let Some(ending) = path.extension() else {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_companion = COMPANIONS.iter().any(|own| name.eq_ignore_ascii_case(own));
        return match is_companion {
            true => Ending::Other(TEXT),
            false => Ending::Unknown,
        };
    };
    let Some(ending) = ending.to_str() else {
        return Ending::Unknown;
    };
    let is = |own: &&str| ending.eq_ignore_ascii_case(own);
    if SUPPORTED_EXTENSIONS.iter().any(&is) {
        return Ending::Image;
    }
    // `volume.nii.gz` is a volume, not an archive.
    let inner = path.file_stem().map(Path::new).and_then(Path::extension);
    if is(&"gz") && inner.is_some_and(|inner| inner.eq_ignore_ascii_case("nii")) {
        return kind("nii").map_or(Ending::Unknown, Ending::Other);
    }
    if let Some(kind) = find(PICTURES, ending) {
        return Ending::Picture(kind);
    }
    match ending.ends_with('~') {
        true => kind("bak").map_or(Ending::Unknown, Ending::Other),
        false => kind(ending).map_or(Ending::Unknown, Ending::Other),
    }
}

/// Why a file that is no image is not read, and what can be done, if its ending says what it is.
pub(super) fn advice(path: &Path) -> Option<String> {
    // Endings of anything, this program's files among them.
    const ANY: [&str; 2] = ["bin", "mae"];
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    let kind = kind(&ending).filter(|kind| kind.weight == Weight::Missed)?;
    (!ANY.contains(&ending.as_str())).then(|| kind.reason(&ending))
}

/// What is known of an ending that is not one of images.
pub(super) fn kind(ending: &str) -> Option<&'static Kind> {
    find(PICTURES, ending).or_else(|| find(KINDS, ending))
}

fn find(kinds: &'static [Kind], ending: &str) -> Option<&'static Kind> {
    let is = |own: &&str| ending.eq_ignore_ascii_case(own);
    kinds.iter().find(|kind| kind.endings.iter().any(&is))
}

/// Whether files of this ending, in lower case, should hold what it says.
pub(crate) fn is_promise(ending: &str) -> bool {
    SUPPORTED_EXTENSIONS.contains(&ending) || find(PICTURES, ending).is_some()
}

/// Whether a file of this name that begins as TIFF files do is an image.
pub(super) fn may_be_tiff(path: &Path) -> bool {
    let Some(ending) = path.extension() else {
        return true;
    };
    (TIFF_EXTENSIONS.iter()).any(|own| ending.eq_ignore_ascii_case(own))
}

/// What files of this ending are called: ".heic files"; numbers and sentences after a dot are no endings.
pub(super) fn name(path: &Path) -> String {
    const LONGEST: usize = 12;
    let ending = path.extension().and_then(|ending| ending.to_str());
    let is_ending = |ending: &&str| {
        ending.len() <= LONGEST
            && ending.chars().any(char::is_alphabetic)
            && !ending.contains(char::is_whitespace)
    };
    match ending.filter(is_ending) {
        Some(ending) => format!(".{} files", ending.to_lowercase()),
        None => "files without an ending".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(name: &str) -> String {
        match of(name.as_ref()) {
            Ending::Other(kind) | Ending::Picture(kind) => {
                let ending = Path::new(name).extension().unwrap_or_default();
                kind.reason(&ending.to_string_lossy())
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn endings_say_what_a_file_is() {
        for image in ["a.jpg", "b.JPEG", "c.d.TIF", "x/y.npy"] {
            assert_eq!(of(image.as_ref()), Ending::Image, "{image}");
        }
        for (name, expected) in [
            ("a.HEIC", "mogrify -format jpg *.HEIC`"),
            ("a.jp2", "gdal_translate FILE.jp2 FILE.tif"),
            ("a.ndpi", "vips dzsave FILE.ndpi"),
            ("a.nii.gz", "SimpleITK"),
            ("a.tar.gz", "unpack"),
            ("a.NEF", "darktable-cli FILE.NEF"),
            ("a.dcm", "pydicom"),
            ("a.mp4", "ffmpeg -i FILE.mp4"),
            ("a.json", "labels"),
            ("README", "checksums"),
            ("a.jpg~", "backups"),
            ("a.jfif", "Unknown"),
            ("a", "Unknown"),
            ("a.jpg_large", "Unknown"),
        ] {
            assert!(reason(name).contains(expected), "{name}: {}", reason(name));
        }
    }

    #[test]
    fn an_ending_is_known_once() {
        let kinds = PICTURES.iter().chain(KINDS);
        let mut all: Vec<&str> = kinds.flat_map(|kind| kind.endings).copied().collect();
        all.extend(SUPPORTED_EXTENSIONS.iter().chain(&TIFF_EXTENSIONS));
        assert!(all.iter().all(|ending| *ending == ending.to_lowercase()));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(TEXT.endings.contains(&"txt"));
    }

    #[test]
    fn a_number_after_a_dot_is_no_ending() {
        assert_eq!(name("frame.0001".as_ref()), "files without an ending");
        assert_eq!(name("on 3. May".as_ref()), "files without an ending");
        assert_eq!(name("a.XYZ".as_ref()), ".xyz files");
    }
}

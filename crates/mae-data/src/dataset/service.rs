//! Files and folders that file servers, systems and programs keep beside images.
//!
//! Some hold images, smaller copies or deleted ones, which nobody means by the folder that they are in.

use std::ffi::OsStr;

/// Names of files and folders, in any case, and what they are.
const NAMES: &[(&str, &[&str])] = &[
    (
        "thumbnails and notes of a file server",
        &[
            "@eaDir",
            "@__thumb",
            ".@__thumb",
            "@SynoResource",
            "@SynoEAStream",
            "@tmp",
            "@upload_cache",
            ".@upload_cache",
            ".wdmc",
            ".streams",
        ],
    ),
    (
        "thumbnails of a system or a program",
        &[
            ".thumbnails",
            ".thumbnail",
            ".thumbs",
            ".thumb",
            ".xvpics",
            "Thumbs.db",
            "ehthumbs.db",
            "ehthumbs_vista.db",
            "ZbThumbnail.info",
            ".BridgeCache",
            ".BridgeCacheT",
            ".BridgeSort",
            ".picasaoriginals",
            ".picasa.ini",
            "Picasa.ini",
        ],
    ),
    (
        "recycle bins",
        &[
            "#recycle",
            "@Recycle",
            "$RECYCLE.BIN",
            "RECYCLER",
            "RECYCLED",
            ".recycle",
            "trashbox",
            ".Trash",
            ".Trashes",
            ".dtrash",
            "Network Trash Folder",
        ],
    ),
    (
        "earlier versions that a file server keeps",
        &[
            "#snapshot",
            "@Recently-Snapshot",
            ".snapshot",
            ".snapshots",
            "~snapshot",
            ".zfs",
            ".stversions",
        ],
    ),
    (
        "a Mac's notes on files",
        &[
            "__MACOSX",
            ".AppleDouble",
            ".AppleDB",
            ".AppleDesktop",
            ".DS_Store",
            ".Spotlight-V100",
            ".fseventsd",
            ".TemporaryItems",
            "Temporary Items",
            ".DocumentRevisions-V100",
            ".apdisk",
            "Icon\r",
        ],
    ),
    (
        "a system's own files",
        &[
            "System Volume Information",
            "lost+found",
            "desktop.ini",
            ".directory",
        ],
    ),
    (
        "a program's own files",
        &[
            ".ipynb_checkpoints",
            "__pycache__",
            ".git",
            ".gitignore",
            ".gitattributes",
            ".gitkeep",
            ".svn",
            ".hg",
            ".dvc",
            ".dvcignore",
            ".cache",
            ".idea",
            ".vscode",
            ".stfolder",
            ".sync",
            ".dropbox",
            ".dropbox.cache",
        ],
    ),
];

/// What names of files and folders begin with, and what they are.
const BEGINNINGS: &[(&str, &str)] = &[
    ("SYNOPHOTO_", "thumbnails and notes of a file server"),
    ("SYNOFILE_THUMB", "thumbnails and notes of a file server"),
    ("SYNOINDEX_", "thumbnails and notes of a file server"),
    (".thumbdata", "thumbnails of a system or a program"),
    (".Trash-", "recycle bins"),
    (".trashed-", "recycle bins"),
    ("._", "a Mac's notes on files"),
    (".nfs", "a system's own files"),
    (".smbdelete", "a system's own files"),
];

/// What a file or folder of this name is, if it is one that file servers, systems or programs keep for themselves.
pub(super) fn keeps(name: &OsStr) -> Option<&'static str> {
    let name = name.to_str()?;
    let begins = |start: &str| {
        (name.get(..start.len())).is_some_and(|found| found.eq_ignore_ascii_case(start))
    };
    let beginning = BEGINNINGS.iter().find(|(start, _)| begins(start));
    if let Some((_, what)) = beginning {
        return Some(what);
    }
    // Most files of a data set have one of these: they cost no search.
    if name.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let is = |own: &&str| name.eq_ignore_ascii_case(own);
    let found = NAMES.iter().find(|(_, names)| names.iter().any(&is));
    found.map(|(what, _)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_nothing_else_is() {
        for name in [
            "@eaDir",
            "@EADIR",
            "__MACOSX",
            "._photo.jpg",
            ".Trash-1000",
            "$Recycle.Bin",
            "SYNOPHOTO_THUMB_XL.jpg",
            "Thumbs.db",
            "lost+found",
            ".ipynb_checkpoints",
        ] {
            assert!(keeps(name.as_ref()).is_some(), "{name}");
        }
        for name in [
            "cat",
            "thumbs",
            "recycle",
            "eaDir",
            "_MACOSX",
            "trash",
            "001",
            "1.jpg",
            ".hidden.png",
            "snapshots",
            "éa",
        ] {
            assert_eq!(keeps(name.as_ref()), None, "{name}");
        }
    }
}

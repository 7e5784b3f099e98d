//! Which files are images, by name.

/// Extensions that [`FolderDataset`](crate::FolderDataset) takes for images, in any case.
///
/// Files of other endings, or of none, are images if they begin like one, unless the ending is known to be of something
/// else than a picture.
/// The content decides how a file is decoded.
pub const SUPPORTED_EXTENSIONS: [&str; 14] = [
    "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "pbm", "pnm", "npy",
    "npz",
];

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::hash::Hasher;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use walkdir::{DirEntry, WalkDir};

use super::{Content, Dataset, check_index, kind};
use crate::error::DataError;
use crate::image::{Image, Nodata, check_channels};
use crate::pixels::PixelKind;

/// Extensions that [`FolderDataset`] takes for images, in any case.
///
/// The extension selects the file; the content decides how it is decoded.
pub const SUPPORTED_EXTENSIONS: [&str; 10] = [
    "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "npy", "npz",
];

/// All images under a folder.
///
/// Sub-folders are searched to any depth, links included; hidden files and folders, whose names
/// begin with a dot, are not.
/// If every image is in a sub-folder, the names of the first-level sub-folders are the classes;
/// otherwise the images have no labels.
/// The order is that of the paths, component by component, byte by byte, on every platform.
pub struct FolderDataset {
    root: PathBuf,
    /// Relative to `root`, sorted.
    images: Vec<PathBuf>,
    labels: Vec<u32>,
    classes: Vec<String>,
    channels: usize,
    kind: PixelKind,
    nodata: Nodata,
}

impl FolderDataset {
    /// Lists the images under `path`; `channels` is 1 to read them as luma, 3 as RGB, or their own
    /// number: see [`Image::decode`].
    ///
    /// [`kind`](Dataset::kind) is found from extensions and the headers of a few files that are spread
    /// over the data set; [`read_as`](FolderDataset::read_as) sets it.
    ///
    /// # Errors
    /// [`DataError::Io`] if `path` or a folder in it cannot be read, [`DataError::Dataset`] if it
    /// is no folder, [`DataError::NoImages`] if it holds none, [`DataError::Config`] for other
    /// channel counts.
    pub fn open(path: impl AsRef<Path>, channels: usize) -> Result<FolderDataset, DataError> {
        let root = path.as_ref();
        check_channels(channels)?;
        check_folder(root)?;
        let files = list_files(root)?;
        let mut images: Vec<PathBuf> = files
            .iter()
            .filter(|file| is_image(file))
            .cloned()
            .collect();
        if images.is_empty() {
            return Err(DataError::NoImages {
                path: root.to_owned(),
                found: describe(&files),
            });
        }
        images.sort();
        let (classes, labels) = label_by_sub_folder(&images);
        let dataset = FolderDataset {
            root: root.to_owned(),
            images,
            labels,
            classes,
            channels,
            kind: PixelKind::U8,
            nodata: Nodata::Auto,
        };
        Ok(dataset.with_nodata(Nodata::Auto))
    }

    /// The same images as values of `kind`.
    ///
    /// As bytes, images of more than 8 bits a value are broken ones; as numbers, bytes are widened.
    pub fn read_as(self, kind: PixelKind) -> FolderDataset {
        FolderDataset { kind, ..self }
    }

    /// The same images, where values that `nodata` names are missing; [`kind`](Dataset::kind) is found anew, so
    /// this comes before [`read_as`](FolderDataset::read_as).
    pub fn with_nodata(self, nodata: Nodata) -> FolderDataset {
        let kind = kind::find(
            self.images.len(),
            nodata,
            |index| Some(self.images[index].extension()?.to_str()?.to_owned()),
            |index| Some(BufReader::new(File::open(self.path(index)).ok()?)),
        );
        FolderDataset {
            kind,
            nodata,
            ..self
        }
    }

    /// The image at `path` alone, whatever its name, without a label; it is read when it is asked for.
    ///
    /// # Errors
    /// [`DataError::Config`] for impossible channel counts.
    pub fn of_one(path: impl AsRef<Path>, channels: usize) -> Result<FolderDataset, DataError> {
        let path = path.as_ref();
        check_channels(channels)?;
        let dataset = FolderDataset {
            root: PathBuf::new(),
            images: vec![path.to_owned()],
            labels: Vec::new(),
            classes: Vec::new(),
            channels,
            kind: PixelKind::U8,
            nodata: Nodata::Auto,
        };
        Ok(dataset.with_nodata(Nodata::Auto))
    }

    fn read(&self, index: usize) -> Result<Vec<u8>, DataError> {
        check_index(index, self.len())?;
        std::fs::read(self.path(index)).map_err(|error| DataError::Image {
            name: self.name(index),
            reason: error.to_string(),
        })
    }

    fn path(&self, index: usize) -> PathBuf {
        self.images
            .get(index)
            .map_or_else(|| self.root.clone(), |image| self.root.join(image))
    }
}

impl Dataset for FolderDataset {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn kind(&self) -> PixelKind {
        self.kind
    }

    fn nodata(&self) -> Nodata {
        self.nodata
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let name = self.name(index);
        Image::decode_with(&self.read(index)?, self.channels, self.nodata, &name)?
            .into_kind(self.kind, &name)
    }

    fn content(&self, index: usize) -> Result<Content<'_>, DataError> {
        Ok(Content::Encoded(Cow::Owned(self.read(index)?)))
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self, index: usize) -> String {
        self.path(index).display().to_string()
    }

    /// Path below the root, label, size and date of each file.
    fn identify(&self, hasher: &mut dyn Hasher) {
        hasher.write(&self.channels.to_le_bytes());
        kind::identify(self.kind, self.nodata, hasher);
        for (index, image) in self.images.iter().enumerate() {
            hasher.write(image.as_os_str().as_encoded_bytes());
            let metadata = std::fs::metadata(self.path(index)).ok();
            let date = metadata.as_ref().and_then(|file| file.modified().ok());
            let since_1970 = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
            let words = [
                self.label(index).map_or(u64::MAX, u64::from),
                metadata.map_or(u64::MAX, |file| file.len()),
                since_1970.map_or(u64::MAX, |time| time.as_nanos() as u64),
            ];
            for word in words {
                hasher.write(&word.to_le_bytes());
            }
        }
    }
}

fn check_folder(path: &Path) -> Result<(), DataError> {
    let metadata = std::fs::metadata(path).map_err(|source| DataError::Io {
        path: path.to_owned(),
        source,
    })?;
    if metadata.is_dir() {
        return Ok(());
    }
    Err(DataError::Dataset {
        path: path.to_owned(),
        expected: "a folder of images".to_owned(),
        found: "a file".to_owned(),
        remedy: "give the folder that holds it, or unpack it first".to_owned(),
    })
}

/// Paths relative to `root` of all files that are not hidden.
fn list_files(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    let entries = WalkDir::new(root)
        .follow_links(true)
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry));
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_type().is_file() => {
                let path = entry.path();
                files.push(path.strip_prefix(root).unwrap_or(path).to_owned());
            }
            Ok(_) => {}
            Err(error) if is_bad_link(&error) => log::warn!("skipped a link: {error}"),
            Err(error) => {
                return Err(DataError::Io {
                    path: error.path().unwrap_or(root).to_owned(),
                    source: error.into(),
                });
            }
        }
    }
    Ok(files)
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// A link to a folder that holds it would be followed for ever; one to nothing leads nowhere.
fn is_bad_link(error: &walkdir::Error) -> bool {
    error.loop_ancestor().is_some()
        || error
            .path()
            .is_some_and(|path| path.is_symlink() && !path.exists())
}

fn is_image(path: &Path) -> bool {
    path.extension()
        .and_then(OsStr::to_str)
        .is_some_and(|extension| {
            SUPPORTED_EXTENSIONS
                .iter()
                .any(|supported| extension.eq_ignore_ascii_case(supported))
        })
}

/// Classes, and a label for each image; both empty if an image lies beside the sub-folders.
fn label_by_sub_folder(images: &[PathBuf]) -> (Vec<String>, Vec<u32>) {
    let mut classes: Vec<&OsStr> = Vec::new();
    let mut labels = Vec::with_capacity(images.len());
    for image in images {
        let mut components = image.iter();
        let (Some(folder), Some(_)) = (components.next(), components.next()) else {
            return (Vec::new(), Vec::new());
        };
        // Sorted paths bring the images of one sub-folder together.
        if classes.last() != Some(&folder) {
            classes.push(folder);
        }
        labels.push(classes.len() as u32 - 1);
    }
    let names = classes
        .iter()
        .map(|class| class.to_string_lossy().into_owned())
        .collect();
    (names, labels)
}

/// "0 images among 12 files (.heic, .txt)".
fn describe(files: &[PathBuf]) -> String {
    const SHOWN: usize = 5;
    if files.is_empty() {
        return "no files".to_owned();
    }
    let extensions: BTreeSet<String> = files
        .iter()
        .map(|file| match file.extension() {
            Some(extension) => format!(".{}", extension.to_string_lossy()),
            None => "no extension".to_owned(),
        })
        .collect();
    let mut shown: Vec<&str> = extensions.iter().map(String::as_str).take(SHOWN).collect();
    if extensions.len() > SHOWN {
        shown.push("...");
    }
    format!(
        "0 images among {} files ({})",
        files.len(),
        shown.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn png() -> Vec<u8> {
        let mut content = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(3, 2)
            .write_to(&mut content, image::ImageFormat::Png)
            .unwrap();
        content.into_inner()
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, png()).unwrap();
        }
        folder
    }

    fn names(dataset: &FolderDataset) -> Vec<String> {
        (dataset.images.iter())
            .map(|image| image.to_string_lossy().replace('\\', "/"))
            .collect()
    }

    #[test]
    fn sub_folders_are_classes() {
        let folder = folder(&[
            "b/2.JPG",
            "b/1.png",
            "a/x/3.webp",
            "a-b/4.bmp",
            ".git/5.png",
        ]);
        let dataset = FolderDataset::open(folder.path(), 3).unwrap();
        assert_eq!(
            names(&dataset),
            ["a/x/3.webp", "a-b/4.bmp", "b/1.png", "b/2.JPG"]
        );
        assert_eq!(dataset.classes(), ["a", "a-b", "b"]);
        assert_eq!(dataset.labels, [0, 1, 2, 2]);
        assert_eq!(dataset.label(4), None);
        // The content is PNG whatever the name says.
        assert_eq!(dataset.image(3).unwrap().height(), 2);
        assert!(
            dataset
                .image(4)
                .unwrap_err()
                .to_string()
                .contains("below 4")
        );
    }

    #[test]
    fn an_image_beside_the_sub_folders_means_no_labels() {
        let folder = folder(&["a/1.png", "2.Tiff", "notes.txt", ".hidden.png"]);
        let dataset = FolderDataset::open(folder.path(), 1).unwrap();
        assert_eq!(names(&dataset), ["2.Tiff", "a/1.png"]);
        assert!(dataset.classes().is_empty());
        assert_eq!(dataset.label(0), None);
        assert_eq!(dataset.image(0).unwrap().channels(), 1);
    }

    #[test]
    fn an_unusable_path_says_what_was_found() {
        let folder = folder(&["notes.txt", "a/b.heic", "LICENSE"]);
        let open = |path: &Path| FolderDataset::open(path, 3).err().unwrap().to_string();
        let message = open(folder.path());
        assert!(
            message.contains("0 images among 3 files (.heic, .txt, no extension); supported: jpg"),
            "{message}"
        );
        assert!(open(&folder.path().join("notes.txt")).contains("found a file"));
        assert!(open(&folder.path().join("missing")).starts_with("cannot read"));
        assert!(open(tempfile::tempdir().unwrap().path()).contains("found no files"));
        assert!(FolderDataset::open(folder.path(), 0).is_err());
    }

    /// One deep file in three is found, though the first is not; what is said goes before what is found.
    #[test]
    fn the_kind_is_found_in_the_files() {
        let deep = |file: &tempfile::TempDir, name: &str| {
            image::ImageBuffer::<image::Luma<u16>, _>::from_pixel(3, 2, image::Luma([7_u16]))
                .save(file.path().join(name))
                .unwrap();
        };
        let kind =
            |folder: &tempfile::TempDir| FolderDataset::open(folder.path(), 1).unwrap().kind();
        let shallow = folder(&["1.png", "2.jpg", "3.tif"]);
        assert_eq!(kind(&shallow), PixelKind::U8);
        let mixed = folder(&["1.png", "2.png"]);
        deep(&mixed, "3.png");
        assert_eq!(kind(&mixed), PixelKind::F32);
        let dataset = FolderDataset::open(mixed.path(), 1).unwrap();
        assert_eq!(dataset.image(0).unwrap().kind(), PixelKind::F32, "widened");
        let dataset = dataset.read_as(PixelKind::U8);
        assert_eq!(dataset.image(0).unwrap().kind(), PixelKind::U8);
        let message = dataset.image(2).unwrap_err().to_string();
        assert!(
            message.contains("3.png: it has values of more than 8 bits"),
            "{message}"
        );
        // Of extensions that promise 8 bits no header is looked at.
        let lying = folder(&["1.jpg"]);
        deep(&lying, "2.png");
        fs::rename(lying.path().join("2.png"), lying.path().join("2.jpg")).unwrap();
        assert_eq!(kind(&lying), PixelKind::U8);
    }

    #[test]
    fn a_changed_file_changes_the_identity() {
        let folder = folder(&["a/1.png", "b/2.png"]);
        let identity = |channels| {
            let mut hasher = std::hash::DefaultHasher::new();
            FolderDataset::open(folder.path(), channels)
                .unwrap()
                .identify(&mut hasher);
            hasher.finish()
        };
        let before = identity(3);
        assert_eq!(before, identity(3));
        assert_ne!(before, identity(1));
        let mut content = png();
        content.push(0);
        fs::write(folder.path().join("b/2.png"), content).unwrap();
        assert_ne!(before, identity(3));
    }

    #[test]
    fn one_image_is_a_data_set() {
        let folder = folder(&["a/1.png"]);
        let path = folder.path().join("a/1.png");
        let dataset = FolderDataset::of_one(&path, 3).unwrap();
        assert_eq!((dataset.len(), dataset.label(0)), (1, None));
        assert_eq!(dataset.name(0), path.display().to_string());
        assert_eq!(dataset.image(0).unwrap().width(), 3);
        assert!(FolderDataset::of_one(&path, 0).is_err());
    }

    #[test]
    fn a_vanished_file_is_a_broken_image() {
        let folder = folder(&["1.png"]);
        let dataset = FolderDataset::open(folder.path(), 3).unwrap();
        fs::remove_file(folder.path().join("1.png")).unwrap();
        assert!(matches!(dataset.image(0), Err(DataError::Image { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_never_in_circles() {
        use std::os::unix::fs::symlink;

        let elsewhere = folder(&["2.png"]);
        let folder = folder(&["a/1.png"]);
        symlink(elsewhere.path(), folder.path().join("b")).unwrap();
        symlink(folder.path(), folder.path().join("a/loop")).unwrap();
        symlink("nowhere", folder.path().join("a/dangling.png")).unwrap();
        let dataset = FolderDataset::open(folder.path(), 3).unwrap();
        assert_eq!(names(&dataset), ["a/1.png", "b/2.png"]);
    }
}

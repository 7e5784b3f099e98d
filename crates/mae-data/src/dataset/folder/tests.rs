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
    let message = dataset.check_labels().unwrap_err().to_string();
    assert!(
        message.contains("found 1 of 2 beside the sub-folders, the first 2.Tiff; move it"),
        "{message}"
    );
}

#[test]
fn an_unusable_path_says_what_was_found() {
    let folder = folder(&["a/b.heic", "LICENSE"]);
    for file in ["a/b.heic", "notes.txt"] {
        fs::write(folder.path().join(file), "no image").unwrap();
    }
    let open = |path: &Path| FolderDataset::open(path, 3).err().unwrap().to_string();
    let message = open(folder.path());
    assert!(
        message.contains(
            "0 images among 3 files (.heic files: 1, .txt files: 1, files without an ending: 1); \
             heic is not read; in their folder, `magick mogrify -format jpg *.heic`"
        ),
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
    let kind = |folder: &tempfile::TempDir| FolderDataset::open(folder.path(), 1).unwrap().kind();
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

fn left_out(dataset: &FolderDataset) -> Vec<String> {
    (dataset.left_out().iter())
        .map(|group| format!("{} {}: {}", group.count, group.what, group.example))
        .collect()
}

#[test]
fn content_decides_where_the_ending_says_nothing() {
    let folder = folder(&["a.jfif", "b", "c.jpg_large", "d.PNG", "e.heic", "f.thm"]);
    let write = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
    write("e.heic", b"\0\0\0\x18ftypheic");
    write("g", b"\0\0\0\x18ftypheic");
    write("h.tif_", b"II*\0\x08\0\0\0");
    write("i", b"");
    write("j.xyz", b"BMW");
    let dataset = FolderDataset::open(folder.path(), 3).unwrap();
    assert_eq!(names(&dataset), ["a.jfif", "b", "c.jpg_large", "d.PNG"]);
    assert!((0..4).all(|index| dataset.image(index).is_ok()));
    assert_eq!(
        left_out(&dataset),
        [
            "1 .heic files: e.heic",
            "1 .tif_ files that begin like TIFF: h.tif_",
            "1 files without an ending that hold heic: g",
            "1 .thm files: f.thm",
            "1 .xyz files: j.xyz",
            "1 files without an ending: i",
        ]
    );
    assert!(dataset.left_out()[2].reason.contains("mogrify"));
}

/// Programs call JPEGs `.heic`; a film that is called `.mp4` is none whatever it begins with.
#[test]
fn content_decides_where_the_ending_is_of_pictures_that_are_not_read() {
    let folder = folder(&["1.png", "2.heic", "3.JXL", "4.mp4"]);
    fs::write(folder.path().join("5.avif"), b"II*\0\x08\0\0\0").unwrap();
    let dataset = FolderDataset::open(folder.path(), 3).unwrap();
    assert_eq!(names(&dataset), ["1.png", "2.heic", "3.JXL"]);
    assert!((0..3).all(|index| dataset.image(index).is_ok()));
    assert_eq!(
        left_out(&dataset),
        ["1 .avif files: 5.avif", "1 .mp4 files: 4.mp4"]
    );
}

#[test]
fn a_folder_without_images_is_no_class_and_said_once() {
    let note = |files: &[&str]| {
        let folder = folder(files);
        fs::create_dir(folder.path().join("zebra")).unwrap();
        fs::create_dir(folder.path().join(".hidden")).unwrap();
        let dataset = FolderDataset::open(folder.path(), 3).unwrap();
        dataset.label_note().map(str::to_owned)
    };
    let expected = "the sub-folder zebra has no images and is no class";
    assert_eq!(note(&["a/1.png", "b/2.png"]).as_deref(), Some(expected));
    let expected = "2 sub-folders have no images and are no classes: b, zebra";
    assert_eq!(note(&["a/1.png", "b/2.txt"]).as_deref(), Some(expected));
    assert_eq!(note(&["a/1.png", "2.png"]), None, "there are no classes");
}

/// Among bytes, the file that makes all of them numbers is named, and is one that can be read.
#[test]
fn the_file_that_decides_on_the_kind_is_named() {
    let folder = folder(&["1.jpg", "2.png"]);
    let open = || FolderDataset::open(folder.path(), 3).unwrap();
    let said = |dataset: &FolderDataset| dataset.notes().join("\n");
    assert_eq!((open().kind(), said(&open())), (PixelKind::U8, "".into()));
    let deep = image::ImageBuffer::<image::Rgb<u16>, _>::from_pixel(30, 20, image::Rgb([7_u16; 3]));
    let path = folder.path().join("3.tif");
    deep.save(&path).unwrap();
    assert_eq!(open().kind(), PixelKind::F32);
    let words = said(&open());
    assert!(
        words.contains("3.tif has values of more than 8 bits"),
        "{words}"
    );
    assert!(words.contains("data.values=u8"), "{words}");
    // What is asked for needs no words.
    assert_eq!(said(&open().read_as(PixelKind::F32)), "");
    assert_eq!(said(&open().read_as(PixelKind::U8)), "");
    // Other channels than are asked for, and a file that ends early.
    let bands = image::ImageBuffer::<image::Luma<u16>, _>::from_pixel(3, 2, image::Luma([7_u16]));
    bands.save(folder.path().join("0.png")).unwrap();
    let content = fs::read(&path).unwrap();
    fs::write(&path, &content[..content.len() / 2]).unwrap();
    assert!(
        said(&open()).contains("0.png has values"),
        "{:?}",
        open().notes()
    );
    fs::remove_file(folder.path().join("0.png")).unwrap();
    assert_eq!((open().kind(), said(&open())), (PixelKind::U8, "".into()));
    // Of nothing but numbers there is nothing to say.
    let other = self::folder(&[]);
    fs::write(other.path().join("1.tif"), content).unwrap();
    let dataset = FolderDataset::open(other.path(), 3).unwrap();
    assert_eq!(
        (dataset.kind(), said(&dataset)),
        (PixelKind::F32, "".into())
    );
}

#[test]
fn files_that_cannot_miss_values_are_named_where_some_should() {
    let folder = folder(&["1.jpg", "2.png"]);
    let open = |nodata| {
        let dataset = FolderDataset::open(folder.path(), 3).unwrap();
        dataset.with_nodata(nodata)
    };
    assert!(open(Nodata::None).notes().is_empty());
    let dataset = open(Nodata::Value(0.0));
    let words = dataset.notes().join("\n");
    assert!(
        words.contains("1 image is a JPEG, WebP, BMP or GIF file, "),
        "{words}"
    );
    assert!(words.contains("1.jpg: data.nodata=0 is for"), "{words}");
    // Both are PNG in truth, and black.
    assert_eq!(dataset.kind(), PixelKind::F32);
    let image = dataset.image(1).unwrap();
    assert!(image.pixels().as_f32().unwrap().iter().all(|v| v.is_nan()));
    let bytes = open(Nodata::Value(-9999.0));
    assert_eq!(bytes.kind(), PixelKind::U8);
    assert_eq!(bytes.image(1).unwrap().kind(), PixelKind::U8);
    let read = bytes.read_as(PixelKind::F32);
    assert_eq!(read.notes().len(), 1, "{:?}", read.notes());
}

/// A file without an ending may hold more than 8 bits.
#[test]
fn the_kind_is_found_in_files_of_any_ending() {
    let folder = folder(&["1.png"]);
    let deep = image::ImageBuffer::<image::Luma<u16>, _>::from_pixel(3, 2, image::Luma([7_u16]));
    deep.save(folder.path().join("2.png")).unwrap();
    fs::rename(folder.path().join("2.png"), folder.path().join("2")).unwrap();
    let dataset = FolderDataset::open(folder.path(), 1).unwrap();
    assert_eq!((dataset.len(), dataset.kind()), (2, PixelKind::F32));
}

#[test]
fn what_servers_and_systems_keep_is_no_class() {
    let folder = folder(&[
        "cat/1.jpg",
        "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg",
        "cat/SYNOPHOTO_THUMB_M.jpg",
        "@eaDir/2.jpg",
        "__MACOSX/cat/._1.jpg",
        "cat/._1.jpg",
        "#recycle/3.jpg",
        ".Trash-1000/files/4.jpg",
        "$RECYCLE.BIN/5.jpg",
        ".ipynb_checkpoints/6-checkpoint.png",
        ".hidden.png",
        ".mine/7.png",
    ]);
    let dataset = FolderDataset::open(folder.path(), 3).unwrap();
    assert_eq!(names(&dataset), ["cat/1.jpg"]);
    assert_eq!(dataset.classes(), ["cat"]);
    assert_eq!(
        left_out(&dataset),
        [
            "1 hidden folders: .mine",
            "1 hidden images: .hidden.png",
            "2 folders @eaDir: @eaDir",
            "1 files among a Mac's notes on files: cat/._1.jpg",
            "1 files among thumbnails and notes of a file server: cat/SYNOPHOTO_THUMB_M.jpg",
            "1 folders #recycle: #recycle",
            "1 folders $RECYCLE.BIN: $RECYCLE.BIN",
            "1 folders .Trash-1000: .Trash-1000",
            "1 folders .ipynb_checkpoints: .ipynb_checkpoints",
            "1 folders __MACOSX: __MACOSX",
        ]
    );
    // A folder that is asked for by name is read.
    let asked = FolderDataset::open(folder.path().join("@eaDir"), 3).unwrap();
    assert_eq!(asked.len(), 1);
}

/// A folder that nobody may read, as `lost+found` is, is no reason to stop.
#[cfg(unix)]
#[test]
fn what_is_kept_apart_is_not_opened() {
    use std::os::unix::fs::PermissionsExt;

    let folder = folder(&["1.png", "lost+found/2.png"]);
    let closed = folder.path().join("lost+found");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let dataset = FolderDataset::open(folder.path(), 3);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(dataset.unwrap().len(), 1);
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
    assert_eq!(
        left_out(&dataset),
        [
            "1 links that lead nowhere: a/dangling.png",
            "1 links to a folder that is read already, or to one above: a/loop"
        ]
    );
}

/// Of two names of a folder the one is read that is no link; of links the first.
#[cfg(unix)]
#[test]
fn nothing_is_read_under_two_names() {
    use std::os::unix::fs::symlink;

    let around = folder(&["root/cats/1.png", "root/2.png", "3.png", "other/4.png"]);
    let root = around.path().join("root");
    fs::create_dir(root.join(".store")).unwrap();
    fs::write(root.join(".store/5.png"), png()).unwrap();
    for (target, link) in [
        ("..", "cats/loop"),
        ("../..", "cats/above"),
        ("cats", "a-copy"),
        ("../other", "b"),
        ("../other", "c"),
        (".store", "d"),
        ("../other/4.png", "e.png"),
        ("../root", "../other/back"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    let dataset = FolderDataset::open(&root, 3).unwrap();
    assert_eq!(
        names(&dataset),
        ["2.png", "b/4.png", "cats/1.png", "d/5.png", "e.png"]
    );
    assert_eq!(
        left_out(&dataset),
        [
            "1 hidden folders: .store",
            "5 links to a folder that is read already, or to one above: a-copy"
        ]
    );
    // From below, the folder above it is another, but holds it.
    let cats = FolderDataset::open(root.join("cats"), 3).unwrap();
    assert_eq!(names(&cats), ["1.png"]);
}

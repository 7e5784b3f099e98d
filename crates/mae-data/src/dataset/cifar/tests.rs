use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};

use super::*;
use crate::dataset::FolderDataset;

/// A data set of black images of class 0; the files are sparse, so they cost no disk.
fn folder(format: &Format) -> tempfile::TempDir {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join(format.folder);
    fs::create_dir(&folder).unwrap();
    let files = (format.train.iter())
        .map(|name| (name, format.train_records_per_file))
        .chain(format.test.iter().map(|name| (name, TEST_RECORDS)));
    for (name, records) in files {
        let file = File::create(folder.join(name)).unwrap();
        file.set_len((records * format.record_len()) as u64)
            .unwrap();
    }
    let names: String = (0..format.classes)
        .map(|n| format!("class {n}\n"))
        .collect();
    fs::write(folder.join(format.class_names), names + "\n").unwrap();
    parent
}

fn write_at(path: &Path, offset: usize, bytes: &[u8]) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset as u64)).unwrap();
    file.write_all(bytes).unwrap();
}

fn message(path: &Path, cifar: Cifar, split: Split) -> String {
    CifarDataset::open(path, cifar, split)
        .err()
        .unwrap()
        .to_string()
}

#[test]
fn planes_become_pixels() {
    let parent = folder(&CIFAR_10);
    let inner = parent.path().join(CIFAR_10.folder);
    // Record 1 of the second file: label 7, then red 1, 2; green 3; blue 4.
    let (file, start) = (inner.join("data_batch_2.bin"), CIFAR_10.record_len());
    write_at(&file, start, &[7, 1, 2]);
    write_at(&file, start + 1 + PLANE, &[3]);
    write_at(&file, start + 1 + 2 * PLANE, &[4]);

    for path in [parent.path(), &inner] {
        let train = CifarDataset::open(path, Cifar::Ten, Split::Train).unwrap();
        assert_eq!((train.len(), train.channels()), (50_000, 3));
        assert_eq!(train.label(10_001), Some(7));
        assert_eq!(train.classes()[7], "class 7");
        let image = train.image(10_001).unwrap();
        assert_eq!(image.bytes()[..6], [1, 3, 4, 2, 0, 0]);
        assert!(train.name(10_001).ends_with("data_batch_2.bin:1"));
        assert!(train.image(50_000).is_err());
        assert_eq!(train.label(50_000), None);
    }
}

#[test]
fn the_second_label_of_cifar_100_counts() {
    let parent = folder(&CIFAR_100);
    let file = parent.path().join(CIFAR_100.folder).join("test.bin");
    write_at(&file, 0, &[19, 99, 5]);
    let test = CifarDataset::open(parent.path(), Cifar::Hundred, Split::Test).unwrap();
    assert_eq!((test.len(), test.label(0)), (10_000, Some(99)));
    assert_eq!(test.image(0).unwrap().bytes()[0], 5);
    write_at(&file, 0, &[19, 100]);
    let message = message(parent.path(), Cifar::Hundred, Split::Test);
    assert!(message.contains("found label 100 at record 0"), "{message}");
}

#[test]
fn unusable_files_are_named_with_a_remedy() {
    let parent = folder(&CIFAR_10);
    let inner = parent.path().join(CIFAR_10.folder);
    let train = || message(parent.path(), Cifar::Ten, Split::Train);

    File::options()
        .write(true)
        .open(inner.join("data_batch_3.bin"))
        .unwrap()
        .set_len(3073)
        .unwrap();
    assert!(train().contains("expected 30730000 bytes (10000 images), found 3073 bytes"));

    fs::remove_file(inner.join("data_batch_3.bin")).unwrap();
    fs::remove_file(inner.join("data_batch_5.bin")).unwrap();
    assert!(train().contains("found no data_batch_3.bin, data_batch_5.bin; unpack"));

    fs::rename(inner.join("data_batch_1.bin"), inner.join("data_batch_1")).unwrap();
    assert!(train().contains("found the Python version"));

    fs::write(inner.join(CIFAR_10.class_names), "airplane\n").unwrap();
    assert!(message(&inner, Cifar::Ten, Split::Test).contains("expected 10 class names, found 1"));
    assert!(message(&inner.join("no"), Cifar::Ten, Split::Test).contains("no such folder"));
}

fn touch(folder: &Path, names: &[&str]) {
    for name in names {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), "not empty").unwrap();
    }
}

fn png(path: &Path) {
    image::RgbImage::new(3, 2).save(path).unwrap();
}

#[test]
fn it_is_there_only_where_all_files_are() {
    for (format, cifar) in [(CIFAR_10, Cifar::Ten), (CIFAR_100, Cifar::Hundred)] {
        let parent = folder(&format);
        let inner = parent.path().join(format.folder);
        assert_eq!(Cifar::at(parent.path()), Some(cifar));
        assert_eq!(Cifar::at(&inner), Some(cifar));
        // The files of one split are enough, as for pre-training.
        fs::remove_file(inner.join(format.test[0])).unwrap();
        assert_eq!(Cifar::at(&inner), Some(cifar));
        fs::remove_file(inner.join(format.train[0])).unwrap();
        assert_eq!(Cifar::at(&inner), None);
    }
    let other = tempfile::tempdir().unwrap();
    touch(other.path(), &["train.bin", "test.bin", "data_batch_1.bin"]);
    png(&other.path().join("1.png"));
    assert_eq!(Cifar::at(other.path()), None);
    let images = FolderDataset::open(other.path(), 3).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(
        (images.left_out()[0].count, &*images.left_out()[0].what),
        (3, ".bin files")
    );
}

#[test]
fn a_part_of_its_files_without_images_is_named() {
    let open = |path: &Path| FolderDataset::open(path, 3).err().unwrap().to_string();
    let parent = folder(&CIFAR_10);
    let inner = parent.path().join(CIFAR_10.folder);
    fs::remove_file(inner.join(CIFAR_10.class_names)).unwrap();
    for path in [parent.path(), &inner] {
        assert!(open(path).contains("found no batches.meta.txt; unpack cifar-10-binary.tar.gz"));
    }
    // By size alone, whatever the folder's name is.
    let renamed = parent.path().join("data");
    fs::rename(&inner, &renamed).unwrap();
    fs::remove_file(renamed.join("test_batch.bin")).unwrap();
    assert!(open(&renamed).contains("found no test_batch.bin, batches.meta.txt; unpack"));

    let python = tempfile::tempdir().unwrap();
    touch(
        python.path(),
        &["cifar-100-python/train", "cifar-100-python/meta"],
    );
    for path in [
        python.path().to_owned(),
        python.path().join("cifar-100-python"),
    ] {
        let message = open(&path);
        assert!(message.contains("found the Python version"), "{message}");
        assert!(message.contains("cifar-100-binary.tar.gz"), "{message}");
    }

    // Other programs have such files, too.
    let other = tempfile::tempdir().unwrap();
    touch(other.path(), &["train.bin", "val.bin", "train", "meta.pkl"]);
    assert!(open(other.path()).contains("0 images among 4 files"));
}

#[test]
fn an_archive_is_to_be_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    touch(
        folder.path(),
        &[
            "cifar-10-python.tar.gz",
            "cifar-100-binary.tar",
            "cifar-10-train.tar",
        ],
    );
    let check = |name: &str| Cifar::check_unpacked(folder.path().join(name));
    let message = check("cifar-10-python.tar.gz").unwrap_err().to_string();
    let remedy = format!(
        "take cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, unpack it with \
         `tar -xf {0}/cifar-10-binary.tar.gz -C {0}` and give {0}/cifar-10-batches-bin",
        folder.path().display()
    );
    assert!(message.ends_with(&remedy), "{message}");
    let message = check("cifar-100-binary.tar").unwrap_err().to_string();
    assert!(
        message.contains("found its archive; unpack it with `tar -xf"),
        "{message}"
    );
    for other in ["cifar-10-train.tar", "absent.tar"] {
        assert!(check(other).is_ok(), "{other}");
    }
    let error = FolderDataset::open(folder.path(), 3).err().unwrap();
    assert!(error.to_string().contains("tar -xf"), "{error}");
}

#[test]
fn what_lies_beside_it_is_told() {
    let parent = folder(&CIFAR_10);
    touch(
        parent.path(),
        &[
            "cifar-10-binary.tar.gz",
            "cifar-10-batches-bin/readme.html",
            "notes.txt",
            "mine/1.txt",
            ".DS_Store",
        ],
    );
    png(&parent.path().join("1.png"));
    let test = CifarDataset::open(parent.path(), Cifar::Ten, Split::Test).unwrap();
    let told: Vec<&str> = (test.left_out().iter())
        .map(|group| group.what.as_str())
        .collect();
    assert_eq!(told, [".png files", "folders", ".txt files"]);
}

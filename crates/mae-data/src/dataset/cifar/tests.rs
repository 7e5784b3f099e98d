use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};

use super::*;

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

use std::fs;
use std::io::Cursor;

use ::tar::{Builder, EntryType, Header};
use proptest::prelude::*;

use super::*;
use crate::pixels::Pixels;

fn png(shade: u8) -> Vec<u8> {
    let mut content = Cursor::new(Vec::new());
    image::RgbImage::from_pixel(3, 2, image::Rgb([shade; 3]))
        .write_to(&mut content, image::ImageFormat::Png)
        .unwrap();
    content.into_inner()
}

/// A tar file as the tar crate writes it, with GNU's headers for long names.
fn archive(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, content.as_slice())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new(shards: &[(&str, Vec<u8>)]) -> World {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in shards {
            fs::write(folder.path().join(name), content).unwrap();
        }
        World { folder }
    }

    fn of(files: &[(&str, Vec<u8>)]) -> World {
        World::new(&[("a.tar", archive(files))])
    }

    fn open(&self, pattern: &str) -> Result<TarDataset, DataError> {
        TarDataset::open(&[self.folder.path().join(pattern)], 3)
    }

    fn refusal(&self) -> String {
        self.open("a.tar").err().unwrap().to_string()
    }
}

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn shade(dataset: &TarDataset, index: usize) -> u8 {
    dataset.image(index).unwrap().bytes()[0]
}

#[test]
fn shards_are_read_in_order_with_class_numbers() {
    let shard = |first: u8| {
        let name = |number: u8, extension: &str| format!("d/{number:03}.{extension}");
        let mut files = Vec::new();
        for number in first..first + 3 {
            files.push((name(number, "cls"), text(&format!("{}\n", number % 4))));
            files.push((name(number, "PNG"), png(number)));
            files.push((name(number, "txt"), text("a caption")));
        }
        let files: Vec<(&str, Vec<u8>)> = (files.iter())
            .map(|(name, content)| (name.as_str(), content.clone()))
            .collect();
        archive(&files)
    };
    let world = World::new(&[
        ("s-08.tar", shard(0)),
        ("s-09.tar", shard(3)),
        ("s-10.tar", shard(6)),
    ]);
    let dataset = world.open("s-{08..10}.tar").unwrap();
    assert_eq!(dataset.len(), 9);
    assert_eq!(dataset.classes(), ["0", "1", "2", "3"]);
    for index in 0..9 {
        assert_eq!(shade(&dataset, index), index as u8);
        assert_eq!(dataset.label(index), Some(index as u32 % 4));
    }
    assert!(dataset.name(4).ends_with("s-09.tar:d/004.PNG"));
    assert!(
        dataset
            .image(9)
            .unwrap_err()
            .to_string()
            .contains("below 9")
    );
    assert_eq!(dataset.label(9), None);

    let paths = ["s-10.tar", "s-08.tar"].map(|name| world.folder.path().join(name));
    let dataset = TarDataset::open(&paths, 1).unwrap();
    assert_eq!((shade(&dataset, 0), shade(&dataset, 3)), (6, 0));
    assert_eq!(dataset.image(0).unwrap().channels(), 1);
    let missing = world.open("s-{08..11}.tar").err().unwrap().to_string();
    assert!(
        missing.contains("cannot read") && missing.contains("s-11.tar"),
        "{missing}"
    );
}

#[test]
fn labels_come_from_json_too() {
    let json = |value: &str| text(&format!("{{\"caption\": \"x\", {value}}}"));
    let world = World::of(&[
        ("1.png", png(1)),
        ("1.json", json("\"label\": \"zebra\"")),
        ("2.json", json("\"cls\": \"ant\"")),
        ("2.png", png(2)),
    ]);
    let dataset = world.open("a.tar").unwrap();
    assert_eq!(dataset.classes(), ["ant", "zebra"]);
    assert_eq!([dataset.label(0), dataset.label(1)], [Some(1), Some(0)]);

    let world = World::of(&[
        ("1.png", png(1)),
        ("1.json", json("\"label\": 2")),
        (
            "2.json",
            json("\"label\": \"ignored: there is a class number\""),
        ),
        ("2.cls", text("0")),
        ("2.png", png(2)),
    ]);
    let dataset = world.open("a.tar").unwrap();
    assert_eq!(dataset.classes(), ["0", "2"]);
    assert_eq!([dataset.label(0), dataset.label(1)], [Some(1), Some(0)]);
}

#[test]
fn labels_that_differ_are_told_and_the_first_kind_believed() {
    let json = |label: &str| text(&format!("{{\"label\": {label}}}"));
    let world = World::of(&[
        ("1.cls", text("3")),
        ("1.png", png(1)),
        ("1.json", json("4")),
        ("2.png", png(2)),
        ("2.json", json("\"cat\"")),
        ("2.cls", text("5")),
        ("3.png", png(3)),
        ("3.json", json("5.0")),
        ("3.cls", text("5")),
    ]);
    let dataset = world.open("a.tar").unwrap();
    assert_eq!(dataset.classes(), ["3", "5"]);
    let note = dataset.label_note().unwrap();
    assert!(note.starts_with("1 image has a .cls"), "{note}");
    assert!(note.contains("a.tar:1.png with \"3\" and \"4\""), "{note}");
    assert!(dataset.check_labels().is_ok());
}

#[test]
fn images_without_labels_are_a_data_set_without_classes() {
    let world = World::of(&[
        ("photos/1.png", png(1)),
        ("photos/._1.png", png(9)),
        (
            "photos/1.json",
            text("{\"caption\": \"a house\", \"label\": null}"),
        ),
        ("photos/2.seg.png", png(9)),
        ("photos/2.jpeg", png(2)),
    ]);
    let dataset = world.open("a.tar").unwrap();
    assert_eq!((dataset.len(), dataset.label(0)), (2, None));
    assert!(dataset.classes().is_empty());
    assert_eq!(shade(&dataset, 1), 2);
}

#[test]
fn wrong_labels_stop_only_what_needs_them() {
    let check = |files: &[(&str, Vec<u8>)], labels: &[Option<u32>], expected: &str| {
        let dataset = World::of(files).open("a.tar").unwrap();
        let found: Vec<_> = (0..dataset.len())
            .map(|index| dataset.label(index))
            .collect();
        assert_eq!(found, labels);
        let message = dataset.check_labels().unwrap_err().to_string();
        assert!(message.contains("a.tar: expected"), "{message}");
        assert!(message.contains(expected), "{message}");
    };
    check(
        &[
            ("1.png", png(1)),
            ("1.cls", text("0")),
            ("2.png", png(2)),
            ("3.png", png(3)),
        ],
        &[Some(0), None, None],
        "a label for every image, found 2 of 3 images without one, the first 2.png; give every image a .cls",
    );
    check(
        &[
            ("1.png", png(1)),
            ("1.cls", text("-1")),
            ("2.png", png(2)),
            ("2.cls", text("7.0")),
        ],
        &[None, Some(0)],
        "a class number or name in 1.cls, found \"-1\", which stands for no label; 1 of 2 images have no label",
    );
    check(
        &[("1.png", png(1)), ("1.json", text("{"))],
        &[None],
        "a class number or name in 1.json, found no JSON: EOF",
    );
    check(
        &[("1.png", png(1)), ("1.json", text("{\"label\": [1]}"))],
        &[None],
        "in 1.json, found a list",
    );
    check(
        &[
            ("1.png", png(1)),
            ("1.cls", text("0")),
            ("2.png", png(2)),
            ("2.json", text("{\"cls\": \"cat\"}")),
        ],
        &[Some(0), Some(1)],
        "class numbers or class names, found both, \"0\" and, the first of the other kind, \"cat\" of 2.png",
    );
    // A good label in one file makes up for a bad one in the other.
    let world = World::of(&[
        ("1.png", png(1)),
        ("1.cls", text("")),
        ("1.json", text("{\"label\": \"cat\"}")),
    ]);
    let dataset = world.open("a.tar").unwrap();
    assert_eq!(
        (dataset.classes(), dataset.label(0)),
        (&["cat".to_owned()][..], Some(0))
    );
    dataset.check_labels().unwrap();
}

#[test]
fn class_numbers_with_gaps_are_as_many_as_occur() {
    let world = World::of(&[
        ("1.png", png(1)),
        ("1.cls", text("30000")),
        ("2.png", png(2)),
        ("2.cls", text("7")),
        ("3.png", png(3)),
        ("3.cls", text("10735900")),
    ]);
    let dataset = world.open("a.tar").unwrap();
    assert_eq!(dataset.classes(), ["7", "30000", "10735900"]);
    let labels = [0, 1, 2].map(|index| dataset.label(index));
    assert_eq!(labels, [Some(1), Some(0), Some(2)]);
    dataset.check_labels().unwrap();
}

#[test]
fn archives_after_each_other_are_one_shard() {
    let first = archive(&[("1.png", png(1)), ("1.cls", text("0"))]);
    let second = archive(&[("1.png", png(2)), ("1.cls", text("5")), ("3.png", png(3))]);
    for padding in [0, 512, 7 * 512, 10240] {
        let joined = [&first[..], &vec![0; padding], &second].concat();
        let world = World::new(&[("a.tar", joined)]);
        let dataset = world.open("a.tar").unwrap();
        let found: Vec<_> = (0..dataset.len())
            .map(|index| (shade(&dataset, index), dataset.label(index)))
            .collect();
        // The same name again is another image, with the label beside it.
        assert_eq!(found, [(1, Some(0)), (2, Some(1)), (3, None)], "{padding}");
    }
    let three = [&first[..], &second, &first].concat();
    assert_eq!(
        World::new(&[("a.tar", three)]).open("a.tar").unwrap().len(),
        4
    );

    // What follows and is no archive is told; what was one is refused.
    let tail = [&first[..], b"checksum: 1234"].concat();
    let world = World::new(&[("a.tar", tail)]);
    let dataset = world.open("a.tar").unwrap();
    let told: Vec<String> = dataset.left_out().iter().map(LeftOut::to_string).collect();
    assert_eq!(dataset.len(), 1);
    assert!(
        told[0].starts_with("left out 14 bytes after the end of a tar file"),
        "{told:?}"
    );
    let mut damaged = [&first[..], &second].concat();
    damaged[first.len() + 3] ^= 1;
    let message = World::new(&[("a.tar", damaged)]).refusal();
    assert!(
        message.contains("found a damaged one, or one that is out of place"),
        "{message}"
    );
    let cut = [&first[..], &second[..1024 + 100]].concat();
    let message = World::new(&[("a.tar", cut)]).refusal();
    assert!(
        message.contains("a.tar: expected a whole tar file"),
        "{message}"
    );
}

#[test]
fn what_is_passed_over_is_told_by_ending() {
    let world = World::of(&[
        ("1.jpg.png", png(9)),
        ("a.b/2.png", png(2)),
        ("a.b/2.seg.png", png(9)),
        ("a.b/2.bmp", png(9)),
        ("a.b/3.heic", text("....ftypheic")),
        ("a.b/4", png(4)),
        ("a.b/5.jfif", png(5)),
        ("a.b/5.txt", text("caption")),
        ("a.b/6.cls", text("1")),
        (".hidden.png", png(9)),
    ]);
    let dataset = world.open("a.tar").unwrap();
    let shades: Vec<u8> = (0..dataset.len())
        .map(|index| shade(&dataset, index))
        .collect();
    assert_eq!(shades, [2, 4, 5]);
    let told: Vec<String> = (dataset.left_out().iter())
        .map(|left_out| format!("{} {}", left_out.count, left_out.what))
        .collect();
    assert_eq!(
        told,
        [
            "2 images with further dots in the name (.jpg.png: 1, .seg.png: 1)",
            "1 images with the key of another (.bmp: 1)",
            "1 images of other formats (.heic: 1)",
            "1 hidden files (.png: 1)",
            "1 label files without an image (.cls: 1)",
            "1 files of other kinds (.txt: 1)",
        ]
    );
}

#[test]
fn a_folder_or_a_pattern_stands_for_its_shards() {
    let world = World::new(&[]);
    let folder = world.folder.path().join("shards");
    fs::create_dir_all(folder.join("more")).unwrap();
    for (name, number) in [("b.tar", 2), ("a.TAR", 1), ("more/c.tar", 3)] {
        fs::write(folder.join(name), archive(&[("1.png", png(number))])).unwrap();
    }
    fs::write(folder.join("sizes.json"), "{}").unwrap();
    fs::write(folder.join("d.tar.gz"), b"\x1f\x8b").unwrap();
    let shades = |pattern: &str| {
        let dataset = world.open(pattern).unwrap();
        let shades: Vec<u8> = (0..dataset.len())
            .map(|index| shade(&dataset, index))
            .collect();
        (shades, dataset.left_out().to_vec())
    };
    let (found, left_out) = shades("shards");
    assert_eq!(found, [1, 2, 3]);
    let told: Vec<String> = left_out
        .iter()
        .map(|left_out| left_out.what.clone())
        .collect();
    assert_eq!(
        told,
        [
            "compressed tar files (.gz: 1)",
            "files beside the tar files (.json: 1)"
        ]
    );
    assert_eq!(shades("shards/*.tar").0, [2]);
    assert_eq!(shades("shards/[a-b].*").0, [1, 2]);
    assert_eq!(shades("shards/**/?.tar").0, [2, 3]);
    assert_eq!(shades("shards/{b,more/c}.tar").0, [2, 3]);
    assert!(TarDataset::is_at(&folder));

    let refused = |pattern: &str, expected: &str| {
        let message = world.open(pattern).err().unwrap().to_string();
        assert!(message.contains(expected), "{message}");
    };
    refused("shards/*.tgz", "expected tar files, found none");
    refused(
        "shards/*.gz",
        "found one compressed with gzip; unpack it with gunzip",
    );
    refused("shards/*.json", "found 1 other files");
    // Beside images, shards are no data set of their own.
    fs::write(folder.join("1.png"), png(1)).unwrap();
    assert!(!TarDataset::is_at(&folder));
}

#[test]
fn long_names_are_read_in_every_format() {
    // GNU's: a header of its own with the name.
    let long = format!("{}{}.png", "folder/".repeat(30), "n".repeat(120));
    let dataset = World::of(&[(&long, png(1)), ("2.png", png(2))])
        .open("a.tar")
        .unwrap();
    assert!(
        dataset.name(0).ends_with(&format!("a.tar:{long}")),
        "{}",
        dataset.name(0)
    );
    assert_eq!((shade(&dataset, 0), shade(&dataset, 1)), (1, 2));

    // ustar's: the folders in a prefix.
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_ustar();
    let split = format!("{}/{}.png", "p".repeat(120), "n".repeat(90));
    header.set_path(&split).unwrap();
    header.set_size(png(3).len() as u64);
    header.set_cksum();
    builder.append(&header, png(3).as_slice()).unwrap();
    // PAX's: a record of keys and values, as Python's tarfile writes it.
    let pax = format!("{}/ü.png", "q".repeat(200));
    let record = format!("path={pax}\n");
    let digits = (record.len() + 4).to_string().len();
    assert_eq!(digits, 3);
    let record = format!("{} {record}", record.len() + 4);
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_path("PaxHeaders/0").unwrap();
    header.set_size(record.len() as u64);
    header.set_cksum();
    builder.append(&header, record.as_bytes()).unwrap();
    let mut header = Header::new_ustar();
    header.set_path("cut short.png").unwrap();
    header.set_size(png(4).len() as u64);
    header.set_cksum();
    builder.append(&header, png(4).as_slice()).unwrap();
    let world = World::new(&[("a.tar", builder.into_inner().unwrap())]);
    let dataset = world.open("a.tar").unwrap();
    assert!(dataset.name(0).ends_with(&format!("a.tar:{split}")));
    assert!(
        dataset.name(1).ends_with(&format!("a.tar:{pax}")),
        "{}",
        dataset.name(1)
    );
    assert_eq!((shade(&dataset, 0), shade(&dataset, 1)), (3, 4));
}

#[test]
fn links_and_folders_are_left_out() {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(png(1).len() as u64);
    builder
        .append_data(&mut header, "1.png", png(1).as_slice())
        .unwrap();
    for (kind, name) in [(EntryType::Link, "2.png"), (EntryType::Symlink, "3.png")] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, name, "1.png").unwrap();
    }
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_size(0);
    builder
        .append_data(&mut header, "folder.png/", [].as_slice())
        .unwrap();
    let world = World::new(&[("a.tar", builder.into_inner().unwrap())]);
    assert_eq!(world.open("a.tar").unwrap().len(), 1);
}

#[test]
fn a_shard_that_ends_early_says_where() {
    let whole = archive(&[("1.png", png(1)), ("2.png", png(2)), ("2.cls", text("0"))]);
    let world = World::new(&[]);
    let cut = |len: usize| {
        fs::write(world.folder.path().join("a.tar"), &whole[..len]).unwrap();
        world.refusal()
    };
    let message = cut(1024 + 512 + 10);
    assert!(
        message.contains(
            "a.tar: expected a whole tar file, the next header at byte 1024, found the end of the \
             file in the middle of 2.png; fetch it"
        ),
        "{message}"
    );
    let message = cut(2048);
    assert!(
        message.contains("at byte 2048, found the end of the file, but no mark"),
        "{message}"
    );
    for len in 0..whole.len() - 1024 {
        assert!(
            cut(len).contains("a.tar: expected a whole tar file"),
            "cut at {len}"
        );
    }
}

#[test]
fn what_is_no_tar_file_is_refused() {
    let check = |content: &[u8], expected: &str| {
        let message = World::new(&[("a.tar", content.to_vec())]).refusal();
        assert!(message.contains(expected), "{message}");
    };
    check(
        b"\x1f\x8b\x08\0",
        "found one compressed with gzip; unpack it with gunzip",
    );
    check(b"\x28\xb5\x2f\xfd", "zstd");
    check(b"", "header at byte 0, found the end of the file");
    check(&png(1), "header at byte 0, found");
    check(&[7; 4096], "header at byte 0, found");
    check(
        &[0; 1024],
        "found 0 images among 0 files in 1 shards; supported: jpg",
    );
    check(
        &archive(&[("1.txt", text("x"))]),
        "found 0 images among 1 files",
    );
    let mut middle = archive(&[("1.png", png(1)), ("2.png", png(2))]);
    middle[1024 + 20] ^= 1;
    check(
        &middle,
        "header at byte 1024, found archive header checksum mismatch",
    );
    assert!(TarDataset::open(&["a.tar"], 2).is_err());
}

#[test]
fn a_changed_shard_changes_the_identity() {
    let files = |class: &str| archive(&[("1.png", png(1)), ("1.cls", text(class))]);
    let world = World::new(&[("a.tar", files("0"))]);
    let path = world.folder.path().join("a.tar");
    let identity = |channels| {
        let mut hasher = std::hash::DefaultHasher::new();
        TarDataset::open(&[&path], channels)
            .unwrap()
            .identify(&mut hasher);
        hasher.finish()
    };
    let date = |time| {
        fs::File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(time))
            .unwrap();
    };
    let now = SystemTime::now();
    date(now);
    let before = identity(3);
    assert_eq!(before, identity(3));
    assert_ne!(before, identity(1));
    fs::write(&path, files("1")).unwrap();
    date(now);
    let relabelled = identity(3);
    assert_ne!(before, relabelled);
    date(now - std::time::Duration::from_secs(1));
    assert_ne!(relabelled, identity(3));
}

proptest! {
    #[test]
    fn no_flipped_byte_makes_it_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let long = "n".repeat(200) + ".png";
        let mut file = archive(&[(&long, png(1)), ("1.cls", text("0")), ("2.png", png(2))]);
        for (place, value) in flips {
            let place = place.index(file.len());
            file[place] = value;
        }
        if let Ok(dataset) = World::new(&[("a.tar", file)]).open("a.tar") {
            for index in 0..dataset.len() {
                let _ = dataset.image(index);
            }
        }
    }
}

#[test]
fn arrays_and_bands_are_read_from_shards() {
    let array = |descr: &str, data: &[u8]| {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1, 2, 4)}}\n");
        let mut file = b"\x93NUMPY\x01\0".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(data);
        file
    };
    let bytes = array("|u1", &[0, 51, 102, 153, 204, 255, 0, 51]);
    let deep = array("<u2", &[255; 16]);
    let world = World::of(&[
        ("a.npy", bytes.clone()),
        ("b.image.npy", deep),
        ("c.npy", bytes),
    ]);
    let path = world.folder.path().join("a.tar");
    let dataset = TarDataset::open(&[&path], 4).unwrap();
    // A file is an image only if its name has one extension.
    assert_eq!((dataset.len(), dataset.kind()), (2, PixelKind::U8));
    assert_eq!(
        dataset.image(1).unwrap().bytes(),
        [0, 51, 102, 153, 204, 255, 0, 51]
    );
    let dataset = dataset.read_as(PixelKind::F32);
    let image = dataset.image(0).unwrap();
    assert_eq!(image.pixels().as_f32().unwrap()[..3], [0.0, 0.2, 0.4]);

    let deep = array("<u2", &[255; 16]);
    let world = World::of(&[("a.npy", deep)]);
    let path = world.folder.path().join("a.tar");
    let dataset = TarDataset::open(&[&path], 4).unwrap();
    assert_eq!(dataset.kind(), PixelKind::F32);
    assert_eq!(
        dataset.image(0).unwrap().pixels(),
        &Pixels::F32(vec![1.0; 8])
    );
}

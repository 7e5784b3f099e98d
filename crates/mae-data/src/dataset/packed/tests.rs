use std::fs;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

/// Images of many sizes; every seventh is broken.
struct Pictures {
    len: usize,
    channels: usize,
    classes: Vec<String>,
}

impl Pictures {
    fn new(len: usize, channels: usize) -> Pictures {
        Pictures {
            len,
            channels,
            classes: vec!["ant".to_owned(), "Bär".to_owned(), String::new()],
        }
    }

    fn is_broken(index: usize) -> bool {
        index % 7 == 3
    }

    fn whole(&self) -> Vec<usize> {
        (0..self.len).filter(|&i| !Pictures::is_broken(i)).collect()
    }

    fn pixels(&self, index: usize) -> Image {
        let (height, width) = (8 + index % 5, 20 - index % 11);
        let pixels: Vec<u8> = (0..height * width * self.channels)
            .map(|at| (at * (index + 3) / 5) as u8)
            .collect();
        Image::new(height, width, self.channels, pixels).unwrap()
    }
}

impl Dataset for Pictures {
    fn len(&self) -> usize {
        self.len
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        match Pictures::is_broken(index) {
            true => Err(DataError::Image {
                name: self.name(index),
                reason: "on purpose".to_owned(),
            }),
            false => Ok(self.pixels(index)),
        }
    }

    fn label(&self, index: usize) -> Option<u32> {
        (index % 4 != 3).then_some(index as u32 % 4)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self, index: usize) -> String {
        match index {
            2 => String::new(),
            _ => format!("bücher/{index}.png"),
        }
    }
}

const CONFIG: PackConfig = PackConfig {
    size: 64,
    encoding: PackEncoding::Raw,
    max_broken_share: 0.5,
};

fn pack_to(path: &Path, dataset: &dyn Dataset, config: PackConfig) -> PackSummary {
    pack(dataset, &config, path, |_| ControlFlow::Continue(()))
        .unwrap()
        .unwrap()
}

/// A packed file of 24 pictures.
fn packed(config: PackConfig) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mae");
    pack_to(&path, &Pictures::new(24, 3), config);
    (folder, path)
}

fn refusal(path: &Path) -> String {
    PackedDataset::open(path, 3).err().unwrap().to_string()
}

#[test]
fn what_was_packed_comes_back_in_order_with_names_and_labels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mae");
    for channels in [1, 3] {
        let pictures = Pictures::new(100, channels);
        let summary = pack_to(&path, &pictures, CONFIG);
        let dataset = PackedDataset::open(&path, channels).unwrap();
        let whole = pictures.whole();
        assert_eq!(dataset.len(), whole.len());
        assert_eq!(dataset.classes(), pictures.classes());
        for (place, &index) in whole.iter().enumerate() {
            assert_eq!(dataset.image(place).unwrap(), pictures.pixels(index));
            assert_eq!(dataset.name(place), pictures.name(index));
            assert_eq!(dataset.label(place), pictures.label(index));
        }
        assert_eq!(dataset.label(whole.len()), None);
        assert!(dataset.name(whole.len()).contains("a.mae"));
        assert!(matches!(
            dataset.image(whole.len()),
            Err(DataError::Index { .. })
        ));
        let broken = ("bücher/3.png".to_owned(), "on purpose".to_owned());
        assert_eq!(summary.broken[0], broken);
        assert_eq!(summary.broken.len() + summary.images, 100);
        assert_eq!(summary.bytes, fs::metadata(&path).unwrap().len());
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |threads: usize, encoding| {
        let path = folder.path().join(format!("{threads}.mae"));
        let config = PackConfig { encoding, ..CONFIG };
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(|| pack_to(&path, &Pictures::new(100, 3), config));
        fs::read(path).unwrap()
    };
    for encoding in [PackEncoding::Raw, PackEncoding::Jpeg(90)] {
        assert_eq!(bytes(1, encoding), bytes(3, encoding));
    }
}

#[test]
fn the_bytes_are_those_that_the_documentation_names() {
    let (_folder, path) = packed(CONFIG);
    let file = fs::read(&path).unwrap();
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    assert_eq!(&file[..8], b"mae-pack");
    assert_eq!([word(8), word(12), word(16), word(20)], [1, 0, 3, 3]);
    let pictures = Pictures::new(24, 3);
    let whole = pictures.whole();
    assert_eq!(long(24), whole.len());
    let index = long(32);
    assert_eq!(index + long(40), file.len());
    assert_eq!(word(48), crc32c::crc32c(&file[index..]));
    assert_eq!(word(52), crc32c::crc32c(&file[..52]));
    let names = index + 40 * whole.len();
    let mut name_start = 0;
    let mut record_start = 56;
    for (place, &picture) in whole.iter().enumerate() {
        let entry = index + 40 * place;
        let pixels = pictures.pixels(picture);
        let record = &file[long(entry)..][..word(entry + 16) as usize];
        assert_eq!(record, pixels.bytes());
        assert_eq!(long(entry), record_start);
        record_start += record.len();
        let size = [word(entry + 20), word(entry + 24)];
        assert_eq!(size, [pixels.height() as u32, pixels.width() as u32]);
        let label = pictures.label(picture).unwrap_or(0xffff_ffff);
        assert_eq!(word(entry + 28), label);
        assert_eq!(word(entry + 32), crc32c::crc32c(record));
        assert_eq!(word(entry + 36), 0);
        let name = &file[names + name_start..names + long(entry + 8)];
        assert_eq!(name, pictures.name(picture).as_bytes());
        name_start = long(entry + 8);
    }
    assert_eq!(
        &file[names + name_start..],
        b"\x03\0\0\0ant\x04\0\0\0B\xc3\xa4r\0\0\0\0"
    );
}

#[test]
fn images_are_reduced_but_never_magnified() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mae");
    let pictures = Pictures::new(3, 3);
    let config = PackConfig { size: 9, ..CONFIG };
    pack_to(&path, &pictures, config);
    let dataset = PackedDataset::open(&path, 3).unwrap();
    // 8 x 20, 9 x 19 and 10 x 18.
    assert_eq!(dataset.image(0).unwrap(), pictures.pixels(0));
    assert_eq!(dataset.image(1).unwrap(), pictures.pixels(1));
    let reduced = pictures.pixels(2).resize(9, 16).unwrap();
    assert_eq!(dataset.image(2).unwrap(), reduced);
}

#[test]
fn a_jpeg_is_smaller_and_near() {
    let (_folder, path) = packed(PackConfig {
        encoding: PackEncoding::Jpeg(95),
        ..CONFIG
    });
    let dataset = PackedDataset::open(&path, 3).unwrap();
    let pictures = Pictures::new(24, 3);
    for (place, &index) in pictures.whole().iter().enumerate() {
        let (_, record) = dataset.record(place).unwrap();
        assert_eq!(record[..2], [0xff, 0xd8]);
        let (found, original) = (dataset.image(place).unwrap(), pictures.pixels(index));
        assert_eq!(found.height(), original.height());
        let off: u64 = (found.bytes().iter().zip(original.bytes()))
            .map(|(a, b)| u64::from(a.abs_diff(*b)))
            .sum();
        let mean = off as f64 / found.bytes().len() as f64;
        assert!(mean < 16.0, "image {place} is off by {mean}");
    }
}

#[test]
fn colours_become_luma_and_luma_grey() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mae");
    let mut png = std::io::Cursor::new(Vec::new());
    let picture =
        image::RgbImage::from_fn(4, 3, |x, y| image::Rgb([x as u8 * 60, y as u8 * 80, 9]));
    picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
    fs::write(folder.path().join("1.png"), png.into_inner()).unwrap();
    let open = |channels| crate::FolderDataset::open(folder.path(), channels).unwrap();
    pack_to(&path, &open(3), CONFIG);
    let luma = PackedDataset::open(&path, 1).unwrap().image(0).unwrap();
    assert_eq!(luma, open(1).image(0).unwrap());
    pack_to(&path, &open(1), CONFIG);
    let grey = PackedDataset::open(&path, 3).unwrap().image(0).unwrap();
    let expected: Vec<u8> = luma.bytes().iter().flat_map(|&value| [value; 3]).collect();
    assert_eq!(grey.bytes(), expected);
    assert!(PackedDataset::open(&path, 2).is_err());
}

#[test]
fn a_packed_file_can_be_packed_smaller() {
    let (folder, path) = packed(CONFIG);
    let again = folder.path().join("b.mae");
    let config = PackConfig { size: 5, ..CONFIG };
    pack_to(&again, &PackedDataset::open(&path, 3).unwrap(), config);
    let dataset = PackedDataset::open(&again, 3).unwrap();
    let whole = Pictures::new(24, 3).whole();
    assert_eq!(dataset.len(), whole.len());
    assert_eq!(dataset.name(5), format!("bücher/{}.png", whole[5]));
    assert_eq!(dataset.image(0).unwrap().height(), 5);
}

/// Counts the images that are in memory at a time.
struct Counted {
    pictures: Pictures,
    read: AtomicUsize,
    written: Mutex<usize>,
}

impl Dataset for Counted {
    fn len(&self) -> usize {
        self.pictures.len
    }

    fn channels(&self) -> usize {
        3
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let read = self.read.fetch_add(1, Ordering::Relaxed) + 1;
        let written = *self.written.lock().unwrap();
        assert!(read - written <= 32, "{read} read, {written} written");
        self.pictures.image(index)
    }

    fn name(&self, index: usize) -> String {
        self.pictures.name(index)
    }
}

#[test]
fn few_images_are_read_ahead_of_those_written() {
    let folder = tempfile::tempdir().unwrap();
    let counted = Counted {
        pictures: Pictures::new(1000, 3),
        read: AtomicUsize::new(0),
        written: Mutex::new(0),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
    let summary = pool.unwrap().install(|| {
        pack(
            &counted,
            &CONFIG,
            &folder.path().join("a.mae"),
            |progress| {
                *counted.written.lock().unwrap() = progress.images;
                ControlFlow::Continue(())
            },
        )
    });
    assert_eq!(
        summary.unwrap().unwrap().images,
        counted.pictures.whole().len()
    );
}

#[test]
fn a_pack_that_was_stopped_or_failed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mae");
    let pictures = Pictures::new(1000, 3);
    let mut calls = 0;
    let stopped = pack(&pictures, &CONFIG, &path, |_| {
        calls += 1;
        ControlFlow::Break(())
    });
    assert_eq!((stopped.unwrap(), calls), (None, 1));
    let message = refusal(&path);
    assert!(message.contains("a file that begins with"), "{message}");

    let config = PackConfig {
        max_broken_share: 0.01,
        ..CONFIG
    };
    let error = pack(&pictures, &config, &path, |_| ControlFlow::Continue(())).unwrap_err();
    let message = error.to_string();
    assert!(
        matches!(error, DataError::TooManyBroken { .. }),
        "{message}"
    );
    assert!(message.contains("bücher/3.png (on purpose)"), "{message}");
    assert!(PackedDataset::open(&path, 3).is_err());
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mae");
    let message = |len, config: PackConfig, path: &Path| {
        pack(&Pictures::new(len, 3), &config, path, |_| {
            ControlFlow::Continue(())
        })
        .unwrap_err()
        .to_string()
    };
    let with = |size, encoding, max_broken_share| PackConfig {
        size,
        encoding,
        max_broken_share,
    };
    let raw = PackEncoding::Raw;
    assert!(message(9, with(0, raw, 0.5), &path).starts_with("size: expected at least 1"));
    assert!(message(9, with(9, raw, 2.0), &path).starts_with("max_broken_share"));
    for quality in [0, 101] {
        let found = message(9, with(9, PackEncoding::Jpeg(quality), 0.5), &path);
        assert!(found.starts_with("quality: expected 1 to 100"), "{found}");
    }
    assert!(message(0, CONFIG, &path).starts_with("images: expected at least 1"));
    let found = message(9, CONFIG, &folder.path().join("no/a.mae"));
    assert!(found.starts_with("cannot write"), "{found}");
}

#[test]
fn other_files_are_refused_with_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mae");
    assert!(refusal(&path).starts_with("cannot read"));
    assert!(refusal(folder.path()).contains("found no regular file"));
    fs::write(&path, "").unwrap();
    assert!(refusal(&path).contains("found an empty file"));
    fs::write(&path, "PK\x03\x04 and so on").unwrap();
    assert!(refusal(&path).contains("found a file that begins with \"PK\\u{3}\\u{4} and\""));
    fs::write(&path, "mae-pack").unwrap();
    assert!(refusal(&path).contains("found a damaged header"));

    let (_folder, path) = packed(CONFIG);
    let mut file = fs::read(&path).unwrap();
    file[8] = 3;
    fs::write(&path, file).unwrap();
    let message = refusal(&path);
    assert!(
        message.contains("version 3 of the format; this program reads versions 1 to 2"),
        "{message}"
    );
}

#[test]
fn a_file_of_any_other_length_is_refused() {
    let (_folder, path) = packed(CONFIG);
    let whole = fs::read(&path).unwrap();
    for len in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..len]).unwrap();
        let message = refusal(&path);
        if len >= HEADER_LEN {
            let expected = format!("found {len} bytes of the {} that", whole.len());
            assert!(message.contains(&expected), "{message}");
        }
    }
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert!(refusal(&path).contains("copy it again"));
}

/// Checks that a header and index that lie, with right checksums, are refused or harmless.
fn check_forged(change: impl Fn(&mut Header, &mut Vec<u8>)) {
    let (_folder, path) = packed(CONFIG);
    let file = fs::read(&path).unwrap();
    let mut header = Header::read(&file).unwrap();
    let mut index = file[header.index_at as usize..].to_vec();
    change(&mut header, &mut index);
    header.index_checksum = crc32c::crc32c(&index);
    let forged = [
        &header.to_bytes()[..],
        &file[HEADER_LEN..Header::read(&file).unwrap().index_at as usize],
        &index,
    ];
    fs::write(&path, forged.concat()).unwrap();
    let message = refusal(&path);
    assert!(
        message.contains("a data set packed by mae-train, found"),
        "{message}"
    );
}

#[test]
fn right_checksums_do_not_make_lies_true() {
    check_forged(|header, _| header.images = u64::MAX / 40);
    check_forged(|header, _| header.images = u64::MAX);
    check_forged(|header, _| header.images += 1);
    check_forged(|header, _| header.images -= 1);
    check_forged(|header, _| header.index_at = u64::MAX);
    check_forged(|header, _| header.index_len = u64::MAX);
    check_forged(|header, _| header.channels = 1);
    check_forged(|header, _| header.channels = 2);
    check_forged(|header, _| header.classes = u32::MAX);
    check_forged(|header, _| header.classes = 2);
    let entry = |change: fn(&mut Entry)| {
        check_forged(|_, index| {
            let mut entry = Entry::read(&index[40..80]);
            change(&mut entry);
            index[40..80].copy_from_slice(&entry.to_bytes());
        });
    };
    entry(|entry| entry.at = u64::MAX);
    entry(|entry| entry.at = 0);
    entry(|entry| entry.len += 1);
    entry(|entry| entry.name_end = u64::MAX);
    entry(|entry| entry.name_end = 0);
    entry(|entry| entry.label = 3);
    entry(|entry| (entry.height, entry.width) = (u32::MAX, u32::MAX));
    entry(|entry| (entry.height, entry.len) = (0, 0));
}

#[test]
fn a_copy_is_the_same_data_set_and_a_change_makes_another() {
    let (folder, path) = packed(CONFIG);
    let identity = |path: &Path, channels| {
        let mut hasher = std::hash::DefaultHasher::new();
        PackedDataset::open(path, channels)
            .unwrap()
            .identify(&mut hasher);
        hasher.finish()
    };
    let copy = folder.path().join("copy.mae");
    fs::copy(&path, &copy).unwrap();
    assert_eq!(identity(&path, 3), identity(&copy, 3));
    assert_ne!(identity(&path, 3), identity(&path, 1));
    let config = PackConfig { size: 9, ..CONFIG };
    pack_to(&copy, &Pictures::new(24, 3), config);
    assert_ne!(identity(&path, 3), identity(&copy, 3));
}

proptest! {
    #[test]
    fn a_flipped_bit_is_always_found(place in any::<prop::sample::Index>(), bit in 0..8) {
        for encoding in [PackEncoding::Raw, PackEncoding::Jpeg(90)] {
            let (_folder, path) = packed(PackConfig { encoding, ..CONFIG });
            let mut file = fs::read(&path).unwrap();
            let place = place.index(file.len());
            file[place] ^= 1u8 << bit;
            fs::write(&path, &file).unwrap();
            match PackedDataset::open(&path, 3) {
                Err(error) => prop_assert!(matches!(error, DataError::Dataset { .. }), "{error}"),
                Ok(dataset) => {
                    let broken: Vec<String> = (0..dataset.len())
                        .filter_map(|index| dataset.image(index).err())
                        .map(|error| error.to_string())
                        .collect();
                    prop_assert_eq!(broken.len(), 1);
                    prop_assert!(broken[0].contains("its checksum differs"), "{}", broken[0]);
                }
            }
        }
    }

    #[test]
    fn no_file_makes_it_panic(tail in prop::collection::vec(any::<u8>(), 0..200), is_ours: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mae");
        let start: &[u8] = if is_ours { b"mae-pack\x01\0\0\0" } else { b"" };
        fs::write(&path, [start, &tail].concat()).unwrap();
        prop_assert!(PackedDataset::open(&path, 3).is_err());
    }
}

/// Images of numbers or bytes of any number of channels.
struct Measured {
    channels: usize,
    kind: PixelKind,
}

impl Dataset for Measured {
    fn len(&self) -> usize {
        5
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn kind(&self) -> PixelKind {
        self.kind
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let values = 0..6 * (4 + index) * self.channels;
        let pixels = match self.kind {
            PixelKind::U8 => Pixels::U8(values.map(|at| (at * 3) as u8).collect()),
            PixelKind::F32 => Pixels::F32(values.map(|at| at as f32 / 3.0 - 40.0).collect()),
        };
        Image::new(6, 4 + index, self.channels, pixels)
    }

    fn name(&self, index: usize) -> String {
        format!("measured:{index}")
    }
}

#[test]
fn any_channels_and_numbers_come_back_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mae");
    for kind in [PixelKind::U8, PixelKind::F32] {
        for channels in [1, 2, 3, 5, 12] {
            let measured = Measured { channels, kind };
            pack_to(&path, &measured, CONFIG);
            let dataset = PackedDataset::open(&path, channels).unwrap();
            assert_eq!((dataset.len(), dataset.kind()), (5, kind));
            for index in 0..5 {
                let expected = measured.image(index).unwrap();
                assert_eq!(dataset.image(index).unwrap(), expected);
            }
            // What the first version can hold is of the first version.
            let is_first = kind == PixelKind::U8 && matches!(channels, 1 | 3);
            let version = if is_first { 1 } else { 2 };
            assert_eq!(fs::read(&path).unwrap()[8], version, "{channels} {kind:?}");

            let as_numbers = PackedDataset::open(&path, channels).unwrap();
            let as_numbers = as_numbers.read_as(PixelKind::F32).unwrap();
            let expected = measured.image(2).unwrap().into_pixels().into_f32();
            assert_eq!(
                as_numbers.image(2).unwrap().pixels(),
                &Pixels::F32(expected)
            );
            let as_bytes = PackedDataset::open(&path, channels).unwrap();
            assert_eq!(
                as_bytes.read_as(PixelKind::U8).is_ok(),
                kind == PixelKind::U8
            );
        }
    }
    let message = refusal(&path);
    assert!(
        message.contains("expected images of 3 channels, found 12; set model.channels=12"),
        "{message}"
    );
}

#[test]
fn a_jpeg_is_refused_what_it_cannot_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mae");
    let config = PackConfig {
        encoding: PackEncoding::Jpeg(90),
        ..CONFIG
    };
    for (channels, kind, expected) in [
        (
            3,
            PixelKind::F32,
            "quality: expected none, for a JPEG holds 8 bits a value",
        ),
        (
            5,
            PixelKind::U8,
            "quality: expected none, for a JPEG holds 1 or 3 channels",
        ),
    ] {
        let measured = Measured { channels, kind };
        let result = pack(&measured, &config, &path, |_| ControlFlow::Continue(()));
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!path.exists());
    }
}

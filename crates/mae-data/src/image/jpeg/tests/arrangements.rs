//! Every arrangement of a JPEG that libjpeg makes, against the pixels that libjpeg makes of it.
//!
//! `make_jpegs.py` made the files: seven kinds of colour, eight of sampling, six orders of the
//! coefficients, with and without restart markers, four sizes.

use std::path::Path;

use super::*;

pub(super) struct Arranged {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
    height: usize,
    width: usize,
    channels: usize,
    expected: Vec<u8>,
}

pub(super) fn arranged() -> Vec<Arranged> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jpegs");
    let bytes = std::fs::read(folder.join("jpegs.bin")).unwrap();
    let list = std::fs::read_to_string(folder.join("jpegs.txt")).unwrap();
    list.lines()
        .map(|line| {
            let (name, numbers) = line.split_once(' ').unwrap();
            let numbers: Vec<usize> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
            let [start, len, picture, height, width, channels] = numbers[..] else {
                panic!("{line}");
            };
            Arranged {
                name: name.to_owned(),
                content: bytes[start..start + len].to_vec(),
                height,
                width,
                channels,
                expected: bytes[picture..picture + height * width * channels].to_vec(),
            }
        })
        .collect()
}

/// The general decoder is libjpeg, so nothing may differ.
#[test]
fn all_pixels_are_those_of_libjpeg() {
    for file in arranged() {
        let image = decode(&file.content).unwrap_or_else(|error| panic!("{}: {error}", file.name));
        assert_eq!(
            (image.height() as usize, image.width() as usize),
            (file.height, file.width)
        );
        assert_eq!(image.as_bytes(), file.expected, "{}", file.name);
    }
}

/// Crops have their own rounding: of the inverse transform, of chroma, which is not rounded before it
/// becomes a colour, and of the colours; so a level on average, and six where edges are sharp.
#[test]
fn usual_ones_are_decoded_alike_as_crops() {
    let mut count = 0;
    for file in arranged() {
        let view = whole_view(file.height, file.width, file.height, file.width);
        let Some(found) = decode_view(&file.content, file.channels, |_, _| view) else {
            continue;
        };
        count += 1;
        let differences = (found.bytes().iter().zip(&file.expected)).map(|(a, b)| a.abs_diff(*b));
        let most = differences.clone().max().unwrap();
        let sum: usize = differences.map(usize::from).sum();
        let mean = sum as f64 / file.expected.len() as f64;
        assert!(mean <= 1.0 && most <= 6, "{}: {mean}, {most}", file.name);
    }
    // Grey in any order but progressive (42), and YCbCr in one scan with four kinds of sampling.
    assert_eq!(count, 74, "files that crops are decoded of");
}

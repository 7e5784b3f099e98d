use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::{GrayImage, ImageEncoder, RgbImage};
use proptest::prelude::*;

use super::header::Header;
use super::*;

mod arrangements;
mod damage;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/crops")
}

/// A JPEG, the view that Pillow took of it, and what it made; `make_crops.py` made the files.
struct Golden {
    name: String,
    content: Vec<u8>,
    view: View,
    expected: Image,
}

fn goldens(folder: &Path) -> Vec<Golden> {
    let read = |name: &str| std::fs::read(folder.join(name)).expect(name);
    let list = String::from_utf8(read("crops.txt")).unwrap();
    list.lines()
        .map(|line| {
            let (name, numbers) = line.split_once(' ').unwrap();
            let numbers: Vec<f64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
            let expected = Image::decode(&read(&format!("{name}.png")), 3, name).unwrap();
            Golden {
                name: name.to_owned(),
                content: read(&format!("{name}.jpg")),
                view: View {
                    crop: CropBox {
                        top: numbers[0],
                        left: numbers[1],
                        height: numbers[2],
                        width: numbers[3],
                    },
                    height: expected.height(),
                    width: expected.width(),
                    hflip: numbers[4] == 1.0,
                },
                expected,
            }
        })
        .collect()
}

/// Mean absolute difference, in levels of 255.
fn difference(a: &Image, b: &Image) -> f64 {
    assert_eq!(
        (a.height(), a.width(), a.channels()),
        (b.height(), b.width(), b.channels())
    );
    let sum: u64 = (a.bytes().iter().zip(b.bytes()))
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum as f64 / a.bytes().len() as f64
}

#[test]
fn crops_are_those_of_pillow() {
    let mut folders = vec![fixtures()];
    folders.extend(std::env::var_os("MAE_CROPS").map(PathBuf::from));
    for folder in folders {
        let mut differences = Vec::new();
        for golden in goldens(&folder) {
            let found = decode_view(&golden.content, 3, |_, _| golden.view).expect(&golden.name);
            let difference = difference(&found, &golden.expected);
            assert!(difference < 1.0, "{}: {difference}", golden.name);
            differences.push(difference);
        }
        differences.sort_by(f64::total_cmp);
        let count = differences.len();
        println!(
            "{count} crops differ by {:.3} levels (least), {:.3} (median), {:.3} (most)",
            differences[0],
            differences[count / 2],
            differences[count - 1]
        );
    }
}

/// A smooth picture, of which a JPEG has chroma of half the height and half the width.
fn smooth(side: usize, seed: f64) -> Vec<u8> {
    let wave = |at: f64| (127.0 + 80.0 * at.sin()).round() as u8;
    let pixels: Vec<u8> = (0..side * side)
        .flat_map(|at| {
            let (y, x) = ((at / side) as f64, (at % side) as f64);
            [(31.0, 43.0), (57.0, -29.0), (-37.0, 71.0)].map(|(a, b)| wave(x / a + y / b + seed))
        })
        .collect();
    let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    encoder.set_size(side, side);
    encoder.set_chroma_sampling_pixel_sizes((2, 2), (2, 2));
    // One scan, as the decoder of crops wants it.
    encoder.set_scan_optimization_mode(mozjpeg::ScanMode::AllComponentsTogether);
    encoder.set_fastest_defaults();
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    encoder.write_scanlines(&pixels).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn chroma_of_half_the_size_moves_no_mean() {
    const SIDE: usize = 256;
    for seed in [0.0, 1.0, 2.0] {
        let content = smooth(SIDE, seed);
        assert_eq!(Usual::parse(&content).unwrap().luma_blocks, [2, 2]);
        let crop = |side| decode_view(&content, 3, |h, w| whole_view(h, w, side, side)).unwrap();
        let whole = decode(&content).unwrap().into_rgb8().into_raw();
        let whole = Image::new(SIDE, SIDE, 3, whole).unwrap();
        let mean = |image: &Image, channel| {
            let values = image.bytes().iter().skip(channel).step_by(3);
            let sum: f64 = values.map(|&value| f64::from(value) / 255.0).sum();
            sum / (image.height() * image.width()) as f64
        };
        for side in [SIDE, 112] {
            for channel in 0..3 {
                let bias = mean(&crop(side), channel) - mean(&whole, channel);
                assert!(bias.abs() < 2e-4, "{bias} in channel {channel} at {side}");
            }
        }
    }
}

#[test]
fn luma_is_that_of_the_colours() {
    for golden in goldens(&fixtures()) {
        let found = decode_view(&golden.content, 1, |_, _| golden.view).unwrap();
        let luma: Vec<u8> = (golden.expected.bytes().chunks_exact(3))
            .map(|rgb| {
                let [red, green, blue] = [0, 1, 2].map(|i| u32::from(rgb[i]));
                ((2126 * red + 7152 * green + 722 * blue) / 10_000) as u8
            })
            .collect();
        let (height, width) = (golden.view.height, golden.view.width);
        let difference = difference(&found, &Image::new(height, width, 1, luma).unwrap());
        assert!(difference < 1.0, "{}: {difference}", golden.name);
    }
}

#[test]
fn every_processor_gives_the_same() {
    let mut decoder = Decoder::new();
    for golden in goldens(&fixtures()) {
        let usual = Usual::parse(&golden.content).unwrap();
        let portable = decoder.decode(&usual, &golden.view, 3);
        assert_eq!(
            dispatch::decode(&mut decoder, &usual, &golden.view, 3),
            portable
        );
    }
}

#[test]
fn an_even_image_stays_even() {
    for value in [0, 1, 77, 254, 255] {
        let mut content = Vec::new();
        JpegEncoder::new_with_quality(&mut content, 100)
            .encode_image(&GrayImage::from_pixel(300, 200, image::Luma([value])))
            .unwrap();
        for (height, width) in [(200, 300), (31, 500), (224, 224), (13, 19)] {
            let view = whole_view(200, 300, height, width);
            let found = decode_view(&content, 1, |_, _| view).unwrap();
            assert_eq!(found.bytes(), vec![value; height * width]);
        }
    }
}

#[test]
fn what_it_does_not_know_is_left_to_the_library() {
    let read = |name: &str| std::fs::read(fixtures().with_file_name(name)).unwrap();
    let decode = |content: &[u8]| decode_view(content, 3, |h, w| whole_view(h, w, 8, 8));
    assert!(decode(&read("progressive.jpg")).is_none());
    assert!(decode(&read("orientation_6.jpg")).is_none());
    assert!(decode(&read("source.png")).is_none());
    assert!(decode(b"").is_none());
    let upright = [0xff, 0xd8, 0xff, 0xe1, 0, 8].iter().chain(b"Exif\0\0");
    let mut content = photo();
    content.splice(..2, upright.copied());
    assert!(decode(&content).is_some());
}

#[test]
fn numbers_beyond_16_bits_are_left_to_the_library() {
    // At the best quality an edge between the extremes has coefficients of ten bits.
    let edges = GrayImage::from_fn(64, 64, |x, _| {
        image::Luma([if x % 8 < 4 { 0 } else { 255 }])
    });
    let mut content = Vec::new();
    JpegEncoder::new_with_quality(&mut content, 100)
        .encode_image(&edges)
        .unwrap();
    let at = content
        .windows(2)
        .position(|at| at == [0xff, 0xdb])
        .unwrap();
    for (step, is_decoded) in [(1, true), (32, true), (33, false), (1, true), (255, false)] {
        // The first coefficient, which has a limit of its own, stays as it is.
        content[at + 6..at + 5 + 64].fill(step);
        let found = decode_view(&content, 1, |height, width| {
            whole_view(height, width, 64, 64)
        });
        assert_eq!(found.is_some(), is_decoded, "{step}");
        if step == 1 {
            assert_eq!(found.unwrap().bytes(), edges.as_raw());
        }
        assert!(decode(&content).is_ok(), "{step}");
    }
}

fn whole_view(full_height: usize, full_width: usize, height: usize, width: usize) -> View {
    View {
        crop: CropBox {
            top: 0.0,
            left: 0.0,
            height: full_height as f64,
            width: full_width as f64,
        },
        height,
        width,
        hflip: false,
    }
}

fn photo() -> Vec<u8> {
    std::fs::read(fixtures().join("420.jpg")).unwrap()
}

fn encode(height: usize, width: usize, quality: u8, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    // Within the gamut, far from its edges: where colours are clipped matters a little.
    let wave = |at: f64| (120.0 + 60.0 * at.sin()) as u8;
    let image = RgbImage::from_fn(width as u32, height as u32, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (x, y, grain) = (f64::from(x), f64::from(y), (state >> 28) as u8);
        image::Rgb([x / 3.0, y / 4.0, (x + y) / 5.0].map(|at| wave(at) + grain))
    });
    let mut content = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut content, quality)
        .write_image(
            &image,
            width as u32,
            height as u32,
            image::ExtendedColorType::Rgb8,
        )
        .unwrap();
    content.into_inner()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_size_and_any_part_is_decoded(
        height in 1_usize..70,
        width in 1_usize..70,
        target in (1_usize..50, 1_usize..50),
        parts in proptest::array::uniform4(0.0..1.0_f64),
        quality in 60_u8..=100,
        seed: u32,
    ) {
        let content = encode(height, width, quality, seed);
        let part = |side: usize, at: f64, share: f64| {
            let len = (side as f64 * share).max(0.5);
            ((side as f64 - len) * at, len)
        };
        let (top, crop_height) = part(height, parts[0], parts[1]);
        let (left, crop_width) = part(width, parts[2], parts[3]);
        let crop = CropBox { top, left, height: crop_height, width: crop_width };
        let view = View { crop, height: target.0, width: target.1, hflip: false };
        let found = decode_view(&content, 3, |_, _| view).expect("a usual file");
        let expected = Image::decode(&content, 3, "").unwrap().crop_resize(crop, target.0, target.1).unwrap();
        let difference = difference(&found, &expected);
        prop_assert!(difference < 2.0, "{difference}");
    }

    #[test]
    fn a_file_that_ends_early_is_none(share in 0.0..1.0_f64) {
        for golden in goldens(&fixtures()) {
            let end = (golden.content.len() as f64 * share) as usize;
            let end = end.min(golden.content.len() - 2);
            prop_assert!(decode_view(&golden.content[..end], 3, |_, _| golden.view).is_none());
        }
    }

    #[test]
    fn no_damage_panics(
        changes in proptest::collection::vec((0.0..1.0_f64, any::<u8>()), 1..12),
        parts in proptest::array::uniform4(0.0..1.0_f64),
        in_header: bool,
    ) {
        for golden in goldens(&fixtures()) {
            let mut content = golden.content;
            // Most of the bytes are in the scan: half of the time, aim at what is before it.
            let len = if in_header { content.len().min(640) } else { content.len() };
            for &(at, value) in &changes {
                content[(at * len as f64) as usize] = value;
            }
            decode_view(&content, 3, |height, width| {
                let (tall, wide) = (height as f64 * parts[0] * 0.9 + 0.01, width as f64 * parts[1] * 0.9 + 0.01);
                View {
                    crop: CropBox {
                        top: (height as f64 - tall) * parts[2] * 0.9,
                        left: (width as f64 - wide) * parts[3] * 0.9,
                        height: tall,
                        width: wide,
                    },
                    ..golden.view
                }
            });
        }
    }
}

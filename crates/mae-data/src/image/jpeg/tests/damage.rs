//! What is missing or damaged is an error, and what only looks so is an image.

use super::arrangements::arranged;
use super::*;

const END: [u8; 2] = [0xff, 0xd9];

fn reason(content: &[u8]) -> String {
    decode(content).expect_err("a broken image")
}

/// Where the data of the first scan begins.
fn data_start(content: &[u8]) -> usize {
    let mut header = Header::new(content).unwrap();
    content.len() - header.next_scan().unwrap().unwrap().data.len()
}

/// All of a photograph, by the decoder of crops.
fn whole(content: &[u8]) -> Option<Image> {
    decode_view(content, 3, |height, width| {
        whole_view(height, width, height, width)
    })
}

/// Segments with one of some markers are left out.
fn without(content: &[u8], markers: &[u8]) -> Vec<u8> {
    let mut kept = content[..2].to_vec();
    let mut at = 2;
    loop {
        let len = 2 + usize::from(u16::from_be_bytes([content[at + 2], content[at + 3]]));
        let marker = content[at + 1];
        if !markers.contains(&marker) {
            kept.extend_from_slice(&content[at..at + len]);
        }
        at += len;
        if marker == 0xda {
            kept.extend_from_slice(&content[at..]);
            return kept;
        }
    }
}

#[test]
fn what_is_cut_and_closed_is_broken() {
    for file in arranged() {
        let start = data_start(&file.content);
        let len = file.content.len();
        for share in [0.0, 0.3, 0.6, 0.9] {
            let end = start + ((len - start - 2) as f64 * share) as usize;
            let closed = [&file.content[..end], &END].concat();
            for content in [&closed[..], &closed[..end]] {
                assert!(decode(content).is_err(), "{} at {end} of {len}", file.name);
                assert!(whole(content).is_none(), "{} at {end} of {len}", file.name);
            }
        }
    }
    let content = photo();
    let start = data_start(&content);
    let closed = [&content[..(start + content.len()) / 2], &END].concat();
    let reason = reason(&closed);
    let (before, after) = reason.split_once(" blocks, ").unwrap();
    assert!(
        before.starts_with("the jpeg ends early: scan 1 has "),
        "{reason}"
    );
    assert_eq!(after, "expected 288; fetch it again");
}

#[test]
fn only_the_end_marker_may_be_missing() {
    for file in arranged() {
        let whole = decode(&file.content).unwrap();
        let (open, end) = file.content.split_at(file.content.len() - 2);
        assert_eq!(end, END);
        assert_eq!(decode(open).as_ref(), Ok(&whole), "{}", file.name);
    }
}

#[test]
fn what_follows_the_end_does_not_count() {
    for file in arranged() {
        let whole = decode(&file.content).unwrap();
        let another = photo();
        for more in [&b"\0\0 more \xff\xda\xff"[..], &another, &another[..700]] {
            let content = [&file.content, more].concat();
            assert_eq!(decode(&content).as_ref(), Ok(&whole), "{}", file.name);
        }
    }
    let content = photo();
    assert_eq!(whole(&[&content[..], &content].concat()), whole(&content));
}

#[test]
fn a_thumbnail_is_not_the_image() {
    let content = photo();
    let mut thumbnail = Vec::new();
    JpegEncoder::new(&mut thumbnail)
        .encode_image(&GrayImage::new(16, 16))
        .unwrap();
    let exif = [&b"Exif\0\0MM\0\x2a\0\0\0\x08\0\0\0\0\0\0"[..], &thumbnail].concat();
    let len = (2 + exif.len() as u16).to_be_bytes();
    let with = [&content[..2], &[0xff, 0xe1], &len, &exif, &content[2..]].concat();
    assert_eq!(decode(&with), decode(&content));
    assert_eq!(whole(&with), whole(&content));
}

#[test]
fn zeros_and_noise_in_the_middle_are_broken() {
    let (mut tried, mut seen) = (0, 0);
    for file in arranged() {
        let start = data_start(&file.content);
        let data = file.content.len() - 2 - start;
        if data < 200 {
            continue;
        }
        for fill in [|_| 0, |at: usize| (at * 37 % 251) as u8, |_| 0x55] {
            let mut content = file.content.clone();
            let from = start + data / 4;
            for (at, byte) in content[from..from + data / 2].iter_mut().enumerate() {
                *byte = fill(at);
            }
            tried += 1;
            seen += usize::from(decode(&content).is_err());
            // Both tell, or none.
            if decode(&content).is_err() {
                assert!(whole(&content).is_none(), "{}", file.name);
            }
        }
    }
    // Of bits that refine others, as of pixels, any make sense.
    println!("{seen} of {tried} damaged files are seen");
    assert!(seen * 100 >= tried * 97, "{seen} of {tried}");
    let mut content = photo();
    let start = data_start(&content);
    let middle = start + (content.len() - start) / 2;
    content[middle..middle + 100].fill(0);
    assert!(reason(&content).contains("damaged"));
}

#[test]
fn damage_below_a_crop_is_seen_from_it_where_that_is_cheap() {
    let top = |height: usize, width: usize| View {
        crop: CropBox {
            top: 0.0,
            left: 0.0,
            height: height as f64 / 5.0,
            width: width as f64,
        },
        ..whole_view(height, width, 16, 16)
    };
    for name in ["420", "422", "420_restart"] {
        let content = std::fs::read(fixtures().join(format!("{name}.jpg"))).unwrap();
        assert!(decode_view(&content, 3, top).is_some());
        let start = data_start(&content);
        let middle = start + (content.len() - start) / 2;
        let mut zeros = content.clone();
        zeros[middle..middle + 100].fill(0);
        assert!(decode_view(&zeros, 3, top).is_none(), "{name}");
        let cut = start + (content.len() - start) / 3;
        assert!(decode_view(&content[..cut], 3, top).is_none(), "{name}");
        let closed = [&content[..cut], &END].concat();
        assert!(decode_view(&closed, 3, top).is_none(), "{name}");
    }
}

#[test]
fn restart_markers_count() {
    let content = std::fs::read(fixtures().join("420_restart.jpg")).unwrap();
    assert!(whole(&content).is_some());
    let second = content
        .windows(2)
        .position(|pair| pair == [0xff, 0xd1])
        .unwrap();
    let mut other = content.clone();
    other[second + 1] = 0xd3;
    let mut lost = content.clone();
    lost.drain(second..second + 2);
    let third = content
        .windows(2)
        .position(|pair| pair == [0xff, 0xd2])
        .unwrap();
    let mut part_lost = content.clone();
    part_lost.drain(second..third);
    // One more at the end is harmless; 420_restart.jpg has five parts.
    let mut more = content.clone();
    more.splice(content.len() - 2..content.len() - 2, [0xff, 0xd4]);
    assert_eq!(decode(&more), decode(&content));
    assert_eq!(whole(&more), whole(&content));
    for (content, expected) in [
        (other, "expected restart marker 1, found 3"),
        (lost, "expected restart marker 1, found 2"),
        (part_lost, "expected restart marker 1, found 2"),
    ] {
        assert!(whole(&content).is_none());
        let reason = reason(&content);
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn frames_of_cameras_have_the_standard_tables() {
    for name in ["420", "422", "444", "420_restart"] {
        let content = std::fs::read(fixtures().join(format!("{name}.jpg"))).unwrap();
        let frame = without(&content, &[0xc4]);
        assert!(frame.len() < content.len());
        assert_eq!(decode(&frame), decode(&content));
        assert!(whole(&frame).is_some());
        assert_eq!(whole(&frame), whole(&content));
    }
}

#[test]
fn other_kinds_are_named_with_the_remedy() {
    let content = photo();
    let frame = content
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .unwrap();
    let changed = |at: usize, value: u8| {
        let mut content = content.clone();
        content[frame + at] = value;
        reason(&content)
    };
    for (at, value, expected) in [
        (
            1,
            0xc9,
            "arithmetic-coded, expected baseline or progressive with huffman codes; recode",
        ),
        (
            1,
            0xc3,
            "lossless, expected baseline or progressive with huffman codes; convert",
        ),
        (1, 0xc5, "hierarchical, expected baseline"),
        (4, 12, "12 bits a value, expected 8; convert it to png"),
    ] {
        let reason = changed(at, value);
        assert!(reason.contains(expected), "{reason}");
    }
    let no_height = content[..frame + 5]
        .iter()
        .chain(&[0, 0])
        .chain(&content[frame + 7..]);
    let no_height: Vec<u8> = no_height.copied().collect();
    assert!(reason(&no_height).contains("its height after its pixels"));
    let unquantised = without(&content, &[0xdb]);
    assert!(reason(&unquantised).contains("lacks quantisation table 0, expected in the file"));
    let tables = [&content[..frame], &END].concat();
    assert!(reason(&tables).contains("has no scan, expected one at least"));
}

proptest! {
    #[test]
    fn no_damage_panics_in_any_arrangement(
        changes in proptest::collection::vec((0.0..1.0_f64, any::<u8>()), 1..12),
        which in 0.0..1.0_f64,
    ) {
        let files = arranged();
        let mut content = files[(which * files.len() as f64) as usize].content.clone();
        let len = content.len();
        for (at, value) in changes {
            content[(at * len as f64) as usize] = value;
        }
        let _ = decode(&content);
    }
}

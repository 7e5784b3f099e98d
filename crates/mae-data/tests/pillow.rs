//! Decoding, resizing and cropping against Pillow; `fixtures/make_fixtures.py` made the files.

use mae_data::{Augmentation, CropBox, DataError, Image, SampleKey, Transform};

const KEY: SampleKey = SampleKey {
    seed: 0,
    epoch: 0,
    index: 0,
};

fn read(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn decode(name: &str) -> Image {
    Image::decode(&read(name), 3, name).unwrap()
}

fn bytes(image: &Image) -> &[u8] {
    image.pixels().as_u8().unwrap()
}

/// Mean and greatest absolute difference, in grey levels of 255.
fn difference(a: &Image, b: &Image) -> (f64, u8) {
    assert_eq!(
        (a.height(), a.width(), a.channels()),
        (b.height(), b.width(), b.channels())
    );
    let each: Vec<u8> = (bytes(a).iter().zip(bytes(b)))
        .map(|(a, b)| a.abs_diff(*b))
        .collect();
    let mean = each.iter().map(|&each| f64::from(each)).sum::<f64>() / each.len() as f64;
    (mean, each.into_iter().max().unwrap())
}

fn check(found: &Image, expected: &str) {
    let (mean, max) = difference(found, &decode(expected));
    println!("{expected}: mean {mean:.4}, max {max}");
    assert!(mean < 0.1 && max <= 1, "{expected}: mean {mean}, max {max}");
}

#[test]
fn resize_is_that_of_pillow() {
    let source = decode("source.png");
    check(&source.resize(32, 48).unwrap(), "down_32x48.png");
    check(&source.resize(97, 120).unwrap(), "up_97x120.png");
}

#[test]
fn a_crop_box_is_that_of_pillow() {
    let source = decode("source.png");
    let check_box = |height, width, side| {
        let crop = CropBox {
            top: 5.0,
            left: 10.0,
            height: side,
            width: side,
        };
        let found = source.crop_resize(crop, height, width).unwrap();
        check(&found, &format!("box_{height}x{width}.png"));
    };
    check_box(30, 20, 40.0);
    check_box(62, 62, 62.0 / 3.0);
}

#[test]
fn center_crop_is_that_of_torchvision() {
    for (height, width) in [(32, 32), (24, 64)] {
        let transform = Transform::center_crop(height, width);
        let found = transform.apply(decode("source.png"), KEY).unwrap();
        check(&found, &format!("center_crop_{height}x{width}.png"));
    }
    for (height, width) in [(35, 28), (28, 42)] {
        let transform = Transform {
            augmentation: Augmentation::CenterCrop { crop_share: 0.875 },
            ..Transform::center_crop(height, width)
        };
        let found = transform.apply(decode("source.png"), KEY).unwrap();
        check(&found, &format!("center_crop_{height}x{width}_share.png"));
    }
}

#[test]
fn exif_orientation_is_applied() {
    let source = decode("source.png");
    let turned = decode("orientation_6.jpg");
    assert_eq!((turned.height(), turned.width()), (83, 61));
    // The last row of the stored image is the first column of the upright one.
    let pixels: Vec<u8> = (0..83)
        .flat_map(|row| {
            (0..61).flat_map(move |column| {
                let at = ((60 - column) * 83 + row) * 3;
                at..at + 3
            })
        })
        .map(|at| bytes(&source)[at])
        .collect();
    let (mean, _) = difference(&turned, &Image::new(83, 61, 3, pixels).unwrap());
    assert!(
        mean < 4.0,
        "mean {mean}: more than the loss of the compression"
    );
}

#[test]
fn a_jpeg_that_ends_early_is_refused() {
    for name in ["progressive.jpg", "orientation_6.jpg"] {
        let content = read(name);
        assert!(Image::decode(&content, 3, name).is_ok());
        for share in [1, 2, 5, 9] {
            let end = content.len() * share / 10;
            let error = Image::decode(&content[..end], 3, name).unwrap_err();
            let DataError::Image { reason, .. } = error else {
                panic!("{name} at {share}0 %: {error}");
            };
            assert!(
                reason.contains("ends early"),
                "{name} at {share}0 %: {reason}"
            );
        }
    }
}

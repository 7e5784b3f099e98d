use super::*;

fn key(index: u64) -> SampleKey {
    SampleKey {
        seed: 0,
        epoch: 0,
        index,
    }
}

/// A file that `tests/fixtures/make_randaugment.py` made.
fn fixture(name: &str, channels: usize) -> Image {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rand_augment");
    let path = format!("{folder}/{name}.png");
    Image::decode(&std::fs::read(&path).expect(&path), channels, name).unwrap()
}

/// timm's name of an operation.
fn timm_name(op: Op) -> String {
    match op {
        Op::Posterize | Op::Solarize | Op::Color => format!("{op:?}Increasing"),
        Op::Contrast | Op::Brightness | Op::Sharpness => format!("{op:?}Increasing"),
        Op::TranslateX | Op::TranslateY => format!("{op:?}Rel"),
        _ => format!("{op:?}"),
    }
}

fn is_warp(op: Op) -> bool {
    matches!(
        op,
        Op::Rotate | Op::ShearX | Op::ShearY | Op::TranslateX | Op::TranslateY
    )
}

/// Compares an operation with timm's, in grey levels of 255.
fn check(op: Op, level: f64, channels: usize) {
    let prefix = if channels == 1 { "luma_" } else { "" };
    let name = format!("{prefix}{}_{level}", timm_name(op));
    let expected = fixture(&name, channels);
    let source = fixture(&format!("{prefix}source"), channels);
    let found = op.apply(source.clone(), level, RandAugment::default().fill);
    assert_eq!((found.height(), found.width()), (30, 38));
    let differences: Vec<u8> = (found.bytes().iter().zip(expected.bytes()))
        .map(|(a, b)| a.abs_diff(*b))
        .collect();
    let sum: f64 = differences.iter().copied().map(f64::from).sum();
    let mean = sum / differences.len() as f64;
    let max = differences.into_iter().max().unwrap();
    println!("{name}: mean {mean:.5}, max {max}");
    assert!(mean < 0.01 && max <= 1, "{name}: mean {mean}, max {max}");
}

#[test]
fn every_operation_is_that_of_timm() {
    for op in Op::ALL {
        match op {
            Op::AutoContrast | Op::Equalize | Op::Invert => {
                check(op, 9.0, 3);
                check(op, 9.0, 1);
            }
            Op::Posterize | Op::Solarize | Op::SolarizeAdd => {
                check(op, 3.3, 3);
                check(op, 9.4, 3);
                check(op, 9.4, 1);
            }
            Op::Color | Op::Contrast | Op::Brightness | Op::Sharpness => {
                for level in [-10.0, -9.4, 4.7, 9.4] {
                    check(op, level, 3);
                }
                check(op, -9.4, 1);
            }
            Op::Rotate | Op::ShearX | Op::ShearY | Op::TranslateX | Op::TranslateY => {
                check(op, -9.4, 3);
                check(op, 3.3, 3);
                check(op, -9.4, 1);
            }
        }
    }
}

#[test]
fn level_0_changes_nothing_where_it_should_not() {
    let source = fixture("source", 3);
    for op in Op::ALL {
        let is_same = op.apply(source.clone(), 0.0, [0; 3]) == source;
        let has_no_rest = matches!(
            op,
            Op::AutoContrast | Op::Equalize | Op::Invert | Op::Posterize
        );
        assert_eq!(is_same, !has_no_rest, "{op:?}");
    }
}

#[test]
fn any_size_can_be_distorted() {
    for (height, width, channels) in [(1, 1, 1), (1, 9, 3), (9, 1, 3), (2, 2, 1), (5, 3, 3)] {
        let pixels: Vec<u8> = (0..height * width * channels)
            .map(|at| (at * 97 % 256) as u8)
            .collect();
        let image = Image::new(height, width, channels, pixels).unwrap();
        for op in Op::ALL {
            for level in [-10.0, -1.0, 0.0, 10.0] {
                let found = op.apply(image.clone(), level, [9; 3]);
                assert_eq!(
                    (found.height(), found.width(), found.channels()),
                    (height, width, channels)
                );
            }
        }
    }
}

#[test]
fn an_image_of_one_colour_keeps_it_under_every_warp() {
    let pixels = [7, 200, 90].repeat(20);
    let image = Image::new(4, 5, 3, pixels).unwrap();
    for op in Op::ALL.into_iter().filter(|&op| is_warp(op)) {
        assert_eq!(op.apply(image.clone(), 7.3, [7, 200, 90]), image);
    }
}

#[test]
fn the_strongest_posterization_is_black() {
    let found = Op::Posterize.apply(fixture("source", 3), 10.0, [9; 3]);
    assert!(found.bytes().iter().all(|&value| value == 0));
}

#[test]
fn distortion_depends_on_the_key_only() {
    let source = fixture("source", 3);
    let apply = |index| {
        RandAugment::default()
            .apply(source.clone(), key(index))
            .unwrap()
    };
    assert_eq!(apply(3), apply(3));
    let distinct = (0..40).filter(|&index| apply(index) != apply(index + 1));
    assert!(distinct.count() > 30);
}

#[test]
fn a_quarter_of_the_images_stays_as_it_is() {
    let source = fixture("source", 3);
    let same = (0..1000)
        .filter(|&index| {
            let augment = RandAugment::default();
            augment.apply(source.clone(), key(index)).unwrap() == source
        })
        .count();
    // Both operations are left out; Binomial(1000, 1/4) has a standard deviation of 14: allow
    // five of them.
    assert!(same.abs_diff(250) < 70, "{same} of 1000");
}

#[test]
fn bad_settings_are_refused() {
    let default = RandAugment::default();
    let message = |augment: RandAugment| augment.validate().unwrap_err().to_string();
    assert!(default.validate().is_ok());
    assert_eq!(
        message(RandAugment {
            magnitude: 11.0,
            ..default
        }),
        "magnitude: expected a number from 0 to 10, found 11; the default is 9"
    );
    for magnitude_std in [-0.5, f64::NAN, f64::INFINITY] {
        let augment = RandAugment {
            magnitude_std,
            ..default
        };
        assert!(message(augment).starts_with("magnitude_std"));
    }
    assert!(message(RandAugment { ops: 0, ..default }).starts_with("ops"));
}

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

fn key(index: u64) -> SampleKey {
    SampleKey {
        seed: 0,
        epoch: 0,
        index,
    }
}

/// A luma image whose values are their columns.
fn columns(height: usize, width: usize) -> Image {
    let pixels: Vec<u8> = (0..height).flat_map(|_| 0..width as u8).collect();
    Image::new(height, width, 1, pixels).unwrap()
}

fn augmented(augmentation: Augmentation) -> Transform {
    Transform {
        augmentation,
        ..Transform::center_crop(8, 8)
    }
}

#[test]
fn the_right_size_is_left_as_it_is() {
    let image = columns(8, 12);
    let result = Transform::center_crop(8, 12)
        .apply(image.clone(), key(0))
        .unwrap();
    assert_eq!(result, image);
}

#[test]
fn a_crop_without_resize_copies_pixels() {
    let result = Transform::center_crop(8, 8)
        .apply(columns(8, 13), key(0))
        .unwrap();
    // torchvision rounds the offset 2.5 to the even 2.
    assert_eq!(result.bytes()[..8], [2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn any_size_becomes_any_size() {
    for (height, width) in [(1, 1), (1, 200), (200, 1), (7, 9), (97, 31), (8, 8)] {
        for (target_height, target_width) in [(1, 1), (8, 8), (5, 40), (40, 5), (33, 7)] {
            let transform = Transform::center_crop(target_height, target_width);
            let random = Transform {
                augmentation: Augmentation::random_resized_crop(),
                ..transform.clone()
            };
            let centre = |crop_share| Transform {
                augmentation: Augmentation::CenterCrop { crop_share },
                ..transform.clone()
            };
            let (large, small) = (centre(0.875), centre(0.01));
            let placed = Transform {
                augmentation: Augmentation::RandomCrop { crop_share: 0.01 },
                ..transform.clone()
            };
            for transform in [transform, random, large, small, placed] {
                let result = transform.apply(columns(height, width), key(0)).unwrap();
                assert_eq!(
                    (result.height(), result.width()),
                    (target_height, target_width)
                );
            }
        }
    }
}

#[test]
fn random_crops_keep_their_bounds() {
    let (scale, ratio) = (Augmentation::SCALE, Augmentation::RATIO);
    let mut areas = Vec::new();
    for index in 0..2000 {
        let mut rng = Rng::new(key(index), Stream::Crop);
        let crop = crop::random_resized([100, 150], scale, ratio, &mut rng);
        assert!(crop.top >= 0.0 && crop.top + crop.height <= 100.0);
        assert!(crop.left >= 0.0 && crop.left + crop.width <= 150.0);
        let area = crop.height * crop.width / (100.0 * 150.0);
        // Sides are rounded to pixels.
        assert!((0.19..=1.0).contains(&area), "area {area}");
        let aspect = crop.width / crop.height;
        assert!((0.74..1.36).contains(&aspect), "ratio {aspect}");
        areas.push(area);
    }
    let min = areas.iter().copied().fold(1.0, f64::min);
    let max = areas.iter().copied().fold(0.0, f64::max);
    assert!(min < 0.21 && max > 0.85, "areas from {min} to {max}");
}

#[test]
fn impossible_ratios_fall_back_to_the_centre() {
    let crop = |sides| {
        let mut rng = Rng::new(key(0), Stream::Crop);
        crop::random_resized(sides, [1.0, 1.0], Augmentation::RATIO, &mut rng)
    };
    let wide = crop([30, 300]);
    assert_eq!((wide.height, wide.width, wide.left), (30.0, 40.0, 130.0));
    let tall = crop([300, 30]);
    assert_eq!((tall.height, tall.width, tall.top), (40.0, 30.0, 130.0));
}

#[test]
fn augmentation_depends_on_the_key_only() {
    let transform = Transform {
        hflip: true,
        ..augmented(Augmentation::random_resized_crop())
    };
    let apply = |index| transform.apply(columns(40, 60), key(index)).unwrap();
    assert_eq!(apply(3), apply(3));
    assert_ne!(apply(3), apply(4));
}

#[test]
fn half_of_the_images_are_flipped() {
    let transform = Transform {
        hflip: true,
        ..Transform::center_crop(8, 8)
    };
    let flipped = (0..1000)
        .filter(|&index| transform.apply(columns(8, 8), key(index)).unwrap().bytes()[0] == 7)
        .count();
    // Binomial(1000, 1/2) has a standard deviation of 16: allow five of them.
    assert!(flipped.abs_diff(500) < 80, "{flipped} of 1000");
}

#[test]
fn a_crop_share_of_1_takes_the_largest_part() {
    let apply = |augmentation| {
        augmented(augmentation)
            .apply(columns(40, 61), key(0))
            .unwrap()
    };
    let whole = Augmentation::CenterCrop { crop_share: 1.0 };
    assert_eq!(apply(whole), apply(Augmentation::None));
    let half = Augmentation::CenterCrop { crop_share: 0.5 };
    // The middle half of the height, and as much of the width: pixels 20 to 40 of 61.
    let half = apply(half);
    let row = &half.bytes()[..8];
    assert!(
        (20..=23).contains(&row[0]) && (37..=40).contains(&row[7]),
        "{row:?}"
    );
}

#[test]
fn a_random_crop_is_cut_from_the_resized_image() {
    let transform = augmented(Augmentation::RandomCrop { crop_share: 0.5 });
    let mut seen = std::collections::HashSet::new();
    for index in 0..300 {
        // The source has the resized size, so that a crop copies pixels.
        let pixels: Vec<u8> = (0..16 * 20).map(|at| (at % 256) as u8).collect();
        let image = Image::new(16, 20, 1, pixels).unwrap();
        let crop = transform.apply(image.clone(), key(index)).unwrap();
        let (top, left) = (0..=8)
            .flat_map(|top| (0..=12).map(move |left| (top, left)))
            .find(|&(top, left)| {
                (0..8).all(|row| {
                    let start = (top + row) * 20 + left;
                    crop.bytes()[row * 8..][..8] == image.bytes()[start..start + 8]
                })
            })
            .expect("a crop of the image");
        seen.insert((top, left));
    }
    for top in 0..=8 {
        assert!(seen.iter().any(|place| place.0 == top), "top {top}");
    }
    for left in 0..=12 {
        assert!(seen.iter().any(|place| place.1 == left), "left {left}");
    }
}

#[test]
fn a_part_of_fixed_size_is_resized_as_the_whole_and_cut() {
    let mut rng = Rng::new(key(0), Stream::Scene);
    let pixels: Vec<u8> = (0..61 * 83).map(|_| rng.below(256) as u8).collect();
    let image = Image::new(61, 83, 1, pixels).unwrap();
    // The shorter side becomes 32 / 0.8.
    let resized = image.resize(40, 54).unwrap();
    for offsets in [[0, 0], [3, 7], [8, 22]] {
        let mut rooms = [8, 22].into_iter().zip(offsets);
        let part = crop::covering([32, 32], [61, 83], 0.8, |room| {
            let (expected, offset) = rooms.next().expect("one of each axis");
            assert_eq!(room, expected);
            offset as f64
        });
        let found = image.crop_resize(part, 32, 32).unwrap();
        let [top, left] = offsets;
        for row in 0..32 {
            let expected = &resized.bytes()[(top + row) * 54 + left..][..32];
            let found = &found.bytes()[row * 32..][..32];
            let mut pairs = found.iter().zip(expected);
            assert!(
                pairs.all(|(a, b)| a.abs_diff(*b) <= 1),
                "{offsets:?}, row {row}"
            );
        }
    }
}

#[test]
fn a_random_crop_of_all_of_a_square_is_the_square() {
    let apply = |augmentation, image| augmented(augmentation).apply(image, key(0)).unwrap();
    let whole = Augmentation::RandomCrop { crop_share: 1.0 };
    assert_eq!(
        apply(whole, columns(40, 40)),
        apply(Augmentation::None, columns(40, 40))
    );
}

#[test]
fn distortion_comes_after_crop_and_flip() {
    let plain = Transform {
        hflip: true,
        ..augmented(Augmentation::random_resized_crop())
    };
    let rand_augment = RandAugment::default();
    let color_jitter = ColorJitter::default();
    let all = Transform {
        color_jitter: Some(color_jitter),
        rand_augment: Some(rand_augment),
        ..plain.clone()
    };
    for index in 0..20 {
        let cropped = plain.apply(columns(40, 60), key(index)).unwrap();
        let jittered = color_jitter.apply(cropped, key(index)).unwrap();
        assert_eq!(
            all.apply(columns(40, 60), key(index)).unwrap(),
            rand_augment.apply(jittered, key(index)).unwrap()
        );
    }
}

#[test]
fn bad_settings_are_refused() {
    let bounds = |scale, ratio| augmented(Augmentation::RandomResizedCrop { scale, ratio });
    let (scale, ratio) = (Augmentation::SCALE, Augmentation::RATIO);
    assert!(bounds(scale, ratio).validate().is_ok());
    assert_eq!(
        bounds([0.5, 1.5], ratio)
            .validate()
            .unwrap_err()
            .to_string(),
        "scale: expected [low, high] with 0 < low <= high <= 1, found [0.5, 1.5]; \
         the default is [0.2, 1.0]"
    );
    for bad in [[0.0, 1.0], [1.0, 0.5], [f64::NAN, 1.0], [0.5, f64::NAN]] {
        assert!(bounds(bad, ratio).validate().is_err());
        assert!(bounds(scale, bad).validate().is_err());
    }
    assert!(bounds(scale, [1.0, f64::INFINITY]).validate().is_err());
    for crop_share in [0.0, 0.001, -0.5, 1.1, f64::NAN] {
        for augmentation in [
            Augmentation::CenterCrop { crop_share },
            Augmentation::RandomCrop { crop_share },
        ] {
            let message = augmented(augmentation).validate().unwrap_err().to_string();
            assert!(message.starts_with("crop_share"), "{message}");
        }
    }
    let transform = Transform {
        color_jitter: Some(ColorJitter {
            hue: 0.7,
            ..ColorJitter::default()
        }),
        ..Transform::center_crop(8, 8)
    };
    assert!(transform.validate().is_err());
    let transform = Transform {
        rand_augment: Some(RandAugment {
            ops: 0,
            ..RandAugment::default()
        }),
        ..Transform::center_crop(8, 8)
    };
    assert!(transform.validate().is_err());
    assert!(Transform::center_crop(0, 8).validate().is_err());
}

#[test]
fn config_files_are_read_strictly() {
    let read = |text: &str| toml::from_str::<Transform>(text);
    assert_eq!(
        read("height = 8\nwidth = 8").unwrap(),
        Transform::center_crop(8, 8)
    );
    let paper = read("height = 8\nwidth = 8\naugmentation.kind = 'random-resized-crop'").unwrap();
    assert_eq!(paper, augmented(Augmentation::random_resized_crop()));
    let evaluation = read("height = 8\nwidth = 8\naugmentation.kind = 'center-crop'").unwrap();
    let crop_share = Augmentation::CROP_SHARE;
    assert_eq!(
        evaluation,
        augmented(Augmentation::CenterCrop { crop_share })
    );
    let tuning = read("height = 8\nwidth = 8\nrand_augment.magnitude = 5.0").unwrap();
    let augment = tuning.rand_augment.unwrap();
    assert_eq!((augment.magnitude, augment.ops), (5.0, 2));
    let fixed = read("height = 8\nwidth = 8\naugmentation.kind = 'random-crop'").unwrap();
    assert_eq!(fixed, augmented(Augmentation::RandomCrop { crop_share }));
    let jitter = read("height = 8\nwidth = 8\ncolor_jitter.hue = 0.2").unwrap();
    let expected = ColorJitter {
        hue: 0.2,
        ..ColorJitter::default()
    };
    assert_eq!(jitter.color_jitter, Some(expected));
    for transform in [paper, evaluation, tuning, fixed, jitter] {
        let written = toml::to_string(&transform).unwrap();
        assert_eq!(read(&written).unwrap(), transform, "{written}");
    }
    let plain = Transform::center_crop(8, 8);
    assert_eq!(read(&toml::to_string(&plain).unwrap()).unwrap(), plain);
    for bad in [
        "augmentation.kind = 'none'\naugmentation.scale = [0.2, 1.0]",
        "augmentation.kind = 'random-resized-crop'\naugmentation.scales = [0.2, 1.0]",
        "augmentation.kind = 'mixup'",
        "augmentation.kind = 'center-crop'\naugmentation.share = 0.9",
        "augmentation.kind = 'random-crop'\naugmentation.scale = [0.2, 1.0]",
        "rand_augment.layers = 3",
        "color_jitter.gamma = 0.1",
        "vflip = true",
    ] {
        assert!(
            read(&format!("height = 8\nwidth = 8\n{bad}")).is_err(),
            "{bad}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn rounding_never_leaves_the_image(
        height in 1_usize..400,
        width in 1_usize..400,
        target_height in 1_usize..40,
        target_width in 1_usize..40,
    ) {
        let image = Image::new(height, width, 1, vec![9; height * width]).unwrap();
        let transform = Transform::center_crop(target_height, target_width);
        let result = transform.apply(image, key(0)).unwrap();
        // The weights of the kernel add up to 1, at the edges too.
        prop_assert_eq!(result.bytes(), vec![9; target_height * target_width]);
    }
}

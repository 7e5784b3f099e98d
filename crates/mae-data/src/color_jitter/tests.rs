use super::*;

fn key(index: u64) -> SampleKey {
    SampleKey {
        seed: 0,
        epoch: 0,
        index,
    }
}

/// A file that `tests/fixtures/make_color_jitter.py` made.
fn fixture(name: &str) -> Image {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/color_jitter");
    let path = format!("{folder}/{name}.png");
    let channels = if name.starts_with("luma") { 1 } else { 3 };
    Image::decode(&std::fs::read(&path).expect(&path), channels, name).unwrap()
}

/// Compares changes with torchvision's, which must be equal.
fn check(source: &str, changes: &[Change], expected: &str) {
    let image = fixture(source);
    let found = changes
        .iter()
        .fold(image, |image, change| change.apply(image));
    let expected_image = fixture(expected);
    let greatest = (found.bytes().iter().zip(expected_image.bytes()))
        .map(|(a, b)| a.abs_diff(*b))
        .max();
    assert_eq!(greatest, Some(0), "{expected}");
    assert_eq!(found, expected_image, "{expected}");
}

#[test]
fn every_change_is_that_of_torchvision() {
    for factor in [0.0, 0.63, 1.37] {
        for (name, change) in [
            ("brightness", Change::Brightness(factor)),
            ("contrast", Change::Contrast(factor)),
            ("saturation", Change::Saturation(factor)),
        ] {
            check("source", &[change], &format!("{name}_{factor}"));
        }
    }
    for turn in [-0.5, -0.1, 0.0, 0.07, 0.5] {
        check("source", &[Change::Hue(turn)], &format!("hue_{turn}"));
    }
}

#[test]
fn changes_in_any_order_are_those_of_torchvision() {
    use Change::{Brightness, Contrast, Hue, Saturation};
    check(
        "source",
        &[Brightness(1.2), Contrast(0.7), Saturation(1.4), Hue(-0.06)],
        "brightness_1.2_contrast_0.7_saturation_1.4_hue_-0.06",
    );
    check(
        "source",
        &[Hue(0.1), Saturation(0.6), Contrast(1.3), Brightness(0.8)],
        "hue_0.1_saturation_0.6_contrast_1.3_brightness_0.8",
    );
}

#[test]
fn luma_has_no_saturation_and_no_hue() {
    for (name, change) in [
        ("brightness_0.63", Change::Brightness(0.63)),
        ("contrast_0.63", Change::Contrast(0.63)),
        ("saturation_0.63", Change::Saturation(0.63)),
        ("hue_0.07", Change::Hue(0.07)),
    ] {
        check("luma_source", &[change], &format!("luma_{name}"));
    }
    let colours_only = ColorJitter {
        brightness: 0.0,
        contrast: 0.0,
        ..ColorJitter::default()
    };
    let luma = fixture("luma_source");
    assert_eq!(colours_only.apply(luma.clone(), key(0)).unwrap(), luma);
}

#[test]
fn orders_and_factors_are_uniform() {
    const IMAGES: u64 = 12_000;
    let mut orders = std::collections::HashMap::new();
    let mut values = [const { Vec::new() }; 4];
    for index in 0..IMAGES {
        let mut rng = Rng::new(key(index), Stream::ColorJitter);
        let order = ColorJitter::default().draw(&mut rng).map(|change| {
            let (property, value) = match change.expect("no strength is 0") {
                Change::Brightness(factor) => (0, f64::from(factor)),
                Change::Contrast(factor) => (1, f64::from(factor)),
                Change::Saturation(factor) => (2, f64::from(factor)),
                Change::Hue(turn) => (3, turn),
            };
            values[property].push(value);
            property
        });
        *orders.entry(order).or_insert(0_u64) += 1;
    }
    // Binomial(12000, 1/24) has a standard deviation of 22: allow five of them.
    assert_eq!(orders.len(), 24);
    assert!(orders.values().all(|count| count.abs_diff(500) < 110));
    for (values, (centre, strength)) in
        values
            .iter()
            .zip([(1.0, 0.4), (1.0, 0.4), (1.0, 0.4), (0.0, 0.1)])
    {
        // Values of each quarter of the interval: a standard deviation of 47.
        let mut quarters = [0_u64; 4];
        for value in values {
            let share = (value - centre + strength) / (2.0 * strength);
            // A factor's f32 may round up to the end of its interval.
            assert!((-1e-6..1.000_001).contains(&share), "{value}");
            quarters[(share * 4.0).clamp(0.0, 3.0) as usize] += 1;
        }
        assert!(
            quarters.iter().all(|count| count.abs_diff(3000) < 235),
            "{quarters:?}"
        );
    }
}

#[test]
fn a_strength_of_0_leaves_the_other_properties_alone() {
    let all = ColorJitter::default();
    let no_hue = ColorJitter { hue: 0.0, ..all };
    for index in 0..20 {
        let draw =
            |jitter: ColorJitter| jitter.draw(&mut Rng::new(key(index), Stream::ColorJitter));
        let expected = draw(all).map(|change| change.filter(|c| !matches!(c, Change::Hue(_))));
        assert_eq!(draw(no_hue), expected);
    }
    let none = ColorJitter {
        brightness: 0.0,
        contrast: 0.0,
        saturation: 0.0,
        hue: 0.0,
    };
    let image = fixture("source");
    assert_eq!(none.apply(image.clone(), key(0)).unwrap(), image);
}

#[test]
fn jitter_depends_on_the_key_only() {
    let apply = |index| {
        ColorJitter::default()
            .apply(fixture("source"), key(index))
            .unwrap()
    };
    assert_eq!(apply(3), apply(3));
    assert_ne!(apply(3), apply(4));
}

#[test]
fn bad_strengths_are_refused() {
    let refused = |jitter: ColorJitter, start: &str| {
        let message = jitter.validate().unwrap_err().to_string();
        assert!(message.starts_with(start), "{message}");
        assert!(jitter.apply(fixture("source"), key(0)).is_err());
    };
    let default = ColorJitter::default();
    let hue = ColorJitter {
        hue: 0.6,
        ..default
    };
    assert_eq!(
        hue.validate().unwrap_err().to_string(),
        "hue: expected a number from 0 to 0.5, found 0.6; the default is 0.1, 0 changes nothing"
    );
    for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        refused(
            ColorJitter {
                brightness: bad,
                ..default
            },
            "brightness: expected a number from 0 to 1",
        );
        refused(
            ColorJitter {
                contrast: bad,
                ..default
            },
            "contrast: ",
        );
        refused(
            ColorJitter {
                saturation: bad,
                ..default
            },
            "saturation: ",
        );
        refused(
            ColorJitter {
                hue: bad,
                ..default
            },
            "hue: ",
        );
    }
    let most = ColorJitter {
        brightness: 1.0,
        contrast: 1.0,
        saturation: 1.0,
        hue: 0.5,
    };
    assert!(most.apply(fixture("source"), key(0)).is_ok());
}

use proptest::prelude::*;

use super::*;

fn samplers() -> impl Iterator<Item = MaskSampler> {
    MaskSampler::NAMES.iter().map(|name| name.parse().unwrap())
}

fn key(index: u64) -> SampleKey {
    SampleKey {
        seed: 1,
        epoch: 0,
        index,
    }
}

fn grid(rows: usize, columns: usize) -> PatchGrid {
    PatchGrid::new(rows, columns, 1, 1).unwrap()
}

fn sample(side: usize, index: u64) -> Mask {
    MaskSampler::Random
        .sample(&grid(side, side), 0.75, key(index))
        .unwrap()
}

/// One line a row of patches: `.` is visible, `#` is masked.
fn picture(mask: &Mask, columns: usize) -> Vec<String> {
    (mask.to_binary().chunks(columns))
        .map(|row| {
            row.iter()
                .map(|&masked| [".", "#"][masked as usize])
                .collect()
        })
        .collect()
}

/// Pairs of neighbours, left and right or above and below, of which one is masked.
fn boundary(mask: &Mask, columns: usize) -> usize {
    let binary = mask.to_binary();
    let beside = |row: &[u8]| row.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let below = binary.iter().zip(&binary[columns..]);
    binary.chunks(columns).map(beside).sum::<usize>() + below.filter(|(a, b)| a != b).count()
}

#[test]
fn kept_patches_rounds_the_exact_product_down() {
    // As the authors' program, but for the second, where their floating point has 9.999...
    for (patches, ratio, kept) in [
        (196, 0.75, 49),
        (100, 0.9, 10),
        (64, 0.75, 16),
        (9, 0.6, 3),
        (196, 0.7, 58),
        (196, 0.1, 176),
        (196, 0.999, 0),
        (25, 0.5, 12),
        (10, 0.7, 3),
        (1_000_000, 0.1, 900_000),
        (1_000_000, 0.123_456_789, 876_543),
    ] {
        assert_eq!(
            patches - masked_patches(patches, ratio),
            kept,
            "{patches} at {ratio}"
        );
    }
    // Nearest to 0 and to 1.
    assert_eq!(kept_patches(196, f64::MIN_POSITIVE).unwrap(), 195);
    assert_eq!(kept_patches(196, f64::EPSILON).unwrap(), 195);
    assert!(kept_patches(196, 1.0 - f64::EPSILON).is_err());
    for bad in [0.0, 1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
        assert!(kept_patches(196, bad).is_err(), "{bad}");
    }
    for (patches, ratio) in [(4, 0.8), (4, 0.9), (1, 0.5), (0, 0.5)] {
        assert!(kept_patches(patches, ratio).is_err(), "{patches} {ratio}");
    }
}

/// The values come from `tests/fixtures/masks.py`.
#[test]
fn masks_are_pinned() {
    let expected = [2, 3, 11, 7, 10, 15, 8, 6, 5, 1, 9, 13, 12, 4, 0, 14];
    assert_eq!(sample(4, 0).ids_shuffle(), expected);
    assert_eq!(sample(4, 1).ids_keep(), [14, 15, 6, 8]);
}

#[test]
fn views_agree() {
    let mask = Mask::from_ids_shuffle(vec![2, 0, 3, 1], 1).unwrap();
    assert_eq!(mask.ids_keep(), [2]);
    assert_eq!(mask.ids_masked(), [0, 3, 1]);
    assert_eq!(mask.ids_restore(), [1, 3, 0, 2]);
    assert_eq!(mask.to_binary(), [1, 1, 0, 1]);
}

#[test]
fn noise_is_sorted_stably() {
    let mask = Mask::from_noise(&[0.5, 0.0, -0.0, 0.1], 2).unwrap();
    assert_eq!(mask.ids_shuffle(), [1, 2, 3, 0]);
    assert!(Mask::from_noise(&[0.5, f32::NAN], 1).is_err());
}

#[test]
fn a_bad_order_is_refused() {
    for (ids, kept) in [
        (vec![0, 0, 1], 1),
        (vec![0, 1, 3], 1),
        (vec![0, 1], 0),
        (vec![0, 1], 2),
        (vec![], 0),
    ] {
        assert!(
            Mask::from_ids_shuffle(ids.clone(), kept).is_err(),
            "{ids:?}"
        );
    }
}

/// Each patch is visible in a quarter of the masks, and each pair in its share of them.
#[test]
fn random_masks_are_uniform() {
    const MASKS: u64 = 8000;
    let mut single = [0_f64; 16];
    let mut pair = [[0_f64; 16]; 16];
    for index in 0..MASKS {
        let mask = sample(4, index);
        for &a in mask.ids_keep() {
            single[a as usize] += 1.0;
            for &b in mask.ids_keep() {
                pair[a as usize][b as usize] += 1.0;
            }
        }
    }
    let within = |count: f64, share: f64| {
        let expected = MASKS as f64 * share;
        (count - expected).abs() < 5.0 * (expected * (1.0 - share)).sqrt()
    };
    for a in 0..16 {
        assert!(within(single[a], 0.25), "patch {a}: {}", single[a]);
        for b in (0..16).filter(|&b| b != a) {
            assert!(within(pair[a][b], 4.0 * 3.0 / (16.0 * 15.0)), "{a} {b}");
        }
    }
}

/// The pictures come from `tests/fixtures/masks.py`; the second one needs blocks that were moved.
#[test]
fn block_masks_are_pinned() {
    let sample = |rows, columns, ratio| {
        let mask = MaskSampler::Block.sample(&grid(rows, columns), ratio, key(1));
        picture(&mask.unwrap(), columns)
    };
    let expected = [
        ".#####........",
        ".#######......",
        ".#######.####.",
        ".#######.####.",
        ".#######.#####",
        "##############",
        "##############",
        "##############",
        "##############",
        ".#############",
        ".########.....",
        ".########.....",
        ".########.....",
        ".#####..###...",
    ];
    assert_eq!(sample(14, 14, 0.75), expected);
    let expected = [
        "#####.###",
        "#####.###",
        "#########",
        "#########",
        "#########",
        "########.",
    ];
    assert_eq!(sample(6, 9, 0.94), expected);
}

#[test]
fn grid_masks_keep_the_top_left_of_four() {
    let mask = MaskSampler::Grid.sample(&grid(4, 6), 0.75, key(0)).unwrap();
    assert_eq!(picture(&mask, 6), [".#.#.#", "######", ".#.#.#", "######"]);
    assert_eq!(mask.ids_keep(), [0, 2, 4, 12, 14, 16]);
    let other = MaskSampler::Grid.sample(&grid(4, 6), 0.75, key(9));
    assert_eq!(other.unwrap(), mask);
}

#[test]
fn a_grid_that_does_not_fit_is_refused() {
    let message = |rows, columns, ratio| {
        let result = MaskSampler::Grid.sample(&grid(rows, columns), ratio, key(0));
        result.unwrap_err().to_string()
    };
    assert_eq!(
        message(14, 14, 0.5),
        "mask_ratio: expected 0.75, what sampler grid masks, found 0.5; \
         set it to 0.75, or use sampler random or block"
    );
    assert_eq!(
        message(7, 8, 0.75),
        "sampler: expected even numbers of rows and columns of patches for grid, found 7 x 8; \
         change the size of images or patches, or use sampler random or block"
    );
    assert!(message(8, 7, 0.75).contains("8 x 7"));
    assert!(message(8, 8, f64::NAN).starts_with("mask_ratio"));
    assert!(MaskSampler::Grid.kept(&grid(2, 2), 0.75).is_ok());
}

#[test]
fn masks_depend_on_the_key_only() {
    for sampler in samplers() {
        let sample = |index| sampler.sample(&grid(14, 14), 0.75, key(index)).unwrap();
        assert_eq!(sample(3), sample(3));
        let is_random = sampler != MaskSampler::Grid;
        assert_eq!(sample(3) != sample(4), is_random, "{sampler:?}");
    }
}

#[test]
fn block_masks_hang_together() {
    const MASKS: u64 = 1000;
    let mean = |sampler: MaskSampler, ratio| {
        let boundary = |index| {
            let mask = sampler.sample(&grid(14, 14), ratio, key(index)).unwrap();
            boundary(&mask, 14)
        };
        (0..MASKS).map(boundary).sum::<usize>() as f64 / MASKS as f64
    };
    for ratio in [0.5, 0.75] {
        let (random, block) = (
            mean(MaskSampler::Random, ratio),
            mean(MaskSampler::Block, ratio),
        );
        println!("ratio {ratio}: random {random}, block {block} boundaries");
        // Of the 364 pairs of neighbours, a random mask divides 2 * 147 * 49 / (196 * 195).
        let expected = 364.0 * 2.0 * ratio * (1.0 - ratio) * 196.0 / 195.0;
        assert!((random - expected).abs() < 2.0, "{random} of {expected}");
        assert!(block < 0.5 * random, "{block} of {random}");
    }
}

/// Cutting the last block must not make one side of the image visible more often.
#[test]
fn block_masks_have_no_preferred_half() {
    const MASKS: u64 = 4000;
    let mut visible = [[0_f64; 2]; 2];
    for index in 0..MASKS {
        let mask = MaskSampler::Block
            .sample(&grid(14, 14), 0.75, key(index))
            .unwrap();
        for &id in mask.ids_keep() {
            visible[0][usize::from(id / 14 >= 7)] += 1.0;
            visible[1][usize::from(id % 14 >= 7)] += 1.0;
        }
    }
    for [first, second] in visible {
        let share = first / (first + second);
        println!("share of the visible patches in the first half: {share:.4}");
        assert!((share - 0.5).abs() < 0.03, "{share}");
    }
}

#[test]
fn samplers_are_named_as_in_the_paper() {
    #[derive(Serialize, Deserialize)]
    struct Section {
        sampler: MaskSampler,
    }
    for name in ["random", "block", "grid"] {
        let sampler: MaskSampler = name.parse().unwrap();
        assert_eq!(sampler.to_string(), name);
        let text = toml::to_string(&Section { sampler }).unwrap();
        assert_eq!(text, format!("sampler = \"{name}\"\n"));
        assert_eq!(toml::from_str::<Section>(&text).unwrap().sampler, sampler);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn every_mask_meets_its_ratio_exactly(
        rows in 1_usize..24,
        columns in 1_usize..24,
        ratio in 0.01..0.99,
        seed in 0_u64..1000,
    ) {
        let key = SampleKey { seed, ..key(0) };
        for sampler in [MaskSampler::Random, MaskSampler::Block] {
            let Ok(kept) = kept_patches(rows * columns, ratio) else {
                prop_assert!(sampler.sample(&grid(rows, columns), ratio, key).is_err());
                continue;
            };
            let mask = sampler.sample(&grid(rows, columns), ratio, key).unwrap();
            prop_assert_eq!(mask.kept(), kept);
            // Checks that each patch is there once.
            let checked = Mask::from_ids_shuffle(mask.ids_shuffle().to_vec(), kept).unwrap();
            prop_assert_eq!(&checked, &mask);
            if sampler == MaskSampler::Block {
                prop_assert!(mask.ids_keep().is_sorted() && mask.ids_masked().is_sorted());
            }
        }
    }
}

#[test]
fn blocks_fill_any_grid() {
    let shapes = [
        (1, 2),
        (2, 1),
        (1, 300),
        (300, 1),
        (2, 2),
        (3, 5),
        (100, 100),
    ];
    for (rows, columns) in shapes {
        for ratio in [0.01, 0.5, 0.99] {
            let Ok(kept) = kept_patches(rows * columns, ratio) else {
                continue;
            };
            for index in 0..10 {
                let mask = MaskSampler::Block
                    .sample(&grid(rows, columns), ratio, key(index))
                    .unwrap();
                let visible = mask
                    .to_binary()
                    .iter()
                    .filter(|&&masked| masked == 0)
                    .count();
                assert_eq!(visible, kept, "{rows} x {columns} at {ratio}");
            }
        }
    }
}

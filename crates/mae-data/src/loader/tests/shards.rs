//! Batches of several processes: together they are those of one.

use super::*;

fn part_of(batch_size: usize, rank: usize, size: usize) -> LoaderConfig {
    LoaderConfig {
        shard: Shard { rank, size },
        drop_last: false,
        ..config(batch_size)
    }
}

fn parts(len: usize, size: usize) -> Vec<Vec<usize>> {
    let batch: Vec<usize> = (0..len).collect();
    (0..size)
        .map(|rank| Shard { rank, size }.of(&batch))
        .collect()
}

#[test]
fn parts_hold_each_image_once_and_are_of_a_size() {
    for len in 0..40 {
        for size in 1..7 {
            let parts = parts(len, size);
            let mut all = parts.concat();
            all.sort_unstable();
            assert_eq!(
                all,
                (0..len).collect::<Vec<_>>(),
                "{len} images, {size} parts"
            );
            let lens = parts.iter().map(Vec::len);
            let spread = lens.clone().max().unwrap() - lens.min().unwrap();
            assert!(spread <= 2, "{len} images, {size} parts: {parts:?}");
            if len % (2 * size) == 0 {
                assert_eq!(spread, 0, "{len} images, {size} parts: {parts:?}");
            }
        }
    }
}

#[test]
fn images_that_mirror_each_other_stay_together() {
    for (len, size) in [(8, 2), (9, 2), (13, 3), (64, 5)] {
        for part in parts(len, size) {
            let mirrored: Vec<usize> = part.iter().rev().map(|i| len - 1 - i).collect();
            assert_eq!(part, mirrored, "{len} images, {size} parts");
        }
    }
}

#[test]
fn the_parts_of_an_epoch_are_the_batches_of_one_process() {
    let whole = Loader::new(scenes(30), part_of(8, 0, 1)).unwrap();
    let parts: Vec<Loader> = (0..3)
        .map(|rank| Loader::new(scenes(30), part_of(8, rank, 3)).unwrap())
        .collect();
    let parts: Vec<Vec<MaskedBatch>> = parts.iter().map(|part| batches(part, 2, 1)).collect();
    for (number, whole) in batches(&whole, 2, 1).iter().enumerate() {
        let mut found = 0;
        for part in &parts {
            let part = &part[number];
            assert_eq!(part.number, whole.number);
            let (patches, visible) = (grid().patches(), part.kept * grid().patch_dim());
            for (row, index) in part.indices.iter().enumerate() {
                let there = whole.indices.iter().position(|i| i == index).unwrap();
                let of = |ids: &[i64], row: usize| ids[row * patches..][..patches].to_vec();
                assert_eq!(of(&part.ids_shuffle, row), of(&whole.ids_shuffle, there));
                let of = |pixels: &Pixels, row: usize| {
                    pixels.as_u8().unwrap()[row * visible..][..visible].to_vec()
                };
                assert_eq!(of(&part.visible, row), of(&whole.visible, there));
                found += 1;
            }
        }
        assert_eq!(found, whole.len());
    }
}

#[test]
fn a_part_without_images_is_a_batch_nevertheless() {
    // The last batch is of one image, and of four processes three have none of it.
    let lens = |rank| {
        let loader = Loader::new(scenes(9), part_of(8, rank, 4)).unwrap();
        let lens: Vec<usize> = batches(&loader, 0, 0)
            .iter()
            .map(MaskedBatch::len)
            .collect();
        lens
    };
    assert_eq!([lens(0), lens(1)], [[2, 0], [2, 0]]);
    assert_eq!([lens(2), lens(3)], [[2, 0], [2, 1]]);
    let image = ImageLoaderConfig {
        shard: Shard { rank: 0, size: 4 },
        ..ImageLoaderConfig::new(Transform::center_crop(16, 24), 8)
    };
    let loader = ImageLoader::new(scenes(9), image).unwrap();
    let lens: Vec<usize> = loader
        .epoch(0, 0)
        .map(|batch| batch.unwrap().len())
        .collect();
    assert_eq!(lens, [2, 0]);
}

#[test]
fn a_rank_is_below_the_number_of_processes() {
    let error = Loader::new(scenes(30), part_of(8, 2, 2)).err().unwrap();
    assert!(error.to_string().contains("shard"), "{error}");
}

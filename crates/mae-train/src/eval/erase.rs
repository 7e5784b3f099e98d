//! Random erasing: a box of an image becomes noise.
//!
//! Source: Zhong et al. 2020, "Random Erasing Data Augmentation", arXiv 1708.04896, algorithm 1.

use std::ops::Range;

use anyhow::{Result, ensure};
use mae_data::SampleKey;
use tch::Tensor;

use crate::eval::random::{Random, Stream};

/// How often a box is erased, and which.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EraseConfig {
    /// Probability that an image loses a box.
    pub probability: f64,
    /// Smallest and largest share of the image's area.
    pub area: [f64; 2],
    /// Smallest and largest height over width; uniform in its logarithm.
    pub aspect: [f64; 2],
}

impl Default for EraseConfig {
    /// As in the authors' fine-tuning: a quarter of the images, 1/50 to 1/3 of the area, aspect 0.3 to 1 / 0.3.
    fn default() -> Self {
        Self {
            probability: 0.25,
            area: [0.02, 1.0 / 3.0],
            aspect: [0.3, 1.0 / 0.3],
        }
    }
}

const ATTEMPTS: usize = 10;

/// Replaces a box of some images by standard normal noise, one number a pixel and channel, in place.
///
/// What becomes of an image depends on its key alone.
///
/// # Shapes
/// - `images`: `[batch, height, width, channels]`, normalised f32
/// - `keys`: one an image
///
/// # Errors
/// If there is not one key an image.
pub fn erase(images: &mut Tensor, keys: &[SampleKey], config: &EraseConfig) -> Result<()> {
    let [batch, height, width, channels] = images.size()[..] else {
        anyhow::bail!(
            "images have shape {:?}, expected 4 dimensions",
            images.size()
        );
    };
    ensure!(
        batch == keys.len() as i64,
        "{batch} images but {} keys",
        keys.len()
    );
    for (i, key) in keys.iter().enumerate() {
        let mut random = Random::new(Stream::Erase, [key.seed, key.epoch, key.index]);
        if random.unit() >= config.probability {
            continue;
        }
        let Some((rows, columns)) = sample_box(height, width, config, &mut random) else {
            continue;
        };
        let size = [rows.end - rows.start, columns.end - columns.start, channels];
        let noise: Vec<f32> = (0..size.iter().product())
            .map(|_| random.normal() as f32)
            .collect();
        images
            .get(i as i64)
            .narrow(0, rows.start, size[0])
            .narrow(1, columns.start, size[1])
            .f_copy_(&Tensor::from_slice(&noise).view(size))?;
    }
    Ok(())
}

/// Rows and columns of a box that is smaller than the image; none if no attempt gives one.
fn sample_box(
    height: i64,
    width: i64,
    config: &EraseConfig,
    random: &mut Random,
) -> Option<(Range<i64>, Range<i64>)> {
    let [low, high] = config.aspect.map(f64::ln);
    for _ in 0..ATTEMPTS {
        let area = random.between(config.area[0], config.area[1]) * (height * width) as f64;
        let aspect = random.between(low, high).exp();
        let rows = (area * aspect).sqrt().round() as i64;
        let columns = (area / aspect).sqrt().round() as i64;
        if rows < height && columns < width {
            let top = random.below(height - rows + 1);
            let left = random.below(width - columns + 1);
            return Some((top..top + rows, left..left + columns));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    const HEIGHT: i64 = 24;
    const WIDTH: i64 = 40;

    fn keys(seed: u64, range: Range<u64>) -> Vec<SampleKey> {
        let key = |index| SampleKey {
            seed,
            epoch: 1,
            index,
        };
        range.map(key).collect()
    }

    /// Images of 9, where noise practically never is, erased.
    fn erased(keys: &[SampleKey], probability: f64) -> Tensor {
        let size = [keys.len() as i64, HEIGHT, WIDTH, 3];
        let mut images = Tensor::full(size, 9.0, (Kind::Float, Device::Cpu));
        let config = EraseConfig {
            probability,
            ..EraseConfig::default()
        };
        erase(&mut images, keys, &config).unwrap();
        images
    }

    #[test]
    fn an_images_box_depends_on_its_key_alone() {
        let all = erased(&keys(5, 0..8), 1.0);
        let some = erased(&keys(5, 3..6), 1.0);
        assert_eq!(all.narrow(0, 3, 3), some);
        assert_ne!(all.get(0), all.get(1));
        assert_ne!(erased(&keys(6, 3..6), 1.0), some);
    }

    #[test]
    fn a_quarter_of_the_images_lose_a_box() {
        let images = erased(&keys(1, 0..2000), 0.25);
        let changed = images.ne(9.0).flatten(1, -1).any_dim(1, false);
        let count = changed.sum(Kind::Int64).int64_value(&[]);
        // Binomial(2000, 1/4) has a standard deviation of 19: allow five of them.
        assert!(count.abs_diff(500) < 97, "{count}");
    }

    #[test]
    fn boxes_have_the_area_and_aspect_and_hold_normal_noise() {
        let images = erased(&keys(2, 0..200), 1.0);
        let inside = images.ne(9.0);
        let noise = images.masked_select(&inside);
        let (mean, std) = (
            noise.mean(Kind::Float).double_value(&[]),
            noise.std(true).double_value(&[]),
        );
        assert!(
            mean.abs() < 0.02 && (std - 1.0).abs() < 0.02,
            "{mean} {std}"
        );

        for i in 0..200 {
            let inside = inside.get(i).select(2, 0);
            let length = |dim: i64| {
                let hit = inside.any_dim(dim, false).sum(Kind::Int64);
                hit.int64_value(&[]) as f64
            };
            let (rows, columns) = (length(1), length(0));
            let area = inside.sum(Kind::Int64).int64_value(&[]) as f64;
            assert_eq!(area, rows * columns, "a full box");
            // Sides are rounded to whole pixels: allow half a pixel on both.
            let size = (HEIGHT * WIDTH) as f64;
            assert!((rows + 0.5) * (columns + 0.5) >= 0.02 * size);
            assert!((rows - 0.5) * (columns - 0.5) <= size / 3.0);
            assert!((rows + 0.5) / (columns - 0.5) >= 0.3);
            assert!((rows - 0.5) / (columns + 0.5) <= 1.0 / 0.3);
        }
    }

    #[test]
    fn one_key_an_image_is_asked_for() {
        let mut images = Tensor::zeros([2, 4, 4, 3], (Kind::Float, Device::Cpu));
        let error = erase(&mut images, &keys(0, 0..3), &EraseConfig::default());
        assert_eq!(error.unwrap_err().to_string(), "2 images but 3 keys");
    }
}

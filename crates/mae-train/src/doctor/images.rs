//! A look at some of the images.

use std::time::{Duration, Instant};

use mae_data::Dataset;
use serde::Serialize;

/// Images looked at, at most.
const SAMPLE: usize = 64;
/// For how long, at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// What some images of a data set, taken evenly from it, are like.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ImageSample {
    /// Images looked at.
    pub looked_at: usize,
    /// Median height of those that can be read, pixels.
    pub height: usize,
    /// Median width, pixels.
    pub width: usize,
    /// Median factor by which an image is enlarged to cover the model's; below 1 it is made smaller.
    pub enlarged: f64,
    /// Median share of an image that is left when it is cut to the model's shape.
    pub shape_kept: f64,
    /// Name and reason of those that cannot be read.
    pub broken: Vec<(String, String)>,
}

impl ImageSample {
    /// Looks at images that a model sees at `height` times `width` pixels.
    pub fn take(dataset: &dyn Dataset, height: usize, width: usize) -> Self {
        let count = SAMPLE.min(dataset.len());
        let started = Instant::now();
        let (mut sizes, mut broken) = (Vec::new(), Vec::new());
        for i in 0..count {
            if started.elapsed() > PATIENCE {
                break;
            }
            let index = i * dataset.len() / count;
            match dataset.image(index) {
                Ok(image) => sizes.push((image.height(), image.width())),
                Err(error) => broken.push((dataset.name(index), error.to_string())),
            }
        }
        Self::of(&sizes, broken, (height, width))
    }

    fn of(
        sizes: &[(usize, usize)],
        broken: Vec<(String, String)>,
        (height, width): (usize, usize),
    ) -> Self {
        let of =
            |f: &dyn Fn(f64, f64) -> f64| median(sizes.iter().map(|&(h, w)| f(h as f64, w as f64)));
        let (height, width) = (height as f64, width as f64);
        Self {
            looked_at: sizes.len() + broken.len(),
            height: of(&|h, _| h) as usize,
            width: of(&|_, w| w) as usize,
            enlarged: of(&|h, w| (height / h).max(width / w)),
            shape_kept: of(&|h, w| {
                let ratio = (w / h) / (width / height);
                ratio.min(1.0 / ratio)
            }),
            broken,
        }
    }
}

/// The middle one, or the upper of two; 0 of none.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mae_data::SyntheticDataset;

    #[test]
    fn scale_and_shape_against_the_model() {
        let sample = |sizes: &[_], model| {
            let sample = ImageSample::of(sizes, Vec::new(), model);
            (sample.enlarged, sample.shape_kept)
        };
        assert_eq!(sample(&[(32, 32)], (64, 64)), (2.0, 1.0));
        // 100 x 400 for 50 x 50: made half as large, of which a quarter is kept.
        assert_eq!(sample(&[(100, 400)], (50, 50)), (0.5, 0.25));
        assert_eq!(sample(&[(400, 100)], (50, 50)), (0.5, 0.25));
        assert_eq!(sample(&[(100, 200)], (50, 100)), (0.5, 1.0));
        let three = [(10, 10), (1000, 1000), (20, 20)];
        assert_eq!(sample(&three, (40, 40)), (2.0, 1.0));
    }

    #[test]
    fn no_more_than_a_sample_is_looked_at() {
        let scenes = SyntheticDataset::new(1000, 16, 24, 3, 0).unwrap();
        let sample = ImageSample::take(&scenes, 16, 24);
        assert!((1..=SAMPLE).contains(&sample.looked_at), "{sample:?}");
        assert_eq!((sample.height, sample.width), (16, 24));
        assert_eq!((sample.enlarged, sample.shape_kept), (1.0, 1.0));
    }
}

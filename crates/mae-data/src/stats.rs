//! Mean and standard deviation of the channels, for normalisation.

use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::image::Image;
use crate::rng::{Rng, SampleKey, Stream};
use crate::transform::Transform;

/// Mean of ImageNet's RGB channels, in units of the value range `[0, 1]`. Source: torchvision.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's RGB channels, in units of the value range `[0, 1]`.
/// Source: torchvision.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Smallest standard deviation that is reported: one grey level, so that dividing by it is safe.
const MIN_STD: f64 = 1.0 / 255.0;

/// Mean and standard deviation of each channel, in units of the value range `[0, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelStats {
    /// Mean, `[channels]`.
    pub mean: Vec<f32>,
    /// Standard deviation, `[channels]`; at least 1/255.
    pub std: Vec<f32>,
}

/// Measures the pixels of at most `sample` random images after `transform`.
///
/// Sums are integers, so the result is the same for any number of threads.
/// Broken images are left out.
///
/// # Errors
/// [`DataError::Config`] if `sample` is 0, the data set is empty or `transform` is not valid; the
/// error of the first image if all of them are broken.
pub fn channel_mean_std(
    dataset: &dyn Dataset,
    transform: &Transform,
    sample: usize,
    seed: u64,
) -> Result<ChannelStats, DataError> {
    transform.validate()?;
    let indices = sample_indices(dataset.len(), sample, seed)?;
    let sums = indices
        .par_iter()
        .map(|&index| {
            let key = SampleKey {
                seed,
                epoch: 0,
                index: index as u64,
            };
            let image = transform.apply_content(dataset, index, key)?;
            Ok(Sums::of(&image))
        })
        .collect::<Vec<Result<Sums, DataError>>>();
    let mut total = Sums::new(dataset.channels());
    let mut first_error = None;
    for sums in sums {
        match sums {
            Ok(sums) => total.add(&sums),
            Err(error @ (DataError::Image { .. } | DataError::Io { .. })) => {
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match first_error {
        Some(error) if total.pixels == 0 => Err(error),
        _ => Ok(total.stats()),
    }
}

fn sample_indices(len: usize, sample: usize, seed: u64) -> Result<Vec<usize>, DataError> {
    for (key, value) in [("sample", sample), ("dataset", len)] {
        if value == 0 {
            return Err(DataError::Config {
                key,
                expected: "at least 1 image".to_owned(),
                found: "0".to_owned(),
                remedy: "mean and std need some pixels".to_owned(),
            });
        }
    }
    let key = SampleKey {
        seed,
        epoch: 0,
        index: 0,
    };
    let mut indices: Vec<usize> = (0..len).collect();
    Rng::new(key, Stream::Statistics).shuffle(&mut indices);
    indices.truncate(sample);
    Ok(indices)
}

/// Sums over pixels of the values of each channel and of their squares.
struct Sums {
    pixels: u64,
    values: Vec<u64>,
    squares: Vec<u64>,
}

impl Sums {
    fn new(channels: usize) -> Sums {
        Sums {
            pixels: 0,
            values: vec![0; channels],
            squares: vec![0; channels],
        }
    }

    fn of(image: &Image) -> Sums {
        let mut sums = Sums::new(image.channels());
        sums.pixels = (image.height() * image.width()) as u64;
        for pixel in image.pixels().chunks_exact(image.channels()) {
            for (channel, &value) in pixel.iter().enumerate() {
                sums.values[channel] += u64::from(value);
                sums.squares[channel] += u64::from(value) * u64::from(value);
            }
        }
        sums
    }

    fn add(&mut self, other: &Sums) {
        self.pixels += other.pixels;
        for (sum, value) in self.values.iter_mut().zip(&other.values) {
            *sum += value;
        }
        for (sum, value) in self.squares.iter_mut().zip(&other.squares) {
            *sum += value;
        }
    }

    fn stats(&self) -> ChannelStats {
        let pixels = self.pixels as f64;
        let moments = self
            .values
            .iter()
            .zip(&self.squares)
            .map(|(&sum, &squares)| {
                let mean = sum as f64 / pixels;
                let variance = squares as f64 / pixels - mean * mean;
                let std = variance.max(0.0).sqrt() / 255.0;
                ((mean / 255.0) as f32, std.max(MIN_STD) as f32)
            });
        let (mean, std) = moments.unzip();
        ChannelStats { mean, std }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Constant RGB images; image 0 is broken.
    struct Constant(Vec<[u8; 3]>);

    impl Dataset for Constant {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn channels(&self) -> usize {
            3
        }

        fn image(&self, index: usize) -> Result<Image, DataError> {
            if index == 0 {
                return Err(DataError::Image {
                    name: self.name(0),
                    reason: "broken".to_owned(),
                });
            }
            Image::new(4, 4, 3, self.0[index].repeat(16))
        }

        fn name(&self, index: usize) -> String {
            format!("constant:{index}")
        }
    }

    fn measure(colours: &[[u8; 3]], sample: usize) -> Result<ChannelStats, DataError> {
        let transform = Transform::center_crop(4, 4);
        channel_mean_std(&Constant(colours.to_vec()), &transform, sample, 1)
    }

    #[test]
    fn known_colours_give_known_statistics() {
        let stats = measure(&[[9; 3], [0, 51, 255], [102, 51, 255]], 100).unwrap();
        let expected = ([0.2, 0.2, 1.0], [0.2, 1.0 / 255.0, 1.0 / 255.0]);
        for channel in 0..3 {
            assert!((stats.mean[channel] - expected.0[channel]).abs() < 1e-6);
            assert!((stats.std[channel] - expected.1[channel]).abs() < 1e-6);
        }
    }

    #[test]
    fn the_sample_is_a_subset_chosen_by_the_seed() {
        let indices = |sample, seed| sample_indices(1000, sample, seed).unwrap();
        assert_eq!(indices(10, 1), indices(10, 1));
        assert_ne!(indices(10, 1), indices(10, 2));
        let mut all = indices(5000, 1);
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_to_measure_is_an_error() {
        assert!(
            measure(&[[0; 3]], 1)
                .unwrap_err()
                .to_string()
                .contains("constant:0: broken")
        );
        assert!(measure(&[[0; 3]], 0).is_err());
        assert!(measure(&[], 1).is_err());
    }
}

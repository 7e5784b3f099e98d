//! Mean and standard deviation of the channels, for normalisation.

use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::image::Image;
use crate::pixels::{PixelKind, Pixels};
use crate::rng::{Rng, SampleKey, Stream};
use crate::transform::Transform;

/// Mean of ImageNet's RGB channels, in units of the value range `[0, 1]`. Source: torchvision.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's RGB channels, in units of the value range `[0, 1]`.
/// Source: torchvision.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Smallest standard deviation that is reported of bytes: one grey level, so that dividing by it is safe.
const MIN_STD: f64 = 1.0 / 255.0;
/// The same of numbers, as a share of their root mean square: far above the rounding of 32 bits.
const MIN_RELATIVE_STD: f64 = 1e-4;

/// Mean and standard deviation of each channel.
///
/// In units of the value range `[0, 1]` for bytes and for numbers in that range, else in the numbers'
/// own units.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelStats {
    /// Mean, `[channels]`.
    pub mean: Vec<f32>,
    /// Standard deviation, `[channels]`; above 0, though all values be the same: for bytes at least
    /// 1/255, for numbers at least 1/10,000 of their root mean square, and 1 if all are 0 or missing.
    pub std: Vec<f32>,
}

/// Measures the pixels of at most `sample` random images after `transform`.
///
/// Sums of bytes are integers, and those of numbers are put together in the order of the images, so
/// the result is the same for any number of threads.
/// Broken images and missing values (NaN) are left out.
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
    let mut total = Sums::new(dataset.kind(), dataset.channels());
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
        Some(error) if total.is_empty() => Err(error),
        _ => Ok(total.stats()),
    }
}

pub(crate) fn sample_indices(
    len: usize,
    sample: usize,
    seed: u64,
) -> Result<Vec<usize>, DataError> {
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

/// What mean and standard deviation follow from.
enum Sums {
    Bytes(ByteSums),
    Numbers(Moments),
}

impl Sums {
    fn new(kind: PixelKind, channels: usize) -> Sums {
        match kind {
            PixelKind::U8 => Sums::Bytes(ByteSums::new(channels)),
            PixelKind::F32 => Sums::Numbers(Moments::new(channels)),
        }
    }

    fn of(image: &Image) -> Sums {
        match image.pixels() {
            Pixels::U8(values) => Sums::Bytes(ByteSums::of(values, image.channels())),
            Pixels::F32(values) => Sums::Numbers(Moments::of(values, image.channels())),
        }
    }

    fn add(&mut self, other: &Sums) {
        match (self, other) {
            (Sums::Bytes(own), Sums::Bytes(other)) => own.add(other),
            (Sums::Numbers(own), Sums::Numbers(other)) => own.add(other),
            _ => unreachable!("transformed images are of the data set's kind"),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Sums::Bytes(sums) => sums.pixels == 0,
            Sums::Numbers(moments) => moments.counts.iter().all(|&count| count == 0.0),
        }
    }

    fn stats(&self) -> ChannelStats {
        match self {
            Sums::Bytes(sums) => sums.stats(),
            Sums::Numbers(moments) => moments.stats(),
        }
    }
}

/// Sums over pixels of the values of each channel and of their squares.
struct ByteSums {
    pixels: u64,
    values: Vec<u64>,
    squares: Vec<u64>,
}

impl ByteSums {
    fn new(channels: usize) -> ByteSums {
        ByteSums {
            pixels: 0,
            values: vec![0; channels],
            squares: vec![0; channels],
        }
    }

    fn of(values: &[u8], channels: usize) -> ByteSums {
        let mut sums = ByteSums::new(channels);
        sums.pixels = (values.len() / channels) as u64;
        for pixel in values.chunks_exact(channels) {
            for (channel, &value) in pixel.iter().enumerate() {
                sums.values[channel] += u64::from(value);
                sums.squares[channel] += u64::from(value) * u64::from(value);
            }
        }
        sums
    }

    fn add(&mut self, other: &ByteSums) {
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

/// Mean of each channel, and the sum of squared distances from it, which loses no digits to a mean far
/// from 0.
struct Moments {
    /// Values that are not missing.
    counts: Vec<f64>,
    means: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn new(channels: usize) -> Moments {
        Moments {
            counts: vec![0.0; channels],
            means: vec![0.0; channels],
            squares: vec![0.0; channels],
        }
    }

    fn of(values: &[f32], channels: usize) -> Moments {
        let mut moments = Moments::new(channels);
        let known = || {
            (values.chunks_exact(channels))
                .flat_map(|pixel| pixel.iter().enumerate())
                .filter(|(_, value)| !value.is_nan())
        };
        for (channel, &value) in known() {
            moments.counts[channel] += 1.0;
            moments.means[channel] += f64::from(value);
        }
        for (mean, count) in moments.means.iter_mut().zip(&moments.counts) {
            *mean /= count.max(1.0);
        }
        for (channel, &value) in known() {
            moments.squares[channel] += (f64::from(value) - moments.means[channel]).powi(2);
        }
        moments
    }

    /// Source: Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance".
    fn add(&mut self, other: &Moments) {
        for channel in 0..self.means.len() {
            let (own, more) = (self.counts[channel], other.counts[channel]);
            if more == 0.0 {
                continue;
            }
            let distance = other.means[channel] - self.means[channel];
            self.counts[channel] = own + more;
            self.means[channel] += distance * more / (own + more);
            self.squares[channel] +=
                other.squares[channel] + distance * distance * own * more / (own + more);
        }
    }

    fn stats(&self) -> ChannelStats {
        let sums = self.counts.iter().zip(&self.squares);
        let moments = self.means.iter().zip(sums).map(|(&mean, (count, sum))| {
            let variance = sum / count.max(1.0);
            let root_mean_square = (variance + mean * mean).sqrt();
            let std = variance.sqrt().max(MIN_RELATIVE_STD * root_mean_square) as f32;
            (mean as f32, if std > 0.0 { std } else { 1.0 })
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

    /// Images of two channels of numbers, each with its own level.
    struct Levels(Vec<[f32; 2]>);

    impl Dataset for Levels {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn channels(&self) -> usize {
            2
        }

        fn kind(&self) -> PixelKind {
            PixelKind::F32
        }

        fn image(&self, index: usize) -> Result<Image, DataError> {
            Image::new(4, 4, 2, self.0[index].repeat(16))
        }

        fn name(&self, index: usize) -> String {
            format!("levels:{index}")
        }
    }

    fn measure_levels(levels: &[[f32; 2]], threads: usize) -> ChannelStats {
        let transform = Transform::center_crop(4, 4);
        let levels = Levels(levels.to_vec());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap()
            .install(|| channel_mean_std(&levels, &transform, 100, 1).unwrap())
    }

    #[test]
    fn numbers_are_measured_in_their_own_units() {
        let stats = measure_levels(&[[-1000.0, 288.0], [3000.0, 288.5]], 1);
        assert_eq!(stats.mean, [1000.0, 288.25]);
        assert_eq!(stats.std, [2000.0, 0.25]);
    }

    /// Far from 0, where sums of squares would have lost all digits.
    #[test]
    fn a_small_deviation_far_from_0_is_measured() {
        let stats = measure_levels(&[[1e6, 0.0], [1e6 + 400.0, 1e-3]], 1);
        assert_eq!(stats.std, [200.0, 5e-4]);
    }

    #[test]
    fn a_constant_channel_has_a_deviation_that_can_be_divided_by() {
        let stats = measure_levels(&[[5.0, 0.0], [5.0, 0.0]], 1);
        assert_eq!(stats.mean, [5.0, 0.0]);
        assert_eq!(stats.std, [5e-4, 1.0]);
    }

    /// The second channel of the first image and all of the third are missing.
    #[test]
    fn what_is_missing_is_not_measured() {
        let nan = f32::NAN;
        let levels = [[-1000.0, nan], [3000.0, 288.0], [nan, nan], [nan, 289.0]];
        let stats = measure_levels(&levels, 1);
        assert_eq!(stats.mean, [1000.0, 288.5]);
        assert_eq!(stats.std, [2000.0, 0.5]);
        let nothing = measure_levels(&[[nan, 3.0]], 1);
        assert_eq!((nothing.mean[0], nothing.std[0]), (0.0, 1.0));
    }

    #[test]
    fn the_number_of_threads_does_not_change_the_last_bit() {
        let levels: Vec<[f32; 2]> = (0..60)
            .map(|at| [(at as f32 * 0.7).sin(), (at as f32 * 1.3).exp() % 977.0])
            .collect();
        let one = measure_levels(&levels, 1);
        for threads in [2, 3, 7] {
            assert_eq!(measure_levels(&levels, threads), one);
        }
    }
}

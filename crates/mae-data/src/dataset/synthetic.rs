mod background;
mod colour;
mod scene;
mod shape;

use std::hash::Hasher;

use self::scene::{Canvas, Scene};
use self::shape::SHAPES;
use super::{Dataset, check_index};
use crate::error::DataError;
use crate::image::{Image, check_grey_or_rgb, check_sides};
use crate::rng::{Rng, SampleKey, Stream};

/// Drawn scenes: a shape of one of ten classes before a textured background.
///
/// Needs no download and has any number of images of any size, so a run can be tried, and its
/// reconstructions judged, within minutes.
/// Each image depends on the seed and its index only.
/// The class of an image is `index % 10`, so classes are balanced.
///
/// ```
/// use mae_data::{Dataset, SyntheticDataset};
///
/// let scenes = SyntheticDataset::new(1000, 64, 64, 3, 0)?;
/// assert_eq!(scenes.classes()[scenes.label(3).unwrap() as usize], "star");
/// assert_eq!(scenes.image(3)?.height(), 64);
/// # Ok::<(), mae_data::DataError>(())
/// ```
pub struct SyntheticDataset {
    len: usize,
    height: usize,
    width: usize,
    channels: usize,
    seed: u64,
    classes: Vec<String>,
}

impl SyntheticDataset {
    /// `len` scenes of `height` times `width` pixels, in luma (1 channel) or RGB (3 channels).
    ///
    /// # Errors
    /// [`DataError::Config`] if `len` or a side is 0, or for other channel counts.
    pub fn new(
        len: usize,
        height: usize,
        width: usize,
        channels: usize,
        seed: u64,
    ) -> Result<SyntheticDataset, DataError> {
        check_grey_or_rgb(channels)?;
        check_sides(height, width)?;
        if len == 0 {
            return Err(DataError::Config {
                key: "len",
                expected: "at least 1 image".to_owned(),
                found: "0".to_owned(),
                remedy: "ask for some images".to_owned(),
            });
        }
        Ok(SyntheticDataset {
            len,
            height,
            width,
            channels,
            seed,
            classes: SHAPES.iter().map(|shape| shape.name().to_owned()).collect(),
        })
    }
}

impl Dataset for SyntheticDataset {
    fn len(&self) -> usize {
        self.len
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        check_index(index, self.len)?;
        let key = SampleKey {
            seed: self.seed,
            epoch: 0,
            index: index as u64,
        };
        let canvas = Canvas::new(self.height, self.width);
        let shape = SHAPES[index % SHAPES.len()];
        let scene = Scene::random(shape, &canvas, &mut Rng::new(key, Stream::Scene));
        let pixels = scene.draw(&canvas, self.channels);
        Image::new(self.height, self.width, self.channels, pixels)
    }

    fn label(&self, index: usize) -> Option<u32> {
        (index < self.len).then_some((index % SHAPES.len()) as u32)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self, index: usize) -> String {
        format!("synthetic:{index}")
    }

    fn identify(&self, hasher: &mut dyn Hasher) {
        let sides = [self.len, self.height, self.width, self.channels].map(|side| side as u64);
        for word in sides.into_iter().chain([self.seed]) {
            hasher.write(&word.to_le_bytes());
        }
    }
}

fn uniform(rng: &mut Rng, low: f32, high: f32) -> f32 {
    rng.between(f64::from(low), f64::from(high)) as f32
}

fn smoothstep(value: f32) -> f32 {
    let value = value.clamp(0.0, 1.0);
    value * value * (3.0 - 2.0 * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_depend_on_seed_and_index_only() {
        let image = |seed, index| {
            SyntheticDataset::new(100, 32, 48, 3, seed)
                .unwrap()
                .image(index)
                .unwrap()
        };
        assert_eq!(image(0, 5), image(0, 5));
        assert_ne!(image(0, 5), image(1, 5));
        assert_ne!(image(0, 5), image(0, 15));
    }

    #[test]
    fn any_size_can_be_drawn() {
        for (height, width, channels) in [(1, 1, 3), (7, 200, 1), (224, 224, 3)] {
            let scenes = SyntheticDataset::new(3, height, width, channels, 0).unwrap();
            let image = scenes.image(2).unwrap();
            assert_eq!(
                (image.height(), image.width(), image.channels()),
                (height, width, channels)
            );
            assert!(scenes.image(3).is_err());
            assert_eq!(scenes.label(3), None);
        }
        for (len, height, channels) in [(0, 8, 3), (1, 0, 3), (1, 8, 2)] {
            assert!(SyntheticDataset::new(len, height, 8, channels, 0).is_err());
        }
    }
}

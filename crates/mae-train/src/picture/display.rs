//! Values of any kind and number of channels as something to look at.

use mae_data::{PixelKind, Pixels};
use mae_model::Normalization;

/// How many standard deviations from the mean are black and white, where values are stretched.
const REACH: f32 = 2.0;
/// What is shown where there is no value.
const NOTHING: u8 = 127;

/// Shows images of a data set, and what a model makes of them, on one scale.
///
/// Bytes in grey or RGB are shown as they are.
/// Of other numbers of channels the first three are red, green and blue, or the first is grey if there are fewer.
/// Floating-point numbers are stretched: a channel's mean less two standard deviations is black, and its mean and two
/// of them is white.
#[derive(Clone, Debug, PartialEq)]
pub struct Display {
    /// Of an image.
    channels: usize,
    /// What is black, and how many levels make a unit, of each channel that is shown.
    scales: Vec<(f32, f32)>,
    is_stretched: bool,
}

impl Display {
    /// For images of `kind` with these channel statistics.
    pub fn new(kind: PixelKind, normalization: &Normalization) -> Self {
        let channels = normalization.mean.len();
        let shown = if channels < 3 { 1 } else { 3 };
        let statistics = (normalization.mean.iter()).zip(normalization.std.iter());
        let is_stretched = kind == PixelKind::F32;
        let scale = |(&mean, &std): (&f32, &f32)| match is_stretched {
            true => (mean - REACH * std, 255.0 / (2.0 * REACH * std)),
            false => (0.0, 255.0),
        };
        Self {
            channels,
            scales: statistics.map(scale).take(shown).collect(),
            is_stretched,
        }
    }

    /// The channels that are shown: 1 (grey) or 3 (RGB).
    pub fn channels(&self) -> usize {
        self.scales.len()
    }

    /// What one must know to read the picture, unless it is as everyone expects.
    pub fn note(&self) -> Option<String> {
        let channels = match (self.channels, self.channels()) {
            (found, shown) if found == shown => None,
            (found, 1) => Some(format!("channel 1 of {found} as grey")),
            (found, _) => Some(format!("channels 1 to 3 of {found} as red, green, blue")),
        };
        let stretch = (self.is_stretched)
            .then(|| format!("from mean - {REACH} to mean + {REACH} standard deviations"));
        let words: Vec<String> = channels.into_iter().chain(stretch).collect();
        (!words.is_empty()).then(|| format!("shown: {}", words.join(", ")))
    }

    /// What is shown of values; NaN is grey.
    ///
    /// # Shapes
    /// - `values`: `[.., channels]`, in the units of mean and standard deviation
    /// - returns `[.., self.channels()]`
    pub fn show(&self, values: &[f32]) -> Vec<u8> {
        (values.chunks_exact(self.channels))
            .flat_map(|pixel| pixel.iter().zip(&self.scales))
            .map(|(&value, &(black, levels))| match value.is_nan() {
                true => NOTHING,
                false => ((value - black) * levels).round().clamp(0.0, 255.0) as u8,
            })
            .collect()
    }

    /// What is shown of a data set's pixels, `[.., channels]`.
    pub fn show_pixels(&self, pixels: Pixels) -> Vec<u8> {
        match pixels {
            Pixels::U8(values) if self.channels == self.channels() && !self.is_stretched => values,
            other => self.show(&other.into_f32()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_as_they_are() {
        for channels in [1, 3] {
            let statistics = Normalization::new(vec![0.5; channels], vec![0.2; channels]);
            let display = Display::new(PixelKind::U8, &statistics);
            let bytes: Vec<u8> = (0..=254).collect();
            assert_eq!(display.show_pixels(Pixels::U8(bytes.clone())), bytes);
            let units = Pixels::U8(bytes.clone()).into_f32();
            assert_eq!(display.show(&units), bytes);
            assert_eq!((display.channels(), display.note()), (channels, None));
        }
    }

    #[test]
    fn other_channels_and_units_are_brought_to_the_screen() {
        let statistics =
            Normalization::new(vec![-500.0, 0.0, 3.0, 9.0], vec![100.0, 1.0, 0.5, 1.0]);
        let display = Display::new(PixelKind::F32, &statistics);
        let pixels = [-700.0, 0.0, 4.0, 9.0, -1e9, f32::NAN, 3.5, 0.0];
        // 255 / 2 is rounded away from 0.
        assert_eq!(display.show(&pixels), [0, 128, 255, 0, 127, 191]);
        let note = display.note().unwrap();
        assert!(
            note.contains("1 to 3 of 4") && note.contains("mean + 2"),
            "{note}"
        );

        let two = Normalization::new(vec![0.5; 2], vec![0.2; 2]);
        let display = Display::new(PixelKind::U8, &two);
        assert_eq!(
            display.show_pixels(Pixels::U8(vec![7, 255, 200, 0])),
            [7, 200]
        );
        assert_eq!(display.note().unwrap(), "shown: channel 1 of 2 as grey");
    }
}

//! What to know of a data set before training.

use mae_data::{Dataset, Nodata, PackedDataset, PixelKind, Survey, Suspect};

use super::Images;
use crate::data::parts::Parts;

/// What a model is trained on where nothing else is said.
const IMAGE_SIZE: usize = 224;
const BATCH_SIZE: usize = 64;
/// The share of broken images that training accepts where nothing else is said.
const MAX_BROKEN_SHARE: f64 = 0.01;
/// How many times as many images as the smallest class the largest may have before it is said.
const IMBALANCE: usize = 10;

impl Images {
    /// In words.
    pub(super) fn warn(&self, dataset: &dyn Dataset, found: &Survey) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |is_due: bool, words: String| {
            if is_due {
                warnings.push(words);
            }
        };
        let share = self.broken.len() as f64 / self.looked_at as f64;
        warn(
            share > MAX_BROKEN_SHARE,
            format!(
                "{:.1} % of the images are broken, and training gives up at {:.0} %: remove them, or set data.max_broken_share",
                100.0 * share,
                100.0 * MAX_BROKEN_SHARE
            ),
        );
        warn(
            self.images < BATCH_SIZE,
            format!("fewer images than a batch of {BATCH_SIZE}: set optim.batch_size"),
        );
        let small: usize = (found.sizes.iter())
            .filter(|((height, width), _)| *height.min(width) < IMAGE_SIZE)
            .map(|(_, images)| images)
            .sum();
        warn(
            small > 0,
            format!(
                "{} smaller than {IMAGE_SIZE} pixels on a side, the usual size of a model, and would be enlarged: set model.image_size",
                is(small, self.looked_at)
            ),
        );
        warn(
            found.channels.len() > 1,
            format!(
                "images of {} channels are mixed: all are read as {}, as model.channels says",
                list(&found.channels),
                self.channels
            ),
        );
        let is_of_bytes = |stored: &&String| stored.ends_with("of 8 bits");
        let of_bytes = self.stored.keys().filter(is_of_bytes).count();
        warn(
            dataset.notes().is_empty()
                && self.values == PixelKind::F32
                && of_bytes > 0
                && of_bytes < self.stored.len(),
            "images of 8 bits and of more are mixed: all are read as numbers, unsigned ones of 8 and 16 bits from 0 to 1, \
             others in their own units; if those of more bits are here by mistake, set data.values=u8, which refuses them"
                .into(),
        );
        for note in dataset.notes().into_iter().chain(dataset.label_note()) {
            warn(true, note.to_owned());
        }
        if let (Some(suspect), Nodata::Auto) = (&found.suspect, self.nodata) {
            warn(true, self.suspicion(suspect));
        }
        warn(
            !self.misnamed.is_empty(),
            format!(
                "{} of another format than the name says; they are read all the same",
                is(self.misnamed.len(), self.looked_at)
            ),
        );
        let copies: usize = self.duplicates.iter().map(|group| group.len() - 1).sum();
        let is_ambiguous = |group: &&Vec<usize>| {
            group
                .iter()
                .any(|&index| dataset.label(index) != dataset.label(group[0]))
        };
        let ambiguous = found.duplicates.iter().filter(is_ambiguous).count();
        warn(
            copies > 0,
            format!(
                "{} of another{}",
                match copies {
                    1 => "1 image is a copy".into(),
                    _ => format!("{copies} images are copies"),
                },
                match ambiguous {
                    0 => String::new(),
                    1 => ", once in another class".into(),
                    _ => format!(", {ambiguous} times in another class"),
                }
            ),
        );
        if let Some(parts) = Parts::of(dataset, &self.path) {
            let words = format!("{parts}; for mae-train eval give {}", parts.options());
            warn(true, words);
        }
        let labels = dataset.check_labels();
        if let (false, Err(error)) = (self.classes.is_empty(), &labels) {
            let words = format!("mae-train eval needs all labels, pre-training none: {error}");
            warn(true, words);
        }
        let counts = || self.classes.iter().map(|class| class.images);
        match (counts().min(), counts().max()) {
            (None, _) | (_, None) => {
                let how = match labels {
                    Ok(()) => "one sub-folder a class".to_owned(),
                    Err(error) => error.to_string(),
                };
                let words = format!(
                    "no labels, which pre-training does not need, but mae-train eval: {how}"
                );
                warn(true, words);
            }
            (Some(_), Some(_)) if self.classes.len() == 1 => warn(
                true,
                "one class only: mae-train eval needs two; pre-training does not".into(),
            ),
            (Some(least), Some(most)) => warn(
                most > IMBALANCE * least,
                format!("the largest class has {most} images, the smallest {least}"),
            ),
        }
        warnings
    }

    /// What to say of a value that may stand for nothing measured.
    fn suspicion(&self, suspect: &Suspect) -> String {
        let Suspect {
            channel,
            value,
            share,
        } = suspect;
        let value = match value.abs() < 1e7 {
            true => value.to_string(),
            false => format!("{value:e}"),
        };
        let remedy = match PackedDataset::is_packed(&self.path).unwrap_or(false) {
            true => format!("pack the images again with --nodata={value}"),
            false => {
                format!(
                    "set data.nodata={value}, or give --nodata={value} to inspect, pack, embed and reconstruct"
                )
            }
        };
        format!(
            "{:.2} % of the values of channel {channel} are {value}, far from all others: if that means that nothing was \
             measured, {remedy}; else it counts in mean, deviation and loss",
            100.0 * share
        )
    }
}

/// "3 of 5 images are".
fn is(images: usize, of: usize) -> String {
    match (images == of, images) {
        (true, 1) => "the image is".into(),
        (true, _) => "all images are".into(),
        (false, 1) => format!("1 of {of} images is"),
        (false, _) => format!("{images} of {of} images are"),
    }
}

/// "1, 3 and 4".
fn list(numbers: &[usize]) -> String {
    let words: Vec<String> = numbers.iter().map(usize::to_string).collect();
    match &words[..] {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_listed() {
        assert_eq!(list(&[1, 3, 4]), "1, 3 and 4");
        assert_eq!(list(&[3]), "3");
    }
}

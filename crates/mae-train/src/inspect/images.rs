//! What images a data set has, and what of them matters before training.

mod notes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use mae_data::{
    Content, Dataset, Image, LeftOut, Nodata, PackedDataset, PixelKind, Split, Survey, survey,
};
use mae_model::Normalization;
use serde::Serialize;

use super::lines::{Lines, count, numbers};
use crate::config::DataSource;
use crate::data::open_path_or_image;
use crate::picture::display::Display;
use crate::run::progress::Progress;

/// Where one image is.
const ONE_FILE: &str = "a file";
/// Channels of a picture.
const COLOURS: usize = 3;
/// Broken images that are named.
const NAMED: usize = 20;

/// What images a data set has.
#[derive(Clone, Debug, Serialize)]
pub struct Images {
    /// Where they are.
    pub path: PathBuf,
    /// How they are stored.
    pub source: &'static str,
    /// How many they are.
    pub images: usize,
    /// How many of them were decoded.
    pub looked_at: usize,
    /// The classes in label order; empty if there are no labels.
    pub classes: Vec<Class>,
    /// The sizes of whole images; none if there are none.
    pub sizes: Option<Sizes>,
    /// The channels that they were read with.
    pub channels: usize,
    /// What their values were read as: `f32` if any has more than 8 bits.
    pub values: PixelKind,
    /// What stands for a missing value.
    pub nodata: Nodata,
    /// How many are stored as what: channels and bits of a value.
    pub stored: BTreeMap<String, usize>,
    /// How many have which ending.
    pub extensions: BTreeMap<String, usize>,
    /// Images of another format than their name says, and of which.
    pub misnamed: Vec<(String, &'static str)>,
    /// Images that cannot be read.
    pub broken: Vec<Broken>,
    /// Images with the same content, in groups.
    pub duplicates: Vec<Vec<String>>,
    /// Mean of each channel, of 0 to 1, or for numbers in their own units; every image counts the same.
    pub mean: Vec<f64>,
    /// Standard deviation, likewise.
    pub std: Vec<f64>,
    /// Share of each channel's values that are missing, as `data.nodata` says.
    pub missing: Vec<f64>,
    /// What lies beside them and is none of them.
    pub left_out: Vec<LeftOut>,
    /// What to know before training, in words.
    pub warnings: Vec<String>,
}

/// A class of images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// How many images it has.
    pub images: usize,
}

/// Sizes of images, `[height, width]` in pixels, ordered by their area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// That of the smallest image.
    pub smallest: [usize; 2],
    /// That of the image in the middle.
    pub median: [usize; 2],
    /// That of the largest image.
    pub largest: [usize; 2],
    /// How many different ones there are.
    pub distinct: usize,
}

/// An image that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Images {
    /// Opens the images at `path`, of so many channels and without values that `nodata` names, and decodes all, or `sample`
    /// random ones.
    ///
    /// Of arrays and bands the number is that of the first one, unless it is given; of pictures it is 3.
    ///
    /// # Errors
    /// If there are none. Broken images are no error.
    pub fn survey(
        path: &Path,
        channels: Option<usize>,
        nodata: Nodata,
        sample: Option<usize>,
        progress: &Progress,
    ) -> Result<Self> {
        let channels = channels.or_else(|| own_channels(path)).unwrap_or(COLOURS);
        let dataset = open_path_or_image(path, Split::Train, channels, nodata)?;
        let steps = sample.map_or(dataset.len(), |sample| sample.min(dataset.len()));
        let bar = progress.start(0, steps as u64);
        let found = survey(dataset.as_ref(), sample, 0, || {
            bar.advance();
            bar.message("decoding images");
        })?;
        Ok(Self::of(path, dataset.as_ref(), &found))
    }

    /// Whether they are one image file, and not some in a folder.
    pub fn is_one_file(&self) -> bool {
        self.source == ONE_FILE
    }

    fn of(path: &Path, dataset: &dyn Dataset, found: &Survey) -> Self {
        let name = |&index: &usize| dataset.name(index);
        let mut images = Self {
            path: path.into(),
            source: source(path),
            images: dataset.len(),
            looked_at: found.looked_at,
            classes: classes(dataset),
            sizes: Sizes::of(&found.sizes),
            channels: dataset.channels(),
            values: dataset.kind(),
            nodata: dataset.nodata(),
            stored: found.stored.clone(),
            extensions: found.extensions.clone(),
            misnamed: (found.misnamed.iter())
                .map(|(index, format)| (name(index), *format))
                .collect(),
            broken: (found.broken.iter())
                .map(|(index, reason)| Broken {
                    name: name(index),
                    reason: reason.clone(),
                })
                .collect(),
            duplicates: (found.duplicates.iter())
                .map(|group| group.iter().map(name).collect())
                .collect(),
            mean: found.mean.clone(),
            std: found.std.clone(),
            missing: found.missing.clone(),
            left_out: dataset.left_out().to_vec(),
            warnings: Vec::new(),
        };
        images.warnings = images.warn(dataset, found);
        images
    }

    /// How to show them.
    pub fn display(&self, kind: PixelKind) -> Display {
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<_>>();
        // Of one value only, all are shown as that.
        let std = narrow(&self.std)
            .into_iter()
            .map(|std| std.max(f32::MIN_POSITIVE));
        Display::new(kind, &Normalization::new(narrow(&self.mean), std.collect()))
    }

    /// The facts as lines to read.
    pub fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.line(&format!(
            "{}: {} in {}",
            self.path.display(),
            count(self.images, "image"),
            self.source
        ));
        if self.looked_at < self.images {
            let words = format!("{} of them, chosen at random", self.looked_at);
            lines.fact("looked at", words);
        }
        if let Some(sizes) = &self.sizes {
            let size = |[height, width]: [usize; 2]| format!("{height} x {width}");
            lines.fact(
                "size",
                match sizes.distinct {
                    1 => format!("{} pixels, height x width", size(sizes.median)),
                    distinct => format!(
                        "{} to {}, median {} pixels, height x width; {distinct} different ones",
                        size(sizes.smallest),
                        size(sizes.largest),
                        size(sizes.median)
                    ),
                },
            );
        }
        for (label, counts) in [("stored as", &self.stored), ("files", &self.extensions)] {
            let words: Vec<String> = (counts.iter())
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, images)| format!("{name}: {images}"))
                .collect();
            if !words.is_empty() {
                lines.fact(label, words.join(", "));
            }
        }
        if !self.mean.is_empty() {
            lines.fact(
                "pixels",
                format!(
                    "mean {}, std {}, {}",
                    numbers(&self.mean),
                    numbers(&self.std),
                    match self.values {
                        PixelKind::U8 => "of 0 to 1",
                        PixelKind::F32 => "in units of the files; 16-bit images are 0 to 1",
                    }
                ),
            );
        }
        if self.missing.iter().any(|&share| share > 0.0) {
            let percent: Vec<f64> = self.missing.iter().map(|share| 100.0 * share).collect();
            lines.fact(
                "missing",
                format!(
                    "{} % of the values; a model sees the mean there, and no loss",
                    numbers(&percent)
                ),
            );
        }
        lines.fact(
            "broken",
            match self.broken.len() {
                0 => "none".into(),
                broken => format!("{broken} of {}", self.looked_at),
            },
        );
        // One reason for all is said once.
        let is_alike = (self.broken.len() == self.looked_at)
            && (self.broken.iter()).all(|broken| broken.reason == self.broken[0].reason);
        let named = if is_alike { 1 } else { NAMED };
        lines.items(&self.broken, named, |broken| {
            format!("{}: {}", broken.name, broken.reason)
        });
        self.describe_groups(&mut lines);
        for line in LeftOut::lines(&self.left_out) {
            lines.fact("beside", line);
        }
        for warning in &self.warnings {
            lines.fact("note", warning);
        }
        lines.into_text()
    }

    fn describe_groups(&self, lines: &mut Lines) {
        if !self.misnamed.is_empty() {
            lines.fact("misnamed", count(self.misnamed.len(), "image"));
            lines.items(&self.misnamed, 5, |(name, format)| {
                format!("{name}: {format}")
            });
        }
        if !self.duplicates.is_empty() {
            lines.fact("equal", count(self.duplicates.len(), "group"));
            lines.items(&self.duplicates, 5, |group| match &group[..] {
                [first, second] => format!("{first} = {second}"),
                [first, second, more @ ..] => {
                    format!("{first} = {second} and {} more", more.len())
                }
                _ => unreachable!("equal images are at least two"),
            });
        }
        if !self.classes.is_empty() {
            lines.fact(
                "classes",
                format!("{}, with images each:", self.classes.len()),
            );
            let width = (self.classes.iter())
                .map(|class| class.name.chars().count())
                .max()
                .unwrap_or(0);
            lines.items(&self.classes, 50, |class| {
                format!("{:width$}  {}", class.name, class.images)
            });
        }
    }
}

impl Sizes {
    /// None of no images.
    fn of(sizes: &BTreeMap<(usize, usize), usize>) -> Option<Self> {
        let mut by_area: Vec<([usize; 2], usize)> = (sizes.iter())
            .map(|(&(height, width), &images)| ([height, width], images))
            .collect();
        by_area.sort_by_key(|([height, width], _)| height * width);
        let images: usize = sizes.values().sum();
        let mut before = 0;
        let median = by_area.iter().find(|(_, images_of_size)| {
            before += images_of_size;
            2 * before >= images
        })?;
        Some(Self {
            smallest: by_area.first()?.0,
            median: median.0,
            largest: by_area.last()?.0,
            distinct: by_area.len(),
        })
    }
}

/// The channels of the first image, if it is an array or of bands, which cannot be read with others.
fn own_channels(path: &Path) -> Option<usize> {
    if PackedDataset::is_packed(path).unwrap_or(false) {
        let own = PackedDataset::own_channels(path).ok();
        return own.filter(|&own| !matches!(own, 1 | COLOURS));
    }
    match open_path_or_image(path, Split::Train, COLOURS, Nodata::Auto)
        .ok()?
        .content(0)
        .ok()?
    {
        Content::Encoded(content) => Image::bands(&content),
        Content::Pixels(_) => None,
    }
}

fn classes(dataset: &dyn Dataset) -> Vec<Class> {
    let mut classes: Vec<Class> = (dataset.classes().iter())
        .map(|name| Class {
            name: name.clone(),
            images: 0,
        })
        .collect();
    for index in 0..dataset.len() {
        let label = dataset.label(index).map(|label| label as usize);
        if let Some(class) = label.and_then(|label| classes.get_mut(label)) {
            class.images += 1;
        }
    }
    classes
}

fn source(path: &Path) -> &'static str {
    match DataSource::of(path) {
        DataSource::Tar => "tar files",
        DataSource::Packed if PackedDataset::is_packed(path).unwrap_or(false) => "a packed file",
        DataSource::Packed => ONE_FILE,
        DataSource::Cifar10 => "CIFAR-10's binary files of training",
        DataSource::Cifar100 => "CIFAR-100's binary files of training",
        DataSource::Folder | DataSource::Synthetic => "a folder",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_ordered_by_area() {
        let sizes = [((10, 10), 1), ((1, 40), 2), ((200, 1), 3)].into();
        let found = Sizes::of(&sizes).unwrap();
        // Of six images, the third.
        assert_eq!(
            [found.smallest, found.median, found.largest],
            [[1, 40], [10, 10], [200, 1]]
        );
        assert_eq!(found.distinct, 3);
        assert_eq!(Sizes::of(&BTreeMap::new()), None);
    }

    /// Scenes beside which other files lie.
    struct Beside(mae_data::SyntheticDataset, Vec<LeftOut>);

    impl Dataset for Beside {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn channels(&self) -> usize {
            self.0.channels()
        }

        fn image(&self, index: usize) -> Result<Image, mae_data::DataError> {
            self.0.image(index)
        }

        fn name(&self, index: usize) -> String {
            self.0.name(index)
        }

        fn left_out(&self) -> &[LeftOut] {
            &self.1
        }
    }

    #[test]
    fn what_lies_beside_the_images_is_told_in_words_and_in_json() {
        let kind = |number: usize| LeftOut {
            count: number,
            what: format!(".{number} files"),
            example: format!("a.{number}"),
            reason: "not read".into(),
        };
        let scenes = mae_data::SyntheticDataset::new(3, 8, 8, 3, 0).unwrap();
        let beside = Beside(scenes, (1..=10).map(kind).collect());
        let found = survey(&beside, None, 0, || {}).unwrap();
        let images = Images::of("scenes".as_ref(), &beside, &found);
        let text = images.text();
        for line in [
            "beside        left out 1 .1 file, a.1: not read\n",
            "beside        left out 8 .8 files, the first a.8: not read\n",
            "beside        and 2 more kinds, 19 in all\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        let json = serde_json::to_value(&images).unwrap();
        assert_eq!(json["left_out"].as_array().unwrap().len(), 10);
        assert_eq!(json["left_out"][1]["what"], ".2 files");
    }
}

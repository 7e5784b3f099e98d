//! What images there are: sizes, formats, statistics, broken and equal ones.

mod stored;
mod suspect;

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use self::stored::stored;
use self::suspect::Ends;
pub use self::suspect::Suspect;
use crate::dataset::{Content, Dataset};
use crate::error::DataError;
use crate::image::Image;
use crate::pixels::Pixels;
use crate::stats::sample_indices;

/// What [`survey`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// Images that were looked at.
    pub looked_at: usize,
    /// Those of them that cannot be read, by index, and why.
    pub broken: Vec<(usize, String)>,
    /// How many whole images there are of each height and width, in pixels.
    pub sizes: BTreeMap<(usize, usize), usize>,
    /// How many whole images are stored as what: channels and bits of a value.
    pub stored: BTreeMap<String, usize>,
    /// The different numbers of channels that whole images are stored with.
    pub channels: Vec<usize>,
    /// How many images have which ending of their names, in lower case without the dot; empty for none.
    pub extensions: BTreeMap<String, usize>,
    /// Whole images whose content is of another format than their name says, by index, and of which.
    pub misnamed: Vec<(usize, &'static str)>,
    /// Mean of each channel as a data set gives it, of 0 to 1, or for numbers in their own units; every whole image
    /// counts the same.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel, likewise.
    pub std: Vec<f64>,
    /// Share of each channel's values that are missing: see [`Nodata`](crate::Nodata).
    pub missing: Vec<f64>,
    /// A value of numbers that lies far from all others, so that it may stand for nothing measured.
    pub suspect: Option<Suspect>,
    /// Images with the same content as others, by index: one group for each content.
    pub duplicates: Vec<Vec<usize>>,
}

/// Decodes every image of `dataset`, or `sample` random ones, in parallel; calls `on_image` after each.
///
/// The result is the same for any number of threads.
///
/// # Errors
/// [`DataError::Config`] if `sample` is 0 or the data set is empty. Images that cannot be read are no error.
pub fn survey(
    dataset: &dyn Dataset,
    sample: Option<usize>,
    seed: u64,
    on_image: impl Fn() + Sync,
) -> Result<Survey, DataError> {
    let mut indices = sample_indices(dataset.len(), sample.unwrap_or(usize::MAX), seed)?;
    indices.sort_unstable();
    let looks: Vec<Result<Look, DataError>> = indices
        .par_iter()
        // An image takes far longer than handing it over, and sizes differ widely.
        .with_max_len(1)
        .map(|&index| {
            let look = Look::at(dataset, index);
            on_image();
            look
        })
        .collect();
    Ok(summary(dataset, &indices, looks))
}

/// What one image is.
struct Look {
    size: (usize, usize),
    stored: String,
    channels: usize,
    /// By content; `None` for pixels without a file of their own.
    format: Option<&'static str>,
    moments: Vec<ChannelMoments>,
    digest: [u8; 32],
}

impl Look {
    fn at(dataset: &dyn Dataset, index: usize) -> Result<Look, DataError> {
        let content = dataset.content(index)?;
        let (image, stored, digest) = match &content {
            Content::Pixels(image) => {
                let mut digest = Sha256::new();
                digest.update(image.height().to_le_bytes());
                match image.pixels() {
                    Pixels::U8(values) => digest.update(values),
                    Pixels::F32(values) => {
                        values
                            .iter()
                            .for_each(|value| digest.update(value.to_le_bytes()));
                    }
                }
                (image.clone(), None, digest)
            }
            Content::Encoded(bytes) => {
                let name = dataset.name(index);
                let image = Image::decode_with(bytes, dataset.channels(), dataset.nodata(), &name)?;
                let stored = stored(bytes, &image);
                let image = image.into_kind(dataset.kind(), &name)?;
                (image, stored, Sha256::new_with_prefix(bytes))
            }
        };
        let channels = stored
            .as_ref()
            .map_or(image.channels(), |stored| stored.channels);
        Ok(Look {
            size: (image.height(), image.width()),
            moments: moments(&image),
            channels,
            format: stored.as_ref().map(|stored| stored.format),
            stored: match stored {
                Some(stored) => stored.name,
                None => stored::of_values(&image),
            },
            digest: digest.finalize().into(),
        })
    }
}

/// Of one channel of an image.
#[derive(Clone, Copy, Default)]
struct ChannelMoments {
    /// Share of the values that are not missing.
    known: f64,
    /// Mean of these, of bytes as 0 to 1.
    mean: f64,
    /// Mean of their squares.
    square: f64,
    /// Their lowest and highest, of numbers.
    ends: Ends,
}

fn moments(image: &Image) -> Vec<ChannelMoments> {
    let channels = image.channels();
    let pixels = (image.height() * image.width()) as f64;
    match image.pixels() {
        Pixels::U8(values) => {
            let mut sums = vec![[0u64; 2]; channels];
            for pixel in values.chunks_exact(channels) {
                for (sums, &value) in sums.iter_mut().zip(pixel) {
                    sums[0] += u64::from(value);
                    sums[1] += u64::from(value) * u64::from(value);
                }
            }
            sums.iter()
                .map(|&[values, squares]| ChannelMoments {
                    known: 1.0,
                    mean: values as f64 / pixels / 255.0,
                    square: squares as f64 / pixels / (255.0 * 255.0),
                    ends: Ends::default(),
                })
                .collect()
        }
        Pixels::F32(values) => {
            let mut sums = vec![ChannelMoments::default(); channels];
            for pixel in values.chunks_exact(channels) {
                for (sums, &value) in sums.iter_mut().zip(pixel) {
                    if !value.is_nan() {
                        sums.known += 1.0;
                        sums.mean += f64::from(value);
                        sums.square += f64::from(value) * f64::from(value);
                        sums.ends.add(value);
                    }
                }
            }
            for sums in &mut sums {
                sums.mean /= sums.known.max(1.0);
                sums.square /= sums.known.max(1.0);
                sums.known /= pixels;
            }
            sums
        }
    }
}

fn summary(
    dataset: &dyn Dataset,
    indices: &[usize],
    looks: Vec<Result<Look, DataError>>,
) -> Survey {
    let mut found = Survey {
        looked_at: indices.len(),
        ..Survey::default()
    };
    let mut by_channel: Vec<Vec<ChannelMoments>> = Vec::new();
    let mut by_digest: BTreeMap<[u8; 32], Vec<usize>> = BTreeMap::new();
    for (&index, look) in indices.iter().zip(looks) {
        let extension = extension(&dataset.name(index));
        *found.extensions.entry(extension.clone()).or_default() += 1;
        let look = match look {
            Ok(look) => look,
            Err(error) => {
                found.broken.push((index, reason(error)));
                continue;
            }
        };
        *found.sizes.entry(look.size).or_default() += 1;
        *found.stored.entry(look.stored).or_default() += 1;
        found.channels.push(look.channels);
        if let Some(format) = look.format
            && !stored::is_extension_of(&extension, format)
        {
            found.misnamed.push((index, format));
        }
        by_channel.resize_with(look.moments.len().max(by_channel.len()), Vec::new);
        for (channel, moments) in by_channel.iter_mut().zip(look.moments) {
            channel.push(moments);
        }
        by_digest.entry(look.digest).or_default().push(index);
    }
    found.channels.sort_unstable();
    found.channels.dedup();
    for images in &by_channel {
        let total = |of: &dyn Fn(&ChannelMoments) -> f64| images.iter().map(of).sum::<f64>();
        // An image without a value has no mean.
        let with_values = total(&|image| f64::from(u8::from(image.known > 0.0))).max(1.0);
        let mean = total(&|image| image.mean) / with_values;
        let variance = total(&|image| image.square) / with_values - mean * mean;
        found.mean.push(mean);
        found.std.push(variance.max(0.0).sqrt());
        found
            .missing
            .push(1.0 - total(&|image| image.known) / images.len() as f64);
    }
    found.suspect = by_channel.iter().enumerate().find_map(|(channel, images)| {
        let ends = images.iter().map(|image| image.ends);
        ends.reduce(Ends::merge)?.suspect(channel)
    });
    found.duplicates = by_digest
        .into_values()
        .filter(|images| images.len() > 1)
        .collect();
    found.duplicates.sort_unstable();
    found
}

/// Of a name, or in an archive of what comes after the colon.
fn extension(name: &str) -> String {
    let extension = Path::new(name).extension().unwrap_or_default();
    let extension = extension.to_string_lossy().to_lowercase();
    // `data_batch_1.bin:17` is the 17th record of a file.
    match extension.contains(':') {
        true => String::new(),
        false => extension,
    }
}

/// Why an image is broken, without its name.
fn reason(error: DataError) -> String {
    match error {
        DataError::Image { reason, .. } => reason,
        DataError::Io { source, .. } => source.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};

    use super::*;
    use crate::dataset::{FolderDataset, SyntheticDataset};
    use crate::pixels::PixelKind;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let colour = RgbImage::from_pixel(4, 2, Rgb([0, 51, 255]));
        colour.save(path("a.png")).unwrap();
        std::fs::copy(path("a.png"), path("copy.PNG")).unwrap();
        let grey = GrayImage::from_fn(2, 6, |x, _| Luma([[0, 102][x as usize]]));
        grey.save(path("b.png")).unwrap();
        let deep = DynamicImage::from(colour.clone()).into_rgba16();
        deep.save(path("c.png")).unwrap();
        colour
            .save_with_format(path("d.jpg"), ImageFormat::Bmp)
            .unwrap();
        std::fs::write(path("e.jpg"), "no image").unwrap();
        folder
    }

    #[test]
    fn a_folder_is_described() {
        let folder = folder();
        let dataset = FolderDataset::open(folder.path(), 3).unwrap();
        let calls = AtomicUsize::new(0);
        let found = survey(&dataset, None, 0, || {
            calls.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!((found.looked_at, calls.into_inner()), (6, 6));
        let [(index, reason)] = &found.broken[..] else {
            panic!("{:?}", found.broken)
        };
        assert!(dataset.name(*index).ends_with("e.jpg"));
        assert!(reason.starts_with("the content is no image"), "{reason}");
        assert_eq!(found.sizes, [((2, 4), 4), ((6, 2), 1)].into());
        let stored: Vec<(&str, usize)> = (found.stored.iter())
            .map(|(name, &count)| (name.as_str(), count))
            .collect();
        let expected = [
            ("RGB of 8 bits", 3),
            ("RGBA of 16 bits", 1),
            ("grey of 8 bits", 1),
        ];
        assert_eq!(stored, expected);
        assert_eq!(found.channels, [1, 3, 4]);
        let extensions = [("jpg".into(), 2), ("png".into(), 4)];
        assert_eq!(found.extensions, extensions.into());
        let [(index, "bmp")] = found.misnamed[..] else {
            panic!("{:?}", found.misnamed)
        };
        assert!(dataset.name(index).ends_with("d.jpg"));
        // `a`, `copy`: in the order of names.
        assert_eq!(found.duplicates, [vec![0, 3]]);
        // Four images of 0, 0.2, 1 and one that is half 0 and half 0.4.
        let mean = [0.04, 0.2, 0.84];
        let square = [0.08 / 5.0, (4.0 * 0.04 + 0.08) / 5.0, (4.0 + 0.08) / 5.0];
        // One is of 16 bits, so that all are read as numbers, of 32 bits.
        for channel in 0..3 {
            assert!((found.mean[channel] - mean[channel]).abs() < 1e-6);
            let std = (square[channel] - mean[channel] * mean[channel]).sqrt();
            assert!((found.std[channel] - std).abs() < 1e-6, "{:?}", found.std);
        }
    }

    #[test]
    fn netpbm_has_endings_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.ppm", "b.pnm", "c.png"] {
            std::fs::write(folder.path().join(name), b"P6 1 1 255\n\x01\x02\x03").unwrap();
        }
        let dataset = FolderDataset::open(folder.path(), 3).unwrap();
        let found = survey(&dataset, None, 0, || {}).unwrap();
        assert_eq!(found.misnamed, [(2, "netpbm")]);
    }

    #[test]
    fn arrays_are_told_by_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 5), }\n";
        let values: Vec<u8> = (0..10u8)
            .flat_map(|value| f32::from(value).to_le_bytes())
            .collect();
        let mut content = b"\x93NUMPY\x01\x00".to_vec();
        content.extend((header.len() as u16).to_le_bytes());
        content.extend(header.bytes());
        content.extend(values);
        std::fs::write(folder.path().join("a.npy"), &content).unwrap();
        std::fs::write(folder.path().join("b.npy"), &content[..content.len() - 1]).unwrap();
        let dataset = FolderDataset::open(folder.path(), 5).unwrap();
        let found = survey(&dataset, None, 0, || {}).unwrap();
        assert_eq!(
            found.stored,
            [("5 channels of 32-bit floats".into(), 1)].into()
        );
        assert_eq!((found.channels, found.misnamed), (vec![5], vec![]));
        assert_eq!(found.mean, [2.5, 3.5, 4.5, 5.5, 6.5]);
        assert!(found.std.iter().all(|std| (std - 2.5).abs() < 1e-9));
        assert_eq!(found.broken.len(), 1);

        let colours = FolderDataset::open(folder.path(), 3).unwrap();
        let found = survey(&colours, None, 0, || {}).unwrap();
        let (_, reason) = &found.broken[0];
        assert!(reason.contains("set model.channels="), "{reason}");
    }

    /// Half of the first image is missing in one channel, and all of the second.
    #[test]
    fn what_is_missing_is_counted_and_not_measured() {
        struct Gaps;
        impl Dataset for Gaps {
            fn len(&self) -> usize {
                2
            }
            fn channels(&self) -> usize {
                2
            }
            fn kind(&self) -> PixelKind {
                PixelKind::F32
            }
            fn image(&self, index: usize) -> Result<Image, DataError> {
                let nan = f32::NAN;
                Image::new(
                    1,
                    2,
                    2,
                    match index {
                        0 => vec![3.0, 7.0, 5.0, nan],
                        _ => vec![8.0, nan, 8.0, nan],
                    },
                )
            }
            fn name(&self, index: usize) -> String {
                index.to_string()
            }
        }
        let found = survey(&Gaps, None, 0, || {}).unwrap();
        assert_eq!(
            (found.mean, found.missing),
            (vec![6.0, 7.0], vec![0.0, 0.75])
        );
        assert_eq!(found.std, [4.5_f64.sqrt(), 0.0]);
    }

    #[test]
    fn a_sample_is_chosen_by_the_seed() {
        let scenes = SyntheticDataset::new(40, 8, 8, 1, 0).unwrap();
        let look = |seed| survey(&scenes, Some(10), seed, || {}).unwrap();
        assert_eq!(look(1), look(1));
        assert_ne!(look(1).mean, look(2).mean);
        let found = look(1);
        assert_eq!(found.looked_at, 10);
        assert_eq!(found.stored, [("grey of 8 bits".into(), 10)].into());
        assert_eq!(found.extensions, [(String::new(), 10)].into());
        assert!(survey(&scenes, Some(0), 0, || {}).is_err());
    }
}

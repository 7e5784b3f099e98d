//! What tells the images of a data set from others without their being decoded.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::dataset::{Content, Dataset};
use crate::pixels::Pixels;

/// What tells one image from others: see [`Dataset::fingerprint`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Its name below the place of its data set: the same wherever that is moved to.
    pub name: String,
    /// Its class.
    pub label: Option<u32>,
    /// Bytes that it is stored in; none if it is not stored.
    pub bytes: Option<u64>,
    /// CRC-32C of its content, where it is known without much reading.
    pub crc32c: Option<u32>,
}

/// As much is read of images whose checksums nobody has noted; more takes too long over a network.
const READ_BYTES: u64 = 256 << 20;
/// So many of them are read, at most.
const READ_IMAGES: usize = 1 << 14;

/// The fingerprints of all images, in order; where the data set knows no checksums, those of images that are spread
/// over it, or of all if they are small.
pub fn fingerprints(dataset: &dyn Dataset) -> Vec<Fingerprint> {
    let mut fingerprints = without_reading(dataset);
    let unread: Vec<usize> = (0..fingerprints.len())
        .filter(|&index| {
            fingerprints[index].bytes.is_some() && fingerprints[index].crc32c.is_none()
        })
        .collect();
    let bytes: u64 = unread.iter().filter_map(|&i| fingerprints[i].bytes).sum();
    let share = (READ_BYTES as f64 / bytes.max(1) as f64).min(1.0);
    let read = ((unread.len() as f64 * share) as usize).min(READ_IMAGES);
    let checksums: Vec<(usize, Option<u32>)> = (0..read)
        .into_par_iter()
        .map(|place| unread[place * unread.len() / read])
        .map(|index| (index, read_checksum(dataset, index)))
        .collect();
    for (index, checksum) in checksums {
        fingerprints[index].crc32c = checksum;
    }
    fingerprints
}

fn without_reading(dataset: &dyn Dataset) -> Vec<Fingerprint> {
    (0..dataset.len())
        .into_par_iter()
        .map(|index| dataset.fingerprint(index))
        .collect()
}

/// None of an image that cannot be read.
fn read_checksum(dataset: &dyn Dataset, index: usize) -> Option<u32> {
    Some(match dataset.content(index).ok()? {
        Content::Encoded(bytes) => crc32c::crc32c(&bytes),
        Content::Pixels(image) => match image.pixels() {
            Pixels::U8(values) => crc32c::crc32c(values),
            Pixels::F32(values) => crc32c::crc32c(bytemuck::cast_slice(values)),
        },
    })
}

/// How the images of a data set differ from what they were; in words, by `Display`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Images that are there no more.
    pub removed: Vec<String>,
    /// Images that were not there.
    pub added: Vec<String>,
    /// Images with another name, before and now: of the same size, and the same content where it is known.
    pub renamed: Vec<(String, String)>,
    /// Images of another size or content under the same name.
    pub replaced: Vec<String>,
    /// Images with another label.
    pub relabelled: Vec<String>,
    /// The first image that comes after one that it came before.
    pub out_of_order: Option<String>,
}

impl Differences {
    /// Of the images of `dataset` from those whose fingerprints were taken `before`; `None` if they are the same, in
    /// the same order.
    ///
    /// Content is compared where a checksum was taken before.
    pub fn find(before: &[Fingerprint], dataset: &dyn Dataset) -> Option<Self> {
        let now = without_reading(dataset);
        let is_listed_alike = before.len() == now.len()
            && (before.iter().zip(&now)).all(|(before, now)| {
                (&before.name, before.label, before.bytes) == (&now.name, now.label, now.bytes)
            });
        // Names that occur twice are told apart by the order.
        let places = numbered(before);
        let (mut differences, mut kept) = (Self::default(), Vec::new());
        if is_listed_alike {
            kept = (0..now.len()).map(|place| (place, place)).collect();
        } else {
            let mut removed: BTreeMap<(&str, usize), usize> = places.into_iter().collect();
            let mut added = Vec::new();
            for (key, place) in numbered(&now) {
                match removed.remove(&key) {
                    Some(was) => kept.push((was, place)),
                    None => added.push(place),
                }
            }
            let mut removed: Vec<usize> = removed.into_values().collect();
            removed.sort_unstable();
            differences.note_moved(before, &removed, &now, &added, dataset);
        }
        let is_replaced = |&(was, is): &(usize, usize)| {
            let (before, now) = (&before[was], &now[is]);
            before.bytes != now.bytes
                || (before.crc32c.is_some())
                    && now.crc32c.or_else(|| read_checksum(dataset, is)) != before.crc32c
        };
        let name = |&(_, is): &(usize, usize)| now[is].name.clone();
        differences.replaced = (kept.par_iter())
            .filter(|pair| is_replaced(pair))
            .map(name)
            .collect();
        differences.relabelled = (kept.iter())
            .filter(|&&(was, is)| before[was].label != now[is].label)
            .map(name)
            .collect();
        let turn = kept.windows(2).find(|pair| pair[1].0 < pair[0].0);
        differences.out_of_order = turn.map(|pair| name(&pair[1]));
        (differences != Self::default()).then_some(differences)
    }

    /// Tells images with another name from those that are gone or new.
    fn note_moved(
        &mut self,
        before: &[Fingerprint],
        removed: &[usize],
        now: &[Fingerprint],
        added: &[usize],
        dataset: &dyn Dataset,
    ) {
        let mut gone: HashMap<(Option<u64>, Option<u32>), VecDeque<usize>> = HashMap::new();
        for &was in removed {
            let Fingerprint { bytes, crc32c, .. } = before[was];
            gone.entry((bytes, crc32c)).or_default().push_back(was);
        }
        // For words alone no more is read.
        let mut reads = 1024;
        let mut is_found = vec![false; before.len()];
        for &is in added {
            let bytes = now[is].bytes;
            let checksum = now[is].crc32c.or_else(|| {
                let may_be = reads > 0 && gone.keys().any(|(size, _)| *size == bytes);
                reads -= usize::from(may_be);
                may_be.then(|| read_checksum(dataset, is)).flatten()
            });
            let was = [checksum, None].into_iter().find_map(|checksum| {
                let places = gone.get_mut(&(Some(bytes?), checksum))?;
                places.pop_front()
            });
            match was {
                Some(was) => {
                    is_found[was] = true;
                    let names = (before[was].name.clone(), now[is].name.clone());
                    self.renamed.push(names);
                }
                None => self.added.push(now[is].name.clone()),
            }
        }
        let lost = removed.iter().filter(|&&was| !is_found[was]);
        self.removed = lost.map(|&was| before[was].name.clone()).collect();
    }
}

/// Each name with how many of the same came before, and where it is.
fn numbered(images: &[Fingerprint]) -> Vec<((&str, usize), usize)> {
    let mut counts: HashMap<&str, usize> = HashMap::with_capacity(images.len());
    (images.iter().enumerate())
        .map(|(place, image)| {
            let count = counts.entry(&image.name).or_default();
            *count += 1;
            ((image.name.as_str(), *count), place)
        })
        .collect()
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let renamed: Vec<String> = (self.renamed.iter())
            .map(|(before, now)| format!("{before} to {now}"))
            .collect();
        let mut parts: Vec<String> = [
            ("removed", &self.removed),
            ("added", &self.added),
            ("renamed", &renamed),
            ("replaced", &self.replaced),
            ("labelled otherwise", &self.relabelled),
        ]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| {
            let more = if names.len() > SHOWN { ", ..." } else { "" };
            let shown = &names[..names.len().min(SHOWN)];
            format!("{} {what} ({}{more})", names.len(), shown.join(", "))
        })
        .collect();
        if let Some(name) = &self.out_of_order {
            parts.push(format!("in another order from {name} on"));
        }
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DataError;
    use crate::image::Image;

    /// Images of one row that hold their content.
    struct Rows(Vec<(&'static str, &'static [u8])>);

    impl Dataset for Rows {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn channels(&self) -> usize {
            1
        }

        fn image(&self, index: usize) -> Result<Image, DataError> {
            let pixels = self.0[index].1;
            Image::new(1, pixels.len(), 1, pixels.to_vec())
        }

        fn name(&self, index: usize) -> String {
            format!("root/{}", self.0[index].0)
        }

        fn fingerprint(&self, index: usize) -> Fingerprint {
            Fingerprint {
                name: self.0[index].0.to_owned(),
                bytes: Some(self.0[index].1.len() as u64),
                ..Fingerprint::default()
            }
        }
    }

    fn differences(
        before: &[(&'static str, &'static [u8])],
        now: &[(&'static str, &'static [u8])],
    ) -> String {
        let before = fingerprints(&Rows(before.to_vec()));
        let found = Differences::find(&before, &Rows(now.to_vec()));
        found.map(|found| found.to_string()).unwrap_or_default()
    }

    const A: (&str, &[u8]) = ("a", &[1]);
    const B: (&str, &[u8]) = ("b", &[2, 2]);
    const C: (&str, &[u8]) = ("c", &[3, 3, 3]);

    #[test]
    fn every_change_is_told_by_its_kind() {
        let before = [A, B, C];
        assert_eq!(differences(&before, &[A, B, C]), "");
        assert_eq!(differences(&before, &[A, C]), "1 removed (b)");
        assert_eq!(
            differences(&before, &[A, ("aa", &[9; 7]), B, C]),
            "1 added (aa)"
        );
        assert_eq!(
            differences(&before, &[A, ("bb", &[2, 2]), C]),
            "1 renamed (b to bb)"
        );
        assert_eq!(
            differences(&before, &[B, C, ("z", &[1])]),
            "1 renamed (a to z)"
        );
        assert_eq!(differences(&before, &[A, ("b", &[2]), C]), "1 replaced (b)");
        // Of the same size, but of other content.
        assert_eq!(
            differences(&before, &[A, ("b", &[2, 9]), C]),
            "1 replaced (b)"
        );
        assert_eq!(
            differences(&before, &[A, ("bb", &[2, 9]), C]),
            "1 removed (b), 1 added (bb)"
        );
        assert_eq!(
            differences(&before, &[A, C, B]),
            "in another order from b on"
        );
        assert_eq!(
            differences(&before, &[("e", &[]), ("f", &[]), ("g", &[]), ("h", &[])]),
            "3 removed (a, b, c), 4 added (e, f, g, ...)"
        );
    }

    #[test]
    fn two_of_one_name_are_two() {
        assert_eq!(differences(&[A, A, B], &[A, A, B]), "");
        assert_eq!(differences(&[A, A, B], &[A, B]), "1 removed (a)");
        assert_eq!(differences(&[A, B], &[A, A, B]), "1 added (a)");
    }
}

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;

use super::{Content, Dataset, LeftOut, check_index};
use crate::dataset::Fingerprint;
use crate::error::DataError;
use crate::image::{Image, Nodata};
use crate::pixels::PixelKind;
use crate::rng::{Rng, SampleKey, Stream};

/// Some images of another data set, with the same classes unless [`label_by_name`](crate::label_by_name) gave them
/// others.
pub struct Subset {
    inner: Arc<dyn Dataset>,
    indices: Vec<usize>,
    relabelled: Option<Relabelled>,
}

/// Classes in place of the other data set's, and the label for each of its labels.
struct Relabelled {
    classes: Vec<String>,
    labels: Vec<Option<u32>>,
}

impl Subset {
    /// The images of `inner` that `indices` lists, in that order.
    ///
    /// # Errors
    /// [`DataError::Index`] if an index is past the end of `inner`.
    pub fn new(inner: Arc<dyn Dataset>, indices: Vec<usize>) -> Result<Subset, DataError> {
        for &index in &indices {
            check_index(index, inner.len())?;
        }
        Ok(Subset {
            inner,
            indices,
            relabelled: None,
        })
    }

    /// All images of `inner`, labelled by other `classes`: `labels` has the new label for each of its own.
    pub(super) fn relabelled(
        inner: Arc<dyn Dataset>,
        classes: Vec<String>,
        labels: Vec<Option<u32>>,
    ) -> Subset {
        Subset {
            indices: (0..inner.len()).collect(),
            inner,
            relabelled: Some(Relabelled { classes, labels }),
        }
    }

    /// Where each image is in the other data set.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn channels(&self) -> usize {
        self.inner.channels()
    }

    fn kind(&self) -> PixelKind {
        self.inner.kind()
    }

    fn nodata(&self) -> Nodata {
        self.inner.nodata()
    }

    fn left_out(&self) -> &[LeftOut] {
        self.inner.left_out()
    }

    fn notes(&self) -> Vec<&str> {
        self.inner.notes()
    }

    fn label_note(&self) -> Option<&str> {
        self.inner.label_note()
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        check_index(index, self.len())?;
        self.inner.image(self.indices[index])
    }

    fn content(&self, index: usize) -> Result<Content<'_>, DataError> {
        check_index(index, self.len())?;
        self.inner.content(self.indices[index])
    }

    fn label(&self, index: usize) -> Option<u32> {
        let label = self.inner.label(*self.indices.get(index)?)?;
        match &self.relabelled {
            Some(relabelled) => *relabelled.labels.get(label as usize)?,
            None => Some(label),
        }
    }

    fn classes(&self) -> &[String] {
        match &self.relabelled {
            Some(relabelled) => &relabelled.classes,
            None => self.inner.classes(),
        }
    }

    /// Of all images of the other data set, which says best what is wrong with them.
    fn check_labels(&self) -> Result<(), DataError> {
        self.inner.check_labels()
    }

    fn name(&self, index: usize) -> String {
        match self.indices.get(index) {
            Some(&index) => self.inner.name(index),
            None => format!("image {index} of a subset of {}", self.len()),
        }
    }

    fn fingerprint(&self, index: usize) -> Fingerprint {
        match self.indices.get(index) {
            Some(&index) => self.inner.fingerprint(index),
            None => Fingerprint::default(),
        }
    }

    fn identify(&self, hasher: &mut dyn Hasher) {
        self.inner.identify(hasher);
        for &index in &self.indices {
            hasher.write(&(index as u64).to_le_bytes());
        }
        // What is kept of images is kept with their labels.
        for label in self.relabelled.iter().flat_map(|new| &new.labels) {
            hasher.write(&label.map_or(u64::MAX, u64::from).to_le_bytes());
        }
    }
}

/// Splits a data set into training and validation images: a part of each class is held out.
///
/// Of every class, `val_share` of the images, rounded, becomes validation images, chosen at
/// random, but of two images or more at least one goes to either side; the only image of a class
/// is trained on.
/// Images without a class count as one more class.
/// The same data set, share and seed give the same split; both parts keep the order of the data
/// set.
///
/// ```
/// use std::sync::Arc;
///
/// use mae_data::{Dataset, SyntheticDataset, hold_out};
///
/// let scenes = Arc::new(SyntheticDataset::new(1000, 32, 32, 3, 0)?);
/// let (train, val) = hold_out(scenes, 0.1, 0)?;
/// assert_eq!((train.len(), val.len()), (900, 100));
/// # Ok::<(), mae_data::DataError>(())
/// ```
///
/// # Errors
/// [`DataError::Config`] if `val_share` is not between 0 and 1, or if nothing can be held out
/// because no class has two images.
pub fn hold_out(
    dataset: Arc<dyn Dataset>,
    val_share: f64,
    seed: u64,
) -> Result<(Subset, Subset), DataError> {
    if !(val_share > 0.0 && val_share < 1.0) {
        return Err(DataError::Config {
            key: "val_share",
            expected: "a number between 0 and 1".to_owned(),
            found: val_share.to_string(),
            remedy: "0.1 holds out one image in ten".to_owned(),
        });
    }
    let mut classes: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
    for index in 0..dataset.len() {
        classes.entry(dataset.label(index)).or_default().push(index);
    }
    let (mut train, mut val) = (Vec::new(), Vec::new());
    for (label, mut indices) in classes {
        let key = SampleKey {
            seed,
            epoch: 0,
            index: label.map_or(u64::MAX, u64::from),
        };
        Rng::new(key, Stream::HoldOut).shuffle(&mut indices);
        let held_out = match indices.len() {
            1 => 0,
            len => ((len as f64 * val_share).round() as usize).clamp(1, len - 1),
        };
        train.extend(indices.split_off(held_out));
        val.extend(indices);
    }
    if val.is_empty() {
        return Err(DataError::Config {
            key: "val_share",
            expected: "a class of at least 2 images".to_owned(),
            found: format!("{} images, no two of a class", dataset.len()),
            remedy: "add images, or give the validation images yourself".to_owned(),
        });
    }
    train.sort_unstable();
    val.sort_unstable();
    Ok((
        Subset::new(Arc::clone(&dataset), train)?,
        Subset::new(dataset, val)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::SyntheticDataset;

    fn scenes(len: usize) -> Arc<SyntheticDataset> {
        Arc::new(SyntheticDataset::new(len, 8, 8, 3, 0).unwrap())
    }

    #[test]
    fn a_subset_is_a_view() {
        let scenes = scenes(20);
        let subset = Subset::new(scenes.clone(), vec![13, 4]).unwrap();
        assert_eq!((subset.len(), subset.channels()), (2, 3));
        assert_eq!(subset.image(0).unwrap(), scenes.image(13).unwrap());
        assert_eq!(subset.label(1), Some(4));
        assert_eq!(subset.classes(), scenes.classes());
        assert_eq!(subset.name(0), "synthetic:13");
        assert_eq!(subset.label(2), None);
        let message = subset.image(2).unwrap_err().to_string();
        assert!(message.contains("below 2"), "{message}");
        assert!(subset.name(2).contains("subset of 2"));
        assert!(Subset::new(scenes, vec![0, 20]).is_err());
    }

    #[test]
    fn every_class_is_held_out_in_proportion() {
        let (train, val) = hold_out(scenes(205), 0.2, 3).unwrap();
        let mut all = [train.indices(), val.indices()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..205).collect::<Vec<_>>());
        for class in 0..10 {
            let count = |part: &Subset| {
                (0..part.len())
                    .filter(|&index| part.label(index) == Some(class))
                    .count()
            };
            // Classes 0 to 4 have 21 images, the others 20.
            assert_eq!(count(&val), 4, "class {class}");
            assert_eq!(count(&train), if class < 5 { 17 } else { 16 });
        }
        assert!(val.indices().is_sorted() && train.indices().is_sorted());
    }

    #[test]
    fn a_split_depends_on_the_seed_only() {
        let val = |seed| hold_out(scenes(200), 0.1, seed).unwrap().1.indices;
        assert_eq!(val(1), val(1));
        assert_ne!(val(1), val(2));
    }

    #[test]
    fn small_classes_are_trained_on_first() {
        let parts = |len, share| {
            let (train, val) = hold_out(scenes(len), share, 0).unwrap();
            (train.len(), val.len())
        };
        // One class of two images, nine of one.
        assert_eq!(parts(11, 0.01), (10, 1));
        assert_eq!(parts(11, 0.99), (10, 1));
        let message = |len, share| hold_out(scenes(len), share, 0).err().unwrap().to_string();
        assert!(message(10, 0.5).contains("no two of a class"));
        for bad in [0.0, 1.0, -0.5, f64::NAN] {
            assert!(message(20, bad).starts_with("val_share"), "{bad}");
        }
    }
}

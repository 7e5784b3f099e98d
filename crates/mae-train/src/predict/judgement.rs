//! How often a classifier is right, where labels say.

use std::collections::HashMap;

use anyhow::Result;
use mae_data::Dataset;
use mae_report::Confusion;
use tch::Tensor;

use crate::eval::score::{Score, Tally};

/// How often a classifier is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Accuracy, and what was taken for what, over the images with labels that the classifier knows.
    pub score: Score,
    /// The images that were judged.
    pub images: u64,
    /// The classes of the data that the classifier does not know; their images are not judged.
    pub unknown: Vec<String>,
}

/// How well one class is told from the others. Shares of nothing are NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassScore {
    /// Its images.
    pub images: u64,
    /// The share of what was taken for it that is of it.
    pub precision: f64,
    /// The share of its images that were taken for it.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
}

impl Judgement {
    /// Of each of as many classes, how well it is told from the others.
    pub fn classes(&self, classes: usize) -> Vec<ClassScore> {
        class_scores(&self.score.confusion, classes)
    }
}

fn class_scores(confusion: &Confusion, classes: usize) -> Vec<ClassScore> {
    let (mut right, mut of, mut taken) = (vec![0; classes], vec![0; classes], vec![0; classes]);
    for (truth, guess, images) in confusion.cells() {
        let images = u64::from(images);
        of[truth as usize] += images;
        taken[guess as usize] += images;
        if truth == guess {
            right[truth as usize] += images;
        }
    }
    let share = |part: u64, whole: u64| part as f64 / whole as f64;
    (0..classes)
        .map(|class| ClassScore {
            images: of[class],
            precision: share(right[class], taken[class]),
            recall: share(right[class], of[class]),
            f1: share(2 * right[class], of[class] + taken[class]),
        })
        .collect()
}

/// Judges predictions as they come.
pub(super) struct Judge {
    /// The classifier's class for each of the data's.
    classes: Vec<Option<i64>>,
    unknown: Vec<String>,
    tally: Tally,
    images: u64,
}

impl Judge {
    /// None where the data has no labels. `names` are the classifier's classes.
    pub(super) fn new(dataset: &dyn Dataset, names: &[String]) -> Option<Self> {
        if dataset.classes().is_empty() {
            return None;
        }
        let numbers: HashMap<&str, i64> = (names.iter().map(String::as_str)).zip(0..).collect();
        let classes: Vec<Option<i64>> = (dataset.classes().iter())
            .map(|name| numbers.get(name.as_str()).copied())
            .collect();
        let mut occurs = vec![false; classes.len()];
        for label in (0..dataset.len()).filter_map(|index| dataset.label(index)) {
            if let Some(occurs) = occurs.get_mut(label as usize) {
                *occurs = true;
            }
        }
        let unknown = (dataset.classes().iter().zip(&classes).zip(occurs))
            .filter(|((_, class), occurs)| class.is_none() && *occurs)
            .map(|((name, _), _)| name.clone())
            .collect();
        Some(Self {
            classes,
            unknown,
            tally: Tally::default(),
            images: 0,
        })
    }

    /// Counts the images `rows`, whose `[rows, classes]` scores these are.
    pub(super) fn add(
        &mut self,
        dataset: &dyn Dataset,
        rows: &[usize],
        scores: &Tensor,
    ) -> Result<()> {
        let (mut places, mut labels) = (Vec::new(), Vec::new());
        for (place, &index) in rows.iter().enumerate() {
            let class = dataset
                .label(index)
                .and_then(|label| *self.classes.get(label as usize)?);
            if let Some(class) = class {
                places.push(place as i64);
                labels.push(class);
            }
        }
        if places.is_empty() {
            return Ok(());
        }
        let judged = scores.f_index_select(0, &Tensor::from_slice(&places))?;
        self.tally.add(&judged, &Tensor::from_slice(&labels));
        self.images += places.len() as u64;
        Ok(())
    }

    /// None where no image could be judged, and all of the data's classes are known.
    pub(super) fn judgement(self) -> Option<Judgement> {
        (self.images > 0 || !self.unknown.is_empty()).then(|| Judgement {
            score: self.tally.score(),
            images: self.images,
            unknown: self.unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_recall_and_f1_are_those_of_the_counts() {
        let mut confusion = Confusion::default();
        for (truth, taken, images) in [(0, 0, 6), (0, 1, 2), (1, 0, 1), (1, 1, 3), (2, 0, 3)] {
            confusion.add(truth, taken, images);
        }
        let scores = class_scores(&confusion, 4);
        // scikit-learn's precision_recall_fscore_support of the same counts.
        let expected = [
            (8, 0.6, 0.75, 2.0 / 3.0),
            (4, 0.6, 0.75, 2.0 / 3.0),
            (3, f64::NAN, 0.0, 0.0),
            (0, f64::NAN, f64::NAN, f64::NAN),
        ];
        for (found, (images, precision, recall, f1)) in scores.iter().zip(expected) {
            assert_eq!(found.images, images);
            for (found, expected) in [
                (found.precision, precision),
                (found.recall, recall),
                (found.f1, f1),
            ] {
                let is_same =
                    found.is_nan() && expected.is_nan() || (found - expected).abs() < 1e-12;
                assert!(is_same, "{found}, expected {expected}");
            }
        }
    }
}

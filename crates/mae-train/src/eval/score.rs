//! How many images are classified correctly.

use anyhow::Result;
use mae_report::Confusion;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::distributed::World;

/// Accuracy on a labelled set, and what was taken for what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Share of the images whose class comes first, 0 to 1.
    pub top1: f64,
    /// Share of the images whose class is among the first five, 0 to 1.
    pub top5: f64,
    /// Images of each class by the class they were taken for.
    pub confusion: Confusion,
}

/// Counts the outcomes of one batch after the other.
#[derive(Debug, Default)]
pub struct Tally {
    images: u64,
    top1: u64,
    top5: u64,
    confusion: Confusion,
}

/// Images whose scores for so many classes take 128 MiB at most, and no more than `most`.
pub(super) fn rows_at_once(most: i64, classes: usize) -> i64 {
    const SCORES: i64 = 1 << 25;
    (SCORES / classes.max(1) as i64).clamp(1, most)
}

impl Tally {
    /// Counts a batch.
    ///
    /// An image whose scores are equal for several classes counts for the one that comes first.
    /// A score that is not a number is above all others, and no hit.
    ///
    /// # Shapes
    /// - `scores`: `[batch, classes]`, higher is likelier
    /// - `labels`: `[batch]`, i64
    pub fn add(&mut self, scores: &Tensor, labels: &Tensor) {
        let device = scores.device();
        let own = labels.to_device(device).unsqueeze(1);
        let score = scores.gather(1, &own, false);
        // Classes before the right one in the ranking; a sort of thousands of classes would take most of the time.
        let is_earlier = Tensor::arange(scores.size()[1], (Kind::Int64, device)).less_tensor(&own);
        let is_before = scores
            .less_equal_tensor(&score)
            .logical_not()
            .logical_or(&scores.eq_tensor(&score).logical_and(&is_earlier));
        let before = is_before.sum_dim_intlist(1, false, Kind::Int64);
        let hits = |places: i64| before.less(places).sum(Kind::Int64).int64_value(&[]) as u64;
        self.images += labels.numel() as u64;
        self.top1 += hits(1);
        self.top5 += hits(5);
        let predicted = scores.argmax(1, false).to_device(Device::Cpu);
        let predicted = Vec::<i64>::try_from(predicted);
        let labels = Vec::<i64>::try_from(labels.to_device(Device::Cpu));
        let (Ok(predicted), Ok(labels)) = (predicted, labels) else {
            unreachable!("both are one-dimensional tensors of i64 on the CPU")
        };
        for (label, predicted) in labels.into_iter().zip(predicted) {
            self.confusion.add(label as u32, predicted as u32, 1);
        }
    }

    /// Adds what the other processes counted.
    ///
    /// # Errors
    /// If one of them is gone.
    pub fn sum(&mut self, world: &World) -> Result<()> {
        [self.images, self.top1, self.top5] = world
            .sums([self.images, self.top1, self.top5].map(|count| count as i64))?
            .map(|count| count as u64);
        let own = self.confusion.cells();
        let own: Vec<i64> = own
            .flat_map(|(truth, taken, images)| [truth, taken, images].map(i64::from))
            .collect();
        self.confusion = Confusion::default();
        for cell in world.concat(&own)?.chunks_exact(3) {
            let [truth, taken, images] = [cell[0], cell[1], cell[2]].map(|number| number as u32);
            self.confusion.add(truth, taken, images);
        }
        Ok(())
    }

    /// The accuracy over all batches.
    pub fn score(self) -> Score {
        let share = |hits: u64| hits as f64 / self.images.max(1) as f64;
        Score {
            top1: share(self.top1),
            top5: share(self.top5),
            confusion: self.confusion,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_and_confusions_are_counted_over_batches() {
        let mut tally = Tally::default();
        // The right class comes first, second, and sixth.
        let scores = Tensor::from_slice(&[
            9f32, 5., 4., 3., 2., 1., //
            9., 8., 4., 3., 2., 1., //
            9., 8., 7., 6., 5., 1.,
        ]);
        let scores = scores.view([3, 6]);
        tally.add(&scores.narrow(0, 0, 2), &Tensor::from_slice(&[0i64, 1]));
        tally.add(&scores.narrow(0, 2, 1), &Tensor::from_slice(&[5i64]));
        let score = tally.score();
        assert_eq!((score.top1, score.top5), (1.0 / 3.0, 2.0 / 3.0));
        let cells: Vec<_> = score.confusion.cells().collect();
        assert_eq!(cells, [(0, 0, 1), (1, 0, 1), (5, 0, 1)]);
    }

    #[test]
    fn equal_scores_count_for_the_first_class_and_no_number_for_none() {
        let count = |scores: &[f32], label: i64| {
            let mut tally = Tally::default();
            let scores = Tensor::from_slice(scores).view([1, -1]);
            tally.add(&scores, &Tensor::from_slice(&[label]));
            (tally.top1, tally.top5)
        };
        let equal = [1f32; 7];
        assert_eq!(count(&equal, 0), (1, 1));
        assert_eq!(count(&equal, 4), (0, 1));
        assert_eq!(count(&equal, 5), (0, 0));
        assert_eq!(count(&[0., 0., 3., 3., 0., 0., 0.], 3), (0, 1));
        assert_eq!(count(&[f32::NAN; 7], 0), (0, 0));
    }

    #[test]
    fn memory_is_bounded_for_any_number_of_classes() {
        assert_eq!(rows_at_once(512, 10), 512);
        assert_eq!(rows_at_once(8192, 1 << 15), 1024);
        assert_eq!(rows_at_once(512, 1 << 30), 1);
    }
}

//! How many images are classified correctly.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::distributed::World;

/// Accuracy on a labelled set, and what was taken for what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Share of the images whose class comes first, 0 to 1.
    pub top1: f64,
    /// Share of the images whose class is among the first five, 0 to 1.
    pub top5: f64,
    /// Images of each class (row) by the class they were taken for (column), `[classes, classes]`.
    pub confusion: Vec<Vec<u32>>,
}

/// Counts the outcomes of one batch after the other.
#[derive(Debug)]
pub struct Tally {
    images: u64,
    top1: u64,
    top5: u64,
    confusion: Vec<Vec<u32>>,
}

impl Tally {
    /// Nothing counted yet, for `classes` classes.
    pub fn new(classes: usize) -> Self {
        Self {
            images: 0,
            top1: 0,
            top5: 0,
            confusion: vec![vec![0; classes]; classes],
        }
    }

    /// Counts a batch.
    ///
    /// An image whose scores are equal for several classes counts for the one that comes first.
    ///
    /// # Shapes
    /// - `scores`: `[batch, classes]`, higher is likelier
    /// - `labels`: `[batch]`, i64
    pub fn add(&mut self, scores: &Tensor, labels: &Tensor) {
        let classes = self.confusion.len() as i64;
        // Stable, so that ties fall the same way everywhere.
        let ranked = scores.argsort_stable(true, -1, true);
        let ranked = ranked
            .narrow(1, 0, classes.min(5))
            .to_device(tch::Device::Cpu);
        let labels = labels.to_device(tch::Device::Cpu);
        let is_hit = ranked.eq_tensor(&labels.unsqueeze(1));
        self.images += labels.numel() as u64;
        self.top1 += is_hit.select(1, 0).sum(Kind::Int64).int64_value(&[]) as u64;
        self.top5 += is_hit.sum(Kind::Int64).int64_value(&[]) as u64;
        let predicted = Vec::<i64>::try_from(ranked.select(1, 0).contiguous());
        let labels = Vec::<i64>::try_from(&labels);
        let (Ok(predicted), Ok(labels)) = (predicted, labels) else {
            unreachable!("both are one-dimensional tensors of i64 on the CPU")
        };
        for (label, predicted) in labels.into_iter().zip(predicted) {
            self.confusion[label as usize][predicted as usize] += 1;
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
        for row in &mut self.confusion {
            let counts: Vec<i64> = row.iter().map(|&count| i64::from(count)).collect();
            let counts = Tensor::from_slice(&counts);
            world.sum(&counts)?;
            let counts = Vec::<i64>::try_from(counts)?;
            *row = counts.into_iter().map(|count| count as u32).collect();
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
        let mut tally = Tally::new(6);
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
        assert_eq!(score.confusion[0], [1, 0, 0, 0, 0, 0]);
        assert_eq!(score.confusion[1], [1, 0, 0, 0, 0, 0]);
        assert_eq!(score.confusion[5], [1, 0, 0, 0, 0, 0]);
    }
}

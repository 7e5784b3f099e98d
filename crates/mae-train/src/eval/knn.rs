//! Weighted k-nearest-neighbour classification.

use std::collections::BTreeMap;

use tch::{Kind, Tensor, no_grad};

use super::features::Features;
use super::score::{Score, Tally, rows_at_once};

/// Neighbours count with weight `exp(similarity / TEMPERATURE)`.
const TEMPERATURE: f64 = 0.07;
/// Images classified at once.
const QUERIES: i64 = 512;
/// Features that they are compared with at once: 128 MiB of similarities.
const CANDIDATES: i64 = 1 << 16;

/// Classifies each of `val` by its nearest neighbours in `train`, for each number of neighbours in `ks`.
///
/// The similarity is the cosine, and a neighbour votes with `exp(similarity / 0.07)`.
/// Where there are fewer than `k` training images, all of them vote.
/// Memory is bounded: similarities are computed in blocks, and only the best `k` are kept.
///
/// Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", section 3.4.
pub fn knn(train: &Features, val: &Features, ks: &[i64], classes: usize) -> BTreeMap<i64, Score> {
    no_grad(|| {
        let candidates = normalized(&train.values);
        let longest = ks.iter().copied().max().unwrap_or(1).min(train.len());
        let mut tallies: BTreeMap<i64, Tally> = ks.iter().map(|&k| (k, Tally::default())).collect();
        let at_once = rows_at_once(QUERIES, classes);
        for start in (0..val.len()).step_by(at_once as usize) {
            let count = at_once.min(val.len() - start);
            let queries = normalized(&val.values.narrow(0, start, count));
            let (similarity, neighbour) = nearest(&queries, &candidates, longest);
            let votes = train
                .labels
                .index_select(0, &neighbour.flatten(0, 1))
                .view_as(&neighbour);
            let weights = (similarity / TEMPERATURE).exp();
            let labels = val.labels.narrow(0, start, count);
            for (&k, tally) in &mut tallies {
                let k = k.min(longest);
                let scores =
                    Tensor::zeros([count, classes as i64], (Kind::Float, weights.device()))
                        .scatter_add(1, &votes.narrow(1, 0, k), &weights.narrow(1, 0, k));
                tally.add(&scores, &labels);
            }
        }
        tallies
            .into_iter()
            .map(|(k, tally)| (k, tally.score()))
            .collect()
    })
}

/// The `k` images of `train` that are most similar to each of `val`: cosines and rows, `[val, k]` each, best first.
pub(crate) fn neighbours(train: &Tensor, val: &Tensor, k: i64) -> (Tensor, Tensor) {
    no_grad(|| nearest(&normalized(val), &normalized(train), k))
}

/// The `k` candidates most similar to each query: similarities and indices, `[queries, k]` each, best first.
fn nearest(queries: &Tensor, candidates: &Tensor, k: i64) -> (Tensor, Tensor) {
    let total = candidates.size()[0];
    let blocks = (0..total).step_by(CANDIDATES as usize).map(|start| {
        let count = CANDIDATES.min(total - start);
        let similarity = queries.matmul(&candidates.narrow(0, start, count).tr());
        let (values, indices) = similarity.topk(k.min(count), 1, true, true);
        (values, indices + start)
    });
    blocks
        .reduce(|best, next| {
            let (values, indices) = (
                Tensor::cat(&[best.0, next.0], 1),
                Tensor::cat(&[best.1, next.1], 1),
            );
            let (values, places) = values.topk(k.min(values.size()[1]), 1, true, true);
            let indices = indices.gather(1, &places, false);
            (values, indices)
        })
        .expect("there is a training image")
}

fn normalized(values: &Tensor) -> Tensor {
    values
        / values
            .norm_scalaropt_dim(2.0, [1i64], true)
            .clamp_min(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(values: &[f32], labels: &[i64]) -> Features {
        Features {
            values: Tensor::from_slice(values).view([labels.len() as i64, -1]),
            labels: Tensor::from_slice(labels),
            indices: Tensor::arange(labels.len() as i64, (Kind::Int64, tch::Device::Cpu)),
        }
    }

    #[test]
    fn neighbours_vote_with_their_similarity() {
        // Directions, not lengths: one close neighbour of class 1, two distant ones of class 0.
        let train = features(&[10., 1., -1., 1., -0.9, 1., 0., -3.], &[1, 0, 0, 0]);
        let val = features(&[0.1, 0.], &[1]);
        let scores = knn(&train, &val, &[1, 3, 200], 2);
        assert_eq!(scores.keys().copied().collect::<Vec<_>>(), [1, 3, 200]);
        assert!(scores.values().all(|score| score.top1 == 1.0));
    }

    #[test]
    fn blocks_find_the_same_neighbours() {
        let random = |rows: i64, seed: f64| {
            ((Tensor::arange(rows * 8, (Kind::Float, tch::Device::Cpu)) + seed) * 12.9898)
                .sin()
                .view([rows, 8])
        };
        let (queries, candidates) = (random(5, 0.5), random(CANDIDATES + 100, 3.0));
        let (similarity, index) = nearest(&queries, &candidates, 7);
        let all = queries.matmul(&candidates.tr());
        let (expected, _) = all.topk(7, 1, true, true);
        assert!((&similarity - &expected).abs().max().double_value(&[]) < 1e-6);
        let found = all.gather(1, &index, false);
        assert!((found - expected).abs().max().double_value(&[]) < 1e-6);
    }
}

use crate::error::DataError;

/// The part of each batch that one of several processes makes.
///
/// All processes together make the batches that one alone would make, each image once.
///
/// Of a batch with at least two images a process, images `i` and `batch - 1 - i` stay together and in
/// order, so that what mixes a batch with its own reverse mixes the same images for any number of
/// processes. Parts differ by one image or one such pair at most.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which process, from 0.
    pub rank: usize,
    /// The number of processes.
    pub size: usize,
}

impl Default for Shard {
    /// The whole of each batch.
    fn default() -> Shard {
        Shard { rank: 0, size: 1 }
    }
}

impl Shard {
    /// Whether there are other processes.
    pub fn is_part(self) -> bool {
        self.size > 1
    }

    /// This process's part of a batch.
    pub fn of<T: Copy>(self, batch: &[T]) -> Vec<T> {
        let len = batch.len();
        let part =
            |count: usize| count * self.rank / self.size..count * (self.rank + 1) / self.size;
        if len < 2 * self.size {
            return batch[part(len)].to_vec();
        }
        let first = part(len.div_ceil(2));
        let mirrored = first.clone().rev().map(|i| len - 1 - i);
        // The image in the middle is its own mirror image.
        let second = mirrored.filter(|&i| i >= len.div_ceil(2));
        first.clone().chain(second).map(|i| batch[i]).collect()
    }

    pub(super) fn validate(self) -> Result<(), DataError> {
        if self.rank < self.size {
            return Ok(());
        }
        Err(DataError::Config {
            key: "shard",
            expected: format!("a rank below {}, the number of processes", self.size),
            found: self.rank.to_string(),
            remedy: "count processes from 0".to_owned(),
        })
    }
}

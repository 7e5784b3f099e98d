use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many images of each class were taken for which: the cells that are not zero, so that memory follows the
/// images and not the square of the classes.
///
/// As JSON it is an object of objects, the counts by true class and by the class that was taken for it:
///
/// ```
/// use mae_report::Confusion;
///
/// let mut confusion = Confusion::default();
/// confusion.add(7, 7, 2);
/// confusion.add(7, 30_000, 1);
/// assert_eq!(serde_json::to_string(&confusion)?, r#"{"7":{"7":2,"30000":1}}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// It also reads the whole matrix as an array of rows, which reports had before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confusion {
    cells: BTreeMap<(u32, u32), u32>,
}

impl Confusion {
    /// Counts `images` more of the class `truth` that were taken for `taken`.
    pub fn add(&mut self, truth: u32, taken: u32, images: u32) {
        if images == 0 {
            return;
        }
        match self.cells.entry((truth, taken)) {
            Entry::Vacant(cell) => {
                cell.insert(images);
            }
            Entry::Occupied(mut cell) => *cell.get_mut() += images,
        }
    }

    /// The images of the class `truth` that were taken for `taken`.
    pub fn get(&self, truth: u32, taken: u32) -> u32 {
        self.cells.get(&(truth, taken)).copied().unwrap_or(0)
    }

    /// `(truth, taken, images)` of all cells that are not zero, row by row.
    pub fn cells(&self) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
        (self.cells.iter()).map(|(&(truth, taken), &images)| (truth, taken, images))
    }

    /// All images.
    pub fn images(&self) -> u64 {
        self.cells.values().map(|&images| u64::from(images)).sum()
    }
}

impl Serialize for Confusion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
        for (truth, taken, images) in self.cells() {
            rows.entry(truth).or_default().insert(taken, images);
        }
        rows.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Confusion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Cells)
    }
}

struct Cells;

impl<'de> Visitor<'de> for Cells {
    type Value = Confusion;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("counts by true class and by the class that was taken for it")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut rows: A) -> Result<Confusion, A::Error> {
        let mut confusion = Confusion::default();
        while let Some((truth, row)) = rows.next_entry::<u32, BTreeMap<u32, u32>>()? {
            for (taken, images) in row {
                confusion.add(truth, taken, images);
            }
        }
        Ok(confusion)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Confusion, A::Error> {
        let mut confusion = Confusion::default();
        let mut truth = 0;
        while let Some(row) = rows.next_element::<Vec<u32>>()? {
            for (taken, images) in (0..).zip(row) {
                confusion.add(truth, taken, images);
            }
            truth += 1;
        }
        Ok(confusion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_kept_through_json_and_whole_matrices_are_read() {
        let mut confusion = Confusion::default();
        for (truth, taken, images) in [(0, 2, 5), (0, 2, 1), (2, 10, 3), (10, 0, 0)] {
            confusion.add(truth, taken, images);
        }
        let json = serde_json::to_string_pretty(&confusion).unwrap();
        let again: Confusion = serde_json::from_str(&json).unwrap();
        assert_eq!(again, confusion);
        assert_eq!(
            again.cells().collect::<Vec<_>>(),
            [(0, 2, 6), (2, 10, 3)],
            "{json}"
        );
        assert_eq!((again.get(10, 0), again.images()), (0, 9));

        let dense: Confusion = serde_json::from_str("[[1,0,4],[0,0,0],[0,7,0]]").unwrap();
        assert_eq!(
            dense.cells().collect::<Vec<_>>(),
            [(0, 0, 1), (0, 2, 4), (2, 1, 7)]
        );
        assert!(serde_json::from_str::<Confusion>("3").is_err());
    }
}

//! What a tensor sees of its storage.

use tch::Tensor;

use crate::Result;
use crate::formats::pickle::Storage;

/// What a tensor sees of its storage; all of it is there.
pub struct View {
    offset: usize,
    size: Vec<i64>,
    stride: Vec<i64>,
    /// From the first element to the last.
    span: usize,
}

impl View {
    /// # Errors
    /// What is wrong, if it does not lie in its storage.
    pub fn new(
        storage: &Storage,
        offset: i64,
        size: &[i64],
        stride: &[i64],
    ) -> std::result::Result<Self, String> {
        let outside = || {
            format!(
                "reaches outside its {} numbers: offset {offset}, size {size:?}, stride {stride:?}; the file is damaged",
                storage.numel
            )
        };
        let negative = size
            .iter()
            .chain(stride)
            .chain([&offset, &storage.numel])
            .any(|&n| n < 0);
        if size.len() != stride.len() || negative {
            return Err(outside());
        }
        let numel = (size.iter()).try_fold(1i64, |product, &n| product.checked_mul(n));
        let last = (size.iter().zip(stride)).try_fold(0i64, |last, (&n, &stride)| {
            last.checked_add((n - 1).max(0).checked_mul(stride)?)
        });
        let (Some(numel), Some(last)) = (numel, last) else {
            return Err(outside());
        };
        let span = if numel == 0 {
            0
        } else {
            last.saturating_add(1)
        };
        let end = offset.checked_add(span);
        // More elements than numbers would repeat some, as no weights do.
        if end.is_none_or(|end| end > storage.numel) || numel > span {
            return Err(outside());
        }
        Ok(Self {
            offset: offset as usize,
            size: size.to_vec(),
            stride: stride.to_vec(),
            span: span as usize,
        })
    }

    /// How much of the storage it reaches over.
    pub fn bytes(&self, storage: &Storage) -> u64 {
        self.span as u64 * storage.kind.elt_size_in_bytes() as u64
    }

    /// Of the storage's numbers, the tensor.
    pub fn tensor(&self, storage: &Storage, bytes: &[u8]) -> Result<Tensor> {
        let width = storage.kind.elt_size_in_bytes();
        let seen = &bytes[self.offset * width..(self.offset + self.span) * width];
        let flat = Tensor::f_from_data_size(seen, &[self.span as i64], storage.kind)?;
        Ok(flat
            .f_as_strided(&self.size, &self.stride, 0)?
            .f_contiguous()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn view(
        numel: i64,
        offset: i64,
        size: &[i64],
        stride: &[i64],
    ) -> std::result::Result<View, String> {
        let storage = Storage {
            kind: Kind::Int16,
            key: 0,
            numel,
            offset: 0,
        };
        View::new(&storage, offset, size, stride)
    }

    #[test]
    fn views_inside_their_storage_are_read() {
        let storage = Storage {
            kind: Kind::Int16,
            key: 0,
            numel: 8,
            offset: 0,
        };
        let bytes: Vec<u8> = (0..8i16).flat_map(i16::to_le_bytes).collect();
        let check = |offset, size: &[i64], stride: &[i64], expected: &[i64]| {
            let view = View::new(&storage, offset, size, stride).unwrap();
            let tensor = view.tensor(&storage, &bytes).unwrap();
            assert_eq!(tensor.size(), size);
            assert!(tensor.is_contiguous());
            let flat = tensor.to_kind(Kind::Int64).view([-1]);
            assert_eq!(Vec::<i64>::try_from(flat).unwrap(), expected);
        };
        check(0, &[8], &[1], &[0, 1, 2, 3, 4, 5, 6, 7]);
        check(2, &[2, 3], &[3, 1], &[2, 3, 4, 5, 6, 7]);
        check(0, &[2, 4], &[1, 2], &[0, 2, 4, 6, 1, 3, 5, 7]);
        check(1, &[2, 2], &[4, 1], &[1, 2, 5, 6]);
        check(7, &[], &[], &[7]);
        check(8, &[0, 3], &[3, 1], &[]);
    }

    #[test]
    fn views_outside_their_storage_are_refused() {
        for (numel, offset, size, stride) in [
            (8, 0, &[9][..], &[1][..]),
            (8, 1, &[8], &[1]),
            (8, -1, &[2], &[1]),
            (8, 0, &[2], &[-1]),
            (8, 0, &[-2], &[1]),
            (-8, 0, &[0], &[1]),
            (8, 0, &[2], &[i64::MAX]),
            (8, 0, &[2, 2], &[7, 2]),
            (8, 0, &[2, 2], &[1]),
            (8, i64::MAX, &[2], &[1]),
            (8, 0, &[i64::MAX, i64::MAX], &[1, 1]),
            (8, 0, &[2, 2], &[i64::MAX, i64::MAX]),
            // Eight numbers as a million: no weights are.
            (8, 0, &[1000, 1000], &[0, 0]),
        ] {
            let message = view(numel, offset, size, stride).err();
            assert!(
                message.is_some_and(|message| message.contains("reaches outside")),
                "{size:?} {stride:?}"
            );
        }
    }
}

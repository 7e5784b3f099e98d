//! What is before and after the numbers in a file of rows.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

/// A kind of file, by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// NumPy's array.
    Npy,
    /// Named tensors and metadata.
    Safetensors,
}

impl Format {
    /// The kind of `out`.
    pub fn of(out: &Path) -> Result<Self> {
        match out.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => Ok(Self::Npy),
            Some("safetensors") => Ok(Self::Safetensors),
            _ => bail!(
                "{}: expected a name that ends in .npy, for NumPy, or in .safetensors",
                out.display()
            ),
        }
    }
}

/// A header of fixed length, then the numbers as images come, then what is known at the end.
///
/// How many images are broken is known at the end, too: the header is written then, padded to the length that it would
/// have if none were.
#[derive(Clone, Debug)]
pub struct Layout {
    format: Format,
    images: usize,
    row: Vec<usize>,
    metadata: Map<String, Value>,
    header_len: usize,
}

impl Layout {
    /// The layout of at most `images` images of `row` numbers each.
    pub fn new(
        format: Format,
        images: usize,
        row: Vec<usize>,
        metadata: &BTreeMap<String, String>,
    ) -> Self {
        let metadata = (metadata.iter())
            .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
            .collect();
        let mut layout = Self {
            format,
            images,
            row,
            metadata,
            header_len: 0,
        };
        // Whatever follows is aligned to 64 bytes, as NumPy asks for.
        layout.header_len = layout.unpadded(images, true).len().next_multiple_of(64);
        layout
    }

    /// Images if none are broken.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Bytes before the numbers.
    pub fn header_len(&self) -> u64 {
        self.header_len as u64
    }

    /// Bytes of the numbers of an image: f32, little-endian.
    pub fn row_len(&self) -> u64 {
        4 * self.row.iter().product::<usize>() as u64
    }

    /// The bytes before the numbers of `images` images.
    pub fn header(&self, images: usize, has_labels: bool) -> Vec<u8> {
        let mut header = self.unpadded(images, has_labels);
        header.resize(self.header_len, b' ');
        match self.format {
            Format::Npy => {
                header[self.header_len - 1] = b'\n';
                let len = (self.header_len - NPY_START) as u16;
                header[NPY_START - 2..NPY_START].copy_from_slice(&len.to_le_bytes());
            }
            Format::Safetensors => {
                let len = (self.header_len - SAFETENSORS_START) as u64;
                header[..SAFETENSORS_START].copy_from_slice(&len.to_le_bytes());
            }
        }
        header
    }

    /// The bytes after the numbers.
    pub fn tail(&self, rows: &[usize], labels: Option<&[i64]>) -> Vec<u8> {
        match self.format {
            Format::Npy => Vec::new(),
            Format::Safetensors => (rows.iter())
                .map(|&index| index as i64)
                .chain(labels.into_iter().flatten().copied())
                .flat_map(i64::to_le_bytes)
                .collect(),
        }
    }

    /// The header with its length still to be filled in, before padding.
    fn unpadded(&self, images: usize, has_labels: bool) -> Vec<u8> {
        match self.format {
            Format::Npy => {
                let shape: String = (std::iter::once(&images).chain(&self.row))
                    .map(|n| format!("{n}, "))
                    .collect();
                let shape = shape.trim_end_matches(", ");
                // The last byte becomes a newline.
                let header =
                    format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }} ");
                [b"\x93NUMPY\x01\0\0\0", header.as_bytes()].concat()
            }
            Format::Safetensors => {
                let mut header = Map::new();
                header.insert("__metadata__".into(), self.metadata.clone().into());
                let mut end = 0;
                let mut place = |name: &str, dtype: &str, shape: Vec<usize>, width: usize| {
                    let start = end;
                    end += width * shape.iter().product::<usize>();
                    let offsets = [start, end];
                    let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
                    header.insert(name.into(), entry);
                };
                let shape = [&[images], self.row.as_slice()].concat();
                place("features", "F32", shape, 4);
                place("indices", "I64", vec![images], 8);
                if has_labels {
                    place("labels", "I64", vec![images], 8);
                }
                let json = Value::from(header).to_string();
                [&[0; SAFETENSORS_START], json.as_bytes()].concat()
            }
        }
    }
}

/// Magic, version, and the length of what follows.
const NPY_START: usize = 10;
/// The length of what follows.
const SAFETENSORS_START: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    fn layout(format: Format, images: usize) -> Layout {
        let metadata = BTreeMap::from([("note".to_string(), "a \"b\"".to_string())]);
        Layout::new(format, images, vec![3, 2], &metadata)
    }

    #[test]
    fn the_header_of_fewer_images_is_as_long() {
        for format in [Format::Npy, Format::Safetensors] {
            for exponent in 0..12 {
                let layout = layout(format, 10usize.pow(exponent));
                assert_eq!(layout.header_len() % 64, 0);
                for images in [1, 10usize.pow(exponent)] {
                    for has_labels in [true, false] {
                        let header = layout.header(images, has_labels);
                        assert_eq!(header.len() as u64, layout.header_len());
                    }
                }
            }
        }
    }

    #[test]
    fn a_safetensors_file_is_whole() {
        let layout = layout(Format::Safetensors, 1000);
        let mut bytes = layout.header(2, true);
        bytes.resize(bytes.len() + 2 * layout.row_len() as usize, 0);
        bytes.extend(layout.tail(&[4, 9], Some(&[1, -1])));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("features").unwrap().shape(), [2, 3, 2]);
        assert_eq!(file.tensor("indices").unwrap().data()[8], 9);
        assert_eq!(file.tensor("labels").unwrap().data()[8..], [255; 8]);
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["note"], "a \"b\"");
    }

    #[test]
    fn a_npy_header_says_the_shape() {
        let header = layout(Format::Npy, 1000).header(12, false);
        let text = String::from_utf8_lossy(&header[NPY_START..]);
        assert!(
            text.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (12, 3, 2), }")
        );
        assert!(text.ends_with(" \n"));
        let len = u16::from_le_bytes([header[8], header[9]]) as usize;
        assert_eq!(NPY_START + len, header.len());
    }
}

//! Checksums in a safetensors file's metadata: what a disk, a copy or a bad memory changed is found when it is read.
//!
//! CRC-32C, which finds every change of up to 32 bits in a row and misses one in four billion of the others, and which
//! processors compute faster than memory is read.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

/// The metadata key of the checksums; other programs, and files that are older than they, lack it.
pub const CHECKSUMS: &str = "mae_crc32c";

/// What [`CHECKSUMS`] holds, as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checksums {
    /// Of all other metadata.
    metadata: String,
    /// Of each tensor: its values, type and shape.
    tensors: BTreeMap<String, String>,
}

impl Checksums {
    /// Of `metadata`, and of tensors by their [`checksum`]s.
    pub fn new(metadata: &HashMap<String, String>, tensors: BTreeMap<String, String>) -> Self {
        Self {
            metadata: checksum_of(metadata),
            tensors,
        }
    }

    /// What in `file` is not as it was written: names of tensors, or its metadata.
    pub fn damage(&self, file: &SafeTensors, metadata: &HashMap<String, String>) -> Vec<String> {
        let mut damaged = Vec::new();
        if self.metadata != checksum_of(metadata) {
            damaged.push("the metadata".into());
        }
        let found = file.tensors();
        let differing: Vec<&str> = (found.par_iter())
            .filter(|(key, view)| {
                let found = checksum(view.dtype(), view.shape(), view.data());
                self.tensors.get(key) != Some(&found)
            })
            .map(|(key, _)| key.as_str())
            .collect();
        let is_there = |key: &&String| found.iter().any(|(found, _)| found == *key);
        let lost = self.tensors.keys().filter(|key| !is_there(key));
        damaged.extend(differing.into_iter().map(String::from));
        damaged.extend(lost.cloned());
        damaged.sort();
        damaged.dedup();
        damaged
    }
}

/// The checksum of one tensor, as hexadecimal digits.
pub(crate) fn checksum(dtype: Dtype, shape: &[usize], values: &[u8]) -> String {
    let description = format!("{dtype}{shape:?}");
    let crc = crc32c::crc32c_append(crc32c::crc32c(values), description.as_bytes());
    format!("{crc:08x}")
}

/// Of keys and values in the order of the keys, but for the checksums' own.
fn checksum_of(metadata: &HashMap<String, String>) -> String {
    let sorted: BTreeMap<_, _> = (metadata.iter())
        .filter(|(key, _)| *key != CHECKSUMS)
        .collect();
    let crc = sorted.into_iter().fold(0, |crc, (key, value)| {
        // The lengths, so that no byte can move from one to the other.
        let lengths = [key.len() as u64, value.len() as u64].map(u64::to_le_bytes);
        [lengths.as_flattened(), key.as_bytes(), value.as_bytes()]
            .into_iter()
            .fold(crc, crc32c::crc32c_append)
    });
    format!("{crc:08x}")
}

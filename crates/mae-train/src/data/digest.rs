//! SHA-256 of what decides a result.

use std::hash::Hasher;

use mae_data::Dataset;
use sha2::{Digest, Sha256};

/// A digest of all that tells the images of `dataset` from others: see [`Dataset::identify`].
pub fn digest_of(dataset: &dyn Dataset) -> String {
    let mut digest = Digester::default();
    dataset.identify(&mut digest);
    digest.hex()
}

/// SHA-256 for those who write to a [`Hasher`].
#[derive(Default)]
pub struct Digester(Sha256);

impl Digester {
    /// What was written, digested, as [`hex`].
    pub fn hex(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Bytes as sha256sum prints them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Hasher for Digester {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the whole digest is read")
    }
}

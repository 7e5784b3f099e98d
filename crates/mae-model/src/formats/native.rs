//! This project's own files.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use tch::Tensor;

use super::{Format, ReadOptions, Weights, families};
use crate::file_kind::config_of;
use crate::metadata::{CONFIG, ENCODER, NORMALIZATION, PART, Part, from_metadata, json, part_of};
use crate::tensor_file::write_tensors;
use crate::{Normalization, Result};

pub fn read(
    path: &Path,
    tensors: BTreeMap<String, Tensor>,
    metadata: &HashMap<String, String>,
    options: &ReadOptions,
) -> Result<Weights> {
    let config = config_of(path, metadata, || families::guess(&tensors))?;
    config.validate()?;
    let normalization: Normalization = from_metadata(path, metadata, NORMALIZATION)?;
    let part = part_of(path, metadata)?;
    options.check(path, &config, part)?;
    Ok(Weights {
        path: path.into(),
        format: Format::Native,
        config,
        normalization,
        part,
        tensors,
        notes: Vec::new(),
    })
}

pub fn write(weights: &Weights, path: &Path) -> Result<Vec<String>> {
    let mut metadata = HashMap::from([
        (CONFIG.to_string(), json(&weights.config)),
        (NORMALIZATION.to_string(), json(&weights.normalization)),
    ]);
    if weights.part == Part::Encoder {
        metadata.insert(PART.into(), ENCODER.into());
    }
    write_tensors(path, &weights.tensors, metadata)?;
    Ok(Vec::new())
}

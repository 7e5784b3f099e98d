//! A model's folder: weights in one file or in several, and a description.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::Tensor;

use super::torch_file::TorchFile;
use super::{foreign, read_json};
use crate::checkpoint::{read_tensors, write_tensors};
use crate::{ModelError, Result};

/// Reads `model.safetensors`, or the files that `model.safetensors.index.json` lists, or `pytorch_model.bin`.
pub fn read_weights(folder: &Path) -> Result<BTreeMap<String, Tensor>> {
    let file = folder.join("model.safetensors");
    if file.exists() {
        return Ok(read_tensors(&file)?.0);
    }
    let index = folder.join("model.safetensors.index.json");
    if index.exists() {
        return read_shards(folder, &index);
    }
    let file = folder.join("pytorch_model.bin");
    if file.exists() {
        return TorchFile::open(&file)?.weights();
    }
    Err(foreign(
        folder,
        "a config.json without weights: expected model.safetensors, model.safetensors.index.json or pytorch_model.bin beside it".into(),
    ))
}

fn read_shards(folder: &Path, index: &Path) -> Result<BTreeMap<String, Tensor>> {
    let json = read_json(index)?;
    let Some(Value::Object(map)) = json.get("weight_map") else {
        return Err(foreign(index, "no `weight_map` in it".into()));
    };
    let mut shards: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    shards.sort_unstable();
    shards.dedup();
    let mut tensors = BTreeMap::new();
    for shard in shards {
        // A name of an index is not to lead elsewhere.
        if Path::new(shard).components().count() != 1 || shard.starts_with('.') {
            return Err(foreign(
                index,
                format!("names {shard:?}, which is no file beside it"),
            ));
        }
        tensors.extend(read_tensors(&folder.join(shard))?.0);
    }
    match map.keys().find(|key| !tensors.contains_key(*key)) {
        Some(key) => Err(foreign(
            index,
            format!("lists `{key}`, which none of its files has"),
        )),
        None => Ok(tensors),
    }
}

/// Writes `model.safetensors` and JSON files into a new folder, beside its place first.
pub fn write(
    folder: &Path,
    tensors: &BTreeMap<String, Tensor>,
    files: &[(&str, Value)],
) -> Result<()> {
    let partial = partial(folder);
    let io = |error| ModelError::Write {
        path: folder.into(),
        error,
    };
    let write = || {
        std::fs::create_dir_all(&partial).map_err(io)?;
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        write_tensors(&partial.join("model.safetensors"), tensors, metadata)?;
        for (name, value) in files {
            let text = serde_json::to_string_pretty(value).expect("plain values") + "\n";
            std::fs::write(partial.join(name), text).map_err(io)?;
        }
        std::fs::rename(&partial, folder).map_err(io)
    };
    let written = write();
    if written.is_err() {
        // What went wrong is reported; a left-over folder would only confuse.
        let _ = std::fs::remove_dir_all(&partial);
    }
    written
}

/// Numbers as they were written: 0.485, where its nearest f32 in f64 is 0.48500001430511475.
pub fn decimals(values: &[f32]) -> Value {
    let decimal = |value: &f32| value.to_string().parse::<f64>().ok();
    values.iter().map(decimal).collect()
}

fn partial(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".{name}.partial"))
}

//! A model's folder: weights in one file or in several, and a description.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::Tensor;

use super::torch_file::TorchFile;
use super::{foreign, read_json};
use crate::checkpoint::{read_tensors, write_tensors};
use crate::{ModelError, Result};

/// Whether there are weights in a folder, whole or in shards.
pub fn has_weights(folder: &Path) -> bool {
    let names = ["model.safetensors", "pytorch_model.bin"];
    names.iter().any(|name| folder.join(name).exists()) || !indices(folder).is_empty()
}

/// The folder that a file lies in.
pub fn of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// The index to read shards by, if `path` is one or a shard.
///
/// # Errors
/// [`ModelError::Foreign`] if `path` is a shard and no index beside it lists it.
pub fn index_for(path: &Path) -> Result<Option<PathBuf>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(None);
    };
    if name.ends_with(INDEX) {
        return Ok(Some(path.into()));
    }
    if !is_shard(name) || !path.is_file() {
        return Ok(None);
    }
    for index in indices(of(path)) {
        let json = read_json(&index)?;
        let shards = json.get("weight_map").and_then(Value::as_object);
        if shards.is_some_and(|shards| shards.values().any(|shard| shard == name)) {
            return Ok(Some(index));
        }
    }
    Err(foreign(
        path,
        format!(
            "one of several parts of a model, and no index beside it (*{INDEX}) lists it: fetch the index and the other parts, too"
        ),
    ))
}

/// What the name of an index ends in.
const INDEX: &str = ".index.json";

/// The indices of shards in a folder: of safetensors files first, and of `torch.save`.
fn indices(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut indices: Vec<PathBuf> = (entries.map(|entry| entry.path()))
        .filter(|path| path.to_string_lossy().ends_with(INDEX))
        .collect();
    indices.sort_by_key(|path| {
        (
            !path.to_string_lossy().contains(".safetensors."),
            path.clone(),
        )
    });
    indices
}

/// Whether a name ends as that of a part: `-00001-of-00002`, before its ending.
fn is_shard(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.rsplit_once("-of-").is_some_and(|(first, count)| {
        let number = first.rsplit_once('-').map(|(_, number)| number);
        is_number(count) && number.is_some_and(is_number)
    })
}

/// Reads `model.safetensors` or `pytorch_model.bin`, or the files that an index lists.
pub fn read_weights(folder: &Path) -> Result<BTreeMap<String, Tensor>> {
    let file = folder.join("model.safetensors");
    if file.exists() {
        return Ok(read_tensors(&file)?.0);
    }
    if let Some(index) = indices(folder).first() {
        return read_shards(folder, index);
    }
    let file = folder.join("pytorch_model.bin");
    if file.exists() {
        return read_file(&file);
    }
    Err(foreign(
        folder,
        "a config.json without weights: expected model.safetensors or pytorch_model.bin beside it, or its shards with their index (.index.json)".into(),
    ))
}

/// Tensors of a whole file, by their whole names.
fn read_file(file: &Path) -> Result<BTreeMap<String, Tensor>> {
    match file
        .extension()
        .is_some_and(|extension| extension == "safetensors")
    {
        true => Ok(read_tensors(file)?.0),
        false => TorchFile::open(file)?.all(),
    }
}

/// Reads the files that an index lists.
///
/// # Errors
/// [`ModelError::Foreign`] if one of them is not there, or leads elsewhere.
pub fn read_shards(folder: &Path, index: &Path) -> Result<BTreeMap<String, Tensor>> {
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
        let file = folder.join(shard);
        if !file.exists() {
            return Err(foreign(
                index,
                format!("names {shard:?}, which is not beside it: fetch it, too"),
            ));
        }
        tensors.extend(read_file(&file)?);
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

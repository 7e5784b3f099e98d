//! A model's folder: weights in one file or in several, and a description.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::Tensor;

use super::torch_file::TorchFile;
use super::{foreign, read_json};
use crate::content::Content;
use crate::tensor_file::{read_tensors, write_tensors};
use crate::{ModelError, Result};

/// Whether a folder is of a model of other programs: it has a description, or weights under the names that they give.
pub fn is_of_others(folder: &Path) -> bool {
    folder.join("config.json").exists() || has_parts(folder)
}

/// Whether there are weights in a folder, whole or in shards.
pub fn has_weights(folder: &Path) -> bool {
    folder.join("model.safetensors").exists() || has_parts(folder)
}

fn has_parts(folder: &Path) -> bool {
    folder.join("pytorch_model.bin").exists()
        || !indices(folder).is_empty()
        || !shards_in(folder).is_empty()
}

/// The folder that a file lies in.
pub fn of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// The shards of a model that `path` is one of, or the index of.
///
/// # Errors
/// [`ModelError::Foreign`] if not all of them are there.
pub fn shards_of(path: &Path) -> Result<Option<Shards>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(None);
    };
    if name.ends_with(INDEX) {
        return Ok(Some(Shards::Listed(path.into())));
    }
    let Some((shard, _)) = Shard::of(name).filter(|_| path.is_file()) else {
        return Ok(None);
    };
    for index in indices(of(path)) {
        let json = read_json(&index)?;
        let shards = json.get("weight_map").and_then(Value::as_object);
        if shards.is_some_and(|shards| shards.values().any(|shard| shard == name)) {
            return Ok(Some(Shards::Listed(index)));
        }
    }
    shard.all(of(path)).map(Some)
}

/// The files of a model in several parts.
pub enum Shards {
    /// An index that lists them.
    Listed(PathBuf),
    /// All that their names say there are.
    Numbered(Vec<PathBuf>),
}

impl Shards {
    /// Their tensors, by their whole names.
    ///
    /// # Errors
    /// [`ModelError::Foreign`] if one of them is not there, or leads elsewhere.
    pub fn read(&self) -> Result<BTreeMap<String, Tensor>> {
        match self {
            Self::Listed(index) => read_listed(of(index), index),
            Self::Numbered(files) => {
                let mut tensors = BTreeMap::new();
                files.iter().try_for_each(|file| add(&mut tensors, file))?;
                Ok(tensors)
            }
        }
    }
}

/// A file's name as that of a part, without its number: `model-00001-of-00002.safetensors`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shard {
    /// Before the number.
    stem: String,
    /// How many parts there are, in digits.
    count: String,
    ending: String,
}

impl Shard {
    /// The part, and its number.
    fn of(name: &str) -> Option<(Self, usize)> {
        let (stem, ending) = name.rsplit_once('.')?;
        let (first, count) = stem.rsplit_once("-of-")?;
        let (stem, number) = first.rsplit_once('-')?;
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (number, true) = (number.parse().ok()?, is_number(count) && is_number(number)) else {
            return None;
        };
        let shard = Self {
            stem: stem.into(),
            count: count.into(),
            ending: ending.into(),
        };
        Some((shard, number))
    }

    /// All parts of the same model.
    fn all(&self, folder: &Path) -> Result<Shards> {
        const MANY: usize = 10_000;
        let Self {
            stem,
            count,
            ending,
        } = self;
        let parts = count
            .parse()
            .ok()
            .filter(|parts| (1..=MANY).contains(parts));
        let parts = parts.ok_or_else(|| {
            foreign(
                folder,
                format!("`{stem}` is in {count} parts; expected 1 to {MANY}"),
            )
        })?;
        let files: BTreeMap<usize, PathBuf> = (names(folder).into_iter())
            .filter_map(|name| match Shard::of(&name)? {
                (shard, number) if shard == *self => Some((number, folder.join(name))),
                _ => None,
            })
            .collect();
        let missing: Vec<String> = (1..=parts)
            .filter(|number| !files.contains_key(number))
            .map(|number| {
                format!(
                    "{stem}-{number:0width$}-of-{count}.{ending}",
                    width = count.len()
                )
            })
            .collect();
        match missing.is_empty() {
            true => Ok(Shards::Numbered(files.into_values().collect())),
            false => Err(foreign(
                folder,
                format!(
                    "not all parts of a model are there: fetch {}, too",
                    missing.join(", ")
                ),
            )),
        }
    }
}

/// What the name of an index ends in.
const INDEX: &str = ".index.json";

/// The indices of shards in a folder: of safetensors files first, and of `torch.save`.
fn indices(folder: &Path) -> Vec<PathBuf> {
    let mut indices = names(folder);
    indices.retain(|name| name.ends_with(INDEX));
    indices.sort_by_key(|name| (!name.contains(".safetensors."), name.clone()));
    indices.iter().map(|name| folder.join(name)).collect()
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    (entries.filter_map(|entry| entry.file_name().into_string().ok())).collect()
}

/// The models in parts that lie in a folder.
fn shards_in(folder: &Path) -> Vec<Shard> {
    let mut shards: Vec<Shard> = (names(folder).iter())
        .filter_map(|name| Some(Shard::of(name)?.0))
        .filter(|shard| ["safetensors", "bin", "pt", "pth"].contains(&shard.ending.as_str()))
        .collect();
    // Those of safetensors first.
    shards.sort_by_key(|shard| (shard.ending != "safetensors", shard.clone()));
    shards.dedup();
    shards
}

/// Reads `model.safetensors` or `pytorch_model.bin`, or the files that an index lists or their names number.
pub fn read_weights(folder: &Path) -> Result<BTreeMap<String, Tensor>> {
    let file = folder.join("model.safetensors");
    if file.exists() {
        return Ok(read_tensors(&file)?.0);
    }
    if let Some(index) = indices(folder).first() {
        return read_listed(folder, index);
    }
    let file = folder.join("pytorch_model.bin");
    if file.exists() {
        return read_file(&file);
    }
    match &shards_in(folder)[..] {
        [] => Err(foreign(
            folder,
            "a config.json without weights: expected model.safetensors or pytorch_model.bin beside it, or its shards".into(),
        )),
        [first, second, ..] if first.ending == second.ending => Err(foreign(
            folder,
            format!("parts of several models in it, `{}` and `{}`: give one of their files", first.stem, second.stem),
        )),
        [shard, ..] => shard.all(folder)?.read(),
    }
}

/// Tensors of a file, of the shards that it is one of, or of a folder, by their whole names.
pub fn read_any(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    if path.is_dir() {
        return read_weights(path);
    }
    match shards_of(path)? {
        Some(shards) => shards.read(),
        None => read_file(path),
    }
}

/// Tensors of a whole file, by their whole names.
fn read_file(file: &Path) -> Result<BTreeMap<String, Tensor>> {
    match Content::at(file)?.is_torch() {
        true => TorchFile::open(file)?.all(),
        false => Ok(read_tensors(file)?.0),
    }
}

/// Adds a shard's tensors.
fn add(tensors: &mut BTreeMap<String, Tensor>, file: &Path) -> Result<()> {
    for (key, tensor) in read_file(file)? {
        if tensors.get(&key).is_some_and(|other| *other != tensor) {
            return Err(foreign(
                file,
                format!(
                    "has `{key}` with other numbers than another part of the model: they are of two models; fetch all parts of one"
                ),
            ));
        }
        tensors.insert(key, tensor);
    }
    Ok(())
}

/// Reads the files that an index lists.
fn read_listed(folder: &Path, index: &Path) -> Result<BTreeMap<String, Tensor>> {
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
        add(&mut tensors, &file)?;
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

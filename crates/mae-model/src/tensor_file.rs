//! Tensors and metadata in safetensors files, written whole or not at all, and compared with their checksums.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use safetensors::{Dtype, SafeTensorError, SafeTensors, View};
use tch::{Device, Kind, Tensor, no_grad};

use crate::checksums::{CHECKSUMS, Checksums, checksum};
use crate::content::Content;
use crate::metadata::{from_metadata, json};
use crate::{ModelError, Result};

/// Copies a file's tensors into `parameters`, all or none.
///
/// # Errors
/// [`ModelError::Keys`] with every key that is missing, extra or of another shape;
/// [`ModelError::NotFinite`] if nothing could be computed of the values.
pub(crate) fn copy_into(
    path: &Path,
    parameters: BTreeMap<String, Tensor>,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<()> {
    check_keys(path, &parameters, tensors)?;
    check_finite(path, parameters.keys().map(|key| (key, &tensors[key])))?;
    no_grad(|| {
        for (key, mut parameter) in parameters {
            parameter.f_copy_(&tensors[&key])?;
        }
        Ok(())
    })
}

/// Refuses tensors that hold a NaN or an infinity.
///
/// # Errors
/// [`ModelError::NotFinite`] with the number of such values in each.
pub(crate) fn check_finite<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
) -> Result<()> {
    let mut damaged = Vec::new();
    for (key, tensor) in tensors {
        let finite = tensor.f_isfinite()?;
        if finite.f_all()?.f_int64_value(&[])? == 0 {
            let values = finite.f_logical_not()?.f_sum(Kind::Int64)?;
            damaged.push(format!("{key} ({})", values.f_int64_value(&[])?));
        }
    }
    match damaged.is_empty() {
        true => Ok(()),
        false => Err(ModelError::NotFinite {
            path: path.into(),
            tensors: damaged,
        }),
    }
}

/// Compares the keys and shapes of a file's tensors with those it should have.
///
/// # Errors
/// [`ModelError::Keys`] with every difference.
pub fn check_keys(
    path: &Path,
    expected: &BTreeMap<String, Tensor>,
    found: &BTreeMap<String, Tensor>,
) -> Result<()> {
    let absent =
        |from: &BTreeMap<String, Tensor>, other: &BTreeMap<String, Tensor>| -> Vec<String> {
            from.keys()
                .filter(|key| !other.contains_key(*key))
                .cloned()
                .collect()
        };
    let (missing, extra) = (absent(expected, found), absent(found, expected));
    let misshaped: Vec<String> = expected
        .iter()
        .filter_map(|(key, tensor)| {
            let (wanted, size) = (tensor.size(), found.get(key)?.size());
            (wanted != size).then(|| format!("{key} (found {size:?}, expected {wanted:?})"))
        })
        .collect();
    if missing.is_empty() && extra.is_empty() && misshaped.is_empty() {
        return Ok(());
    }
    Err(ModelError::Keys {
        path: path.into(),
        missing,
        extra,
        misshaped,
    })
}

/// Writes tensors and metadata beside `path`, then renames: a reader sees the old file or the new one.
///
/// Checksums of all are added to the metadata as [`CHECKSUMS`], in place of any that are there.
///
/// # Errors
/// [`ModelError::Write`] with the path.
pub fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    mut metadata: HashMap<String, String>,
) -> Result<()> {
    let io = |error| ModelError::Write {
        path: path.into(),
        error,
    };
    let partial = path.with_extension("safetensors.partial");
    let views = tensors
        .iter()
        .map(|(key, tensor)| Ok((key, HostView::new(tensor)?)));
    let views: Vec<_> = views.collect::<Result<_>>()?;
    // They are in the header, before the values; so these are brought to the host twice, rather than held there.
    let checksums = (views.iter())
        .map(|(key, view)| {
            let checksum = checksum(view.dtype, &view.shape, &view.data());
            ((*key).clone(), checksum)
        })
        .collect();
    let checksums = Checksums::new(&metadata, checksums);
    metadata.insert(CHECKSUMS.into(), json(&checksums));
    let write = || {
        // serialize_to_file makes files that only their owner can read: a usual one tells what the others may.
        let usual = File::create(&partial).and_then(|file| file.metadata());
        let permissions = usual.map_err(io)?.permissions();
        safetensors::serialize_to_file(views, Some(metadata), &partial)
            .map_err(|error| io(std::io::Error::other(error)))?;
        std::fs::set_permissions(&partial, permissions)
            .and_then(|()| File::open(&partial)?.sync_all())
            .and_then(|()| std::fs::rename(&partial, path))
            .map_err(io)?;
        sync_folder(path);
        Ok(())
    };
    let written = write();
    if written.is_err() {
        // What went wrong is reported; a left-over file would only confuse.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

/// Makes a rename survive a loss of power, where the system can: a file that is whole is refused for no less.
fn sync_folder(path: &Path) {
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
        let _ = folder.sync_all();
    }
}

/// Reads all tensors of a safetensors file to the CPU, and its metadata.
///
/// What [`write_tensors`] wrote is compared with its checksums; files without them are taken as they are.
///
/// # Errors
/// [`ModelError::Io`], [`ModelError::Format`] or [`ModelError::Damaged`] with the path; [`ModelError::Foreign`] if it
/// is a file of PyTorch.
pub fn read_tensors(path: &Path) -> Result<(BTreeMap<String, Tensor>, HashMap<String, String>)> {
    let format = format_error(path);
    let bytes = read_bytes(path)?;
    let start = &bytes[..bytes.len().min(Content::START as usize)];
    match Content::of(start) {
        content if content.is_torch() => {
            return Err(ModelError::Foreign {
                path: path.into(),
                problem: format!(
                    "a file of torch.save, expected this program's format; bring it in with: {}",
                    conversion(path)
                ),
            });
        }
        // An empty file is one that was cut short.
        content @ Content::Other(_) if !bytes.is_empty() => {
            return Err(content.refuse(path, "a safetensors file"));
        }
        _ => {}
    }
    let (file, metadata) = parse(path, &bytes)?;
    let mut tensors = BTreeMap::new();
    for (key, view) in file.tensors() {
        let Some((kind, _)) = DTYPES.iter().find(|(_, dtype)| *dtype == view.dtype()) else {
            let shape = view.shape().to_vec();
            return Err(format(SafeTensorError::InvalidTensorView(
                view.dtype(),
                shape,
                view.data().len(),
            )));
        };
        let size: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        tensors.insert(key, Tensor::f_from_data_size(view.data(), &size, *kind)?);
    }
    Ok((tensors, metadata))
}

/// Reads a safetensors file and compares it with its checksums; says whether it has any.
///
/// # Errors
/// [`ModelError::Io`], [`ModelError::Format`] or [`ModelError::Damaged`] with the path.
pub fn verify(path: &Path) -> Result<bool> {
    let bytes = read_bytes(path)?;
    let (_, metadata) = parse(path, &bytes)?;
    Ok(metadata.contains_key(CHECKSUMS))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| ModelError::Io {
        path: path.into(),
        source,
    })
}

fn format_error(path: &Path) -> impl Fn(SafeTensorError) -> ModelError {
    |error| ModelError::Format {
        path: path.into(),
        error,
    }
}

/// The tensors and the metadata in a file's bytes, which are what was written.
fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<(SafeTensors<'a>, HashMap<String, String>)> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(format_error(path))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let file = SafeTensors::deserialize(bytes).map_err(format_error(path))?;
    if metadata.contains_key(CHECKSUMS) {
        let checksums: Checksums = from_metadata(path, &metadata, CHECKSUMS)?;
        let parts = checksums.damage(&file, &metadata);
        if !parts.is_empty() {
            return Err(ModelError::Damaged {
                path: path.into(),
                parts,
            });
        }
    }
    Ok((file, metadata))
}

const DTYPES: [(Kind, Dtype); 10] = [
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int64, Dtype::I64),
    (Kind::Int, Dtype::I32),
    (Kind::Uint8, Dtype::U8),
    (Kind::Int8, Dtype::I8),
    (Kind::Int16, Dtype::I16),
    (Kind::Bool, Dtype::BOOL),
];

/// A tensor that is copied to host memory when its turn to be written comes.
struct HostView {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl HostView {
    fn new(tensor: &Tensor) -> Result<Self> {
        let kind = tensor.kind();
        let Some((_, dtype)) = DTYPES.iter().find(|(known, _)| *known == kind) else {
            return Err(tch::TchError::Kind(format!(
                "tensors of {kind:?} have no place in a checkpoint"
            ))
            .into());
        };
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        Ok(Self {
            tensor: tensor.shallow_clone(),
            dtype: *dtype,
            shape,
        })
    }
}

impl View for HostView {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let host = self.tensor.detach().to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0; self.data_len()];
        host.copy_data_u8(&mut bytes, host.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

/// The command that makes a file this program's.
pub(crate) fn conversion(path: &Path) -> String {
    format!("mae-train convert {} base.safetensors", path.display())
}

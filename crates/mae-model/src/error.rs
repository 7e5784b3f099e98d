//! What can go wrong in the model.

use std::path::PathBuf;

use tch::Tensor;

/// What can go wrong in the model and its checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A value of the configuration, or an argument, that cannot be built or used.
    #[error("`{key}` is {found}, expected {expected}")]
    Config {
        /// The key in the configuration, or the argument's name.
        key: &'static str,
        /// The value as given.
        found: String,
        /// What would be valid.
        expected: String,
    },
    /// Image and patch sizes that make no grid.
    #[error(transparent)]
    Grid(#[from] mae_data::DataError),
    /// A tensor whose shape does not fit the model or its companions.
    #[error("`{name}` has shape {found:?}, expected {expected}")]
    Shape {
        /// The argument's name.
        name: &'static str,
        /// Its shape.
        found: Vec<i64>,
        /// The shape that fits.
        expected: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write {}: {error}; check that the folder may be written to and has space left, or give another", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The reason, which is in the message.
        error: std::io::Error,
    },
    /// A file that is no whole safetensors file.
    #[error("{}: not a complete safetensors file ({error}); it may be cut short or of another format", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The reader's reason, which is in the message.
        error: safetensors::SafeTensorError,
    },
    /// A file whose content is not what was written into it.
    #[error("{}: damaged, for the checksums of {} differ; copy it again, or give another checkpoint (a run goes on from the one before with --resume)", path.display(), few(parts))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Each tensor that differs, or the metadata.
        parts: Vec<String>,
    },
    /// A file without the metadata that describes a model.
    #[error("{}: metadata key `{key}` {problem}; expected a checkpoint written by this project", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The metadata key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that has an encoder where a whole model is needed.
    #[error("{}: an encoder only, so there is no decoder to predict with; it can be evaluated, converted, and pre-trained from by `run.init`", path.display())]
    EncoderOnly {
        /// The file.
        path: PathBuf,
    },
    /// Weights of another program that cannot be read, or written for it.
    #[error("{}: {problem}", path.display())]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, what was expected, and what can be done.
        problem: String,
    },
    /// Weights of another architecture than the model's.
    #[error("{}: weights of another architecture: {}", path.display(), differences.join("; "))]
    Architecture {
        /// The file.
        path: PathBuf,
        /// Each dimension, in both, and the remedy.
        differences: Vec<String>,
    },
    /// Weights that are NaN or infinite, of which nothing can be computed.
    #[error("{}: values are NaN or infinite in {} tensors, {}; the file is damaged, or of a training that diverged: give another checkpoint", path.display(), tensors.len(), few(tensors))]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Each tensor, and how many of its values: `key (3)`.
        tensors: Vec<String>,
    },
    /// What must be said beside a file of weights, because it does not say it.
    #[error("{} does not say {}", path.display(), missing.join("; nor "))]
    Unsaid {
        /// The file or folder.
        path: PathBuf,
        /// Each thing, and the option of `mae-train convert` that says it.
        missing: Vec<String>,
    },
    /// Tensors of a file that do not match the model's, each one named.
    #[error("{}: {}", path.display(), describe_keys(missing, extra, misshaped))]
    Keys {
        /// The file.
        path: PathBuf,
        /// Keys of the model that the file lacks.
        missing: Vec<String>,
        /// Keys of the file that the model lacks.
        extra: Vec<String>,
        /// Keys with two shapes: `key (found [..], expected [..])`.
        misshaped: Vec<String>,
    },
    /// A libtorch call of torch-ext that failed.
    #[error(transparent)]
    Torch(#[from] torch_ext::Error),
    /// A libtorch call of tch that failed.
    #[error(transparent)]
    Tch(#[from] tch::TchError),
}

fn describe_keys(missing: &[String], extra: &[String], misshaped: &[String]) -> String {
    [
        ("missing", missing),
        ("not in the model", extra),
        ("of another shape", misshaped),
    ]
    .iter()
    .filter(|(_, keys)| !keys.is_empty())
    .map(|(what, keys)| format!("{} tensors {what}: {}", keys.len(), few(keys)))
    .collect::<Vec<_>>()
    .join("; ")
}

/// A value of the configuration, or an argument, that cannot be used.
pub(crate) fn invalid(key: &'static str, found: impl ToString, expected: String) -> ModelError {
    ModelError::Config {
        key,
        found: found.to_string(),
        expected,
    }
}

/// A tensor that does not have the shape expected.
pub(crate) fn shape(name: &'static str, tensor: &Tensor, expected: String) -> ModelError {
    ModelError::Shape {
        name,
        found: tensor.size(),
        expected,
    }
}

/// The first of some names, and how many more there are.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let list = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => list,
        more => format!("{list} and {more} more"),
    }
}

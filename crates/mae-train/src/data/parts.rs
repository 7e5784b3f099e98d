//! Folders that hold a data set's parts for training, validation and test, given in place of one of them.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use mae_data::Dataset;

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Train,
    Val,
    Test,
}

impl Part {
    /// The part that a folder is named after: `train`, `Training_set`, `val2017`, `test images`.
    fn named(name: &str) -> Option<Self> {
        const WITHOUT_MEANING: [&str; 10] = [
            "set", "data", "dataset", "split", "part", "image", "images", "img", "imgs", "folder",
        ];
        let name = name.to_lowercase();
        let mut words = (name.split(|letter: char| !letter.is_alphabetic()))
            .filter(|word| !word.is_empty() && !WITHOUT_MEANING.contains(word));
        let part = match words.next()? {
            "train" | "training" | "trainset" | "trainval" | "trn" => Self::Train,
            "val" | "valid" | "validation" | "validate" | "valset" | "dev" | "eval"
            | "evaluation" => Self::Val,
            "test" | "testing" | "testset" | "tst" | "holdout" => Self::Test,
            _ => return None,
        };
        words.next().is_none().then_some(part)
    }
}

/// A data set's parts, where classes are expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The folder that they are in; `None` if they are in no folder.
    folder: Option<PathBuf>,
    names: Vec<(Part, String)>,
}

impl Parts {
    /// The parts that the images at `path` are of, if their classes are named after at least two different ones, or if
    /// the sub-folders of their only class are.
    pub fn of(dataset: &dyn Dataset, path: &Path) -> Option<Self> {
        let classes = dataset.classes();
        if !path.is_dir() {
            return Self::among(None, classes.iter().cloned());
        }
        if let [class] = classes {
            let inner = path.join(class);
            let names = sub_folders(&inner);
            return Self::among(Some(inner), names);
        }
        match classes.is_empty() {
            // An image beside the sub-folders means that they are no classes.
            true => Self::among(Some(path.into()), sub_folders(path)),
            false => Self::among(Some(path.into()), classes.iter().cloned()),
        }
    }

    fn among(folder: Option<PathBuf>, names: impl IntoIterator<Item = String>) -> Option<Self> {
        let names: Vec<(Part, String)> = names
            .into_iter()
            .filter_map(|name| Some((Part::named(&name)?, name)))
            .collect();
        let (first, _) = names.first()?;
        let is_several = names.iter().any(|(part, _)| part != first);
        is_several.then_some(Self { folder, names })
    }

    fn path(&self, part: Part) -> Option<String> {
        let (_, name) = self.names.iter().find(|(own, _)| *own == part)?;
        let path = self.folder.as_ref()?.join(name).display().to_string();
        Some(match path.contains(char::is_whitespace) {
            true => format!("'{path}'"),
            false => path,
        })
    }

    /// The training images, for a command.
    fn train(&self) -> Option<String> {
        self.path(Part::Train)
    }

    /// The images to judge by, for a command.
    fn val(&self) -> Option<String> {
        self.path(Part::Val).or_else(|| self.path(Part::Test))
    }

    /// What was meant, for a person: the options that give the parts.
    pub fn options(&self) -> String {
        match (self.train(), self.val()) {
            (Some(train), Some(val)) => format!("--data {train} --val {val}"),
            (Some(train), None) => format!("--data {train}"),
            _ => "each part by itself".into(),
        }
    }

    /// What a run that trains on all of them should say.
    pub fn notice(&self) -> String {
        match self.train() {
            Some(train) => format!(
                "{self}: this trains on the images of all of them; --data {train} leaves those out that are for judging"
            ),
            None => format!("{self}: this trains on the images of all of them"),
        }
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names: Vec<&str> = self.names.iter().map(|(_, name)| name.as_str()).collect();
        let names = names.join(", ");
        match &self.folder {
            Some(folder) => write!(f, "{} holds a data set's parts: {names}", folder.display()),
            None => write!(f, "the classes are a data set's parts: {names}"),
        }
    }
}

/// Refuses to take parts of a data set for classes of what is to be learned from, `what` of a command.
///
/// # Errors
/// With the options that were meant.
pub fn refuse_to_learn(what: &str, dataset: &dyn Dataset, path: &Path) -> Result<()> {
    match Parts::of(dataset, path) {
        Some(parts) => bail!(
            "{what}: expected one sub-folder a class, but {parts}; give {}",
            parts.options()
        ),
        None => Ok(()),
    }
}

/// Refuses to take parts of a data set for classes of what is judged by, which `--val` gives.
///
/// # Errors
/// With the option that was meant.
pub fn refuse_to_judge(dataset: &dyn Dataset, path: &Path) -> Result<()> {
    match Parts::of(dataset, path) {
        Some(parts) => bail!(
            "--val: expected one sub-folder a class, but {parts}; give {}",
            match parts.val() {
                Some(val) => format!("--val {val}"),
                None => "one of them".into(),
            }
        ),
        None => Ok(()),
    }
}

/// Names of the folders in a folder, sorted; none if it cannot be read.
fn sub_folders(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(names: &[&str]) -> Option<String> {
        let names = names.iter().map(|name| name.to_string());
        Some(Parts::among(Some("root".into()), names)?.options())
    }

    #[test]
    fn two_parts_are_a_data_set_and_one_is_a_class() {
        for (names, expected) in [
            (&["train", "val"][..], "--data root/train --val root/val"),
            (
                &["Train", "Testing"],
                "--data root/Train --val root/Testing",
            ),
            (
                &["test", "training", "validation"],
                "--data root/training --val root/validation",
            ),
            (
                &["train2017", "val2017"],
                "--data root/train2017 --val root/val2017",
            ),
            (
                &["test_set", "training_set", "single_prediction"],
                "--data root/training_set --val root/test_set",
            ),
            (
                &["test images", "train images"],
                "--data 'root/train images' --val 'root/test images'",
            ),
            (&["dev", "test"], "each part by itself"),
        ] {
            assert_eq!(among(names).as_deref(), Some(expected), "{names:?}");
        }
        for names in [
            &["bus", "car", "train"][..],
            &["train", "train2"],
            &["training dog", "test tube"],
            &["valid", "invalid"],
            &["trainer", "tester"],
            &[],
        ] {
            assert_eq!(among(names), None, "{names:?}");
        }
    }
}

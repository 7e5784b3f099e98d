//! What all cells of an ablation share.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

/// What the user asked all cells to begin from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// An embedded recipe, unless `config` names a file.
    pub recipe: Option<String>,
    /// A TOML file in place of a recipe.
    pub config: Option<PathBuf>,
    pub data: Option<PathBuf>,
    pub val: Option<PathBuf>,
    pub set: Vec<String>,
    pub eval_set: Vec<String>,
    /// Whether every value is judged by full fine-tuning, too.
    pub finetune: bool,
    /// What turns images into the tokens of the study `target`, unless one is to be trained.
    pub tokenizer: Option<PathBuf>,
    pub tokenizer_set: Vec<String>,
}

/// The numbers of the resolved base configuration that studies scale by.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    pub embed_dim: usize,
    pub depth: usize,
    pub decoder_embed_dim: usize,
    pub decoder_num_heads: usize,
    /// Values of a patch.
    pub patch_dim: usize,
    pub epochs: u64,
    pub seed: u64,
}

impl Base {
    /// Reads them from a resolved configuration.
    ///
    /// # Errors
    /// If it lacks one of them.
    pub fn of(config: &Table) -> Result<Self> {
        let number = |section: &str, key: &str| {
            (config.get(section).and_then(|section| section.get(key)))
                .and_then(Value::as_integer)
                .with_context(|| {
                    format!("the resolved configuration has no number `{section}.{key}`")
                })
        };
        let model = |key: &str| Ok::<_, anyhow::Error>(number("model", key)? as usize);
        Ok(Self {
            embed_dim: model("embed_dim")?,
            depth: model("depth")?,
            decoder_embed_dim: model("decoder_embed_dim")?,
            decoder_num_heads: model("decoder_num_heads")?,
            patch_dim: model("patch_size")?.pow(2) * model("channels")?,
            epochs: number("optim", "epochs")? as u64,
            seed: seed(config)?,
        })
    }
}

/// The seed of a resolved configuration.
///
/// # Errors
/// If it has none.
pub fn seed(config: &Table) -> Result<u64> {
    (config.get("seed").and_then(Value::as_integer))
        .map(|seed| seed as u64)
        .context("the resolved configuration has no `seed`")
}

impl Settings {
    /// The complete configuration with `set` put over the user's own, as the program resolves it.
    ///
    /// # Errors
    /// With the program's own words if it refuses.
    pub fn resolve(&self, program: &Path, set: &[String]) -> Result<Table> {
        let mut command = Command::new(program);
        command.arg("config");
        match (&self.config, &self.recipe) {
            (Some(path), _) => {
                command.arg("--config").arg(path);
            }
            (None, Some(recipe)) => {
                command.args(["--recipe", recipe]);
            }
            (None, None) => {}
        }
        if let Some(data) = &self.data {
            command.arg("--data").arg(data);
        }
        for pair in self.set.iter().chain(set) {
            command.args(["--set", pair]);
        }
        let text = output(&mut command)?;
        text.parse()
            .context("the program printed a configuration that is not TOML")
    }

    /// Checks the keys of evaluations and of the tokenizer, which no cell's configuration has.
    ///
    /// # Errors
    /// With the option and the program's own words if it refuses one.
    pub fn check_keys(&self, program: &Path) -> Result<()> {
        for (option, recipe, keys) in [
            ("--eval-set", "finetune_cifar10", &self.eval_set),
            ("--tokenizer-set", "tokenizer", &self.tokenizer_set),
        ] {
            let mut command = Command::new(program);
            command.args(["config", "--recipe", recipe]);
            keys.iter().for_each(|pair| {
                command.args(["--set", pair]);
            });
            if !keys.is_empty() {
                output(&mut command).with_context(|| format!("{option} (nothing was started)"))?;
            }
        }
        Ok(())
    }

    /// Looks for labelled images where the resolved configuration and `--val` say they are.
    ///
    /// Only folders are looked into; other files say themselves what they lack.
    ///
    /// # Errors
    /// If there is nothing, or no classes.
    pub fn check_images(&self, config: &Table) -> Result<()> {
        let data = config.get("data");
        let source = data.and_then(|data| data.get("source")?.as_str());
        let path = data.and_then(|data| data.get("path")?.as_str());
        if let (Some("folder"), Some(path)) = (source, path) {
            check_classes(Path::new(path))?;
        }
        match &self.val {
            Some(val) if val.is_dir() => check_classes(val),
            Some(val) if !val.exists() && !val.to_string_lossy().contains('{') => {
                bail!("--val {}: there is no such file or folder", val.display())
            }
            _ => Ok(()),
        }
    }

    /// The arguments of `mae-train eval` that all cells share.
    pub fn eval_arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        for (option, path) in [("--data", &self.data), ("--val", &self.val)] {
            if let Some(path) = path {
                arguments.extend([option.into(), path.display().to_string()]);
            }
        }
        for pair in &self.eval_set {
            arguments.extend(["--set".into(), pair.clone()]);
        }
        arguments
    }

    /// In which of the two a difference lies, in the words of the command line; how the tokenizer is made counts
    /// where `tokens` are needed.
    pub fn differences(&self, other: &Self, tokens: bool) -> Vec<&'static str> {
        let differs = [
            ("--recipe", self.recipe != other.recipe),
            ("--config", self.config != other.config),
            ("--data", self.data != other.data),
            ("--val", self.val != other.val),
            ("--set", self.set != other.set),
            ("--eval-set", self.eval_set != other.eval_set),
            ("--finetune", self.finetune != other.finetune),
            ("--tokenizer", tokens && self.tokenizer != other.tokenizer),
            (
                "--tokenizer-set",
                tokens && self.tokenizer_set != other.tokenizer_set,
            ),
        ];
        (differs.into_iter())
            .filter_map(|(name, differs)| differs.then_some(name))
            .collect()
    }
}

/// Makes sure that a folder has a sub-folder for each of two classes, at least.
fn check_classes(folder: &Path) -> Result<()> {
    let entries = (folder.read_dir())
        .with_context(|| format!("looking for images in {}", folder.display()))?;
    let classes = (entries.flatten())
        .filter(|entry| entry.path().is_dir())
        .count();
    ensure!(
        classes >= 2,
        "{} has {classes} sub-folders, expected one for each class: an ablation compares by labels, which pre-training \
         itself does not need",
        folder.display()
    );
    Ok(())
}

/// What a command that must succeed prints.
///
/// # Errors
/// With what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let output = (command.output())
        .with_context(|| format!("running {}", command.get_program().display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("error: ");
        bail!(
            "{}",
            if said.is_empty() {
                "it ended without a word"
            } else {
                said
            }
        );
    }
    String::from_utf8(output.stdout).context("the program's output is not UTF-8")
}

/// Twelve hexadecimal digits that name a text.
pub fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

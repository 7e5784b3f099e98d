//! The folder of a run: what is where.

use std::fs::{DirEntry, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::shell;

/// The folder that one run writes into; locked against a second process while this value lives.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Made by this process: a folder that stays without content goes with it.
    is_own: bool,
    // The lock ends with the process, however that ends.
    _lock: File,
}

impl RunDir {
    /// Makes a folder for a new run.
    ///
    /// # Errors
    /// If it is [taken](Self::taken), or cannot be written to.
    pub fn create(path: &Path) -> Result<Self> {
        let run_dir = Self::make(path)?;
        if let Some([reason, remedy]) = Self::taken(path) {
            bail!("{reason}: {remedy}");
        }
        // What ended before its first update, by an image for example, is begun anew.
        match std::fs::remove_file(run_dir.config()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", run_dir.config().display()))
            }
            _ => Ok(run_dir),
        }
    }

    /// Why no new run can begin in `path`, and what to do: there is one that has learned something, or another
    /// program's file.
    pub fn taken(path: &Path) -> Option<[String; 2]> {
        let config = std::fs::read(path.join("config.toml")).ok()?;
        let has_records = || {
            let metrics = std::fs::metadata(path.join("metrics.jsonl"));
            metrics.is_ok_and(|file| file.len() > 0)
        };
        let has_learned = Self::checkpoints_of(path).exists() || has_records();
        let is_own = config.starts_with(HEADER.as_bytes());
        let name = path.display();
        match (has_learned, is_own) {
            (_, false) => Some([
                format!("{name}/config.toml is not of a run"),
                "give another --out".into(),
            ]),
            (true, true) => Some([
                format!("{name} holds a run already"),
                format!(
                    "continue it with --resume --out {}, or give another --out",
                    shell::word(path)
                ),
            ]),
            (false, true) => None,
        }
    }

    /// Opens the folder of a run.
    ///
    /// # Errors
    /// If there is no run in it, or another process is training in it.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.join("config.toml").exists() {
            bail!(
                "{} holds no run: there is no config.toml in it",
                path.display()
            );
        }
        Self::lock(path, false)
    }

    /// Opens the folder of a run under `config`, a TOML file, or makes it; `continues` says whether a run under the one
    /// that is there can go on.
    ///
    /// # Errors
    /// If there is a run under another configuration in it, another process is training in it, or it cannot
    /// be written to.
    pub fn open_or_create(
        path: &Path,
        config: &str,
        continues: impl FnOnce(&str) -> bool,
    ) -> Result<Self> {
        let run_dir = Self::make(path)?;
        match std::fs::read_to_string(run_dir.config()) {
            Ok(found) if continues(&found) => {}
            Ok(_) => bail!(
                "{} was begun under another configuration: see {}; give another --out",
                path.display(),
                run_dir.config().display()
            ),
            Err(_) => mae_report::write_atomic(&run_dir.config(), config.as_bytes())?,
        }
        Ok(run_dir)
    }

    fn make(path: &Path) -> Result<Self> {
        let is_own = !path.exists();
        std::fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
        Self::lock(path, is_own)
    }

    fn lock(path: &Path, is_own: bool) -> Result<Self> {
        let name = path.join(LOCK);
        let lock = File::create(&name).with_context(|| format!("creating {}", name.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                bail!(
                    "another process is training in {}: wait for it, or give another --out",
                    path.display()
                )
            }
            // Some network file systems know no locks; a run there is still a run.
            Err(std::fs::TryLockError::Error(error)) => {
                log::warn!("cannot lock {}: {error}", name.display())
            }
        }
        Ok(Self {
            path: path.into(),
            is_own,
            _lock: lock,
        })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// One JSON object a line: see [`mae_report::Record`].
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The curves of loss and learning rate.
    pub fn curves(&self) -> PathBuf {
        self.path.join("loss.svg")
    }

    /// TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// The first images of the latest picture of reconstructions, small and without words.
    pub fn small_picture(&self) -> PathBuf {
        self.reconstructions().join("small.png")
    }

    /// Pictures of reconstructions, `epoch-NNNN.png`.
    pub fn reconstructions(&self) -> PathBuf {
        self.path.join("reconstructions")
    }

    /// The images that the run was begun with: see [`manifest`](crate::run::manifest).
    pub fn images(&self) -> PathBuf {
        self.path.join("images.csv.gz")
    }

    /// The images that are held out, likewise.
    pub fn val_images(&self) -> PathBuf {
        self.path.join("val-images.csv.gz")
    }

    /// Checkpoints, `step-NNNNNNNN/`.
    pub fn checkpoints(&self) -> PathBuf {
        Self::checkpoints_of(&self.path)
    }

    /// The checkpoints of the run in `path`, which another process may be training in.
    pub fn checkpoints_of(path: &Path) -> PathBuf {
        path.join("checkpoints")
    }

    /// Writes the configuration, a TOML file, with the command that repeats the run and the versions that it ran on.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write_config(&self, command: &str, config: &str) -> Result<()> {
        let header = format!(
            "{HEADER} {} (revision {}, libtorch {}).\n\
             # Repeat the run with: mae-train {command} --config {}\n\n",
            env!("CARGO_PKG_VERSION"),
            env!("MAE_REVISION"),
            torch_ext::version(),
            shell::word(&self.config()),
        );
        mae_report::write_atomic(&self.config(), (header + config).as_bytes())?;
        Ok(())
    }
}

impl RunDir {
    /// Notes in the configuration that the images lie in `path` now, if they did not before.
    ///
    /// # Errors
    /// If the configuration cannot be read or written.
    pub fn note_data(&self, path: &Path) -> Result<()> {
        let file = self.config();
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("reading {}", file.display()))?;
        let value = toml::Value::from(path.to_string_lossy().into_owned());
        let (mut section, mut moved) = ("", String::new());
        for line in text.lines() {
            section = line.strip_prefix('[').unwrap_or(section);
            match section == "data]" && line.starts_with("path = ") {
                true => moved += &format!("path = {value}\n"),
                false => moved += &format!("{line}\n"),
            }
        }
        if moved != text {
            mae_report::write_atomic(&file, moved.as_bytes())?;
        }
        Ok(())
    }
}

impl Drop for RunDir {
    /// What failed before it wrote anything leaves nothing.
    fn drop(&mut self) {
        let is_lock =
            |entry: std::io::Result<DirEntry>| entry.is_ok_and(|it| it.file_name() == LOCK);
        let is_empty = std::fs::read_dir(&self.path).is_ok_and(|mut entries| entries.all(is_lock));
        if self.is_own && is_empty {
            // What led here is reported; an empty folder is not worth an error.
            let _ = std::fs::remove_file(self.path.join(LOCK));
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

const LOCK: &str = ".lock";

/// What a run's configuration begins with.
const HEADER: &str = "# Written by mae-train";

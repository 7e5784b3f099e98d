//! A file that grows, and what is known of how far it is whole.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::layout::Layout;
use crate::eval::features::BATCH;

/// What must be the same for two halves to make a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// What is being made: one word, for messages.
    pub what: String,
    /// The model's file, for messages.
    pub weights: String,
    /// SHA-256 of the model's file.
    pub model: String,
    /// A digest of what the images are.
    pub images: String,
    /// Everything else that the numbers depend on, in words.
    pub settings: String,
}

/// How far the file is whole.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    identity: Identity,
    /// Batches whose images are in the file, or are broken.
    batches: usize,
    /// Reason of each broken image among them, by index.
    broken: BTreeMap<usize, String>,
}

/// The unfinished file; locked against a second process.
#[derive(Debug)]
pub struct Partial {
    out: PathBuf,
    path: PathBuf,
    journal_path: PathBuf,
    file: File,
    layout: Layout,
    journal: Journal,
    committed: Option<Instant>,
}

/// What an interruption may cost.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

impl Partial {
    /// Goes on with what is unfinished of `out`, or begins it.
    ///
    /// # Errors
    /// If `out`, or `csv` where nothing is unfinished, is there already; if what is unfinished has another identity, or
    /// is another process's. With `overwrite` the former are no errors.
    pub fn open(
        out: &Path,
        csv: &Path,
        identity: Identity,
        layout: Layout,
        overwrite: bool,
    ) -> Result<Self> {
        let (path, journal_path) = (beside(out, ".partial"), beside(out, ".partial.json"));
        check_free(out, overwrite)?;
        let is_begun = path.exists() && journal_path.exists();
        if !is_begun {
            check_free(csv, overwrite)?;
        }
        let file = lock(&path)?;
        let found = match is_begun {
            true => read_journal(&path, &journal_path, &identity, overwrite)?,
            false => None,
        };
        if found.is_none() {
            // It must not be taken for that of the file which begins now.
            delete(&journal_path)?;
        }
        let journal = found.unwrap_or(Journal {
            identity,
            batches: 0,
            broken: BTreeMap::new(),
        });
        let mut partial = Self {
            out: out.into(),
            path,
            journal_path,
            file,
            layout,
            journal,
            committed: None,
        };
        partial.rewind()?;
        Ok(partial)
    }

    /// Batches that are behind.
    pub fn batches(&self) -> usize {
        self.journal.batches
    }

    /// Whether there are no numbers yet.
    pub fn is_empty(&self) -> bool {
        self.images() == 0
    }

    /// Reason of each broken image so far, by index.
    pub fn broken(&self) -> &BTreeMap<usize, String> {
        &self.journal.broken
    }

    /// Adds the numbers of the images that are not `broken`; then `batches` are behind.
    pub fn append(
        &mut self,
        features: &Tensor,
        batches: usize,
        broken: Vec<(usize, String)>,
    ) -> Result<()> {
        let host = features.to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0; host.numel() * host.kind().elt_size_in_bytes()];
        host.copy_data_u8(&mut bytes, host.numel());
        self.file
            .write_all(&bytes)
            .with_context(|| self.writing())?;
        self.skip(batches, broken);
        match self.committed {
            Some(committed) if committed.elapsed() < COMMIT_EVERY => Ok(()),
            _ => self.commit(),
        }
    }

    /// Notes images that no numbers will come of; then `batches` are behind.
    pub fn skip(&mut self, batches: usize, broken: Vec<(usize, String)>) {
        self.journal.batches = batches;
        self.journal.broken.extend(broken);
    }

    /// Makes what is there survive a kill, and a loss of power: first the numbers, then the note that they are whole.
    pub fn commit(&mut self) -> Result<()> {
        self.file.sync_data().with_context(|| self.writing())?;
        let journal = serde_json::to_vec(&self.journal)?;
        mae_report::write_atomic(&self.journal_path, &journal)?;
        self.committed = Some(Instant::now());
        Ok(())
    }

    /// Completes the file and calls it `name`, or else what it was begun for. `rows` are the indices of its images.
    pub fn finish(
        mut self,
        rows: &[usize],
        labels: Option<&[i64]>,
        name: Option<&Path>,
    ) -> Result<()> {
        let name = name.unwrap_or(&self.out);
        let header = self.layout.header(rows.len(), labels.is_some());
        let tail = self.layout.tail(rows, labels);
        let mut complete = || {
            self.file.seek(SeekFrom::End(0))?;
            self.file.write_all(&tail)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header)?;
            self.file.sync_all()?;
            match std::fs::rename(&self.path, name) {
                // Another disk.
                Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                    std::fs::copy(&self.path, name)?;
                    std::fs::remove_file(&self.path)?;
                }
                renamed => renamed?,
            }
            mae_report::sync_folder(name)
        };
        complete().with_context(|| self.writing())?;
        delete(&self.journal_path)
    }

    /// Shows the numbers so far to `see`, those of at most `rows` images at a time, one image after the other.
    pub fn read_back(
        &mut self,
        rows: usize,
        mut see: impl FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let reading = format!("reading {}", self.path.display());
        let start = SeekFrom::Start(self.layout.header_len());
        self.file.seek(start).with_context(|| reading.clone())?;
        let row_len = self.layout.row_len() as usize;
        let mut bytes = vec![0; rows * row_len];
        let mut left = self.images();
        while left > 0 {
            let bytes = &mut bytes[..left.min(rows) * row_len];
            self.file
                .read_exact(bytes)
                .with_context(|| reading.clone())?;
            let (numbers, _) = bytes.as_chunks();
            let numbers: Vec<f32> = numbers
                .iter()
                .map(|number| f32::from_le_bytes(*number))
                .collect();
            see(&numbers)?;
            left -= left.min(rows);
        }
        Ok(())
    }

    /// Deletes the file, of which something else was made, or nothing.
    pub fn discard(&self) -> Result<()> {
        delete(&self.path)?;
        delete(&self.journal_path)
    }

    /// Images whose numbers are in the file.
    fn images(&self) -> usize {
        let images = (self.journal.batches * BATCH).min(self.layout.images());
        images.saturating_sub(self.journal.broken.len())
    }

    /// Forgets what was written after the last note.
    fn rewind(&mut self) -> Result<()> {
        let whole = self.layout.header_len() + self.images() as u64 * self.layout.row_len();
        let found = self.file.metadata().with_context(|| self.writing())?.len();
        ensure!(
            found >= whole || self.journal.batches == 0,
            "{} holds {found} bytes of the {whole} that {} tells of: delete both to begin anew",
            self.path.display(),
            self.journal_path.display()
        );
        let mut rewind = || {
            self.file.set_len(whole)?;
            self.file.seek(SeekFrom::End(0))
        };
        rewind().with_context(|| self.writing())?;
        Ok(())
    }

    fn writing(&self) -> String {
        format!("writing {}", self.path.display())
    }
}

/// Refuses to replace `file`, unless that is meant.
pub fn check_free(file: &Path, overwrite: bool) -> Result<()> {
    ensure!(
        overwrite || !file.exists(),
        "{} is there already: replace it with --overwrite, or give another name",
        file.display()
    );
    Ok(())
}

fn beside(out: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(out.as_os_str());
    name.push(suffix);
    name.into()
}

/// Deletes a file that need not be there.
fn delete(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("deleting {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// What is noted of an unfinished file, unless it is to be begun anew.
fn read_journal(
    path: &Path,
    journal_path: &Path,
    identity: &Identity,
    overwrite: bool,
) -> Result<Option<Journal>> {
    let remedy = format!(
        "give what it was begun with, begin anew with --overwrite, or give another --out ({} is what is unfinished)",
        path.display()
    );
    let text = std::fs::read(journal_path)
        .with_context(|| format!("reading {}", journal_path.display()))?;
    let found: Journal = match serde_json::from_slice(&text) {
        Ok(found) => found,
        Err(_) if overwrite => return Ok(None),
        Err(error) => bail!("{} is damaged ({error}): {remedy}", journal_path.display()),
    };
    let then = &found.identity;
    let differences: Vec<String> = [
        (then.model != identity.model)
            .then(|| format!("another model ({}, not {})", then.weights, identity.weights)),
        (then.images != identity.images).then(|| "other images".to_string()),
        (then.settings != identity.settings).then(|| {
            format!(
                "other settings ({}, not {})",
                then.settings, identity.settings
            )
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    match differences.is_empty() {
        true => Ok(Some(found)),
        false if overwrite => Ok(None),
        false => bail!(
            "an unfinished {} is there already, begun with {}: {remedy}",
            identity.what,
            differences.join(" and ")
        ),
    }
}

/// Opens or makes the file for this process alone.
fn lock(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| {
            format!(
                "creating {}: check that the folder exists and may be written to",
                path.display()
            )
        })?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => bail!(
            "another process is writing {}: wait for it, or give another --out",
            path.display()
        ),
        // Some network file systems know no locks.
        Err(TryLockError::Error(error)) => log::warn!("cannot lock {}: {error}", path.display()),
        Ok(()) => {}
    }
    Ok(file)
}

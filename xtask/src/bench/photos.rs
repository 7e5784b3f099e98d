//! The photographs that the loaders read.

use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use indicatif::DecimalBytes;
use sha2::{Digest, Sha256};

use super::python::Python;
use crate::libtorch::cache::explain;

/// A folder of JPEG files.
pub struct Photos {
    pub folder: PathBuf,
    pub count: usize,
    bytes: u64,
    origin: &'static str,
}

impl Photos {
    /// One sentence.
    pub fn describe(&self) -> String {
        format!(
            "There are {} files of {} on average, {}.",
            self.count,
            DecimalBytes(self.bytes / self.count as u64),
            self.origin
        )
    }

    fn count(folder: PathBuf, origin: &'static str) -> Result<Self> {
        let mut photos = Self {
            folder: folder.clone(),
            count: 0,
            bytes: 0,
            origin,
        };
        photos
            .add(&folder)
            .with_context(|| format!("cannot list {}", folder.display()))?;
        ensure!(
            photos.count > 0,
            "{} has no jpg files: name a folder of photographs with --photos, or leave it out",
            folder.display()
        );
        Ok(photos)
    }

    fn add(&mut self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let metadata = fs::metadata(&path)?;
            let is_jpeg = path.extension().is_some_and(|ending| {
                ["jpg", "jpeg"]
                    .iter()
                    .any(|jpg| ending.eq_ignore_ascii_case(jpg))
            });
            if metadata.is_dir() {
                self.add(&path)?;
            } else if is_jpeg {
                self.count += 1;
                self.bytes += metadata.len();
            }
        }
        Ok(())
    }
}

/// The user's, or drawn ones from the cache, made now if they are not there.
///
/// # Errors
/// If there are none, or none can be made.
pub fn find(users: Option<&Path>, root: &Path, python: &mut Python) -> Result<Photos> {
    if let Some(folder) = users {
        let folder = std::path::absolute(folder)?;
        return Photos::count(folder, "photographs named with --photos");
    }
    let script = root.join("benches/peers/make_photos.py");
    let text = fs::read(&script).with_context(|| format!("cannot read {}", script.display()))?;
    let version = hex(&Sha256::digest(text));
    let folder = python.cache().root().join("bench-photos");
    // Written last: without it, or with another script's, the folder is not what it should be.
    let complete = folder.join("made-by");
    if fs::read_to_string(&complete).ok().as_deref() != Some(&version) {
        eprintln!("drawing photographs into {} (65 MB)", folder.display());
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(explain(error, "replace", &folder));
            }
            _ => {}
        }
        python.install_for_photos()?;
        python
            .run_script(&script, &folder)
            .context("the photographs cannot be drawn; name your own with --photos")?;
        fs::write(&complete, version).map_err(|error| explain(error, "write", &complete))?;
    }
    Photos::count(folder, "drawn by benches/peers/make_photos.py")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

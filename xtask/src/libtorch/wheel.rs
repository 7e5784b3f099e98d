//! Reading a Python wheel: what its files must hash to.
//!
//! Source: Python Packaging User Guide, "Binary distribution format" and "Recording installed projects".

use std::{collections::HashMap, io::Read, path::Path};

use anyhow::{Context, Result, bail};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};

use super::unpack::{self, Archive, Sha256Digest};

/// A downloaded wheel.
pub struct Wheel {
    archive: Archive,
    file_name: String,
    /// `torch-2.13.0.dist-info`
    dist_info: String,
}

impl Wheel {
    /// Opens the wheel at `path`.
    ///
    /// # Errors
    /// If it is no zip file or has no `.dist-info` directory.
    pub fn open(path: &Path) -> Result<Self> {
        let archive = unpack::open(path)?;
        let file_name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let dist_info = archive
            .file_names()
            .find_map(|name| {
                let name = name.ok()?;
                let directory = name.split('/').next()?;
                directory
                    .ends_with(".dist-info")
                    .then(|| directory.to_owned())
            })
            .with_context(|| format!("{file_name} is no wheel: it has no .dist-info directory"))?;
        Ok(Self {
            archive,
            file_name,
            dist_info,
        })
    }

    /// Unpacks the files that `keep` wants into `destination`, under their own names,
    /// and compares each with the digest that the wheel records for it.
    ///
    /// # Errors
    /// If a file is not recorded, differs from what is recorded, or cannot be written.
    pub fn unpack(&mut self, destination: &Path, keep: impl Fn(&str) -> bool) -> Result<()> {
        let record_name = format!("{}/RECORD", self.dist_info);
        let context = || format!("cannot read {record_name} of {}", self.file_name);
        let mut record = String::new();
        self.archive
            .by_name(&record_name)
            .with_context(context)?
            .read_to_string(&mut record)
            .with_context(context)?;
        let record = parse_record(&record);
        let verify = |name: &str, digest: &Sha256Digest| {
            if name == record_name {
                return Ok(());
            }
            let found = base64(digest);
            match record.get(name) {
                Some(expected) if *expected == found => Ok(()),
                Some(expected) => bail!(
                    "{name} of {} is damaged: its SHA-256 is {found}, its RECORD expects {expected}; \
                     run `cargo xtask setup` again to download it anew",
                    self.file_name
                ),
                None => bail!(
                    "{name} of {} is not in its RECORD: refusing to install it",
                    self.file_name
                ),
            }
        };
        let place = |name: &str| keep(name).then(|| name.to_owned());
        unpack::unpack(
            &mut self.archive,
            &self.file_name,
            destination,
            place,
            verify,
        )
    }
}

/// The SHA-256 of each file as RECORD writes it. RECORD is a CSV file: `path,sha256=digest,size`.
fn parse_record(record: &str) -> HashMap<String, String> {
    let mut digests = HashMap::new();
    for line in record.lines() {
        // From the right, for the path may hold a comma, in quotes.
        let mut fields = line.rsplitn(3, ',').skip(1);
        if let (Some(digest), Some(path)) = (fields.next(), fields.next())
            && let Some(digest) = digest.strip_prefix("sha256=")
        {
            let path = match path
                .strip_prefix('"')
                .and_then(|path| path.strip_suffix('"'))
            {
                Some(quoted) => quoted.replace("\"\"", "\""),
                None => path.to_owned(),
            };
            digests.insert(path, digest.to_owned());
        }
    }
    digests
}

/// base64 with the alphabet for URLs and without padding, as RECORD writes digests.
fn base64(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::fs;

    /// Unpacks a wheel of `files`, with a RECORD of what `recorded` says.
    fn unpack_wheel(
        files: &[(&str, &[u8])],
        recorded: &[(&str, &[u8])],
    ) -> (tempfile::TempDir, Result<()>) {
        let record_name = "torch-2.13.0.dist-info/RECORD";
        let mut record = format!("{record_name},,\n");
        for (name, bytes) in recorded {
            let digest: Sha256Digest = Sha256::digest(bytes).into();
            let name = if name.contains(',') {
                format!("\"{name}\"")
            } else {
                (*name).to_owned()
            };
            record += &format!("{name},sha256={},{}\n", base64(&digest), bytes.len());
        }
        let mut all = files.to_vec();
        all.push((record_name, record.as_bytes()));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("torch-2.13.0-cp312-cp312-any.whl");
        let result = Wheel::open(&unpack::tests::zip(&path, &all))
            .unwrap()
            .unpack(&directory.path().join("out"), |_| true);
        (directory, result)
    }

    #[test]
    fn a_wheel_that_is_as_recorded_is_unpacked() {
        let files: [(&str, &[u8]); 2] = [
            ("torch/lib/libc10.so", b"library"),
            ("torch/include/a,b.h", b"header"),
        ];
        let (directory, result) = unpack_wheel(&files, &files);
        result.unwrap();
        for (name, bytes) in files {
            assert_eq!(
                fs::read(directory.path().join("out").join(name)).unwrap(),
                bytes
            );
        }
        assert!(
            directory
                .path()
                .join("out/torch-2.13.0.dist-info/RECORD")
                .is_file()
        );
    }

    #[test]
    fn a_corrupted_file_is_refused_by_name() {
        let (_directory, result) = unpack_wheel(
            &[("torch/lib/libc10.so", b"1ibrary")],
            &[("torch/lib/libc10.so", b"library")],
        );
        let message = result.unwrap_err().to_string();
        assert!(
            message.contains("torch/lib/libc10.so") && message.contains("RECORD expects"),
            "{message}"
        );
    }

    #[test]
    fn a_file_that_is_not_recorded_is_refused() {
        let (_directory, result) = unpack_wheel(&[("torch/lib/libextra.so", b"library")], &[]);
        assert!(
            result
                .unwrap_err()
                .to_string()
                .contains("not in its RECORD")
        );
    }

    #[test]
    fn base64_is_as_in_record_files() {
        // The digest of the empty file, as found in any RECORD.
        let digest: Sha256Digest = Sha256::digest(b"").into();
        assert_eq!(
            base64(&digest),
            "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
        );
        assert_eq!(base64(b"ab"), "YWI");
    }
}

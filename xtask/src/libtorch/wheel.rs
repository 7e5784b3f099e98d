//! Reading a Python wheel: what it requires, and what its files must hash to.
//!
//! Source: Python Packaging User Guide, "Binary distribution format" and "Recording installed projects".

use std::{
    collections::HashMap,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{
    requirement::{Requirement, normalise},
    unpack::{self, Archive, Sha256Digest},
};

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

    /// What the wheel requires, for every platform and extra.
    pub fn requirements(&mut self) -> Result<Vec<Requirement>> {
        let metadata = self.read("METADATA")?;
        requirements(&metadata).with_context(|| format!("in the METADATA of {}", self.file_name))
    }

    /// Unpacks the files that `keep` wants into `destination`, under their own names,
    /// and compares each with the digest that the wheel records for it.
    ///
    /// # Errors
    /// If a file is not recorded, differs from what is recorded, or cannot be written.
    pub fn unpack(&mut self, destination: &Path, keep: impl Fn(&str) -> bool) -> Result<()> {
        let record_name = format!("{}/RECORD", self.dist_info);
        let record = parse_record(&self.read("RECORD")?);
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

    fn read(&mut self, name: &str) -> Result<String> {
        let path = format!("{}/{name}", self.dist_info);
        let context = || format!("cannot read {path} of {}", self.file_name);
        let mut text = String::new();
        self.archive
            .by_name(&path)
            .with_context(context)?
            .read_to_string(&mut text)
            .with_context(context)?;
        Ok(text)
    }
}

/// The wheel of package `name` in `directory`, if pip put one there.
pub fn find(directory: &Path, name: &str) -> Result<PathBuf> {
    let entries = directory
        .read_dir()
        .with_context(|| format!("cannot read {}", directory.display()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let file_name = path.file_name().unwrap_or_default().to_string_lossy();
            file_name.ends_with(".whl")
                && file_name
                    .split('-')
                    .next()
                    .is_some_and(|found| normalise(found) == name)
        })
        .with_context(|| format!("pip put no wheel of {name} into {}", directory.display()))
}

fn requirements(metadata: &str) -> Result<Vec<Requirement>> {
    metadata
        .lines()
        // The headers end at the first empty line; the description follows.
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("Requires-Dist:"))
        .map(|requirement| Requirement::parse(requirement.trim()))
        .collect()
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
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0, |bits, &byte| bits << 8 | u32::from(byte))
            << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            text.push(char::from(
                ALPHABET[(bits >> (18 - 6 * index) & 63) as usize],
            ));
        }
    }
    text
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::fs;

    /// Writes a wheel for a test, with a RECORD of what `recorded` says and not of what is in `files`.
    pub fn wheel(
        path: &Path,
        metadata: &str,
        files: &[(&str, &[u8])],
        recorded: &[(&str, &[u8])],
    ) -> PathBuf {
        let dist_info = path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .splitn(3, '-')
            .take(2)
            .collect::<Vec<_>>()
            .join("-");
        let (metadata_name, record_name) = (
            format!("{dist_info}.dist-info/METADATA"),
            format!("{dist_info}.dist-info/RECORD"),
        );
        let mut record = format!("{record_name},,\n");
        for (name, bytes) in recorded
            .iter()
            .copied()
            .chain([(metadata_name.as_str(), metadata.as_bytes())])
        {
            let digest: Sha256Digest = Sha256::digest(bytes).into();
            let name = if name.contains(',') {
                format!("\"{name}\"")
            } else {
                name.to_owned()
            };
            record += &format!("{name},sha256={},{}\n", base64(&digest), bytes.len());
        }
        let mut all = files.to_vec();
        all.push((&metadata_name, metadata.as_bytes()));
        all.push((&record_name, record.as_bytes()));
        unpack::tests::zip(path, &all)
    }

    fn unpack_wheel(
        files: &[(&str, &[u8])],
        recorded: &[(&str, &[u8])],
    ) -> (tempfile::TempDir, Result<()>) {
        let directory = tempfile::tempdir().unwrap();
        let path = wheel(
            &directory.path().join("torch-2.13.0-cp312-cp312-any.whl"),
            "Name: torch\n",
            files,
            recorded,
        );
        let result = Wheel::open(&path)
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
    fn metadata_is_read_up_to_the_description() {
        let metadata = "Name: torch\nRequires-Dist: filelock\nRequires-Dist: nvidia-nccl-cu13==2.29.7; platform_system == \"Linux\"\n\n\
                        Requires-Dist: not-this\n";
        let names: Vec<_> = requirements(metadata)
            .unwrap()
            .into_iter()
            .map(|requirement| requirement.name)
            .collect();
        assert_eq!(names, ["filelock", "nvidia-nccl-cu13"]);
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

    #[test]
    fn wheels_are_found_by_package() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "nvidia_nccl_cu13-2.29.7-py3-none-any.whl",
            "torch-2.13.0-cp312-cp312-any.whl",
            "torch-extra.txt",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let name = |package| {
            find(directory.path(), package).map(|path| path.file_name().unwrap().to_owned())
        };
        assert_eq!(
            name("nvidia-nccl-cu13").unwrap(),
            "nvidia_nccl_cu13-2.29.7-py3-none-any.whl"
        );
        assert_eq!(name("torch").unwrap(), "torch-2.13.0-cp312-cp312-any.whl");
        assert!(name("nvidia-nccl").is_err());
    }
}

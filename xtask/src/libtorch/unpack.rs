//! Unpacking zip files (wheels are zip files) and hashing what comes out.

use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::cache::explain;

/// A SHA-256.
pub type Sha256Digest = [u8; 32];

/// A zip file, opened.
pub type Archive = ZipArchive<BufReader<File>>;

/// Opens the zip file at `path`.
pub fn open(path: &Path) -> Result<Archive> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    ZipArchive::new(BufReader::new(file))
        .with_context(|| format!("{} is no valid zip file", path.display()))
}

/// Unpacks into `destination` the files that `place` gives a path there, each named `/`-separated.
///
/// `verify` sees the name and the digest of each; the zip file's own CRC-32 is checked in any case.
///
/// # Errors
/// If a file cannot be read or written, is damaged, is refused by `verify`, or has a path that leads elsewhere.
pub fn unpack(
    archive: &mut Archive,
    title: &str,
    destination: &Path,
    place: impl Fn(&str) -> Option<String>,
    verify: impl Fn(&str, &Sha256Digest) -> Result<()>,
) -> Result<()> {
    let mut wanted = Vec::new();
    let mut total = 0;
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index)?;
        let name = entry.name()?.into_owned();
        if entry.is_dir() {
            continue;
        }
        if let Some(path) = place(&name) {
            if entry.is_symlink() || !is_safe(&path) {
                bail!(
                    "{name:?} in {title} is a link or leads outside the directory: refusing to unpack it"
                );
            }
            total += entry.size();
            wanted.push((index, name, path));
        }
    }
    let progress = progress_bar(total, format!("unpacking {title}"));
    for (index, name, path) in wanted {
        let path = destination.join(path);
        let directory = path.parent().unwrap_or(destination);
        fs::create_dir_all(directory).map_err(|error| explain(error, "create", directory))?;
        let file = File::create(&path).map_err(|error| explain(error, "create", &path))?;
        let mut entry = archive.by_index(index)?;
        let digest = copy(&mut entry, file, &progress)
            .map_err(|error| explain(error, &format!("unpack {name} of {title} to"), &path))?;
        verify(&name, &digest)?;
    }
    progress.finish_and_clear();
    Ok(())
}

/// The digest of the file at `path`.
pub fn sha256(path: &Path) -> Result<Sha256Digest> {
    let context = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(context)?;
    let size = file.metadata().with_context(context)?.len();
    let name = path
        .file_name()
        .map_or(Cow::Borrowed("the file"), |name| name.to_string_lossy());
    let progress = progress_bar(size, format!("checking {name}"));
    let digest = copy(file, io::sink(), &progress).with_context(context)?;
    progress.finish_and_clear();
    Ok(digest)
}

/// `digest` in hexadecimal.
pub fn hexadecimal(digest: &Sha256Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_safe(path: &str) -> bool {
    !path.contains(['\\', ':', '\0'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Copies everything and hashes it on the way.
fn copy(
    mut from: impl Read,
    mut to: impl Write,
    progress: &ProgressBar,
) -> io::Result<Sha256Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..length]);
        to.write_all(&buffer[..length])?;
        progress.inc(length as u64);
    }
}

/// A bar on a terminal, one line elsewhere.
fn progress_bar(total: u64, message: String) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if bar.is_hidden() {
        eprintln!("{message}");
        return bar;
    }
    if let Ok(style) =
        ProgressStyle::with_template("{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {eta}")
    {
        bar.set_style(style);
    }
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::path::PathBuf;
    use zip::{ZipWriter, write::SimpleFileOptions};

    /// Writes a zip file for a test.
    pub fn zip(path: &Path, files: &[(&str, &[u8])]) -> PathBuf {
        let mut writer = ZipWriter::new(File::create(path).unwrap());
        for (name, bytes) in files {
            writer
                .start_file(*name, SimpleFileOptions::default())
                .unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
        path.to_owned()
    }

    fn unpack_all(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Result<()>) {
        let directory = tempfile::tempdir().unwrap();
        let path = zip(&directory.path().join("a.zip"), files);
        let destination = directory.path().join("out");
        let place = |name: &str| (!name.ends_with(".txt")).then(|| name.to_owned());
        let result = unpack(
            &mut open(&path).unwrap(),
            "a.zip",
            &destination,
            place,
            |_, _| Ok(()),
        );
        (directory, result)
    }

    #[test]
    fn chosen_files_are_unpacked() {
        let (directory, result) =
            unpack_all(&[("lib/a.so", b"aaa"), ("notes.txt", b"no"), ("b.h", b"")]);
        result.unwrap();
        let read = |name: &str| fs::read(directory.path().join("out").join(name)).ok();
        assert_eq!(read("lib/a.so").as_deref(), Some(&b"aaa"[..]));
        assert_eq!(read("b.h").as_deref(), Some(&b""[..]));
        assert_eq!(read("notes.txt"), None);
    }

    #[test]
    fn a_path_that_leads_outside_is_refused() {
        for name in [
            "../escape",
            "/etc/escape",
            "a/../../escape",
            "C:/escape",
            "a\\..\\escape",
        ] {
            let (_directory, result) = unpack_all(&[(name, b"x")]);
            assert!(
                result.unwrap_err().to_string().contains("refusing"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_damaged_zip_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = zip(&directory.path().join("a.zip"), &[("a.so", &[7; 5000])]);
        let mut bytes = fs::read(&path).unwrap();
        // Inside the only entry's compressed data, after its 30-byte header and 4-byte name.
        bytes[40] ^= 0xff;
        fs::write(&path, bytes).unwrap();
        let place = |name: &str| Some(name.to_owned());
        let result = unpack(
            &mut open(&path).unwrap(),
            "a.zip",
            &directory.path().join("out"),
            place,
            |_, _| Ok(()),
        );
        assert!(format!("{:#}", result.unwrap_err()).contains("a.so"));
    }

    #[test]
    fn digests_are_sha256() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("abc");
        fs::write(&path, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let expect = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hexadecimal(&sha256(&path).unwrap()), expect);
    }
}

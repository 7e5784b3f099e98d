//! Which images a run was begun with: a list of them in its folder, which a resumed run compares with what it finds.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Result, bail};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use mae_data::{Dataset, Differences, Fingerprint, fingerprints};

/// Notes the images of `dataset` at `path`, as CSV, compressed with gzip: a line an image.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, dataset: &dyn Dataset) -> Result<()> {
    let images = fingerprints(dataset);
    mae_report::write_atomic_with(path, |temporary| {
        let compressor = GzEncoder::new(File::create(temporary)?, Compression::fast());
        let mut csv = csv::Writer::from_writer(compressor);
        for image in &images {
            csv.serialize(image)?;
        }
        let compressor = csv.into_inner().map_err(|error| error.into_error())?;
        compressor.finish().map(drop)
    })?;
    Ok(())
}

/// Makes sure that the images of `dataset` are those that `path` notes, in the same order; where nothing is noted, as
/// in runs of earlier versions, notes them.
///
/// # Errors
/// What differs, and `remedy`; or if the file cannot be written.
pub fn check(path: &Path, dataset: &dyn Dataset, remedy: &str) -> Result<()> {
    match read(path) {
        Ok(noted) => match Differences::find(&noted, dataset) {
            Some(differences) => bail!(
                "the images are not those that it was begun with: of {}, {differences}; put them back as they were, {remedy}",
                noted.len()
            ),
            None => Ok(()),
        },
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                log::warn!(
                    "{} is damaged ({error}), so nobody knows whether the images are still the same: they are noted anew",
                    path.display()
                );
            }
            write(path, dataset)
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<Fingerprint>> {
    let mut lines = csv::Reader::from_reader(GzDecoder::new(File::open(path)?));
    // What follows takes a first line that cannot be read for the end of the file.
    if lines.headers()?.is_empty() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let images: csv::Result<_> = lines.into_deserialize().collect();
    Ok(images?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mae_data::SyntheticDataset;

    #[test]
    fn a_list_is_compared_and_a_damaged_one_is_no_reason_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.csv.gz");
        let scenes = |len| SyntheticDataset::new(len, 8, 8, 3, 0).unwrap();
        let check = |len| check(&path, &scenes(len), "or else");
        check(30).unwrap();
        check(30).unwrap();
        let message = check(28).unwrap_err().to_string();
        assert!(
            message.contains("of 30, 2 removed (synthetic:28, synthetic:29); "),
            "{message}"
        );
        assert!(message.ends_with("or else"), "{message}");

        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x10;
        for damaged in [&flipped[..], &whole[..whole.len() / 2], b"", b"no gzip"] {
            std::fs::write(&path, damaged).unwrap();
            check(28).unwrap();
            check(28).unwrap();
            std::fs::write(&path, &whole).unwrap();
        }
    }
}

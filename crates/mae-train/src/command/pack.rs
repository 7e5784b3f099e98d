//! `mae-train pack`.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mae_data::{
    DataError, Dataset, Nodata, PackConfig, PackEncoding, PackProgress, PackSummary, PackedDataset,
    Split, pack,
};
use mae_train::data::{open_path, tell_of_images};
use mae_train::distributed::World;
use mae_train::run::interrupt::Interrupt;
use mae_train::run::progress::Progress;

use super::{start_progress, tell_of_broken};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train pack photos photos.mae                         pixels, the shorter side reduced to 256
  mae-train pack photos photos.mae --size 224 --overwrite
  mae-train pack imagenet/train imagenet.mae --quality 95  as JPEG, for a data set too large for pixels
  mae-train pack 'shards-{0000..0012}.tar' shards.mae
  mae-train pack scenes scenes.mae --channels 12           as many channels as TIFF files or NumPy's arrays have
  mae-train pretrain --data photos.mae                     uses it

Pixels are read at the speed of memory and take 3 bytes each: a photo of 256 x 341 takes 262 kB. As a JPEG of quality 95
it takes about a sixth, and decoding it takes most of the time that loading takes. Labels and names are kept.
Values of more than 8 bits are stored as 32-bit floating-point numbers, which loses nothing; a JPEG cannot hold them.";

/// What to pack, and how.
#[derive(Args)]
pub struct PackArgs {
    /// The images: a folder (or CIFAR's binary files), tar shards, or a packed file
    data: PathBuf,
    /// The file to write
    out: PathBuf,
    /// Channels: 3 for RGB, as which grey images are packed, too; 1 for grey; or what the files have
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    channels: usize,
    /// What stands for a value that was not measured, in TIFF, PNG and Netpbm files and arrays: a number, nan, auto for
    /// what each file says, or none; it stays missing
    #[arg(
        long,
        value_name = "VALUE",
        default_value_t,
        allow_negative_numbers = true
    )]
    nodata: Nodata,
    /// Pixels that the shorter side is reduced to; smaller images stay as they are
    #[arg(long, value_name = "PIXELS", default_value_t = 256)]
    size: usize,
    /// Stores JPEGs of this quality, 1 to 100 [default: stores pixels]
    #[arg(long, value_name = "QUALITY")]
    quality: Option<u8>,
    /// Share of broken images to leave out before giving up
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    max_broken_share: f64,
    /// Replaces the packed file that is there
    #[arg(long)]
    overwrite: bool,
}

impl PackArgs {
    /// Packs the images and says what became of them.
    pub fn run(&self) -> Result<ExitCode> {
        let progress = start_progress(&World::alone())?;
        self.check_out()?;
        self.tell_leftovers();
        let dataset = open_path(&self.data, Split::Train, self.channels, self.nodata)?;
        if let (false, Err(error)) = (dataset.classes().is_empty(), dataset.check_labels()) {
            eprintln!("not all images have a label, and are packed without one: {error}");
        }
        let interrupt = Interrupt::catch()?;
        eprintln!(
            "packing {} images of {}",
            dataset.len(),
            self.data.display()
        );
        tell_of_images(&[dataset.as_ref()], &progress);
        match self.pack(dataset.as_ref(), &interrupt, &progress)? {
            Some(summary) => {
                self.tell(&summary);
                Ok(ExitCode::SUCCESS)
            }
            None => {
                println!(
                    "stopped, and wrote nothing; start again with the same command: {} is written as a whole or not at all",
                    self.out.display()
                );
                Ok(ExitCode::from(128 + interrupt.signal().unwrap_or(2) as u8))
            }
        }
    }

    /// Refuses to replace anything but an older packed file, and that only if told to.
    fn check_out(&self) -> Result<()> {
        let out = self.out.display();
        let Ok(metadata) = self.out.symlink_metadata() else {
            return Ok(());
        };
        ensure!(
            !self.out.is_dir(),
            "{out} is a folder: give the name of a file, for example {}",
            self.out.join("images.mae").display()
        );
        let is_packed = metadata.is_file()
            && PackedDataset::is_packed(&self.out).with_context(|| format!("reading {out}"))?;
        ensure!(
            is_packed,
            "{out} is there already and is no packed file, which is all that --overwrite replaces: give another name"
        );
        ensure!(
            self.overwrite,
            "{out} is there already: replace it with --overwrite, or give another name"
        );
        let is_input = matches!(
            (self.data.canonicalize(), self.out.canonicalize()),
            (Ok(data), Ok(out)) if data == out
        );
        ensure!(
            !is_input,
            "{out} is what is to be packed: give another name for the result"
        );
        Ok(())
    }

    /// Names what packs that were killed have left beside the file; another machine may still be writing one.
    fn tell_leftovers(&self) {
        let name = self.out.file_name().unwrap_or_default().to_string_lossy();
        let folder = match self.out.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries {
            let found = entry.file_name().to_string_lossy().into_owned();
            if found.starts_with(&format!(".{name}.")) && found.ends_with(".tmp") {
                let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                eprintln!(
                    "{} ({}) is left of a pack that was killed: delete it, unless one is running now",
                    entry.path().display(),
                    size(bytes as f64)
                );
            }
        }
    }

    /// Writes the file beside its place and renames it; `None` after a signal.
    fn pack(
        &self,
        dataset: &dyn Dataset,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<Option<PackSummary>> {
        let config = PackConfig {
            size: self.size,
            encoding: self.quality.map_or(PackEncoding::Raw, PackEncoding::Jpeg),
            max_broken_share: self.max_broken_share,
        };
        let images = dataset.len();
        let bar = progress.start(0, images as u64);
        let on_progress = |done: PackProgress| {
            bar.advance_to(done.images as u64);
            let all = done.bytes as f64 / done.images as f64 * images as f64;
            bar.message(&format!(
                "{} of about {}",
                size(done.bytes as f64),
                size(all)
            ));
            match interrupt.signal() {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        };
        // What happened, unless the file could not be written: that, `write_atomic_with` says.
        let mut outcome = None;
        let written = mae_report::write_atomic_with(&self.out, |temporary: &Path| {
            match pack(dataset, &config, temporary, on_progress) {
                Err(DataError::Write { source, .. }) => Err(source),
                Ok(Some(summary)) => {
                    outcome = Some(Ok(Some(summary)));
                    Ok(())
                }
                stopped_or_failed => {
                    outcome = Some(stopped_or_failed);
                    Err(io::Error::other("not packed"))
                }
            }
        });
        match outcome {
            Some(Ok(None)) => Ok(None),
            Some(Err(error)) => {
                Err(error).with_context(|| format!("packing {}", self.data.display()))
            }
            whole_or_not_written => {
                written?;
                Ok(whole_or_not_written.and_then(Result::ok).flatten())
            }
        }
    }

    fn tell(&self, summary: &PackSummary) {
        println!(
            "packed {} images into {}, {}; use it with --data {1}",
            summary.images,
            self.out.display(),
            size(summary.bytes as f64)
        );
        tell_of_broken(&summary.broken);
    }
}

/// "1.5 GB".
fn size(bytes: f64) -> String {
    let (unit, name) = match bytes {
        0.0..1e6 => (1e3, "kB"),
        1e6..1e9 => (1e6, "MB"),
        _ => (1e9, "GB"),
    };
    format!("{:.1} {name}", bytes / unit)
}

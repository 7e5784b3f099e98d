//! What commands that draw a picture of images share.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mae_data::{Dataset, Nodata, Split};
use mae_train::data::{nodata_as_in_others, nodata_as_in_training, open_own, open_path_or_image};
use mae_train::run::checkpoint;

use super::images::NodataArgs;
use super::{free_file, lies_in};

/// Which images, and where the picture goes.
#[derive(Args)]
pub struct PictureArgs {
    /// An image, or several: a folder, a packed file or tar shards [default: the run's own]
    #[arg(value_name = "IMAGE|PATH")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    nodata: NodataArgs,
    /// The most images to show of several
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    pub images: usize,
    /// Decides which images are shown, and what of them by chance
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,
    /// The PNG to write [default: the first free one of the command's name, as reconstruct.png, reconstruct-2.png, ...]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replaces the PNG that is there
    #[arg(long, requires = "out")]
    overwrite: bool,
}

impl PictureArgs {
    /// The images, for a model of `channels` in the file `weights`; `nodata` is what stood for a missing value in those
    /// that it was trained on, if it knows better than its run.
    pub fn dataset(
        &self,
        weights: &Path,
        channels: usize,
        nodata: Option<Nodata>,
    ) -> Result<Arc<dyn Dataset>> {
        let Some(path) = &self.data else {
            if checkpoint::run_of(weights).is_none() {
                bail!("which images? give an image or a folder of some");
            }
            return open_own(weights);
        };
        let nodata = match (self.nodata.nodata, nodata) {
            (Some(nodata), _) => nodata,
            (None, Some(known)) => nodata_as_in_others(known, path)?,
            (None, None) => nodata_as_in_training(weights, path)?,
        };
        open_path_or_image(path, Split::Train, channels, nodata)
    }

    /// What an image is called: in a folder, by its path from there.
    pub fn name(&self, dataset: &dyn Dataset, index: usize) -> String {
        let name = dataset.name(index);
        let below = |folder: &PathBuf| {
            let path = Path::new(&name).strip_prefix(folder).ok()?;
            (path != Path::new("")).then(|| path.display().to_string())
        };
        self.data.as_ref().and_then(below).unwrap_or(name)
    }

    /// The PNG to write, which `command` names if nothing else does, and which is none of what is `read`.
    pub fn out(&self, command: &str, read: &[&Path]) -> Result<PathBuf> {
        let Some(out) = &self.out else {
            return Ok(free_file(command, "png"));
        };
        let name = out.display();
        ensure!(
            !out.is_dir(),
            "--out {name}: this is a folder; give the name of a file, for example {}",
            out.join(format!("{command}.png")).display()
        );
        ensure!(
            out.extension().is_some_and(|ending| ending == "png"),
            "--out {name}: the picture is a PNG, so give a name that ends in .png"
        );
        for path in self
            .data
            .iter()
            .map(PathBuf::as_path)
            .chain(read.iter().copied())
        {
            ensure!(
                !lies_in(out, path),
                "--out {name}: this is of what is to be shown, {}; give the picture another name",
                path.display()
            );
        }
        if out.exists() {
            ensure!(
                self.overwrite,
                "--out {name} is there already: replace it with --overwrite, or give another name"
            );
            ensure!(
                is_png(out)?,
                "--out {name} is there already and is no PNG, which is all that --overwrite replaces: give another name"
            );
        }
        Ok(out.clone())
    }
}

fn is_png(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(8).read_to_end(&mut start))
        .with_context(|| format!("reading {}", path.display()))?;
    Ok(start == b"\x89PNG\r\n\x1a\n")
}

//! `mae-train inspect`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mae_data::Nodata;
use mae_train::distributed::World;
use mae_train::inspect::{Inspection, contact_sheet, inspect};

use super::{free_file, start_progress, write_stdout};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train inspect runs/photos                        a run: configuration, history, checkpoints, how to go on
  mae-train inspect model.safetensors                  weights: architecture, parameters, tensors, signs of damage
  mae-train inspect photos --contact-sheet             images: sizes, classes, formats, broken and equal ones
  mae-train inspect photos.mae --sample 1000 --json
  mae-train inspect 'shards-{0000..0012}.tar'

It takes a checkpoint of pre-training, a classifier or a tokenizer, the folder of a run or of an evaluation, and images in
a folder, a packed file, tar shards or CIFAR's files. Of images every one is decoded, unless --sample is given; broken
ones are named, and are no error.";

/// What to look at, and how to tell.
#[derive(Args)]
pub struct InspectArgs {
    /// A file of weights, the folder of a run or of an evaluation, or images
    path: PathBuf,
    /// Of images, the channels to read them with: 3, or 1 for luma; arrays and files of bands have their own number
    /// [default: that of the first image if it is one of these, else 3]
    #[arg(long, value_name = "NUMBER")]
    channels: Option<usize>,
    /// Of images, what stands for a value that was not measured, in TIFF, PNG and Netpbm files and arrays: a number,
    /// nan, auto for what each file says, or none
    #[arg(
        long,
        value_name = "VALUE",
        default_value_t,
        allow_negative_numbers = true
    )]
    nodata: Nodata,
    /// Of images, decodes only so many, chosen at random
    #[arg(long, value_name = "NUMBER")]
    sample: Option<usize>,
    /// Draws 48 of the images, across all classes [default: the first free one of contact-sheet.png, ...-2.png, ...]
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true
    )]
    contact_sheet: Option<Option<PathBuf>>,
    /// Prints the same facts as JSON
    #[arg(long)]
    json: bool,
}

impl InspectArgs {
    /// Prints what is there.
    pub fn run(&self) -> Result<ExitCode> {
        let progress = start_progress(&World::alone())?;
        if let Some(Some(file)) = &self.contact_sheet {
            ensure!(
                !file.exists(),
                "--contact-sheet={} is there already: give another name",
                file.display()
            );
        }
        let found = inspect(
            &self.path,
            self.channels,
            self.nodata,
            self.sample,
            &progress,
        )?;
        let text = match self.json {
            true => serde_json::to_string_pretty(&found)? + "\n",
            false => found.text(),
        };
        write_stdout(|stdout| stdout.write_all(text.as_bytes()))?;
        if let Some(file) = &self.contact_sheet {
            let Inspection::Images(images) = &found else {
                bail!(
                    "--contact-sheet draws images, and {} are none",
                    self.path.display()
                )
            };
            let file = (file.clone()).unwrap_or_else(|| free_file("contact-sheet", "png"));
            let picture = contact_sheet(images)?;
            mae_report::write_atomic(&file, &picture.png()?).context("--contact-sheet")?;
            // Standard output may be JSON.
            eprintln!("contact sheet: {}", file.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}

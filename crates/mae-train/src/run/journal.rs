//! What a run writes down: metrics, TensorBoard events, curves.

use anyhow::Result;
use mae_report::{EventWriter, MetricsWriter, Record, loss_svg, read_metrics};

use crate::picture::Pictures;
use crate::run::folder::RunDir;

/// The records of one run, in every format.
#[derive(Debug)]
pub struct Journal<'a>(Option<Files<'a>>);

#[derive(Debug)]
struct Files<'a> {
    run_dir: &'a RunDir,
    metrics: MetricsWriter,
    events: EventWriter,
}

impl<'a> Journal<'a> {
    /// Opens the records of a run that stands at `step` with `epochs` finished; what was written later is dropped.
    ///
    /// # Errors
    /// If a file cannot be written, or the metrics so far are damaged.
    pub fn open(run_dir: &'a RunDir, step: u64, epochs: u64) -> Result<Self> {
        Ok(Self(Some(Files {
            run_dir,
            metrics: MetricsWriter::resume(&run_dir.metrics(), step, epochs)?,
            events: EventWriter::create(&run_dir.tensorboard(), step)?,
        })))
    }

    /// Writes nothing, in a process whose records another one writes.
    pub fn of_another() -> Self {
        Self(None)
    }

    /// Writes one record.
    ///
    /// # Errors
    /// If the disk is full or cannot be written to.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        let Some(files) = &mut self.0 else {
            return Ok(());
        };
        files.metrics.write(record)?;
        let step = record.step();
        let mut named = Vec::new();
        let scalars: Vec<(&str, f64)> = match *record {
            Record::Step {
                loss,
                lr,
                grad_norm,
                images_per_s,
                mfu,
                data_wait,
                loss_scale,
                skipped,
                ..
            } => {
                let mut scalars = vec![
                    ("train/loss", loss),
                    ("train/lr", lr),
                    ("train/grad_norm", grad_norm),
                    ("train/skipped", skipped as f64),
                    ("speed/images_per_s", images_per_s),
                    ("speed/data_wait", data_wait),
                ];
                scalars.extend(mfu.map(|mfu| ("speed/mfu", mfu)));
                scalars.extend(loss_scale.map(|scale| ("train/loss_scale", scale)));
                scalars
            }
            Record::Epoch {
                loss,
                seconds,
                broken_images,
                ..
            } => vec![
                ("epoch/loss", loss),
                ("epoch/seconds", seconds),
                ("epoch/broken_images", broken_images as f64),
            ],
            Record::Accuracy {
                ref protocol,
                top1,
                top5,
                ..
            } => {
                named.push((format!("{protocol}/top1"), top1));
                named.push((format!("{protocol}/top5"), top5));
                Vec::new()
            }
            Record::Validation { val_loss, .. } => vec![("epoch/val_loss", val_loss)],
            Record::Spectrum {
                ref tokens,
                rank_me,
                effective_rank,
                alpha,
                ..
            } => {
                named.push((format!("spectrum/{tokens}/rank_me"), rank_me));
                named.push((format!("spectrum/{tokens}/effective_rank"), effective_rank));
                let alpha = alpha.map(|alpha| (format!("spectrum/{tokens}/alpha"), alpha));
                named.extend(alpha);
                Vec::new()
            }
            Record::Tokens {
                mse,
                used,
                perplexity,
                ..
            } => vec![
                ("tokens/mse", mse),
                ("tokens/used", used as f64),
                ("tokens/perplexity", perplexity),
            ],
        };
        for (tag, value) in &named {
            files.events.scalar(tag, step, *value)?;
        }
        for (tag, value) in scalars {
            files.events.scalar(tag, step, value)?;
        }
        Ok(())
    }

    /// Draws the curves anew and makes everything visible to readers.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn publish(&mut self) -> Result<()> {
        let Some(files) = &mut self.0 else {
            return Ok(());
        };
        files.events.flush()?;
        let records = read_metrics(&files.run_dir.metrics())?;
        let name = files
            .run_dir
            .path()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        loss_svg(&files.run_dir.curves(), &records, &name)?;
        Ok(())
    }

    /// Draws and saves the pictures of an epoch's reconstructions.
    ///
    /// # Errors
    /// If it cannot be drawn, or the disk is full or cannot be written to.
    pub fn picture(
        &mut self,
        draw: impl FnOnce() -> Result<Pictures>,
        epoch: u64,
        step: u64,
    ) -> Result<()> {
        let Some(files) = &mut self.0 else {
            return Ok(());
        };
        let folder = files.run_dir.reconstructions();
        std::fs::create_dir_all(&folder)?;
        let Pictures { whole, small } = draw()?;
        if let Some(small) = small {
            mae_report::write_atomic(&files.run_dir.small_picture(), &small.png()?)?;
        }
        let png = whole.png()?;
        mae_report::write_atomic(&folder.join(format!("epoch-{epoch:04}.png")), &png)?;
        files
            .events
            .image_png("reconstructions", step, &png, whole.height(), whole.width())?;
        Ok(())
    }
}

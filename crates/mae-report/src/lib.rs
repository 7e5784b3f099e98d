//! What a training run leaves behind for people to look at: metrics as JSON Lines, TensorBoard events, and a
//! plot of the loss.
//!
//! ```
//! use mae_report::{EventWriter, MetricsWriter, Record, loss_svg, read_metrics};
//!
//! let run = tempfile::tempdir()?;
//! let metrics = run.path().join("metrics.jsonl");
//!
//! let mut writer = MetricsWriter::create(&metrics)?;
//! let mut events = EventWriter::create(run.path(), 0)?;
//! for epoch in 1..=3 {
//!     let loss = 1.0 / epoch as f64;
//!     writer.write(&Record::Epoch {
//!         epoch, step: 100 * epoch, loss, seconds: 9.5, broken_images: 0, flops_per_image: None,
//!     })?;
//!     events.scalar("loss/epoch", 100 * epoch, loss)?;
//! }
//! events.flush()?;
//!
//! let records = read_metrics(&metrics)?;
//! assert_eq!(records.len(), 3);
//! loss_svg(&run.path().join("loss.svg"), &records, "ViT-Tiny on CIFAR-10")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | item | idea |
//! |---|---|
//! | [`Record`], [`MetricsWriter`], [`read_metrics`] | one line per record, exact through a resume |
//! | [`EventWriter`] | scalars and pictures for TensorBoard |
//! | [`loss_svg`] | loss, learning rate, gradient norm and accuracy in one light picture |
//! | [`Confusion`], [`confusion_svg`] | which classes are taken for which |
//! | [`ablation_svg`] | what a setting's values are worth, with intervals |
//! | [`write_atomic`] | a reader sees the old file or the new one, never half of one |

mod ablation;
mod atomic;
mod confusion;
mod error;
mod metrics;
mod plot;
mod tensorboard;

pub use ablation::{Ablation, Layout, Point, Series, ablation_svg};
pub use atomic::{sync_folder, write_atomic, write_atomic_with};
pub use confusion::{Confusion, confusion_svg};
pub use error::ReportError;
pub use metrics::{MetricsWriter, Record, read_metrics};
pub use plot::loss_svg;
pub use tensorboard::EventWriter;

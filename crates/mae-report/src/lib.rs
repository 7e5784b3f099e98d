#![doc = include_str!("../README.md")]
//!
//! # The items
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

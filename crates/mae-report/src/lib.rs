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
//! | [`Machine`] | where something was measured |
//! | [`write_atomic`] | a reader sees the old file or the new one, never half of one |
//!
//! Pictures are the feature `plots`, TensorBoard is `tensorboard`; both are on unless `default-features = false`.

#[cfg(feature = "plots")]
mod ablation;
mod atomic;
#[cfg(feature = "plots")]
mod confusion;
mod error;
mod machine;
mod metrics;
#[cfg(feature = "plots")]
mod plot;
#[cfg(feature = "tensorboard")]
mod tensorboard;

#[cfg(feature = "plots")]
pub use ablation::{Ablation, Layout, Point, Series, ablation_svg};
pub use atomic::{sync_folder, write_atomic, write_atomic_with};
#[cfg(feature = "plots")]
pub use confusion::{Confusion, confusion_svg};
pub use error::ReportError;
pub use machine::Machine;
pub use metrics::{MetricsWriter, Record, read_metrics};
#[cfg(feature = "plots")]
pub use plot::loss_svg;
#[cfg(feature = "tensorboard")]
pub use tensorboard::EventWriter;

//! Criterion benches: `data.rs` for everything before the device, `step.rs` for one training step.
//!
//! ```text
//! cargo bench -p mae-benches
//! ```

//! Criterion benches: `data.rs` for everything before the device, `kernels.rs` for one block of a
//! transformer, `step.rs` for one training step.
//!
//! `peers/` measures other systems, for `cargo xtask bench`; `steps.json` has the configurations that both train.
//!
//! ```text
//! cargo bench -p mae-benches
//! ```

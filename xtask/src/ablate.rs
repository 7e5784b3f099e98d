//! `cargo xtask ablate`: the ablations of the MAE paper, on the user's images.
#![allow(dead_code, reason = "the command that writes the report comes next")]

pub mod report;

//! The numerical parts of supervised evaluation: what fine-tuning and linear probing add to training.
//!
//! A batch of images is normalised, then goes through [`erase`](mod@erase), [`mix`] and
//! [`mae_model::patchify`]; [`layer_decay`] and [`lars`] say how the parameters move, [`ema`] keeps their average.
//!
//! Source: He et al. 2021, arXiv 2111.06377, appendix A.1, tables 9 and 10.

pub mod ema;
pub mod erase;
pub mod lars;
pub mod layer_decay;
pub mod mix;
mod random;

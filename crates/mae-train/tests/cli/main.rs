//! The program through its real binary.

mod eval;
mod pretrain;
mod program;

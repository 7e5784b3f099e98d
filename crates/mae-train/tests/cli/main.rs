//! The program through its real binary.

mod eval;
mod pack;
mod pretrain;
mod program;
mod tokenizer;
mod variants;

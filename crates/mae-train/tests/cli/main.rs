//! The program through its real binary.

mod embed;
mod eval;
mod export;
mod pack;
mod pretrain;
mod program;
mod shell;
mod tokenizer;
mod variants;

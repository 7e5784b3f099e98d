//! The program through its real binary.

mod channels;
mod eval;
mod pack;
mod pretrain;
mod program;
mod shell;
mod tokenizer;
mod variants;

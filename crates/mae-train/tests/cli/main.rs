//! The program through its real binary.

mod doctor;
mod eval;
mod pack;
mod pretrain;
mod program;
mod shell;
mod tokenizer;
mod variants;

//! The program through its real binary.

mod attend;
mod channels;
mod convert;
mod damage;
mod distributed;
mod doctor;
mod documentation;
mod elsewhere;
mod embed;
mod eval;
mod export;
mod held_out;
mod inspect;
mod pack;
mod predict;
mod pretrain;
mod program;
mod reconstruct;
mod same_images;
mod shards;
mod shell;
mod tokenizer;
mod variants;

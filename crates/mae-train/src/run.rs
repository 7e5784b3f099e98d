//! A run on disk and on the screen: its folder, what is kept in it, and how it is stopped.
//!
//! Everything that trains has a [`folder`] with the configuration, the [`manifest`] of its images,
//! the [`journal`] of its metrics and its [`checkpoint`]s; [`progress`] tells how far it is, and
//! [`interrupt`] that the user wants it to stop.

pub mod checkpoint;
pub mod folder;
pub mod interrupt;
pub mod journal;
pub mod manifest;
pub mod progress;
pub mod shell;

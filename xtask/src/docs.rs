//! `cargo xtask docs`: the book, `docs/book`, as pages for a browser.
//!
//! [`keys`] writes its chapter of every key from the sources; [`assemble`] puts the other documentation beside it.

mod assemble;
#[cfg(test)]
mod blocks;
mod keys;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cargo;

/// The version that the book is written for.
const MDBOOK: &str = "0.5.4";

/// Write the book's chapter of every key, and build the book
///
/// The pages are in target/book/html. mdBook builds them; if it is missing, the message says how to install it.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask docs")]
pub struct Arguments {}

/// Runs `cargo xtask docs`.
pub fn run(_: &Arguments) -> Result<ExitCode> {
    let root = cargo::workspace_root();
    let chapter = root.join(keys::CHAPTER);
    let text = keys::chapter(&root)?;
    if fs::read_to_string(&chapter).ok().as_ref() != Some(&text) {
        fs::write(&chapter, text).with_context(|| format!("cannot write {}", chapter.display()))?;
        println!("wrote {}", keys::CHAPTER);
    }

    let book = root.join("target/book");
    let (source, pages) = (book.join("source"), book.join("html"));
    assemble::book(&root, &source)?;
    let status = Command::new("mdbook")
        .arg("build")
        .arg(&source)
        .arg("--dest-dir")
        .arg(&pages)
        .status();
    match status {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "mdbook, which builds the book, is not installed: run `cargo install mdbook --locked --version {MDBOOK}`"
        ),
        Err(error) => return Err(error).context("cannot run mdbook"),
        Ok(status) if !status.success() => {
            bail!("mdbook cannot build the book: see the messages above")
        }
        Ok(_) => println!("{}", pages.join("index.html").display()),
    }
    Ok(ExitCode::SUCCESS)
}

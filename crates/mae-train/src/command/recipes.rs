//! `mae-train recipes`.

use std::process::ExitCode;

use anyhow::Result;
use mae_train::config::recipes;

use super::write_stdout;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train recipes
  mae-train config --recipe cifar10 --data DIR            every key of one";

/// Lists the recipes: for which command, and what each is.
pub fn run() -> Result<ExitCode> {
    let recipes = [
        ("pretrain", recipes::PRETRAIN),
        ("eval", recipes::EVAL),
        ("tokenizer", recipes::TOKENIZER),
    ];
    write_stdout(|out| {
        for (command, recipes) in recipes {
            for recipe in recipes {
                writeln!(out, "{command:9} {:18} {}", recipe.name, recipe.summary())?;
            }
        }
        Ok(())
    })
}

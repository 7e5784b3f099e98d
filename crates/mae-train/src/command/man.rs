//! `mae-train man`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use super::write_stdout;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train man > mae-train.1                             the program's page; read it with man ./mae-train.1
  mae-train man --out ~/.local/share/man/man1             a page for each command, too: man mae-train-eval";

/// Where to.
#[derive(Args)]
pub struct ManArgs {
    /// A folder for the pages of the program and all of its commands [default: the program's page to the terminal]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl ManArgs {
    /// Writes the pages of `program` in roff.
    pub fn run(&self, program: clap::Command) -> Result<ExitCode> {
        let Some(out) = &self.out else {
            return write_stdout(|stdout| clap_mangen::Man::new(program).render(stdout));
        };
        std::fs::create_dir_all(out)
            .and_then(|()| clap_mangen::generate_to(program, out))
            .with_context(|| format!("writing manual pages into {}", out.display()))?;
        println!("manual pages: {}/", out.display());
        Ok(ExitCode::SUCCESS)
    }
}

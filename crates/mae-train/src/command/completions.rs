//! `mae-train completions`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

use super::write_stdout;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train completions bash > ~/.local/share/bash-completion/completions/mae-train
  mae-train completions zsh > ~/.zfunc/_mae-train         where ~/.zfunc is in fpath
  mae-train completions fish > ~/.config/fish/completions/mae-train.fish";

/// For which shell.
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script that completes the options of `program`.
    pub fn run(&self, mut program: clap::Command) -> Result<ExitCode> {
        let name = program.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, name, &mut script);
        write_stdout(|out| out.write_all(&script))
    }
}

//! `completions` and the hidden `man`: both come from the definitions of the flags.

use super::shardd::Shardd;
use super::{Cli, out};
use crate::error::{Error, Result};
use clap::{Args, Command, CommandFactory as _};
use std::path::PathBuf;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ironfs completions bash > /etc/bash_completion.d/ironfs")]
pub(super) struct Completions {
    /// bash, zsh, fish, elvish or powershell
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut visible(), "ironfs", &mut script);
        out::print(&String::from_utf8_lossy(&script))
    }
}

/// Write the manual pages
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Existing directory
    directory: PathBuf,
}

impl Man {
    pub(super) fn run(self) -> Result<()> {
        let context = || format!("write manual pages to {}", self.directory.display());
        [visible(), Shardd::command()]
            .into_iter()
            .try_for_each(|command| clap_mangen::generate_to(command, &self.directory))
            .map_err(|error| Error::from_io(context(), error))
    }
}

/// The command without its hidden subcommands: scripts would offer them.
fn visible() -> Command {
    let whole = Cli::command();
    let subcommands = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    Command::new("ironfs")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .disable_help_subcommand(true)
        .about(whole.get_about().cloned().unwrap_or_default())
        .after_help(whole.get_after_help().cloned().unwrap_or_default())
        .subcommands(subcommands)
}

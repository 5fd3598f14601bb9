//! `sidekey config ...`

pub mod change;
mod diff;
mod explain;

use clap::Subcommand;

use super::{CliError, CommonArguments};

/// What to do with the configuration.
#[derive(Subcommand)]
pub enum Command {
    /// Say what a reload would change: the files on the disk against what the running server goes by.
    Diff(CommonArguments),
    /// Say what a key means, its default, its value and where that stands.
    Explain(explain::Arguments),
}

/// Runs `config ...`.
pub fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::Diff(arguments) => diff::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
    }
}

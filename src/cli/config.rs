//! `sidekey config ...`

mod diff;
mod explain;

use std::path::PathBuf;

use clap::Subcommand;

use super::{CliError, ConfigArgument};
use crate::config;
use crate::config::diff::{Change, ChangeKind};

/// What to do with the configuration.
#[derive(Subcommand)]
pub enum Command {
    /// Say what a reload would change: the files on the disk against what the running server goes by.
    Diff(diff::Arguments),
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

/// The admin socket of the server, which is found even where something in the file is wrong.
pub fn locate(argument: &ConfigArgument) -> Result<PathBuf, CliError> {
    config::locate::admin_socket(&argument.config).map_err(CliError::Config)
}

/// One line about a change.
pub fn show_change(change: &Change) -> String {
    let (what, value) = (&change.what, |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string));
    let text = match (change.kind, value(&change.from), value(&change.to)) {
        (ChangeKind::Added, _, Some(to)) => format!("+ {what} = {to}"),
        (ChangeKind::Added, ..) => format!("+ {what}"),
        (ChangeKind::Removed, Some(from), _) => format!("- {what} = {from}"),
        (ChangeKind::Removed, ..) => format!("- {what}"),
        (ChangeKind::Changed, Some(from), Some(to)) => format!("~ {what} = {to} (was {from})"),
        (ChangeKind::Changed, ..) => format!("~ {what} (changed)"),
        (ChangeKind::Content, ..) => format!("~ {what} (its content changed)"),
    };
    if change.needs_restart { format!("{text}  needs a restart") } else { text }
}

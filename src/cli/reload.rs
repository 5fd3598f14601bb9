//! `sidekey reload`

use http::Method;

use super::config::change::{self, show};
use super::{CliError, CommonArguments, say};
use crate::portal::admin::Outcome;

/// Has the running server read its configuration again.
pub fn run(arguments: &CommonArguments) -> Result<(), CliError> {
    let answer = change::ask(arguments, Method::POST, "/v1/configuration/reload")?;
    if arguments.json {
        return Ok(());
    }
    match answer.outcome {
        Outcome::Unchanged if answer.needs_restart.is_empty() => say("nothing has changed"),
        Outcome::Unchanged => say("nothing has changed since the last time"),
        _ => answer.changes.iter().for_each(|change| say(&show(change))),
    }
    if !answer.needs_restart.is_empty() {
        say(&format!("needs a restart: {}", answer.needs_restart.join(", ")));
    }
    Ok(())
}

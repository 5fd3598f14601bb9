//! `sidekey config diff`

use http::Method;

use super::change::{self, show};
use crate::cli::{CliError, CommonArguments, say};

/// Asks the server, which reads the files as it would for a reload.
pub fn run(arguments: &CommonArguments) -> Result<(), CliError> {
    let answer = change::ask(arguments, Method::GET, "/v1/configuration/changes")?;
    if arguments.json {
        return Ok(());
    }
    match answer.changes.as_slice() {
        [] => say("no difference: the files say what is in force"),
        changes => changes.iter().for_each(|change| say(&show(change))),
    }
    Ok(())
}

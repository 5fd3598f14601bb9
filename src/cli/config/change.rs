//! What differs between the files and the running server, as the server says it.

use http::Method;

use crate::cli::{CliError, CommonArguments, admin_client, runtime, say};
use crate::config;
use crate::config::diff::{Change, ChangeKind};
use crate::portal::admin::{Outcome, ReloadAnswer};

/// Asks the server, which is found even where something in the file is wrong. An answer in JSON is shown at once; files that
/// cannot be used are an error.
pub fn ask(arguments: &CommonArguments, method: Method, path: &str) -> Result<ReloadAnswer, CliError> {
    let socket = config::places(&arguments.config.config).map_err(CliError::Config)?.admin_socket;
    if !admin_client::is_served(&socket)? {
        admin_client::is_nobodys(&arguments.config.config, &socket)?;
    }
    let answer = runtime(1)?.block_on(admin_client::ask_server(&socket, method, path, None::<&()>))?;
    let json = answer.to_string();
    let answer: ReloadAnswer = serde_json::from_value(answer).map_err(|error| CliError::Failed(error.to_string()))?;
    if answer.outcome == Outcome::Refused {
        return Err(CliError::Config(answer.problems));
    }
    if arguments.json {
        say(&json);
    }
    Ok(answer)
}

/// One line about a change.
pub fn show(change: &Change) -> String {
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

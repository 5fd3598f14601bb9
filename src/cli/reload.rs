//! `sidekey reload`

use clap::Args;
use http::Method;

use super::config::{locate, show_change};
use super::{CliError, ConfigArgument, admin_client, say};
use crate::portal::admin::{Outcome, ReloadAnswer};

/// Arguments of `reload`.
#[derive(Args)]
pub struct Arguments {
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Has the running server read its configuration again.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let socket = locate(&arguments.config)?;
    let asked = admin_client::ask_server(&socket, Method::POST, "/v1/configuration/reload", None::<&()>);
    let answer = super::runtime(1)?.block_on(asked)?;
    if arguments.json {
        say(&answer.to_string());
    }
    let answer: ReloadAnswer = serde_json::from_value(answer).map_err(|error| CliError::Failed(error.to_string()))?;
    if answer.outcome == Outcome::Refused {
        return Err(CliError::Config(answer.problems));
    }
    if !arguments.json {
        match answer.outcome {
            Outcome::Unchanged if answer.needs_restart.is_empty() => say("nothing has changed"),
            Outcome::Unchanged => say("nothing has changed since the last time"),
            _ => answer.changes.iter().for_each(|change| say(&show_change(change))),
        }
        if !answer.needs_restart.is_empty() {
            say(&format!("needs a restart: {}", answer.needs_restart.join(", ")));
        }
    }
    Ok(())
}

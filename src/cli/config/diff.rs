//! `sidekey config diff`

use clap::Args;
use http::Method;

use super::{locate, show_change};
use crate::cli::{CliError, ConfigArgument, admin_client, runtime, say};
use crate::portal::admin::{Outcome, ReloadAnswer};

/// Arguments of `config diff`.
#[derive(Args)]
pub struct Arguments {
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Asks the server, which reads the files as it would for a reload.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let socket = locate(&arguments.config)?;
    let asked = admin_client::ask_server(&socket, Method::GET, "/v1/configuration/changes", None::<&()>);
    let answer = runtime(1)?.block_on(asked)?;
    if arguments.json {
        say(&answer.to_string());
    }
    let answer: ReloadAnswer = serde_json::from_value(answer).map_err(|error| CliError::Failed(error.to_string()))?;
    if answer.outcome == Outcome::Refused {
        return Err(CliError::Config(answer.problems));
    }
    if !arguments.json {
        match answer.changes.as_slice() {
            [] => say("no difference: the files say what is in force"),
            changes => changes.iter().for_each(|change| say(&show_change(change))),
        }
    }
    Ok(())
}

//! `sidekey store ...`

use clap::Subcommand;
use http::Method;

use super::{CliError, CommonArguments, admin_client, say};

/// What can be done with the store.
#[derive(Subcommand)]
pub enum Command {
    /// Say that this store is the right one, after it was restored from a backup or moved by hand.
    Confirm(CommonArguments),
}

/// Runs `store ...`.
pub fn run(command: &Command) -> Result<(), CliError> {
    let Command::Confirm(arguments) = command;
    let answer = admin_client::ask(&arguments.config.config, Method::POST, "/v1/store/confirm", None::<&()>)?;
    if arguments.json {
        say(&answer.to_string());
        return Ok(());
    }
    match answer["was_held_back"].as_str() {
        Some(why) => {
            say(&format!("the store is confirmed; before: {why}"));
            say("every other copy is an old one from now on: stop whatever still runs on one");
            say(
                "what was refreshed since this copy was made may be lost; `sidekey status` shows who must connect again",
            );
        }
        None => say("the store is confirmed"),
    }
    Ok(())
}

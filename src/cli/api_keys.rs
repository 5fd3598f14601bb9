//! `sidekey api-keys`

use clap::Subcommand;
use http::Method;

use super::{CliError, CommonArguments, admin_client, say};
use crate::base::digest::sha256;
use crate::base::random::SystemRandom;
use crate::model::api_key::hash_text;
use crate::model::issued_token::{self, Kind};
use crate::portal::admin::{ApiKeyStatus, ApiKeysAnswer};

/// What to do about the API keys of partners.
#[derive(Subcommand)]
pub enum Command {
    /// Make up a key and print it, this once, with the hash that goes into [api.keys.NAME].
    Generate {
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show all keys, without the keys themselves, and when they were last used.
    List(CommonArguments),
}

/// Runs `api-keys ...`.
pub fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::Generate { json } => {
            let key = issued_token::generate(Kind::ApiKey, &SystemRandom);
            let hash = hash_text(&sha256(key.expose().as_bytes()));
            if *json {
                say(&serde_json::json!({ "key": key.expose(), "hash": hash }).to_string());
            } else {
                say(&format!("key   {}", key.expose()));
                say(&format!("hash  {hash}"));
            }
            Ok(())
        }
        Command::List(arguments) => list(arguments),
    }
}

fn list(arguments: &CommonArguments) -> Result<(), CliError> {
    let answer = admin_client::ask(&arguments.config.config, Method::GET, "/v1/api-keys", None::<&()>)?;
    if arguments.json {
        say(&answer.to_string());
        return Ok(());
    }
    let answer: ApiKeysAnswer =
        serde_json::from_value(answer).map_err(|error| CliError::Failed(format!("the server's answer: {error}")))?;
    if answer.api_keys.is_empty() {
        say("there is no key; `sidekey api-keys generate` makes one, and [api.keys.NAME] says what it is good for");
    }
    answer.api_keys.iter().for_each(|key| say(&line(key)));
    Ok(())
}

fn line(key: &ApiKeyStatus) -> String {
    let providers = key.providers.as_ref().map_or_else(|| "all providers".to_owned(), |names| names.join(","));
    let subjects = key.subject_prefix.as_ref().map_or_else(|| "all subjects".to_owned(), |prefix| format!("{prefix}*"));
    let ends = key.expires_at.as_deref().unwrap_or("never");
    let used = key.last_used_at.as_deref().unwrap_or("not since the start");
    format!("{}  {providers}  {subjects}  {}  ends {ends}  used {used}", key.name, key.state)
}

//! `sidekey keys`

use clap::{Args, Subcommand};
use http::Method;

use super::{CliError, ConfigArgument, admin_client, say};
use crate::base::jws::generate_p256;
use crate::base::random::SystemRandom;
use crate::store::keyring::generate_key;

/// What to do with keys.
#[derive(Subcommand)]
pub enum Command {
    /// Print a new key. Keep it in a file of mode 0600.
    Generate {
        /// A private key that signs access tokens ([issuer] signing_keys), instead of one that seals the store.
        #[arg(long)]
        signing: bool,
    },
    /// Show which keys the store needs.
    Status(KeyArguments),
    /// Seal everything that is stored by the first key, so that the others are needed no more.
    Reseal(KeyArguments),
}

/// Arguments of `keys status` and `keys reseal`.
#[derive(Args)]
pub struct KeyArguments {
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Runs `keys ...`.
pub fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::Generate { signing: false } => say(generate_key(&SystemRandom).expose()),
        Command::Generate { signing: true } => say(generate_p256().map_err(CliError::Failed)?.expose().trim_end()),
        Command::Status(arguments) => return status(arguments),
        Command::Reseal(arguments) => return reseal(arguments),
    }
    Ok(())
}

fn status(arguments: &KeyArguments) -> Result<(), CliError> {
    let answer = admin_client::ask(&arguments.config.config, Method::GET, "/v1/keys", None::<&()>)?;
    if arguments.json {
        say(&answer.to_string());
        return Ok(());
    }
    for key in answer.as_array().into_iter().flatten() {
        let (id, values) = (key["id"].as_str().unwrap_or("-"), &key["values"]);
        let role = match key["role"].as_str() {
            Some("seals") => "seals what is stored",
            Some("opens") if values == 0 => "is needed no more, and may be removed from store.keys",
            Some("opens") => "opens; `sidekey keys reseal` gets it out of use",
            Some("given_up") => "is given up; `sidekey status` shows whose connections it has sealed",
            _ => "is missing; put it back into store.keys",
        };
        say(&format!("{id}  {values} values  {role}"));
    }
    Ok(())
}

fn reseal(arguments: &KeyArguments) -> Result<(), CliError> {
    let answer = admin_client::ask(&arguments.config.config, Method::POST, "/v1/keys/reseal", None::<&()>)?;
    if arguments.json {
        say(&answer.to_string());
        return Ok(());
    }
    let (resealed, unreadable) = (&answer["resealed"], &answer["unreadable"]);
    if *unreadable != 0 {
        return Err(CliError::Failed(format!(
            "{resealed} values are sealed by the first key now; {unreadable} could not be opened: `sidekey keys status` shows which \
             keys are missing"
        )));
    }
    if *resealed == 0 {
        say(
            "everything was sealed by the first key already; if store.keys was changed since, restart the server first",
        );
    } else {
        say(&format!("{resealed} values are sealed by the first key now"));
    }
    Ok(())
}

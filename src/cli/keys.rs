//! `sidekey keys`

mod key_file;
mod rotate;

use clap::{Args, Subcommand};
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::admin_client::Admin;
use super::output::{Cell, Tone, table, text};
use super::{CliError, CommonArguments, admin_client, say};
use crate::base::jws::generate_p256;
use crate::base::random::SystemRandom;
use crate::portal::admin::ResealRequest;
use crate::store::keyring::generate_key;

/// What to do with keys.
#[derive(Subcommand)]
pub enum Command {
    /// Print a new key. Keep it in a file of mode 0600.
    Generate(GenerateArguments),
    /// Show which keys the store needs.
    Status(CommonArguments),
    /// Seal everything that is stored by the first key, so that the others are needed no more.
    Reseal(CommonArguments),
    /// Put a new key in the place of the one that seals, while all goes on: make it, seal everything by it, remove the old one.
    /// Cut off anywhere, it is simply run again.
    Rotate(CommonArguments),
}

/// Arguments of `keys generate`.
#[derive(Args)]
pub struct GenerateArguments {
    /// A private key that signs access tokens ([issuer] signing_keys), instead of one that seals the store.
    #[arg(long)]
    signing: bool,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `keys ...`.
pub fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::Generate(arguments) => generate(arguments),
        Command::Status(arguments) => status(arguments),
        Command::Reseal(arguments) => reseal(arguments),
        Command::Rotate(arguments) => rotate::run(arguments),
    }
}

fn generate(arguments: &GenerateArguments) -> Result<(), CliError> {
    let key = match arguments.signing {
        false => generate_key(&SystemRandom),
        true => generate_p256().map_err(CliError::Failed)?,
    };
    let text = key.expose().trim_end();
    say(&if arguments.json { json!({ "key": text }).to_string() } else { text.to_owned() });
    Ok(())
}

fn status(arguments: &CommonArguments) -> Result<(), CliError> {
    let answer = admin_client::ask(&arguments.config.config, Method::GET, "/v1/keys", None::<&()>)?;
    if arguments.json {
        say(&answer.to_string());
        return Ok(());
    }
    let row = |key: &Value| {
        let (role, tone) = match key["role"].as_str() {
            Some("seals") => ("seals what is stored", Tone::Good),
            Some("opens") if key["values"] == 0 => {
                ("is needed no more, and may be removed from store.keys", Tone::Notable)
            }
            Some("opens") => ("opens; `sidekey keys reseal` gets it out of use", Tone::Plain),
            Some("given_up") => ("is given up; `sidekey status` shows whose connections it has sealed", Tone::Notable),
            _ => ("is missing; put it back into store.keys", Tone::Bad),
        };
        vec![Cell::plain(text(key, "id")), Cell::plain(key["values"].to_string()), Cell(role.to_owned(), tone)]
    };
    let rows: Vec<Vec<Cell>> = answer.as_array().into_iter().flatten().map(row).collect();
    table(&["KEY", "VALUES", "ROLE"], &rows).iter().for_each(|line| say(line));
    Ok(())
}

fn reseal(arguments: &CommonArguments) -> Result<(), CliError> {
    let admin = Admin::open(&arguments.config.config)?;
    let Resealed { resealed, unreadable } = reseal_all(&admin)?;
    if arguments.json {
        say(&json!({ "resealed": resealed, "unreadable": unreadable }).to_string());
        return Ok(());
    }
    if unreadable > 0 {
        return Err(CliError::Failed(format!(
            "{resealed} values are sealed by the first key now; {unreadable} could not be opened: `sidekey keys status` shows which \
             keys are missing"
        )));
    }
    if resealed == 0 {
        say(
            "everything was sealed by the first key already; if store.keys was changed since, have the server take it over first (`sidekey reload`)",
        );
    } else {
        say(&format!("{resealed} values are sealed by the first key now"));
    }
    Ok(())
}

/// What was done.
struct Resealed {
    resealed: u64,
    unreadable: u64,
}

/// Seals everything by the first key, some of it at a time.
fn reseal_all(admin: &Admin) -> Result<Resealed, CliError> {
    let keys = admin.ask(Method::GET, "/v1/keys", None::<&()>)?;
    let bar = ProgressBar::new(values_of_others(&keys));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} values sealed by the new key") {
        bar.set_style(style);
    }
    let mut done = Resealed { resealed: 0, unreadable: 0 };
    let mut request = ResealRequest::default();
    loop {
        let answer = admin.ask(Method::POST, "/v1/keys/reseal", Some(&request))?;
        done.resealed += answer["resealed"].as_u64().unwrap_or(0);
        done.unreadable += answer["unreadable"].as_u64().unwrap_or(0);
        bar.set_position(done.resealed + done.unreadable);
        request.after = serde_json::from_value(answer["after"].clone()).unwrap_or(None);
        if request.after.is_none() {
            bar.finish_and_clear();
            return Ok(done);
        }
    }
}

/// How many values that are still needed other keys than the first have sealed.
fn values_of_others(keys: &Value) -> u64 {
    let others = keys.as_array().into_iter().flatten().skip(1);
    others.filter_map(|key| key["values"].as_u64()).sum()
}

//! `sidekey clients hash`

use std::io::{IsTerminal, Read};

use argon2::{Argon2, PasswordHasher};
use clap::{Args, Subcommand};

use super::{CliError, say};
use crate::base::random::{self, SystemRandom};
use crate::base::secret::Secret;
use crate::model::issued_token::{self, Kind};

/// What to do about MCP clients that the operator registers.
#[derive(Subcommand)]
pub enum Command {
    /// Read a client secret from standard input and print the hash that goes into [clients.ID] secret_hash. From a
    /// terminal, make up a secret instead and print both.
    Hash(HashArguments),
}

/// Arguments of `clients hash`.
#[derive(Args)]
pub struct HashArguments {
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// Prints a hash.
pub fn run(command: &Command) -> Result<(), CliError> {
    let Command::Hash(HashArguments { json }) = command;
    if std::io::stdin().is_terminal() {
        let secret = issued_token::generate(Kind::ClientSecret, &SystemRandom);
        let hash = hash(&secret)?;
        if *json {
            say(&serde_json::json!({ "secret": secret.expose(), "secret_hash": hash }).to_string());
        } else {
            say(&format!("secret       {}", secret.expose()));
            say(&format!("secret_hash  {hash}"));
        }
        return Ok(());
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = std::io::stdin().take(4096).read_to_string(&mut text);
    read.map_err(|error| CliError::Failed(format!("standard input: {error}")))?;
    let secret = Secret::new(text.trim_end_matches(['\r', '\n']));
    if secret.expose().len() < 16 {
        let what = "the secret on standard input is shorter than 16 characters";
        return Err(CliError::Usage(format!("{what}; make one with `openssl rand -base64 32`")));
    }
    let hash = hash(&secret)?;
    say(&if *json { serde_json::json!({ "secret_hash": hash }).to_string() } else { hash });
    Ok(())
}

fn hash(secret: &Secret) -> Result<String, CliError> {
    let salt: [u8; 16] = random::bytes(&SystemRandom);
    let hashed = Argon2::default().hash_password_with_salt(secret.expose().as_bytes(), &salt);
    hashed.map(|hash| hash.to_string()).map_err(|error| CliError::Failed(error.to_string()))
}

//! `sidekey keys`

use clap::Subcommand;

use super::{CliError, say};
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
}

/// Prints a new key.
pub fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::Generate { signing: false } => say(generate_key(&SystemRandom).expose()),
        Command::Generate { signing: true } => say(generate_p256().map_err(CliError::Failed)?.expose().trim_end()),
    }
    Ok(())
}

//! `sidekey keys`

use clap::Subcommand;

use super::{CliError, say};
use crate::base::random::SystemRandom;
use crate::store::keyring::generate_key;

/// What to do with keys.
#[derive(Subcommand)]
pub enum Command {
    /// Print a new key. Keep it in a file of mode 0600.
    Generate,
}

/// Prints a new key.
pub fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::Generate => say(generate_key(&SystemRandom).expose()),
    }
    Ok(())
}

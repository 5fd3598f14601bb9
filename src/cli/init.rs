//! `sidekey init [DIRECTORY]`

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::{CliError, say};
use crate::base::files;
use crate::base::random::SystemRandom;
use crate::store::keyring::generate_key;

/// Arguments of `init`.
#[derive(Args)]
pub struct Arguments {
    /// Where to write `sidekey.toml` and `sidekey.key`.
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// Answer in JSON: which files were written.
    #[arg(long)]
    json: bool,
}

/// Writes a working configuration and a key. Nothing that exists is overwritten.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let directory = &arguments.directory;
    if !directory.exists() {
        files::private_directory(directory).map_err(|error| CliError::Failed(error.to_string()))?;
    }
    let (config, key) = (directory.join("sidekey.toml"), directory.join("sidekey.key"));
    // The key first: a configuration that refers to no key would not work.
    for path in [&config, &key] {
        if path.exists() {
            return Err(CliError::Failed(format!("{} exists already; nothing was written", path.display())));
        }
    }
    let failed =
        |path: &PathBuf, error: io::Error| CliError::Failed(format!("cannot write {}: {error}", path.display()));
    let text = generate_key(&SystemRandom);
    files::create_private(&key, format!("{}\n", text.expose()).as_bytes()).map_err(|error| failed(&key, error))?;
    let template = include_str!("init/sidekey.toml");
    files::create_private(&config, template.as_bytes()).map_err(|error| failed(&config, error))?;
    if arguments.json {
        say(&serde_json::json!({ "config": config, "key": key }).to_string());
        return Ok(());
    }
    say(&format!("wrote {} and {}", config.display(), key.display()));
    say("keep the key: without it, nothing that is stored can be read again");
    say(&format!(
        "next: add a provider to {0}, then `sidekey check {0}` and `sidekey serve --config {0}`",
        config.display()
    ));
    Ok(())
}

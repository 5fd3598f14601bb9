//! `sidekey config explain KEY`

use clap::Args;

use crate::cli::{CliError, CommonArguments, say};
use crate::config::explain::{Explanation, document, explain};

/// Arguments of `config explain`.
#[derive(Args)]
pub struct Arguments {
    /// The dotted key, such as `egress.listen` or `store.keys`.
    key: String,
    #[command(flatten)]
    common: CommonArguments,
}

/// Explains a key; no server is asked.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let file = document(arguments.common.file());
    let explanation = explain(&arguments.key, file.as_ref()).map_err(CliError::Usage)?;
    if arguments.common.json {
        let json = serde_json::to_string(&explanation).map_err(|error| CliError::Failed(error.to_string()))?;
        say(&json);
        return Ok(());
    }
    let Explanation { key, meaning, expects, default, value, line, needs_restart, keys } = explanation;
    say(&key);
    if !meaning.is_empty() {
        say(&format!("  {meaning}"));
    }
    say(&format!("  expects: {expects}"));
    if let Some(default) = default {
        say(&format!("  default: {default}"));
    }
    let place = line.map(|line| format!("{}:{line}", arguments.common.config.config.display()));
    match (value, place, file.is_some()) {
        (Some(value), Some(place), _) if !value.is_object() => say(&format!("  value:   {value} ({place})")),
        (Some(_), Some(place), _) => say(&format!("  value:   stands at {place}")),
        (_, _, true) => say(&format!("  value:   not set in {}", arguments.common.config.config.display())),
        (_, _, false) => say(&format!("  value:   {} cannot be read", arguments.common.config.config.display())),
    }
    match needs_restart {
        Some(why) => say(&format!("  a change needs a restart: {why}")),
        None => say("  a change takes effect with a reload"),
    }
    for (key, meaning) in keys {
        say(&format!("    {key}: {meaning}"));
    }
    Ok(())
}

//! `sidekey audit`

use clap::Args;

use super::{CliError, ConfigArgument, load, say};
use crate::model::names::{ProviderName, Subject};
use crate::telemetry::audit::{self, Record};

/// Arguments of `audit`.
#[derive(Args)]
pub struct Arguments {
    /// Only what was done for this subject.
    #[arg(long, alias = "user")]
    subject: Option<Subject>,
    /// Only what was done at this provider.
    #[arg(long)]
    provider: Option<ProviderName>,
    /// Only what was done from then on, such as 2026-11-21 or 2026-11-21T09:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Prints the audit trail, the oldest record first. It is read from its files, whether a server runs or not.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let directory = load(&arguments.config.config)?.store_directory;
    let mut show = |record: Record| {
        if wanted(arguments, &record) {
            say(&if arguments.json { json(&record) } else { line(&record) });
        }
    };
    audit::read(&directory, &mut show).map_err(|error| CliError::Failed(format!("{}: {error}", directory.display())))
}

fn wanted(arguments: &Arguments, record: &Record) -> bool {
    let of_subject = arguments.subject.is_none() || record.subject == arguments.subject;
    let of_provider = arguments.provider.is_none() || record.provider == arguments.provider;
    // RFC 3339 times in UTC are in order as texts are.
    of_subject && of_provider && arguments.since.as_ref().is_none_or(|since| record.time >= *since)
}

fn json(record: &Record) -> String {
    serde_json::to_string(record).expect("texts serialize")
}

fn line(record: &Record) -> String {
    let mut line = format!("{}  {:13}  {}", record.time, record.operation, record.outcome);
    let facts = [
        ("subject", record.subject.as_ref().map(ToString::to_string)),
        ("provider", record.provider.as_ref().map(ToString::to_string)),
        ("label", record.label.as_ref().map(ToString::to_string)),
        ("server", record.server.as_ref().map(ToString::to_string)),
        ("client", record.client.clone()),
        ("grant", record.grant.clone()),
        ("reason", record.reason.clone()),
    ];
    for (name, fact) in facts {
        if let Some(fact) = fact {
            line.push_str(&format!("  {name}={}", fact.escape_debug()));
        }
    }
    line
}

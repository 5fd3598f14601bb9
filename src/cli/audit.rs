//! `sidekey audit`

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use clap::Args;

use super::output::{Tone, now, remark};
use super::{CliError, ConfigArgument, say};
use crate::base::clock::{Clock, SystemClock};
use crate::config;
use crate::model::names::{Label, ProviderName, ServerName, Subject};
use crate::telemetry::audit::{Follower, Record};

/// Arguments of `audit`.
#[derive(Args)]
pub struct Arguments {
    /// Only what was done for this subject.
    #[arg(long, visible_alias = "user")]
    subject: Option<Subject>,
    /// Only what was done at this provider.
    #[arg(long)]
    provider: Option<ProviderName>,
    /// Only what was done to connections with this label.
    #[arg(long)]
    label: Option<Label>,
    /// Only what concerns this MCP server.
    #[arg(long)]
    server: Option<ServerName>,
    /// Only what concerns this MCP client.
    #[arg(long)]
    client: Option<String>,
    /// Only this, such as `refresh` or `connect`; may be given several times.
    #[arg(long)]
    operation: Vec<String>,
    /// Only what ended so, such as `dead`; may be given several times.
    #[arg(long)]
    outcome: Vec<String>,
    /// Only what was done from then on: 2026-11-21, 2026-11-21T09:00:00Z, or `2h` for the last two hours.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was done before then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only the last so many.
    #[arg(long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Go on with what is done from now on, until it is interrupted.
    #[arg(long, short)]
    follow: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// The trail is looked at so often.
const PAUSE: Duration = Duration::from_millis(200);

/// Prints the audit trail, the oldest record first. It is read from its files, whether a server runs or not.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let directory = config::places(&arguments.config.config).map_err(CliError::Config)?.store_directory;
    let failed = |error: std::io::Error| CliError::Failed(format!("{}: {error}", directory.display()));
    let (since, until) = (moment(arguments.since.as_deref())?, moment(arguments.until.as_deref())?);
    let is_wanted = |record: &Record| is_wanted(arguments, since.as_deref(), until.as_deref(), record);
    let show = |record: &Record| say(&if arguments.json { json(record) } else { line(record) });
    let mut follower = Follower::new(&directory);
    let mut last = VecDeque::new();
    let (mut operations, mut is_any_wanted) = (BTreeSet::new(), false);
    let mut first_look = |record: Record| {
        if !is_wanted(&record) {
            operations.insert(record.operation);
            return;
        }
        is_any_wanted = true;
        match arguments.last {
            None => show(&record),
            Some(count) => {
                last.push_back(record);
                if last.len() > count {
                    last.pop_front();
                }
            }
        }
    };
    follower.read(&mut first_look).map_err(failed)?;
    last.iter().for_each(show);
    if !arguments.follow {
        if !is_any_wanted && !arguments.json {
            remark(&nothing(&operations));
        }
        return Ok(());
    }
    super::runtime(1)?.block_on(async {
        loop {
            SystemClock.sleep(PAUSE).await;
            let mut shown = |record: Record| {
                if is_wanted(&record) {
                    show(&record);
                }
            };
            follower.read(&mut shown).map_err(failed)?;
        }
    })
}

/// What is said where there is nothing to show: a word may have been misspelt.
fn nothing(operations: &BTreeSet<String>) -> String {
    if operations.is_empty() {
        return "nothing was done yet".to_owned();
    }
    let operations = Vec::from_iter(operations.iter().map(String::as_str)).join(", ");
    format!("no record is like that; those that there are tell of: {operations}")
}

/// A moment as records have it.
fn moment(text: Option<&str>) -> Result<Option<String>, CliError> {
    let Some(text) = text else { return Ok(None) };
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Some(now().minus(ago).to_string()));
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) && text.contains('-') {
        return Ok(Some(text.to_owned()));
    }
    Err(CliError::Usage(format!("{text:?} is no time: expected 2026-11-21, 2026-11-21T09:00:00Z, or 2h")))
}

fn is_wanted(arguments: &Arguments, since: Option<&str>, until: Option<&str>, record: &Record) -> bool {
    fn is_or_any<T: PartialEq>(wanted: Option<&T>, there: Option<&T>) -> bool {
        wanted.is_none() || wanted == there
    }
    let label = record.label.clone().unwrap_or_default();
    let is_listed = |wanted: &[String], there: &String| wanted.is_empty() || wanted.contains(there);
    is_or_any(arguments.subject.as_ref(), record.subject.as_ref())
        && is_or_any(arguments.provider.as_ref(), record.provider.as_ref())
        && is_or_any(arguments.label.as_ref(), record.provider.is_some().then_some(&label))
        && is_or_any(arguments.server.as_ref(), record.server.as_ref())
        && is_or_any(arguments.client.as_ref(), record.client.as_ref())
        && is_listed(&arguments.operation, &record.operation)
        && is_listed(&arguments.outcome, &record.outcome)
        // RFC 3339 times in UTC are in order as texts are.
        && since.is_none_or(|since| record.time.as_str() >= since)
        && until.is_none_or(|until| record.time.as_str() < until)
}

fn json(record: &Record) -> String {
    serde_json::to_string(record).expect("texts serialize")
}

fn line(record: &Record) -> String {
    let tone = match record.outcome.as_str() {
        "ok" | "done" | "issued" | "admitted" | "confirmed" | "taken" => Tone::Good,
        "dead" | "operator" | "refused" | "reused" | "store" | "sealed" => Tone::Bad,
        _ => Tone::Plain,
    };
    let outcome = tone.paint(&record.outcome);
    let mut line = format!("{}  {:16}  {outcome}", Tone::Quiet.paint(&record.time), record.operation);
    let facts = [
        ("subject", record.subject.as_ref().map(ToString::to_string)),
        ("provider", record.provider.as_ref().map(ToString::to_string)),
        ("label", record.label.as_ref().map(ToString::to_string)),
        ("server", record.server.as_ref().map(ToString::to_string)),
        ("client", record.client.clone()),
        ("grant", record.grant.clone()),
        ("api_key", record.api_key.clone()),
        ("reason", record.reason.clone()),
    ];
    for (name, fact) in facts {
        if let Some(fact) = fact {
            line.push_str(&format!("  {name}={}", fact.escape_debug()));
        }
    }
    line
}

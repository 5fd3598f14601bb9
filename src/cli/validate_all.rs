//! `sidekey validate-all`

use clap::Args;
use futures_util::stream::{self, StreamExt};
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::admin_client::Admin;
use super::output::{Cell, Tone, table, text};
use super::{CliError, CommonArguments, NOT_WELL, say};
use crate::model::names::{ProviderName, Subject};
use crate::portal::admin::{ConnectionRequest, StatusQuery};

/// Arguments of `validate-all`.
#[derive(Args)]
pub struct Arguments {
    /// Only this subject's connections.
    #[arg(long, visible_alias = "user")]
    subject: Option<Subject>,
    /// Only connections to this provider.
    #[arg(long)]
    provider: Option<ProviderName>,
    /// So many at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
    #[command(flatten)]
    common: CommonArguments,
}

/// Asks about every connection, and fails if one does not work.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let admin = Admin::open(arguments.common.file())?;
    admin.admit()?;
    let query = StatusQuery { subject: arguments.subject.clone(), label: None };
    let query = serde_urlencoded::to_string(query).unwrap_or_default();
    let status = admin.ask(Method::GET, &format!("/v1/status?{query}"), None::<&()>)?;
    let mut connections = status["connections"].as_array().cloned().unwrap_or_default();
    let provider = arguments.provider.as_ref().map(ProviderName::as_str);
    connections.retain(|connection| provider.is_none_or(|provider| connection["provider"] == provider));
    if connections.is_empty() && (provider.is_some() || arguments.subject.is_some()) {
        let whose = arguments.subject.as_ref().map_or("Nobody has a".to_owned(), |subject| format!("{subject} has no"));
        let where_to = provider.map(|provider| format!(" to {provider}")).unwrap_or_default();
        let next = "`sidekey status` shows those there are";
        let detail = format!("{whose} connection{where_to}.");
        return Err(CliError::not_there("unknown-connection", "Unknown connection", detail, next));
    }
    let results = ask_all(&admin, connections, usize::from(arguments.parallel))?;
    let count = |verdict: &str| results.iter().filter(|result| result["verdict"] == verdict).count();
    let (valid, invalid, unknown) = (count("valid"), count("invalid"), count("unknown"));
    if arguments.common.json {
        let answer = json!({ "valid": valid, "invalid": invalid, "unknown": unknown, "connections": results });
        say(&answer.to_string());
    } else if results.is_empty() {
        say("no connections; `sidekey connect PROVIDER --subject S` makes one");
    } else {
        shown(&results).iter().for_each(|line| say(line));
        say("");
        say(&format!("{valid} valid, {invalid} invalid, {unknown} unknown"));
    }
    if invalid + unknown == 0 { Ok(()) } else { Err(CliError::Said(NOT_WELL)) }
}

/// All of them, at most so many at the same time, in the order in which they came.
fn ask_all(admin: &Admin, connections: Vec<Value>, parallel: usize) -> Result<Vec<Value>, CliError> {
    // Drawn on standard error, and nothing where that is no terminal.
    let bar = ProgressBar::new(connections.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}  {msg}") {
        bar.set_style(style);
    }
    let asked = stream::iter(connections).map(async |connection| {
        let result = ask(admin, &connection).await;
        bar.inc(1);
        if let Ok(result) = &result
            && result["verdict"] != "valid"
        {
            bar.set_message(format!("{} at {} is not well", text(result, "subject"), text(result, "provider")));
        }
        result
    });
    let results = admin.runtime().block_on(asked.buffered(parallel).collect::<Vec<_>>());
    bar.finish_and_clear();
    results.into_iter().collect()
}

async fn ask(admin: &Admin, connection: &Value) -> Result<Value, CliError> {
    let named = json!({ "subject": connection["subject"], "provider": connection["provider"],
        "label": connection["label"], "token": connection["token"] });
    let request: ConnectionRequest =
        serde_json::from_value(named.clone()).map_err(|error| CliError::Failed(error.to_string()))?;
    let found = match admin.asked(Method::POST, "/v1/validate", Some(&request)).await {
        // It was ended since it was listed.
        Err(CliError::Refused(problem)) if problem["status"] == 404 => {
            json!({ "verdict": "unknown", "by": "clock", "detail": "it was ended meanwhile" })
        }
        found => found?,
    };
    let mut result = named;
    for key in ["verdict", "by", "detail"] {
        result[key] = found[key].clone();
    }
    Ok(result)
}

fn shown(results: &[Value]) -> Vec<String> {
    let row = |result: &Value| {
        let (word, tone) = match result["verdict"].as_str() {
            Some("valid") => ("pass", Tone::Good),
            Some("invalid") => ("FAIL", Tone::Bad),
            _ => ("unknown", Tone::Notable),
        };
        let label = match result["token"].as_str() {
            Some(token) => format!("{}/{token}", text(result, "label")),
            None => text(result, "label"),
        };
        vec![
            Cell(word.to_owned(), tone),
            Cell::plain(text(result, "subject")),
            Cell::plain(text(result, "provider")),
            Cell::plain(label),
            Cell::plain(text(result, "by")),
            Cell::plain(text(result, "detail")),
        ]
    };
    table(&["RESULT", "SUBJECT", "PROVIDER", "LABEL", "BY", "DETAIL"], &results.iter().map(row).collect::<Vec<_>>())
}

//! `sidekey refresh PROVIDER --subject S`

use clap::Args;
use http::Method;
use serde_json::Value;

use super::admin_client::Admin;
use super::connection_argument::ConnectionArgument;
use super::output::{Tone, relative, took};
use super::{CliError, CommonArguments, say};
use crate::model::names::TokenName;

/// Arguments of `refresh`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: ConnectionArgument,
    /// Which of the grant's access tokens; without it, the first.
    #[arg(long)]
    token: Option<TokenName>,
    /// Show every request to the token endpoint, the pauses between them, and how long each took.
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    common: CommonArguments,
}

/// Refreshes, and says what came of it.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let admin = Admin::open(arguments.common.file())?;
    admin.admit()?;
    let request = arguments.connection.request(arguments.token.clone());
    let answer = admin.ask(Method::POST, "/v1/refresh", Some(&request))?;
    if arguments.common.json {
        say(&answer.to_string());
    } else {
        if arguments.verbose {
            attempts(&answer).iter().for_each(|line| say(line));
        }
        say(&outcome(&arguments.connection, &answer));
    }
    let is_fresh = answer["outcome"] == "ok" || answer["outcome"] == "overtaken";
    if is_fresh { Ok(()) } else { Err(CliError::Said(1)) }
}

/// One line for each request to the token endpoint, and for each pause.
pub fn attempts(answer: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for attempt in answer["attempts"].as_array().into_iter().flatten() {
        let said = attempt["said"].as_str().map(|said| format!(": {said}")).unwrap_or_default();
        let outcome = attempt["outcome"].as_str().unwrap_or("-");
        let tone = if outcome == "ok" { Tone::Good } else { Tone::Notable };
        let time = took(&attempt["took_ms"]);
        lines.push(format!("attempt {}  {time}  {}{said}", attempt["attempt"], tone.paint(outcome)));
        if !attempt["wait_ms"].is_null() {
            lines.push(format!("pause      {}", took(&attempt["wait_ms"])));
        }
    }
    if lines.is_empty() {
        lines.push("the provider was not asked".to_owned());
    }
    lines
}

fn outcome(connection: &ConnectionArgument, answer: &Value) -> String {
    let time = took(&answer["took_ms"]);
    let joined = if answer["joined"] == true { ", by a refresh that was under way" } else { "" };
    let reason = answer["reason"].as_str().unwrap_or("no reason was given");
    let next = relative(&answer["connection"]["refresh_due_at"]);
    let next = next.map(|next| format!("; the next try is {next}")).unwrap_or_default();
    match answer["outcome"].as_str() {
        Some("ok") => {
            let expires = relative(&answer["connection"]["access_expires_at"]);
            let expires = expires.map(|expires| format!(", expires {expires}")).unwrap_or_default();
            let generation = &answer["connection"]["generation"];
            format!(
                "{connection}: {} in {time}{joined}: generation {generation}{expires}",
                Tone::Good.paint("refreshed")
            )
        }
        Some("overtaken") => format!("{connection}: was refreshed, replaced or ended meanwhile"),
        Some("dead") => {
            format!(
                "{connection}: {}; its subject must connect again: {reason}",
                Tone::Bad.paint("the grant has ended")
            )
        }
        Some("left_alone") => format!(
            "{connection}: {}: the reply to an earlier refresh was lost, and asking again now could end the grant{next}",
            Tone::Notable.paint("left alone")
        ),
        Some(word) => format!("{connection}: {} ({word}): {reason}{next}", Tone::Bad.paint("not refreshed")),
        None => format!("{connection}: {answer}"),
    }
}

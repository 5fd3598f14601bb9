//! `sidekey simulate-failure PROVIDER --subject S`

use clap::Args;
use http::Method;
use serde_json::Value;

use super::connection_argument::ConnectionArgument;
use super::output::{Tone, facts, relative_and_exact, took};
use super::refresh::attempts;
use super::{CliError, CommonArguments, admin_client, say};

/// Arguments of `simulate-failure`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: ConnectionArgument,
    /// Show every request to the token endpoint, the pauses between them, and how long each took.
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    common: CommonArguments,
}

/// Shows what would happen.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let request = arguments.connection.request(None);
    let config = arguments.common.file();
    let answer = admin_client::ask(config, Method::POST, "/v1/simulate-failure", Some(&request))?;
    if arguments.common.json {
        say(&answer.to_string());
        return Ok(());
    }
    say(&format!("{}: asked with a refresh token that was never issued", arguments.connection));
    if arguments.verbose {
        attempts(&answer).iter().for_each(|line| say(&format!("  {line}")));
    }
    said(&answer).iter().for_each(|line| say(line));
    say("nothing was changed: the connection and its tokens are as they were");
    Ok(())
}

fn said(answer: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if answer["accepted"] == true {
        let told = "with tokens: this provider does not tell refresh tokens apart, so no failure can be shown";
        return facts(&[("provider answered", Some(Tone::Notable.paint(told)))]);
    }
    let would_be = &answer["connection_would_be"];
    let then = &answer["callers_would_see"]["then"];
    let meaning = match answer["outcome"].as_str() {
        Some("dead") => "the grant has ended: only its subject can mend that",
        Some("operator") => "our registration is the trouble: the operator must act",
        Some("in_doubt") => "nobody knows whether the provider acted: asked again with care",
        Some("transient") => "it passes, or the provider is to blame: tried again",
        _ => "not judged",
    };
    let state = [text(&would_be["state"]), text(&would_be["reason"])];
    let next = relative_and_exact(&would_be["next_try_at"]).map_or("never".to_owned(), |at| at);
    let seen = then["status"].as_u64().map(|status| {
        let kind = then["type"].as_str().unwrap_or("-").trim_start_matches("urn:sidekey:error:").to_owned();
        format!("HTTP {status} {kind}: {} ({})", then["detail"].as_str().unwrap_or("-"), next_step(then))
    });
    facts(&[
        ("provider answered", text(&answer["reason"])),
        ("after", Some(took(&answer["took_ms"]))),
        ("classified as", text(&answer["outcome"]).map(|word| format!("{word}: {meaning}"))),
        ("connection", Some(state.into_iter().flatten().collect::<Vec<_>>().join(": "))),
        ("next try", Some(next)),
        (
            "callers",
            relative_and_exact(&answer["callers_would_see"]["nothing_until"])
                .map(|until| format!("notice nothing until the access token expires, {until}")),
        ),
        ("and then", seen),
    ])
}

fn next_step(problem: &Value) -> &str {
    problem["next_step"].as_str().unwrap_or("-")
}

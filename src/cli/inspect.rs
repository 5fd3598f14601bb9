//! `sidekey inspect PROVIDER --subject S`

use clap::Args;
use http::Method;
use serde_json::Value;

use super::connection_argument::ConnectionArgument;
use super::output::{Tone, facts, relative, relative_and_exact, texts};
use super::{CliError, CommonArguments, admin_client, say};

/// Arguments of `inspect`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: ConnectionArgument,
    #[command(flatten)]
    common: CommonArguments,
}

/// Shows a connection.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let query = serde_urlencoded::to_string(arguments.connection.request(None)).unwrap_or_default();
    let path = format!("/v1/connection?{query}");
    let answer = admin_client::ask(arguments.common.file(), Method::GET, &path, None::<&()>)?;
    if arguments.common.json {
        say(&answer.to_string());
        return Ok(());
    }
    say(&arguments.connection.to_string());
    about(&answer).iter().for_each(|line| say(line));
    for further in answer["further_tokens"].as_array().into_iter().flatten() {
        say(&format!("token {}", further["token"].as_str().unwrap_or("-")));
        facts(&of_token(further)).iter().for_each(|line| say(line));
    }
    Ok(())
}

fn about(answer: &Value) -> Vec<String> {
    let (connection, provider) = (&answer["connection"], &answer["provider"]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut pairs = vec![("provider", text(&provider["display_name"]))];
    pairs.extend(of_token(connection));
    let tokens = match (&connection["has_refresh_token"], &answer["has_previous_refresh_token"]) {
        (Value::Bool(false), _) => "none: it cannot be refreshed",
        (_, Value::Bool(true)) => "present, and the one before it",
        _ => "present",
    };
    let unused = relative(&connection["refresh_expires_at"]).map(|end| format!(", ends {end} if it is not used"));
    let scopes = match (texts(&connection["scopes"]), texts(&answer["requested_scopes"])) {
        (granted, _) if !granted.is_empty() => Some(granted.join(" ")),
        (_, asked) if !asked.is_empty() => Some(format!("{} (asked for; the provider did not say)", asked.join(" "))),
        _ => None,
    };
    let alternates = answer["alternate_refresh_tokens"].as_u64().filter(|count| *count > 0);
    pairs.extend([
        ("refresh token", Some(format!("{tokens}{}", unused.unwrap_or_default()))),
        ("kept besides", alternates.map(|count| format!("{count} refresh tokens that lost to others"))),
        ("rotation", rotation(&provider["rotation"])),
        ("revocation", (provider["can_be_revoked"] == false).then(|| "the provider offers none".to_owned())),
        ("grant", relative_and_exact(&connection["grant_expires_at"]).map(|end| format!("ends {end}"))),
        ("connected", relative_and_exact(&connection["connected_at"])),
        ("account", text(&connection["account"])),
        ("scopes", scopes),
        ("APIs", Some(texts(&provider["apis"]).join(" ")).filter(|apis| !apis.is_empty())),
        ("sealed by", text(&answer["sealed_by"]).map(|id| format!("key {id}"))),
    ]);
    let mut lines = facts(&pairs);
    let captured = connection["captured"].as_object().into_iter().flatten();
    let captured: Vec<(&str, Option<String>)> = captured.map(|(name, value)| (name.as_str(), text(value))).collect();
    if !captured.is_empty() {
        lines.push("captured".to_owned());
        lines.extend(facts(&captured));
    }
    lines
}

/// What each access token has of its own.
fn of_token(connection: &Value) -> Vec<(&'static str, Option<String>)> {
    let text = |key: &str| connection[key].as_str().map(str::to_owned);
    let tone = if connection["state"] == "active" { Tone::Good } else { Tone::Bad };
    let trouble = &connection["trouble"];
    let failures = trouble["failures"].as_u64().unwrap_or(0);
    let times = if failures == 1 { "once".to_owned() } else { format!("{failures} times in a row") };
    let last_error = trouble["last_error"].as_str().map(|error| format!("{error} ({times})"));
    let expires = relative_and_exact(&connection["access_expires_at"]);
    let due = relative_and_exact(&connection["refresh_due_at"]).filter(|_| connection["state"] == "active");
    vec![
        ("state", text("state").map(|state| tone.paint(&state))),
        ("reason", text("reason")),
        ("choice", (connection["choice_needed"] == true).then(|| "needed: see `sidekey sites`".to_owned())),
        ("access token", Some(expires.map_or("no known end".to_owned(), |expires| format!("expires {expires}")))),
        ("next refresh", due),
        ("refreshed", relative_and_exact(&connection["refreshed_at"])),
        ("generation", Some(connection["generation"].to_string())),
        ("last error", last_error),
        ("in doubt", relative_and_exact(&trouble["in_doubt_since"]).map(|since| format!("since {since}"))),
    ]
}

fn rotation(rotation: &Value) -> Option<String> {
    let mut told = rotation["model"].as_str()?.to_owned();
    for (words, key) in [("each", "interval"), ("grace", "grace"), ("at most", "grace_cap"), ("reuse:", "reuse")] {
        if let Some(value) = rotation[key].as_str() {
            told.push_str(&format!(", {words} {value}"));
        }
    }
    if rotation["ends_access_tokens"] == true {
        told.push_str(", ends earlier access tokens");
    }
    Some(told)
}

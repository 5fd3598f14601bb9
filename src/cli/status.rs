//! `sidekey status`

use clap::Args;
use http::Method;
use serde_json::Value;

use super::{CliError, ConfigArgument, admin_client, say};
use crate::model::names::{Label, Subject};
use crate::portal::admin::StatusQuery;

/// Arguments of `status`.
#[derive(Args)]
pub struct Arguments {
    /// Only this subject's connections.
    #[arg(long, alias = "user")]
    subject: Option<Subject>,
    /// Only connections with this label.
    #[arg(long)]
    label: Option<Label>,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Shows connections.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let query =
        serde_urlencoded::to_string(StatusQuery { subject: arguments.subject.clone(), label: arguments.label.clone() })
            .unwrap_or_default();
    let answer = admin_client::ask(&arguments.config.config, Method::GET, &format!("/v1/status?{query}"), None::<&()>)?;
    if arguments.json {
        say(&answer.to_string());
        return Ok(());
    }
    if let Some(why) = answer["held_back"].as_str() {
        say(&format!("nothing is refreshed: {why}"));
    }
    let connections = answer["connections"].as_array().cloned().unwrap_or_default();
    if connections.is_empty() {
        say("no connections; `sidekey connect PROVIDER --subject S` makes one");
    }
    for connection in &connections {
        say(&line(connection));
    }
    Ok(())
}

fn line(connection: &Value) -> String {
    let text = |key: &str| connection[key].as_str().unwrap_or("-").to_owned();
    let mut line = format!("{}  {}  {}", text("subject"), text("provider"), text("label"));
    if let Some(token) = connection["token"].as_str() {
        line.push_str(&format!("/{token}"));
    }
    line.push_str(&format!("  {}", text("state")));
    if connection["choice_needed"] == true {
        line.push_str("  choice needed");
    }
    for (word, key) in [
        ("as", "account"),
        ("reason", "reason"),
        ("expires", "access_expires_at"),
        ("refreshed", "refreshed_at"),
        ("ends", "grant_expires_at"),
    ] {
        if let Some(value) = connection[key].as_str() {
            line.push_str(&format!("  {word} {value}"));
        }
    }
    if let Some(error) = connection["trouble"]["last_error"].as_str() {
        line.push_str(&format!("  last error: {error}"));
    }
    line
}

//! `sidekey grants list|revoke`

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::{CliError, ConfigArgument, admin_client, say};
use crate::model::names::Subject;
use crate::portal::admin::StatusQuery;

/// What to do with the grants of MCP clients.
#[derive(Subcommand)]
pub enum Command {
    /// Show which MCP clients act for whom.
    List(List),
    /// End a grant at once, with all its tokens.
    Revoke(Revoke),
}

/// Arguments of `grants list`.
#[derive(Args)]
pub struct List {
    /// Only this subject's grants.
    #[arg(long, alias = "user")]
    subject: Option<Subject>,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Arguments of `grants revoke`.
#[derive(Args)]
pub struct Revoke {
    /// The id that `grants list` shows.
    id: String,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Lists or revokes.
pub fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::List(arguments) => list(arguments),
        Command::Revoke(arguments) => revoke(arguments),
    }
}

fn list(arguments: &List) -> Result<(), CliError> {
    let path = match &arguments.subject {
        Some(subject) => {
            let query = StatusQuery { subject: Some(subject.clone()), label: None };
            let query = serde_urlencoded::to_string(query).map_err(|error| CliError::Failed(error.to_string()))?;
            format!("/v1/grants?{query}")
        }
        None => "/v1/grants".to_owned(),
    };
    let answer = admin_client::ask(&arguments.config.config, Method::GET, &path, None::<&()>)?;
    if arguments.json {
        say(&answer.to_string());
        return Ok(());
    }
    for grant in answer["grants"].as_array().into_iter().flatten() {
        let text = |name: &str| grant[name].as_str().unwrap_or_default().to_owned();
        let providers: Vec<_> = grant["providers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let state = match grant["state"].as_str() {
            Some("live") => format!("until {}", text("expires_at")),
            Some("ended") => format!("ended {} ({})", text("ended_at"), text("reason")),
            _ => format!("expired {}", text("expires_at")),
        };
        let who = grant["account"]
            .as_str()
            .map_or_else(|| text("subject"), |account| format!("{} ({account})", text("subject")));
        let (id, client, server) = (text("id"), text("client_name"), text("server"));
        say(&format!("{id}  {who}  {client}  {server}  {}  {state}", providers.join(",")));
    }
    Ok(())
}

fn revoke(arguments: &Revoke) -> Result<(), CliError> {
    let id = &arguments.id;
    let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !plain {
        return Err(CliError::Usage("an id looks like g_abc123; `sidekey grants list` shows them".to_owned()));
    }
    admin_client::ask(&arguments.config.config, Method::DELETE, &format!("/v1/grants/{id}"), None::<&()>)?;
    say(&format!("revoked {id}"));
    Ok(())
}

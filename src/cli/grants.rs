//! `sidekey grants list|revoke`

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::output::{Cell, Tone, relative, table, text, texts};
use super::{CliError, CommonArguments, admin_client, say};
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
    #[arg(long, visible_alias = "user")]
    subject: Option<Subject>,
    #[command(flatten)]
    common: CommonArguments,
}

/// Arguments of `grants revoke`.
#[derive(Args)]
pub struct Revoke {
    /// The id that `grants list` shows.
    id: String,
    #[command(flatten)]
    common: CommonArguments,
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
    let answer = admin_client::ask(arguments.common.file(), Method::GET, &path, None::<&()>)?;
    if arguments.common.json {
        say(&answer.to_string());
        return Ok(());
    }
    let grants = answer["grants"].as_array().cloned().unwrap_or_default();
    if grants.is_empty() {
        say("no grants; an MCP client gets one when its user approves it");
        return Ok(());
    }
    let headings = ["ID", "SUBJECT", "CLIENT", "SERVER", "PROVIDERS", "STATE"];
    table(&headings, &grants.iter().map(row).collect::<Vec<_>>()).iter().for_each(|line| say(line));
    Ok(())
}

fn row(grant: &Value) -> Vec<Cell> {
    let of = |key: &str| text(grant, key);
    let at = |key: &str| relative(&grant[key]).unwrap_or_default();
    let (state, tone) = match grant["state"].as_str() {
        Some("live") => (format!("live, ends {}", at("expires_at")), Tone::Good),
        Some("ended") => (format!("ended {} ({})", at("ended_at"), of("reason")), Tone::Quiet),
        _ => (format!("expired {}", at("expires_at")), Tone::Quiet),
    };
    let who =
        grant["account"].as_str().map_or_else(|| of("subject"), |account| format!("{} ({account})", of("subject")));
    vec![
        Cell::plain(of("id")),
        Cell::plain(who),
        Cell::plain(of("client_name")),
        Cell::plain(of("server")),
        Cell::plain(texts(&grant["providers"]).join(",")),
        Cell(state, tone),
    ]
}

fn revoke(arguments: &Revoke) -> Result<(), CliError> {
    let id = &arguments.id;
    let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !plain {
        return Err(CliError::Usage("an id looks like g_abc123; `sidekey grants list` shows them".to_owned()));
    }
    admin_client::ask(arguments.common.file(), Method::DELETE, &format!("/v1/grants/{id}"), None::<&()>)?;
    if arguments.common.json {
        say(&json!({ "revoked": id }).to_string());
    } else {
        say(&format!("revoked {id}"));
    }
    Ok(())
}

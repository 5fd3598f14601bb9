//! `sidekey handle issue|list|revoke`

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::output::{Cell, Tone, relative, remark, table};
use super::{CliError, CommonArguments, admin_client, say};
use crate::base::duration::DurationText;
use crate::model::names::{Label, ProviderName, Subject};
use crate::portal::admin::NewHandleRequest;

/// What to do with handles.
#[derive(Subcommand)]
pub enum Command {
    /// Make a handle; it is shown this once.
    Issue(Issue),
    /// Show all handles, without the handles themselves.
    List(CommonArguments),
    /// End a handle at once.
    Revoke(Revoke),
}

/// Arguments of `handle issue`.
#[derive(Args)]
pub struct Issue {
    /// Whose connections it reaches.
    #[arg(long, visible_alias = "user")]
    subject: Subject,
    /// At which provider; may be given several times. Without it, at all. For a single one the handle looks like that provider's
    /// tokens.
    #[arg(long)]
    provider: Vec<ProviderName>,
    /// Which of several connections at a provider. Without it, the one that a base URL names (`/NAME@LABEL`), or
    /// `default`.
    #[arg(long)]
    label: Option<Label>,
    /// For how long, such as 30d. Without it, until it is revoked.
    #[arg(long, value_name = "DURATION")]
    expires: Option<DurationText>,
    #[command(flatten)]
    common: CommonArguments,
}

/// Arguments of `handle revoke`.
#[derive(Args)]
pub struct Revoke {
    /// The id that `handle issue` and `handle list` show.
    id: String,
    #[command(flatten)]
    common: CommonArguments,
}

/// Issues, lists or revokes.
pub fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::Issue(arguments) => issue(arguments),
        Command::List(arguments) => list(arguments),
        Command::Revoke(arguments) => revoke(arguments),
    }
}

fn issue(arguments: &Issue) -> Result<(), CliError> {
    let request = NewHandleRequest {
        subject: arguments.subject.clone(),
        providers: (!arguments.provider.is_empty()).then(|| arguments.provider.iter().cloned().collect()),
        label: arguments.label.clone(),
        tunnels: false,
        expires: arguments.expires.map(|duration| duration.to_string()),
    };
    let answer = admin_client::ask(arguments.common.file(), Method::POST, "/v1/handles", Some(&request))?;
    if let Some(notice) = answer["notice"].as_str().filter(|_| !arguments.common.json) {
        remark(&format!("{} {notice}", Tone::Notable.paint("note:")));
    }
    // In text, the handle alone: fit for `$(...)`.
    say(&if arguments.common.json { answer.to_string() } else { text(&answer["handle"]) });
    Ok(())
}

fn list(arguments: &CommonArguments) -> Result<(), CliError> {
    let answer = admin_client::ask(&arguments.config.config, Method::GET, "/v1/handles", None::<&()>)?;
    if arguments.json {
        say(&answer.to_string());
        return Ok(());
    }
    let handles = answer["handles"].as_array().cloned().unwrap_or_default();
    if handles.is_empty() {
        say("no handles; `sidekey handle issue --subject S` makes one");
        return Ok(());
    }
    let row = |handle: &Value| {
        let providers: Vec<_> = handle["providers"].as_array().into_iter().flatten().map(text).collect();
        let providers = if handle["providers"].is_null() { "all providers".to_owned() } else { providers.join(",") };
        let (end, tone) = match (&handle["revoked_at"], &handle["expires_at"]) {
            (revoked @ Value::String(_), _) => (format!("revoked {}", at(revoked)), Tone::Quiet),
            (_, expires @ Value::String(_)) => (format!("expires {}", at(expires)), Tone::Plain),
            _ => ("does not expire".to_owned(), Tone::Plain),
        };
        vec![
            Cell::plain(text(&handle["id"])),
            Cell::plain(text(&handle["subject"])),
            Cell::plain(handle["label"].as_str().unwrap_or("any label")),
            Cell::plain(providers),
            Cell(end, tone),
        ]
    };
    let rows: Vec<Vec<Cell>> = handles.iter().map(row).collect();
    table(&["ID", "SUBJECT", "LABEL", "PROVIDERS", "UNTIL"], &rows).iter().for_each(|line| say(line));
    Ok(())
}

fn at(time: &Value) -> String {
    relative(time).unwrap_or_default()
}

fn revoke(arguments: &Revoke) -> Result<(), CliError> {
    let id = &arguments.id;
    let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !plain {
        return Err(CliError::Usage("an id looks like h_abc123; `sidekey handle list` shows them".to_owned()));
    }
    admin_client::ask(arguments.common.file(), Method::DELETE, &format!("/v1/handles/{id}"), None::<&()>)?;
    if arguments.common.json {
        say(&json!({ "revoked": id }).to_string());
    } else {
        say(&format!("revoked {id}"));
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

//! `sidekey status`

use clap::Args;
use http::Method;
use serde_json::Value;

use super::output::{Cell, Tone, relative, table, text, texts};
use super::{CliError, CommonArguments, admin_client, say};
use crate::base::toml_document::Problem;
use crate::model::connection::ConnectionKey;
use crate::model::names::{Label, Subject};
use crate::portal::admin::StatusQuery;

/// Arguments of `status`.
#[derive(Args)]
pub struct Arguments {
    /// Only this subject's connections.
    #[arg(long, visible_alias = "user")]
    subject: Option<Subject>,
    /// Only connections with this label.
    #[arg(long)]
    label: Option<Label>,
    #[command(flatten)]
    common: CommonArguments,
}

/// Shows connections and child processes.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let query =
        serde_urlencoded::to_string(StatusQuery { subject: arguments.subject.clone(), label: arguments.label.clone() })
            .unwrap_or_default();
    let answer = admin_client::ask(arguments.common.file(), Method::GET, &format!("/v1/status?{query}"), None::<&()>)?;
    if arguments.common.json {
        say(&answer.to_string());
        return Ok(());
    }
    let is_part = arguments.subject.is_some() || arguments.label.is_some();
    sections(&answer, is_part).iter().for_each(|line| say(line));
    Ok(())
}

/// What is to be said, in the order of its importance.
fn sections(answer: &Value, is_part: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(why) = answer["held_back"].as_str() {
        lines.push(Tone::Bad.paint(&format!("nothing is refreshed: {why}")));
    }
    lines.extend(server(answer));
    lines.extend(configuration(&answer["configuration"]));
    lines.extend(connections(answer, is_part));
    lines.extend(revocations(answer));
    lines.extend(children(answer));
    lines
}

/// Grants that their providers still hold to be good.
fn revocations(answer: &Value) -> Vec<String> {
    let waiting = answer["revocations_waiting"].as_array().map(Vec::as_slice).unwrap_or_default();
    if waiting.is_empty() {
        return Vec::new();
    }
    let row = |one: &Value| {
        let time = |key: &str| Cell::plain(relative(&one[key]).unwrap_or_default());
        let names = ["subject", "provider", "label"].map(|key| Cell::plain(text(one, key)));
        let counted = [time("since"), Cell::plain(one["attempts"].to_string()), time("next_try_at")];
        names.into_iter().chain(counted).collect()
    };
    let title = format!(
        "revocations  {}",
        Tone::Notable.paint(&format!("{} the provider could not be told of yet", waiting.len()))
    );
    let headings = ["SUBJECT", "PROVIDER", "LABEL", "DISCONNECTED", "TRIES", "NEXT TRY"];
    let mut lines = vec![String::new(), title, String::new()];
    lines.extend(table(&headings, &waiting.iter().map(row).collect::<Vec<Vec<Cell>>>()));
    lines
}

/// The child processes of MCP servers that speak stdio.
fn children(answer: &Value) -> Vec<String> {
    let children = answer["children"].as_array().map(Vec::as_slice).unwrap_or_default();
    if children.is_empty() {
        return Vec::new();
    }
    let row = |child: &Value| {
        let time = |key: &str| Cell::plain(relative(&child[key]).unwrap_or_default());
        vec![
            Cell::plain(text(child, "id")),
            Cell::plain(text(child, "server")),
            Cell::plain(text(child, "subject")),
            Cell::plain(texts(&child["providers"]).join(",")),
            Cell::plain(text(child, "state")),
            Cell::plain(child["pid"].to_string()),
            Cell::plain(child["requests"].to_string()),
            time("started_at"),
            time("last_used_at"),
        ]
    };
    let headings = ["CHILD", "SERVER", "SUBJECT", "PROVIDERS", "STATE", "PID", "REQUESTS", "STARTED", "LAST USED"];
    let mut lines = vec![String::new(), format!("children     {}", children.len()), String::new()];
    lines.extend(table(&headings, &children.iter().map(row).collect::<Vec<_>>()));
    lines
}

fn server(answer: &Value) -> Vec<String> {
    let version = text(answer, "version");
    let server = &answer["server"];
    if server.is_null() {
        return vec![format!("server       {}, read from the store itself", Tone::Notable.paint("none runs"))];
    }
    let ready = if server["ready"] == true { Tone::Good.paint("ready") } else { Tone::Bad.paint("not ready") };
    let mut lines = vec![format!("server       {ready}, version {version}, {}", text(answer, "public_url"))];
    for (part, why) in server["troubles"].as_object().into_iter().flatten() {
        lines.push(format!("             {part}: {}", why.as_str().unwrap_or("-")));
    }
    lines
}

/// Whether the server goes by what is on the disk.
fn configuration(configuration: &Value) -> Vec<String> {
    if configuration.is_null() {
        return Vec::new();
    }
    let since = relative(&configuration["in_force_since"]).unwrap_or_default();
    let mut lines = Vec::new();
    if let Some(refused) = relative(&configuration["refused_at"]) {
        lines.push(format!("config       {}, {refused}; in force is that of {since}", Tone::Bad.paint("refused")));
        for problem in configuration["problems"].as_array().into_iter().flatten() {
            let shown = serde_json::from_value::<Problem>(problem.clone()).map(|problem| problem.to_string());
            lines.push(format!("             {}", shown.unwrap_or_else(|_| text(problem, "message"))));
        }
    } else {
        lines.push(format!("config       {}, in force since {since}", text(configuration, "file")));
    }
    let waiting = texts(&configuration["needs_restart"]);
    if !waiting.is_empty() {
        lines.push(format!("             {}: {}", Tone::Notable.paint("needs a restart"), waiting.join(", ")));
    }
    lines
}

fn connections(answer: &Value, is_part: bool) -> Vec<String> {
    let connections = answer["connections"].as_array().cloned().unwrap_or_default();
    if connections.is_empty() {
        if is_part {
            return vec!["no such connections; without --subject and --label, all are shown".to_owned()];
        }
        return vec!["no connections; `sidekey connect PROVIDER --subject S` makes one".to_owned()];
    }
    let in_need = connections.iter().filter(|connection| tone(connection) == Tone::Bad).count();
    let attention = match in_need {
        0 => String::new(),
        1 => format!(", {}", Tone::Bad.paint("1 needs attention")),
        many => format!(", {}", Tone::Bad.paint(&format!("{many} need attention"))),
    };
    let rows: Vec<Vec<Cell>> = connections.iter().map(row).collect();
    let headings = ["SUBJECT", "PROVIDER", "LABEL", "STATE", "EXPIRES", "REFRESHED", "NOTES"];
    let mut lines = vec![format!("connections  {}{attention}", connections.len()), String::new()];
    lines.extend(table(&headings, &rows));
    lines.extend(way_out(&connections));
    lines
}

/// What to do about those that only their users can mend.
fn way_out(connections: &[Value]) -> Vec<String> {
    let is_dead = |connection: &&Value| connection["state"] == "needs_reauth" && connection["token"].is_null();
    let mut dead = connections.iter().filter(is_dead);
    let Some(first) = dead.next() else { return Vec::new() };
    let such = if dead.next().is_some() { " such as" } else { "" };
    let Some(key) = key(first) else { return Vec::new() };
    let command = format!("sidekey connect {}", key.as_arguments());
    vec![String::new(), format!("to be connected again, with a link for the user{such}: {command}")]
}

/// What the connection is called.
fn key(connection: &Value) -> Option<ConnectionKey> {
    let [subject, provider, label] = ["subject", "provider", "label"].map(|key| text(connection, key));
    Some(ConnectionKey::new(subject.parse().ok()?, provider.parse().ok()?, label.parse().ok()?))
}

/// How a connection's state is to be taken.
fn tone(connection: &Value) -> Tone {
    match connection["state"].as_str() {
        Some("active") if connection["trouble"]["needs_operator"] == true => Tone::Bad,
        Some("active") if !connection["trouble"].is_null() || connection["choice_needed"] == true => Tone::Notable,
        Some("active") => Tone::Good,
        _ => Tone::Bad,
    }
}

fn row(connection: &Value) -> Vec<Cell> {
    let label = match connection["token"].as_str() {
        Some(token) => format!("{}/{token}", text(connection, "label")),
        None => text(connection, "label"),
    };
    let time = |key: &str| Cell::plain(relative(&connection[key]).unwrap_or_default());
    vec![
        Cell::plain(text(connection, "subject")),
        Cell::plain(text(connection, "provider")),
        Cell::plain(label),
        Cell(text(connection, "state"), tone(connection)),
        time("access_expires_at"),
        time("refreshed_at"),
        Cell::plain(notes(connection)),
    ]
}

fn notes(connection: &Value) -> String {
    let mut notes = Vec::new();
    if connection["choice_needed"] == true {
        notes.push("choice needed".to_owned());
    }
    for (word, key) in [("as ", "account"), ("", "reason")] {
        notes.extend(connection[key].as_str().map(|value| format!("{word}{value}")));
    }
    notes.extend(relative(&connection["grant_expires_at"]).map(|end| format!("grant ends {end}")));
    if let Some(error) = connection["trouble"]["last_error"].as_str() {
        notes.push(format!("last error: {error}"));
    }
    notes.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_command_that_helps_is_said_once() {
        let of = |subject: &str, label: &str, state: &str| json!({"provider": "p", "subject": subject, "label": label, "state": state});
        let (well, dead, other) =
            (of("a", "default", "active"), of("b", "default", "needs_reauth"), of("c", "x", "needs_reauth"));
        let further =
            json!({"provider": "p", "subject": "b", "label": "default", "state": "needs_reauth", "token": "t"});
        let said =
            |connections: &[&Value]| way_out(&Vec::from_iter(connections.iter().map(|one| (*one).clone()))).pop();
        assert_eq!(said(&[&well]), None);
        let once = "to be connected again, with a link for the user: sidekey connect p --subject ";
        assert_eq!(said(&[&well, &dead, &further]), Some(format!("{once}b")));
        assert_eq!(said(&[&other]), Some(format!("{once}c --label x")));
        let such = "to be connected again, with a link for the user such as: sidekey connect p --subject b";
        assert_eq!(said(&[&dead, &other]).as_deref(), Some(such));
    }
}

//! `sidekey connections export`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Value, json};

use super::output::texts;
use super::{CliError, ConfigArgument, admin_client, say};
use crate::base::files;
use crate::model::names::Subject;
use crate::portal::admin::StatusQuery;

/// What to do with all connections.
#[derive(Subcommand)]
pub enum Command {
    /// Write a list of all connections without a single secret, for another program or a spreadsheet.
    Export(Arguments),
}

/// Arguments of `connections export`.
#[derive(Args)]
pub struct Arguments {
    /// How it is written.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// The same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Only this subject's connections.
    #[arg(long, visible_alias = "user")]
    subject: Option<Subject>,
    /// Where to; absent means standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
}

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One object.
    Json,
    /// One line for each connection, below a line of headings.
    Csv,
}

/// The columns, as the keys of `status` are called; `captured` and `scopes` are lists in one column.
const COLUMNS: [&str; 18] = [
    "subject",
    "provider",
    "label",
    "token",
    "state",
    "reason",
    "account",
    "captured",
    "scopes",
    "generation",
    "connected_at",
    "refreshed_at",
    "access_expires_at",
    "refresh_due_at",
    "refresh_expires_at",
    "grant_expires_at",
    "has_refresh_token",
    "choice_needed",
];

/// Exports.
pub fn run(command: &Command) -> Result<(), CliError> {
    let Command::Export(arguments) = command;
    let query = StatusQuery { subject: arguments.subject.clone(), label: None };
    let query = serde_urlencoded::to_string(query).unwrap_or_default();
    let path = format!("/v1/status?{query}");
    let status = admin_client::ask(&arguments.config.config, Method::GET, &path, None::<&()>)?;
    let connections = status["connections"].as_array().cloned().unwrap_or_default();
    let text = match arguments.format {
        Format::Json => json!({ "connections": connections }).to_string(),
        Format::Csv => table(&connections).map_err(CliError::Failed)?,
    };
    match &arguments.out {
        None => say(text.trim_end()),
        Some(path) => {
            let failed = |error: std::io::Error| CliError::Failed(format!("{}: {error}", path.display()));
            files::replace_private(path, format!("{}\n", text.trim_end()).as_bytes()).map_err(failed)?;
        }
    }
    Ok(())
}

fn table(connections: &[Value]) -> Result<String, String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS).map_err(|error| error.to_string())?;
    for connection in connections {
        let cells = COLUMNS.iter().map(|column| cell(&connection[*column]));
        writer.write_record(cells).map_err(|error| error.to_string())?;
    }
    let bytes = writer.into_inner().map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(_) => texts(value).join(" "),
        Value::Object(map) => {
            let pair = |(name, value): (&String, &Value)| format!("{name}={}", value.as_str().unwrap_or_default());
            map.iter().map(pair).collect::<Vec<_>>().join(" ")
        }
        value => value.to_string(),
    };
    // What a stranger has chosen must not be taken for a formula.
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_texts_and_never_formulas() {
        let connection = json!({ "subject": "alice", "account": "=HYPERLINK(\"x\")", "captured": { "a": "1", "b": "2" },
            "scopes": ["r", "w"], "generation": 3, "reason": "said \"no\", twice", "token": null });
        let text = table(&[connection]).expect("written");
        let row = text.lines().nth(1).expect("a row");
        assert!(
            row.starts_with("alice,,,,,\"said \"\"no\"\", twice\",\"'=HYPERLINK(\"\"x\"\")\",a=1 b=2,r w,3,"),
            "{row}"
        );
        assert_eq!(text.lines().next().map(|head| head.split(',').count()), Some(COLUMNS.len()));
    }
}

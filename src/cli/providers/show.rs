//! `sidekey providers show NAME`

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::list::source;
use super::{CatalogueArgument, unknown};
use crate::base::toml_document::Problem;
use crate::catalogue::lint::example_selection;
use crate::catalogue::load::SelectError;
use crate::catalogue::{Catalogue, Selection};
use crate::cli::{CliError, say};

/// Arguments of `providers show`.
#[derive(Args)]
pub struct Arguments {
    /// The entry.
    name: String,
    /// One of its environments; absent means its default one.
    #[arg(long)]
    environment: Option<String>,
    /// Answer in JSON: the entry with all that it takes from others, as the file format has it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    catalogue: CatalogueArgument,
}

/// Shows one entry.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let catalogue = arguments.catalogue.catalogue()?;
    let name = arguments.name.as_str();
    let Some(document) = catalogue.document(name) else { return Err(unknown(&catalogue, name)) };
    let selection = Selection { environment: arguments.environment.clone(), ..example_selection(document) };
    let entry = catalogue.merged(name, &selection).map_err(|errors| wrong(&catalogue, name, errors))?.value;
    if arguments.json {
        let shown = json!({ "name": name, "source": source(&catalogue, name), "entry": entry });
        say(&shown.to_string());
        return Ok(());
    }
    title(&catalogue, name, &entry);
    endpoints(&entry);
    lifecycle(&entry);
    connection(&entry);
    apis(&entry);
    for note in texts(&entry["notes"]) {
        say(&format!("note: {note}"));
    }
    say(&format!("redirect URI to register: {{public_url}}/callback/{name}"));
    Ok(())
}

fn wrong(catalogue: &Catalogue, name: &str, errors: Vec<SelectError>) -> CliError {
    let problem = |error: SelectError| -> Option<Problem> {
        let document = catalogue.document(name)?;
        Some(match error {
            SelectError::Entry(problem) => problem,
            SelectError::Choice { key, message } => document.problem(&key, message),
            SelectError::UnknownEntry { message, hint } => Problem { hint, ..document.problem("", message) },
        })
    };
    CliError::Config(errors.into_iter().filter_map(problem).collect())
}

fn title(catalogue: &Catalogue, name: &str, entry: &Value) {
    let text = |key: &str| entry[key].as_str().unwrap_or("-").to_owned();
    say(&format!("{} ({name}), {}, checked on {}", text("display_name"), source(catalogue, name), text("checked_on")));
    line("documentation", entry["documentation"].as_str().map(str::to_owned));
    let recall = texts(&entry["trust"]["recall"]);
    line("not verified", (!recall.is_empty()).then(|| recall.join(", ")));
}

fn endpoints(entry: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let (authorize, token) = (&entry["authorize"], &entry["token"]);
    line("authorize", Some(format!("{}  PKCE {}", text(&authorize["url"]), text(&authorize["pkce"]))));
    let client = texts(&token["client_authentication"]).join(" or ");
    let format = token["request_format"].as_str().unwrap_or("form");
    line("token", Some(format!("{}  client by {client}, {format}", text(&token["url"]))));
    line("refresh at", token["refresh_url"].as_str().map(str::to_owned));
    for kind in ["revoke", "introspect"] {
        let call = &entry[kind];
        let method = call["method"].as_str().unwrap_or("POST");
        line(kind, call["url"].as_str().map(|url| format!("{method} {url}")));
    }
    line("userinfo", entry["userinfo"]["url"].as_str().map(str::to_owned));
}

fn lifecycle(entry: &Value) {
    let pairs = |value: &Value| {
        let of = |(key, value): (&String, &Value)| {
            format!("{key} {}", value.as_str().map_or(value.to_string(), str::to_owned))
        };
        value.as_object().map(|map| map.iter().map(of).collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
    };
    line("rotation", pairs(&entry["rotation"]));
    line("lifetime", pairs(&entry["lifetime"]));
}

/// What an operator may choose, and what is remembered of a connection.
fn connection(entry: &Value) {
    for (name, input) in entry["inputs"].as_object().into_iter().flatten() {
        let value = match (input["default"].as_str(), input["example"].as_str()) {
            (Some(default), _) => format!("default {default}"),
            (None, example) => format!("required, such as {}", example.unwrap_or("-")),
        };
        line("input", Some(format!("{name}: {} ({value})", input["description"].as_str().unwrap_or("-"))));
    }
    let environments: Vec<&str> =
        entry["environments"].as_object().into_iter().flat_map(|map| map.keys().map(String::as_str)).collect();
    line("environments", (!environments.is_empty()).then(|| environments.join(", ")));
    let mut captured = BTreeMap::new();
    for capture in entry["authorize"]["capture"].as_array().into_iter().flatten() {
        captured.insert(capture["to"].as_str().unwrap_or("-").to_owned(), "callback");
    }
    for name in entry["token"]["response"]["capture"].as_object().into_iter().flat_map(|map| map.keys()) {
        captured.insert(name.clone(), "token reply");
    }
    for lookup in entry["post_connect"].as_array().into_iter().flatten() {
        for name in lookup["capture"].as_object().into_iter().flat_map(|map| map.keys()) {
            captured.insert(name.clone(), "look-up");
        }
    }
    let captured: Vec<String> = captured.into_iter().map(|(name, from)| format!("{name} ({from})")).collect();
    line("captures", (!captured.is_empty()).then(|| captured.join(", ")));
    line("realm", Some(texts(&entry["realm"]).join(", ")).filter(|realm| !realm.is_empty()));
}

fn apis(entry: &Value) {
    let common = texts(&entry["authorize"]["scopes"]);
    line("scopes", (!common.is_empty()).then(|| common.join(", ")));
    for (name, api) in entry["apis"].as_object().into_iter().flatten() {
        let is_default = entry["default_api"].as_str() == Some(name);
        let paths = texts(&api["paths"]);
        let paths = if paths.is_empty() { "/".to_owned() } else { paths.join(" ") };
        let origin = api["origin"].as_str().unwrap_or("-");
        let default = if is_default { "  (default)" } else { "" };
        say(&format!("  API {name}{default}"));
        say(&format!("    {origin}  {paths}"));
        let scopes = texts(&api["scopes"]);
        if !scopes.is_empty() {
            say(&format!("    scopes {}", scopes.join(", ")));
        }
    }
}

fn line(word: &str, text: Option<String>) {
    if let Some(text) = text {
        say(&format!("  {word:<15}{text}"));
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

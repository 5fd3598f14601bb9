//! `sidekey providers list`

use clap::Args;
use serde_json::{Value, json};

use super::CatalogueArgument;
use crate::catalogue::Catalogue;
use crate::catalogue::lint::example_selection;
use crate::cli::{CliError, say};

/// Arguments of `providers list`.
#[derive(Args)]
pub struct Arguments {
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    catalogue: CatalogueArgument,
}

/// Shows all entries.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let catalogue = arguments.catalogue.catalogue()?;
    let rows: Vec<Value> = catalogue.names().into_iter().map(|name| row(&catalogue, name)).collect();
    if arguments.json {
        say(&json!({ "providers": rows }).to_string());
        return Ok(());
    }
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let width = |key: &str| rows.iter().map(|row| text(row, key).chars().count()).max().unwrap_or(0);
    let (names, titles, models) = (width("name"), width("display_name"), width("rotation"));
    let heading = |word: &str, width: usize| format!("{word:width$}");
    say(&format!(
        "{}  {}  {}  CHECKED ON  SOURCE   APIS",
        heading("NAME", names),
        heading("DISPLAY NAME", titles),
        heading("ROTATION", models)
    ));
    for row in &rows {
        let apis: Vec<&str> = row["apis"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        say(&format!(
            "{:names$}  {:titles$}  {:models$}  {}  {}  {}",
            text(row, "name"),
            text(row, "display_name"),
            text(row, "rotation"),
            text(row, "checked_on"),
            text(row, "source"),
            apis.join(", ")
        ));
    }
    Ok(())
}

/// One entry, as far as it can be read: a broken one is listed too.
fn row(catalogue: &Catalogue, name: &str) -> Value {
    let selection = catalogue.document(name).map(example_selection).unwrap_or_default();
    let merged = catalogue.merged(name, &selection).map(|document| document.value).unwrap_or_default();
    let apis: Vec<&String> = merged["apis"].as_object().into_iter().flat_map(|apis| apis.keys()).collect();
    json!({
        "name": name,
        "display_name": merged["display_name"],
        "apis": apis,
        "rotation": merged["rotation"]["model"],
        "checked_on": merged["checked_on"],
        "source": source(catalogue, name),
        "usable": catalogue.select(name, &selection).is_ok(),
    })
}

/// Where an entry comes from.
pub fn source(catalogue: &Catalogue, name: &str) -> String {
    match catalogue.document(name) {
        Some(document) if !catalogue.is_bundled(name) => document.file.display().to_string(),
        _ => "bundled".to_owned(),
    }
}

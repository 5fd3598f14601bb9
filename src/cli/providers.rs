//! `sidekey providers ...`

pub mod lint;
mod list;
mod show;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{CliError, USUAL_CONFIG, load};
use crate::base::files;
use crate::base::sources::Sources;
use crate::base::toml_document::Document;
use crate::catalogue::Catalogue;

/// What to do with provider files.
#[derive(Subcommand)]
pub enum Command {
    /// All entries: name, APIs, rotation, how old the facts are.
    List(list::Arguments),
    /// What one entry says.
    Show(show::Arguments),
    /// Say everything that is wrong with provider files, and what deserves a look.
    Lint(lint::Arguments),
}

/// Whose entries there are besides the bundled ones.
#[derive(Args, Clone)]
struct CatalogueArgument {
    /// The configuration file, for its `provider_directory` [default: `sidekey.toml`, where it is there].
    #[arg(long, value_name = "FILE", env = "SIDEKEY_CONFIG")]
    config: Option<PathBuf>,
}

/// Runs `providers ...`.
pub fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::List(arguments) => list::run(arguments),
        Command::Show(arguments) => show::run(arguments),
        Command::Lint(arguments) => lint::run(arguments),
    }
}

impl CatalogueArgument {
    /// The bundled entries and those of the operator's directory. What is wrong with some of them does not hide the others.
    fn catalogue(&self) -> Result<Catalogue, CliError> {
        let mut catalogue = Catalogue::bundled();
        if let Some(directory) = self.directory()? {
            catalogue.add_directory(&directory, &Sources::default());
        }
        Ok(catalogue)
    }

    /// The operator's directory. The rest of the configuration may be wrong: these commands are for mending it.
    fn directory(&self) -> Result<Option<PathBuf>, CliError> {
        let usual = Path::new(USUAL_CONFIG);
        let config = match &self.config {
            Some(config) => config,
            None if usual.exists() => usual,
            None => return Ok(None),
        };
        let text = files::read_to_string(config).map_err(|_| match load(config) {
            Err(error) => error,
            Ok(_) => CliError::Failed(format!("{}: cannot be read", config.display())),
        })?;
        let document = Document::parse(config, &text).map_err(CliError::Config)?;
        let home = config.parent().unwrap_or(Path::new(""));
        Ok(document.value["provider_directory"].as_str().map(|directory| home.join(directory)))
    }
}

/// An entry that is not there, with what might be meant.
fn unknown(catalogue: &Catalogue, name: &str) -> CliError {
    let names = catalogue.names();
    let hint = match crate::base::toml_schema::did_you_mean(name, names.iter().copied()) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None => "`sidekey providers list` shows all".to_owned(),
    };
    let detail = format!("There is no provider entry {name:?}.");
    CliError::not_there("unknown-provider", "Unknown provider", detail, hint)
}

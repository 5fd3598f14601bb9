//! `sidekey man [DIRECTORY]`

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::{CliError, commands, say};

/// Arguments of `man`.
#[derive(Args)]
pub struct Arguments {
    /// Write a page for each command here, such as `sidekey-status.1`; without it, the page of `sidekey` is printed.
    directory: Option<PathBuf>,
    /// Answer in JSON: which files were written.
    #[arg(long, requires = "directory")]
    json: bool,
}

/// Prints the page, or writes all.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("the manual cannot be written: {error}"));
    let Some(directory) = &arguments.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(commands()).render(&mut page).map_err(failed)?;
        // A reader that has gone away is no error.
        let _ = std::io::stdout().write_all(&page);
        return Ok(());
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(commands(), directory).map_err(failed)?;
    let mut written: Vec<String> = std::fs::read_dir(directory)
        .map_err(failed)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("sidekey") && name.ends_with(".1"))
        .collect();
    written.sort();
    if arguments.json {
        say(&serde_json::json!({ "directory": directory, "pages": written }).to_string());
    } else {
        say(&format!(
            "wrote {} pages into {}; `man -l {}/sidekey.1` shows the first",
            written.len(),
            directory.display(),
            directory.display()
        ));
    }
    Ok(())
}

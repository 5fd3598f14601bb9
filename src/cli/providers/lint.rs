//! `sidekey providers lint [FILE]`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::CatalogueArgument;
use crate::base::clock::{Clock, SystemClock};
use crate::base::sources::Sources;
use crate::base::toml_document::Problem;
use crate::catalogue::Catalogue;
use crate::catalogue::lint::{Finding, Severity, lint};
use crate::cli::{CliError, say};

/// Arguments of `providers lint`.
#[derive(Args)]
pub struct Arguments {
    /// Provider files, or directories of such; absent means all bundled ones and those of the configuration.
    files: Vec<PathBuf>,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    catalogue: CatalogueArgument,
}

/// What was found in one file.
pub struct Report {
    /// The file.
    pub file: String,
    /// What there is to say about it.
    pub findings: Vec<Finding>,
}

/// Says what is wrong, and fails if something is.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let today = SystemClock.now().as_seconds().div_euclid(86_400);
    let reports = if arguments.files.is_empty() {
        of_catalogue(&arguments.catalogue, today)?
    } else {
        let files = arguments.files.iter().map(|path| files_of(path)).collect::<Result<Vec<_>, _>>()?;
        of_files(&files.concat(), today)
    };
    let count = |severity: Severity| {
        reports.iter().flat_map(|report| &report.findings).filter(|finding| finding.severity == severity).count()
    };
    let (errors, notes) = (count(Severity::Error), count(Severity::Note));
    if arguments.json {
        let files: Vec<Value> = reports.iter().map(as_json).collect();
        say(&json!({ "files": files, "errors": errors, "notes": notes }).to_string());
    } else {
        for finding in reports.iter().flat_map(|report| &report.findings) {
            say(&format!("{}: {}", finding.severity.word(), finding.problem));
        }
        say(&format!("{}: {}, {}", plural(reports.len(), "file"), plural(errors, "error"), plural(notes, "note")));
    }
    match errors {
        0 => Ok(()),
        _ => Err(CliError::Usage(format!("{} in provider files", plural(errors, "error")))),
    }
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

fn of_catalogue(argument: &CatalogueArgument, today: i64) -> Result<Vec<Report>, CliError> {
    let bundled = Catalogue::bundled();
    let mut reports: Vec<Report> = bundled
        .names()
        .into_iter()
        .map(|name| Report { file: format!("(bundled) {name}.toml"), findings: lint(&bundled, name, today) })
        .collect();
    if let Some(directory) = argument.directory()? {
        reports.extend(of_files(&files_of(&directory)?, today));
    }
    Ok(reports)
}

/// The provider files that a path stands for.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |error: std::io::Error| CliError::Failed(format!("{}: {error}", path.display()));
    let entries = std::fs::read_dir(path).map_err(unreadable)?;
    let mut files: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

/// Several files that belong together.
pub fn of_files(files: &[PathBuf], today: i64) -> Vec<Report> {
    let mut catalogue = Catalogue::bundled();
    let problems: Vec<Vec<Problem>> = files.iter().map(|file| catalogue.add_file(file, &Sources::default())).collect();
    files.iter().for_each(|file| add_what_it_extends(&mut catalogue, file));
    files.iter().zip(problems).map(|(file, problems)| report(&catalogue, file, problems, today)).collect()
}

/// A file may extend others of its directory.
fn add_what_it_extends(catalogue: &mut Catalogue, file: &Path) {
    let mut name = name_of(file);
    while let Some(extended) = catalogue.document(&name).and_then(|found| found.value["extends"].as_str()) {
        let neighbour = file.with_file_name(format!("{extended}.toml"));
        name = extended.to_owned();
        let is_known = catalogue.document(&name).is_some_and(|found| found.file == neighbour);
        if is_known || !neighbour.is_file() {
            return;
        }
        catalogue.add_file(&neighbour, &Sources::default());
    }
}

fn report(catalogue: &Catalogue, file: &Path, problems: Vec<Problem>, today: i64) -> Report {
    let name = name_of(file);
    let is_read = catalogue.document(&name).is_some_and(|document| document.file == file);
    let findings = if is_read {
        lint(catalogue, &name, today)
    } else {
        problems.into_iter().map(|problem| Finding { severity: Severity::Error, problem }).collect()
    };
    Report { file: file.display().to_string(), findings }
}

fn name_of(file: &Path) -> String {
    file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned()
}

fn as_json(report: &Report) -> Value {
    let findings: Vec<Value> = report.findings.iter().map(finding).collect();
    json!({ "file": report.file, "findings": findings })
}

fn finding(finding: &Finding) -> Value {
    let Problem { line, column, key, message, hint, .. } = &finding.problem;
    json!({
        "severity": finding.severity.word(), "line": line, "column": column, "key": key, "message": message, "hint": hint,
    })
}

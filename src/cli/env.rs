//! `sidekey env`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Map, Value};

use super::run::session::{captured_in, reachable_egress};
use super::{CliError, ConfigArgument, admin_client, say};
use crate::config;
use crate::launch::directory::equip;
use crate::launch::plan::{Plan, Values, Wanted};
use crate::launch::variables::{Facts, variables};
use crate::model::handle;
use crate::portal::admin::{CaAnswer, NewHandleAnswer, NewHandleRequest, ServerAnswer};

/// The variable that holds the handle where none is issued.
const HANDLE: &str = "SIDEKEY_HANDLE";

/// Arguments of `env`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t = Format::Shell)]
    format: Format,
    /// Where the program reaches the egress listener; default: where it listens.
    #[arg(long, value_name = "HOST:PORT")]
    egress: Option<String>,
    /// Where the program finds the files: certificates, and what Node.js loads.
    #[arg(long, value_name = "DIRECTORY", default_value = "/etc/sidekey")]
    files: PathBuf,
    /// Write these files now, into this directory.
    #[arg(long, value_name = "DIRECTORY")]
    write: Option<PathBuf>,
    /// Issue a handle and print it: it works until it is revoked, or expires. Without this, the variable SIDEKEY_HANDLE stands
    /// for it.
    #[arg(long)]
    issue: bool,
    /// For how long, such as 30d.
    #[arg(long, value_name = "DURATION", requires = "issue")]
    expires: Option<String>,
    /// Reach no hosts but those of providers and those that the configuration lists.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// How the variables are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// `export NAME='value'`
    Shell,
    /// One object.
    Json,
    /// `NAME="value"`
    Dotenv,
    /// What goes under `env:` of a container.
    Kubernetes,
}

/// Prints what `run` would set.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let outline = config::outline(&arguments.config.config).map_err(CliError::Config)?;
    let plan = Plan::make(&arguments.wanted, &outline)?;
    let ask = |path: &str| admin_client::ask(&arguments.config.config, Method::GET, path, None::<&()>);
    let egress = match &arguments.egress {
        Some(egress) => egress.clone(),
        None => {
            let server: ServerAnswer = understood(ask("/v1/server")?)?;
            server.listens.as_ref().and_then(reachable_egress).ok_or_else(|| {
                CliError::Usage("no server runs that could be asked where it listens: say it with --egress".to_owned())
            })?
        }
    };
    let ca: CaAnswer = understood(ask("/v1/ca")?)?;
    let captured = if plan.provider.is_some() {
        let query = serde_urlencoded::to_string([("subject", plan.subject.as_str())]).unwrap_or_default();
        captured_in(&ask(&format!("/v1/status?{query}"))?, &plan).unwrap_or_default()
    } else {
        BTreeMap::new()
    };
    let handle = if arguments.issue { issued(arguments, &plan)? } else { reference(arguments.format).to_owned() };
    let files = arguments.files.display().to_string();
    let values =
        Values { handle: &handle, egress: &egress, provider: plan.provider, captured: &captured, files: &files };
    if let Some(directory) = &arguments.write {
        write(directory, &ca.certificates_pem, plan.files(&values)?)?;
    }
    let hosts = ca.hosts.into_iter().collect::<Vec<_>>().join(",");
    let facts = Facts {
        egress: &egress,
        handle: handle::without_prefix(&handle),
        directory: &arguments.files,
        hosts: if arguments.strict { "*" } else { &hosts },
        inherited: &|_| None,
    };
    let mut all = variables(&facts);
    all.extend(plan.environment(&values)?);
    say(&printed(arguments.format, &all, !arguments.issue));
    Ok(())
}

fn understood<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, CliError> {
    serde_json::from_value(answer).map_err(|error| CliError::Failed(format!("the server answers otherwise: {error}")))
}

fn issued(arguments: &Arguments, plan: &Plan<'_>) -> Result<String, CliError> {
    let request = NewHandleRequest {
        subject: plan.subject.clone(),
        providers: plan.providers.clone().map(|providers| providers.into_iter().collect()),
        label: Some(plan.label.clone()),
        expires: arguments.expires.clone(),
        tunnels: !arguments.strict,
    };
    let answer = admin_client::ask(&arguments.config.config, Method::POST, "/v1/handles", Some(&request))?;
    understood::<NewHandleAnswer>(answer).map(|answer| answer.handle)
}

fn write(directory: &std::path::Path, certificates: &str, files: Vec<(String, String)>) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot write {}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(failed)?;
    equip(directory, certificates, "")?;
    files.into_iter().try_for_each(|(name, content)| std::fs::write(directory.join(name), content).map_err(failed))
}

/// How a format refers to the variable that holds the handle.
fn reference(format: Format) -> &'static str {
    match format {
        Format::Kubernetes => "$(SIDEKEY_HANDLE)",
        _ => "${SIDEKEY_HANDLE}",
    }
}

fn printed(format: Format, variables: &[(String, String)], refers: bool) -> String {
    let line = |(name, value): &(String, String)| match format {
        // Only what refers to a variable is left to the shell.
        Format::Shell if value.contains(reference(format)) => {
            format!(
                "export {name}={}",
                double_quoted(value, "\"\\`$").replace("\\${SIDEKEY_HANDLE}", reference(format))
            )
        }
        Format::Shell => format!("export {name}='{}'", value.replace('\'', "'\\''")),
        Format::Dotenv => format!("{name}={}", double_quoted(value, "\"\\").replace('\n', "\\n")),
        Format::Kubernetes => {
            let parts: Vec<String> = value.split(reference(format)).map(|part| part.replace('$', "$$")).collect();
            format!("- name: {name}\n  value: {}", Value::from(parts.join(reference(format))))
        }
        Format::Json => String::new(),
    };
    if format == Format::Json {
        let map: Map<String, Value> =
            variables.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        return serde_json::to_string_pretty(&Value::Object(map)).unwrap_or_default();
    }
    let mut lines: Vec<String> = variables.iter().map(line).collect();
    if refers && format == Format::Kubernetes {
        // Before all that refer to it.
        lines.insert(
            0,
            format!("- name: {HANDLE}\n  valueFrom: {{ secretKeyRef: {{ name: sidekey-handle, key: handle }} }}"),
        );
    }
    lines.join("\n")
}

fn double_quoted(value: &str, escaped: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in value.chars() {
        if escaped.contains(letter) {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(format: Format, name: &str, value: &str) -> String {
        printed(format, &[(name.to_owned(), value.to_owned())], false)
    }

    #[test]
    fn every_format_holds_values_as_they_are() {
        assert_eq!(print(Format::Shell, "A", "it's $x"), "export A='it'\\''s $x'");
        assert_eq!(print(Format::Shell, "A", "${SIDEKEY_HANDLE}\"`"), "export A=\"${SIDEKEY_HANDLE}\\\"\\`\"");
        assert_eq!(print(Format::Shell, "A", "${SIDEKEY_HANDLE}$(id)$A"), "export A=\"${SIDEKEY_HANDLE}\\$(id)\\$A\"");
        assert_eq!(print(Format::Dotenv, "A", "a\nb"), "A=\"a\\nb\"");
        assert_eq!(
            print(Format::Kubernetes, "A", "$(SIDEKEY_HANDLE)$(B)"),
            "- name: A\n  value: \"$(SIDEKEY_HANDLE)$$(B)\""
        );
        assert_eq!(print(Format::Dotenv, "A", "a \"b\" \\"), "A=\"a \\\"b\\\" \\\\\"");
        assert_eq!(print(Format::Json, "A", "\"1\""), "{\n  \"A\": \"\\\"1\\\"\"\n}");
        assert_eq!(print(Format::Kubernetes, "A", "a: \"b\""), "- name: A\n  value: \"a: \\\"b\\\"\"");
    }

    #[test]
    fn a_pod_takes_its_handle_from_a_secret() {
        let text = printed(Format::Kubernetes, &[("A".to_owned(), reference(Format::Kubernetes).to_owned())], true);
        assert!(text.starts_with("- name: SIDEKEY_HANDLE\n  valueFrom: { secretKeyRef:"), "{text}");
        assert!(text.ends_with("value: \"$(SIDEKEY_HANDLE)\""), "{text}");
    }
}

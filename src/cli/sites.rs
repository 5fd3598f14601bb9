//! `sidekey sites PROVIDER --subject S [--choose ID]`

use clap::Args;
use http::Method;
use serde_json::Value;

use super::{CliError, CommonArguments, admin_client, say};
use crate::model::names::{Label, ProviderName, Subject};
use crate::portal::admin::{ChooseRequest, SitesQuery};

/// Arguments of `sites`.
#[derive(Args)]
pub struct Arguments {
    /// At which provider.
    provider: ProviderName,
    /// Whose connection.
    #[arg(long, visible_alias = "user")]
    subject: Subject,
    /// Which of several connections.
    #[arg(long, default_value = "default")]
    label: Label,
    /// Have the connection be for this one from now on.
    #[arg(long, value_name = "ID")]
    choose: Option<String>,
    #[command(flatten)]
    common: CommonArguments,
}

/// Shows what a connection may be for, or chooses.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let Arguments { provider, subject, label, .. } = arguments;
    let (subject, provider, label) = (subject.clone(), provider.clone(), label.clone());
    let config = arguments.common.file();
    let answer = match arguments.choose.clone() {
        Some(site) => {
            let request = ChooseRequest { subject, provider, label, site };
            admin_client::ask(config, Method::POST, "/v1/sites", Some(&request))?
        }
        None => {
            let query = SitesQuery { subject, provider, label };
            let query = serde_urlencoded::to_string(query).unwrap_or_default();
            admin_client::ask(config, Method::GET, &format!("/v1/sites?{query}"), None::<&()>)?
        }
    };
    if arguments.common.json {
        say(&answer.to_string());
        return Ok(());
    }
    match answer["sites"].as_array() {
        None => say(&line(&answer)),
        Some(sites) if sites.is_empty() => say("this account has none"),
        Some(sites) => {
            sites.iter().for_each(|site| say(&line(site)));
            if !sites.iter().any(|site| site["chosen"] == true) {
                say("none is chosen; choose one with --choose and what stands in the first column");
            }
        }
    }
    Ok(())
}

fn line(site: &Value) -> String {
    let text = |key: &str| site[key].as_str().unwrap_or("-");
    let chosen = if site["chosen"] == true { "  chosen" } else { "" };
    format!("{}  {}{chosen}", text("id"), text("name"))
}

//! `sidekey disconnect PROVIDER --subject S`

use clap::Args;
use http::Method;

use super::{CliError, ConfigArgument, admin_client, say};
use crate::model::names::{Label, ProviderName, Subject};
use crate::portal::admin::NewLinkRequest;

/// Arguments of `disconnect`.
#[derive(Args)]
pub struct Arguments {
    /// From what.
    provider: ProviderName,
    /// Who is disconnected.
    #[arg(long, alias = "user")]
    subject: Subject,
    /// Which of several connections.
    #[arg(long, default_value = "default")]
    label: Label,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Disconnects, and says what became of the grant at the provider.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let Arguments { provider, subject, label, .. } = arguments;
    let request = NewLinkRequest { subject: subject.clone(), provider: provider.clone(), label: label.clone() };
    let answer = admin_client::ask(&arguments.config.config, Method::POST, "/v1/disconnect", Some(&request))?;
    if arguments.json {
        say(&answer.to_string());
        return Ok(());
    }
    let at_provider = match answer["revocation"].as_str() {
        Some("done") => "the provider has ended the grant",
        Some("queued") => "the provider could not be told yet; Sidekey keeps trying",
        _ => "the provider offers no way to end the grant; the user can do it there",
    };
    say(&format!("{subject} is disconnected from {provider}; {at_provider}"));
    Ok(())
}

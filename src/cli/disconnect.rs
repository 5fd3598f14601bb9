//! `sidekey disconnect PROVIDER --subject S`

use clap::Args;
use http::Method;

use super::connection_argument::ConnectionArgument;
use super::output::texts;
use super::{CliError, CommonArguments, admin_client, say};

/// Arguments of `disconnect`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: ConnectionArgument,
    #[command(flatten)]
    common: CommonArguments,
}

/// Disconnects, and says what became of the grant at the provider.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let request = arguments.connection.request(None);
    let answer = admin_client::ask(arguments.common.file(), Method::POST, "/v1/disconnect", Some(&request))?;
    if arguments.common.json {
        say(&answer.to_string());
        return Ok(());
    }
    let at_provider = match answer["revocation"].as_str() {
        Some("done") => "the provider has ended the grant",
        Some("queued") => "the provider could not be told yet; Sidekey keeps trying",
        _ => "the provider offers no way to end the grant; the user can do it there",
    };
    let ConnectionArgument { provider, subject, .. } = &arguments.connection;
    say(&format!("{subject} is disconnected from {provider}; {at_provider}"));
    for said in texts(&answer["provider_answers"]) {
        say(&format!("  the provider's answer: {said}"));
    }
    Ok(())
}

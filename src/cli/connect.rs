//! `sidekey connect PROVIDER --subject S`

use clap::Args;
use http::Method;

use super::admin_client::Admin;
use super::output::{relative_and_exact, remark};
use super::{CliError, CommonArguments, say};
use crate::model::names::{Label, ProviderName, Subject};
use crate::portal::admin::NewLinkRequest;

/// Arguments of `connect`.
#[derive(Args)]
pub struct Arguments {
    /// The provider, as named in the configuration.
    provider: ProviderName,
    /// Who connects.
    #[arg(long, visible_alias = "user")]
    subject: Subject,
    /// Which of several connections of the subject at the provider.
    #[arg(long, default_value = "default")]
    label: Label,
    #[command(flatten)]
    common: CommonArguments,
}

/// Prints a link.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let request = NewLinkRequest {
        subject: arguments.subject.clone(),
        provider: arguments.provider.clone(),
        label: arguments.label.clone(),
    };
    let admin = Admin::open(arguments.common.file())?;
    let answer = admin.ask(Method::POST, "/v1/connect-links", Some(&request))?;
    if arguments.common.json {
        say(&answer.to_string());
    } else {
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        // The link alone: fit for `$(...)`.
        say(&text("url"));
        let until = relative_and_exact(&answer["expires_at"]).unwrap_or_default();
        let when = if admin.is_served() { "" } else { " once a server runs (`sidekey serve`)" };
        remark(&format!("open it in a browser{when}; it works once, and expires {until}"));
    }
    Ok(())
}

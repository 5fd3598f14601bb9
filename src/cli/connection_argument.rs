//! Which connection a command is about: `PROVIDER --subject S [--label L]`, everywhere.

use clap::Args;

use crate::model::names::{Label, ProviderName, Subject, TokenName};
use crate::portal::admin::ConnectionRequest;

/// Which connection is meant.
#[derive(Args, Clone)]
pub struct ConnectionArgument {
    /// At which provider.
    pub provider: ProviderName,
    /// Whose connection.
    #[arg(long, visible_alias = "user")]
    pub subject: Subject,
    /// Which of several connections.
    #[arg(long, default_value = "default")]
    pub label: Label,
}

impl ConnectionArgument {
    /// As the server wants it.
    pub fn request(&self, token: Option<TokenName>) -> ConnectionRequest {
        let Self { provider, subject, label } = self.clone();
        ConnectionRequest { subject, provider, label, token }
    }
}

impl std::fmt::Display for ConnectionArgument {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} at {}, label {}", self.subject, self.provider, self.label)
    }
}

//! A connection: one subject's grant at one provider.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::model::names::{Label, ProviderName, Subject, TokenName};

/// What a connection is found by. At most one active connection has a given key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ConnectionKey {
    /// Whose connection it is.
    pub subject: Subject,
    /// To which provider.
    pub provider: ProviderName,
    /// Which of several.
    pub label: Label,
    /// Which of the grant's access tokens; `None` for the one that every grant has. Each of the others is stored and refreshed
    /// like a connection of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenName>,
}

impl ConnectionKey {
    /// A connection by what people call it.
    pub fn new(subject: Subject, provider: ProviderName, label: Label) -> Self {
        Self { subject, provider, label, token: None }
    }

    /// One of the grant's access tokens.
    pub fn with_token(&self, token: Option<TokenName>) -> Self {
        Self { token, ..self.clone() }
    }

    /// The connection as commands name it: `PROVIDER --subject S [--label L]`.
    pub fn as_arguments(&self) -> String {
        let label = Some(&self.label).filter(|label| **label != Label::default());
        let label = label.map(|label| format!(" --label {label}")).unwrap_or_default();
        format!("{} --subject {}{label}", self.provider, self.subject)
    }
}

impl fmt::Display for ConnectionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.subject, self.provider, self.label)?;
        self.token.as_ref().map_or(Ok(()), |token| write!(formatter, "/{token}"))
    }
}

/// Values that came with the grant and are no secret: `realm_id`, `workspace_id`, ...
pub type Captured = BTreeMap<String, String>;

/// What a connection says of its scopes.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeldScopes<'a> {
    /// What the provider said that it granted.
    pub granted: Option<&'a [String]>,
    /// What was asked for, where that was noted.
    pub requested: Option<&'a [String]>,
}

impl<'a> HeldScopes<'a> {
    /// What is granted: a reply that names no scopes grants what was asked for (RFC 6749 section 5.1).
    pub fn effective(self) -> Option<&'a [String]> {
        self.granted.or(self.requested)
    }
}

/// Whether a value is one path segment and nothing else, however it is read.
pub fn is_plain_segment(value: &str) -> bool {
    !value.is_empty()
        && !value.bytes().all(|byte| byte == b'.')
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~@:".contains(&byte))
}

/// How a connection stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ConnectionState {
    /// Tokens are kept fresh and injected.
    Active,
    /// The grant is dead; only the subject can mend it.
    NeedsReauth {
        /// What the provider said.
        reason: String,
    },
    /// Ended by the subject or an operator; kept for the history.
    Disconnected,
}

impl ConnectionState {
    /// The word for it in configuration, logs and JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::NeedsReauth { .. } => "needs_reauth",
            Self::Disconnected => "disconnected",
        }
    }
}

/// How the last refresh of a connection went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefreshTrouble {
    /// Failures in a row.
    pub failures: u32,
    /// The last of them, without secrets.
    pub last_error: String,
    /// Whether an operator must act: the registration at the provider, a key, the store.
    pub needs_operator: bool,
    /// Set while it is unknown whether the provider acted on the last refresh request.
    pub in_doubt_since: Option<Timestamp>,
}

//! Why a dance does not begin, or does not end well.

use crate::model::names::ProviderName;
use crate::store::StoreError;

/// Why a dance does not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeginError {
    /// The link is unknown, used up or expired.
    LinkOver,
    /// No such provider is configured.
    UnknownProvider(ProviderName),
    /// The store failed.
    Store(StoreError),
}

/// Why a callback is refused. None of them holds what the browser sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallbackError {
    /// A parameter is missing, repeated or too long.
    Malformed(&'static str),
    /// The state is not ours.
    ForgedState,
    /// The state is too old, or its flow is gone.
    ExpiredState,
    /// A callback with this state came before.
    AlreadyUsed,
    /// The browser is not the one that began.
    OtherBrowser,
    /// The state belongs to another provider.
    OtherProvider,
    /// `iss` is missing or names another issuer (RFC 9207).
    WrongIssuer,
    /// The provider says that the user, or an administrator, did not agree.
    Denied {
        /// Its error code, if it is a plain one.
        code: Option<String>,
    },
    /// A parameter that belongs to the connection is missing or looks wrong.
    BadCapture {
        /// Its name.
        parameter: String,
        /// Whether it is missing.
        missing: bool,
    },
    /// The user chose another company, workspace or site than the one that is connected.
    OtherRealm {
        /// The captured value that differs.
        name: String,
        /// What is connected, and stays.
        connected: String,
        /// What was chosen now.
        chosen: String,
    },
    /// The provider refused the code.
    CodeRefused {
        /// What it said.
        summary: String,
    },
    /// The provider does not say who the user is.
    NotIdentified {
        /// What is wrong.
        summary: String,
    },
    /// Our registration at the provider is wrong.
    Registration {
        /// What it said.
        summary: String,
    },
    /// The provider could not be asked.
    ProviderDown {
        /// What happened.
        summary: String,
    },
    /// The store failed; what the provider granted is lost.
    Store(StoreError),
}

impl CallbackError {
    /// The word in metrics and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::ForgedState => "forged_state",
            Self::ExpiredState => "expired_state",
            Self::AlreadyUsed => "already_used",
            Self::OtherBrowser => "other_browser",
            Self::OtherProvider => "other_provider",
            Self::WrongIssuer => "wrong_issuer",
            Self::Denied { .. } => "denied",
            Self::BadCapture { .. } => "bad_capture",
            Self::OtherRealm { .. } => "other_realm",
            Self::NotIdentified { .. } => "not_identified",
            Self::CodeRefused { .. } => "code_refused",
            Self::Registration { .. } => "registration",
            Self::ProviderDown { .. } => "provider_down",
            Self::Store(_) => "store",
        }
    }
}

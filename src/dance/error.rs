//! Why a dance does not begin, or does not end well.

use crate::model::names::ProviderName;
use crate::store::StoreError;
use crate::vault::TokenError;

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
    /// The provider's signature is missing or wrong.
    BadSignature,
    /// The provider answers for another one than was asked, or does not say for which.
    NotAsExpected {
        /// The parameter that says so.
        parameter: String,
    },
    /// The provider says that the user, or an administrator, did not agree.
    Denied {
        /// Its error code, if it is a plain one.
        code: Option<String>,
    },
    /// The provider says that an administrator must agree first.
    AdminConsent {
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
    /// The site, tenant or organization that is connected is not among those of the account that the user chose.
    SiteGone {
        /// The captured value that says which it is.
        name: String,
        /// What is connected, and stays.
        connected: String,
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
    /// What is known besides the word, for the log and the audit trail: never a secret.
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Malformed(why) => Some((*why).to_owned()),
            Self::Denied { code } | Self::AdminConsent { code } => code.clone(),
            Self::NotAsExpected { parameter } | Self::BadCapture { parameter, .. } => Some(parameter.clone()),
            Self::CodeRefused { summary }
            | Self::NotIdentified { summary }
            | Self::Registration { summary }
            | Self::ProviderDown { summary } => Some(summary.clone()),
            Self::Store(error) => Some(error.to_string()),
            _ => None,
        }
    }

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
            Self::BadSignature => "bad_signature",
            Self::NotAsExpected { .. } => "not_as_expected",
            Self::Denied { .. } => "denied",
            Self::AdminConsent { .. } => "admin_consent",
            Self::BadCapture { .. } => "bad_capture",
            Self::OtherRealm { .. } => "other_realm",
            Self::SiteGone { .. } => "site_gone",
            Self::NotIdentified { .. } => "not_identified",
            Self::CodeRefused { .. } => "code_refused",
            Self::Registration { .. } => "registration",
            Self::ProviderDown { .. } => "provider_down",
            Self::Store(_) => "store",
        }
    }
}

/// Why the sites of a connection cannot be told, or chosen among.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChoiceError {
    /// There is no such connection.
    NotConnected,
    /// The provider's connections are for one thing only.
    NothingToChoose,
    /// The connection has no token to ask with.
    Token(TokenError),
    /// The provider did not answer the question.
    LookUp {
        /// What happened.
        summary: String,
    },
    /// The provider offers no site of this id.
    NotOffered,
    /// The connection was replaced, ended or changed meanwhile.
    Replaced,
    /// The store failed.
    Store(StoreError),
}

impl ChoiceError {
    /// The word in logs and the audit trail.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotConnected | Self::Token(TokenError::NotConnected) => "not_connected",
            Self::NothingToChoose => "nothing_to_choose",
            Self::Token(TokenError::NeedsReauth { .. }) => "needs_reauth",
            Self::Token(_) => "token_unavailable",
            Self::LookUp { .. } => "look_up_failed",
            Self::NotOffered => "not_offered",
            Self::Replaced => "replaced",
            Self::Store(_) => "store",
        }
    }
}

impl std::fmt::Display for ChoiceError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotConnected | Self::Token(TokenError::NotConnected) => {
                formatter.write_str("there is no such connection")
            }
            Self::NothingToChoose => formatter.write_str("there is nothing to choose at this provider"),
            Self::Token(TokenError::NeedsReauth { reason }) => write!(formatter, "the connection has ended: {reason}"),
            Self::Token(TokenError::Unavailable { reason, .. } | TokenError::Operator { reason }) => {
                write!(formatter, "there is no token to ask with: {reason}")
            }
            Self::LookUp { summary } => write!(formatter, "the provider did not say what there is: {summary}"),
            Self::NotOffered => formatter.write_str("the provider does not offer this one"),
            Self::Replaced => formatter.write_str("the connection was replaced, ended or changed meanwhile"),
            Self::Store(error) => error.fmt(formatter),
        }
    }
}

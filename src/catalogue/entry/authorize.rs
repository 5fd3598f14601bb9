//! The authorization endpoint and what comes back from it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::safe_url::SafeUrl;

/// The authorization endpoint (RFC 6749 section 3.1).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authorize {
    /// Where the browser is sent.
    pub url: SafeUrl,
    /// The issuer identifier that `iss` in a callback must equal when it is sent (RFC 9207).
    pub issuer: Option<String>,
    /// Whether `iss` must be there (RFC 9207 section 2.4: the provider advertises it).
    #[serde(default)]
    pub issuer_required: bool,
    /// Whether the provider takes a PKCE challenge.
    pub pkce: Pkce,
    /// Scopes to ask for where the operator names none; those of the APIs are added.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// What stands between scopes.
    #[serde(default = "space")]
    pub scope_separator: String,
    /// The parameter that carries the scopes.
    #[serde(default = "scope")]
    pub scope_parameter: String,
    /// Scopes that go into parameters of their own, such as `user_scope` for a token of the user's own.
    #[serde(default)]
    pub other_scopes: BTreeMap<String, Vec<String>>,
    /// Further parameters to send.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Parameters of the callback that belong to the connection.
    #[serde(default)]
    pub capture: Vec<Capture>,
    /// Parameters that a callback with a code must have, and their values, in which inputs are replaced.
    #[serde(default)]
    pub expected: BTreeMap<String, String>,
    /// How the provider signs callbacks, if it does: one with a code is refused without a good signature.
    pub callback_signature: Option<CallbackSignature>,
}

fn space() -> String {
    " ".to_owned()
}

fn scope() -> String {
    "scope".to_owned()
}

/// A signature over the query of a callback: HMAC-SHA-256 with the client secret, in hexadecimal digits, over all other
/// parameters, sorted by name and form-encoded.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallbackSignature {
    /// The parameter that holds it.
    pub parameter: String,
    /// Further parameters that it does not cover.
    #[serde(default)]
    pub unsigned: Vec<String>,
}

/// What is known about PKCE (RFC 7636) at a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pkce {
    /// Refuses requests without it.
    Required,
    /// Documented.
    Supported,
    /// Not documented, but sending it is harmless.
    Tolerated,
    /// Sending it breaks the dance, or nobody knows.
    Unsupported,
}

impl Pkce {
    /// Whether to send a challenge.
    pub fn is_sent(self) -> bool {
        self != Self::Unsupported
    }
}

/// A callback parameter that belongs to the connection, such as the company that the user chose.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Its name in the callback.
    pub parameter: String,
    /// Its name at the connection.
    pub to: String,
    /// What it must look like.
    #[schemars(extend("format" = "sidekey-pattern"))]
    pub pattern: String,
    /// Whether a callback without it is refused.
    #[serde(default)]
    pub required: bool,
}

//! The APIs of a provider: where they are, what may be called, and where the token goes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::placement::{Fill, PlaceEntry};

/// What holds for all APIs of a provider.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiCommon {
    /// Where the token goes.
    #[serde(default)]
    pub credential: Credential,
    /// Where else it takes one: the token goes into the place in which the caller has anything.
    #[serde(default)]
    pub places: Vec<PlaceEntry>,
    /// Where callers name captured values besides the path.
    #[serde(default)]
    pub fill: Fill,
    /// Headers to set.
    #[serde(default)]
    pub headers: DeclaredHeaders,
    /// What an expired token looks like.
    #[serde(default)]
    pub expired: Vec<ExpirySignature>,
    /// What looks like one and is not; looked at first.
    #[serde(default)]
    pub not_expired: Vec<NotExpired>,
    /// What being throttled looks like.
    pub rate_limit: Option<RateLimit>,
    /// Response headers that the provider's support asks for.
    #[serde(default)]
    pub trace_headers: Vec<String>,
}

/// One HTTP API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiEntry {
    /// What people call it.
    pub display_name: Option<String>,
    /// `scheme://host[:port]`. A captured value such as `{instance_url}` is allowed where `origin_suffixes` bounds it.
    #[schemars(extend("format" = "sidekey-url"))]
    pub origin: String,
    /// Put in front of the caller's path, for an API that is served below a path of its host (a gateway, a simulator).
    #[serde(default)]
    pub base_path: String,
    /// For an origin from a captured value: how its host must end, each beginning with a dot.
    #[serde(default)]
    pub origin_suffixes: Vec<String>,
    /// What may be called: path prefixes, in which `{realm_id}` and the like stand for captured values.
    #[serde(default = "everything")]
    pub paths: Vec<String>,
    /// Path prefixes below which `%2F` may stand for a slash inside one segment.
    #[serde(default)]
    pub encoded_slash_paths: Vec<String>,
    /// Scopes that it needs.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The parameter of the authorization request that carries them, if not the one of the others.
    pub scope_parameter: Option<String>,
    /// Where the token goes, if not where it goes for the others.
    pub credential: Option<Credential>,
    /// Where else it takes one, besides the places that all have.
    #[serde(default)]
    pub places: Vec<PlaceEntry>,
    /// Where callers name captured values besides the path, and besides where all do.
    #[serde(default)]
    pub fill: Fill,
    /// Which of several tokens of the grant goes there.
    pub token: Option<String>,
    /// Further headers to set.
    #[serde(default)]
    pub headers: DeclaredHeaders,
}

impl ApiEntry {
    /// The scopes that go into the same parameter as those of the others.
    pub fn usual_scopes(&self) -> &[String] {
        if self.scope_parameter.is_none() { &self.scopes } else { &[] }
    }
}

fn everything() -> Vec<String> {
    vec!["/".to_owned()]
}

/// Where the token goes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Credential {
    /// The request header.
    pub header: String,
    /// How the value is written.
    pub scheme: CredentialScheme,
    /// The user name for `basic`.
    pub username: Option<String>,
}

impl Default for Credential {
    fn default() -> Self {
        Self { header: "authorization".to_owned(), scheme: CredentialScheme::Bearer, username: None }
    }
}

/// How a credential header's value is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialScheme {
    /// `Bearer TOKEN` (RFC 6750).
    #[default]
    Bearer,
    /// `token TOKEN`.
    Token,
    /// `Basic base64(username:TOKEN)`.
    Basic,
    /// `TOKEN`.
    Raw,
}

/// Headers that an API wants.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclaredHeaders {
    /// Set, whatever the caller sent; captured values such as `{tenant_id}` are replaced.
    #[serde(default)]
    pub always: BTreeMap<String, String>,
    /// Set where the caller sent none.
    #[serde(default)]
    pub default: BTreeMap<String, String>,
}

/// What an expired access token looks like at an API: all conditions that are given must hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpirySignature {
    /// The HTTP status.
    pub status: u16,
    /// `error` in `WWW-Authenticate` (RFC 6750 section 3).
    pub www_authenticate_error: Option<String>,
    /// A place in the body, as JSON pointer.
    pub body: Option<String>,
    /// What may stand there.
    #[serde(default)]
    pub body_values: Vec<String>,
    /// A part of what stands there.
    pub body_contains: Option<String>,
    /// Only if the token is past its recorded expiry (a 403 or 404 is usually something else).
    #[serde(default)]
    pub only_past_expiry: bool,
}

/// What looks like an expired token and is not.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotExpired {
    /// What it looks like.
    pub when: ExpirySignature,
    /// What it is instead.
    pub action: NotExpiredAction,
}

/// What to do about a refusal that is no expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotExpiredAction {
    /// The user must connect again.
    Reconnect,
    /// The user must authorize again with the claims of the challenge.
    ReauthorizeWithClaims,
    /// A scope is missing.
    ReportMissingScope,
}

/// What being throttled looks like.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// The HTTP statuses.
    pub status: Vec<u16>,
    /// A place in the body, as JSON pointer.
    pub body: Option<String>,
    /// What may stand there.
    #[serde(default)]
    pub body_values: Vec<String>,
    /// The header that says how long to wait.
    pub retry_after_header: Option<String>,
    /// How long to wait where nothing says so, in seconds.
    pub retry_after_default_s: Option<u32>,
    /// The header that says how many requests remain.
    pub remaining_header: Option<String>,
    /// The header that says when the count begins again, in seconds since the epoch.
    pub reset_header: Option<String>,
    /// What else to know.
    pub note: Option<String>,
}

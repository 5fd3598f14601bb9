//! How the issuer is to behave: what the operator decided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::jws::Signer;
use crate::base::rate_limit::Rate;
use crate::model::client::Client;
use crate::model::names::{ProviderName, ServerName};
use crate::model::redirect_uri::RedirectPolicy;
use crate::model::scope::Scopes;
use crate::model::server::McpServer;

/// The issuer's settings.
#[derive(Clone)]
pub struct IssuerSettings {
    /// The issuer identifier (RFC 8414 section 2): the public URL without a slash at its end, the same bytes everywhere.
    pub issuer: String,
    /// The provider whose account says who the user is.
    pub identity: Option<ProviderName>,
    /// The MCP servers by name.
    pub servers: BTreeMap<ServerName, Arc<McpServer>>,
    /// What access tokens look like.
    pub access_tokens: AccessTokenFormat,
    /// How long an access token works.
    pub access_token_lifetime: Duration,
    /// How long a refresh token works that is not used.
    pub refresh_token_lifetime: Duration,
    /// How long a grant lives, however often it is refreshed.
    pub grant_lifetime: Duration,
    /// How long the answer to a refresh is repeated.
    pub refresh_grace: Duration,
    /// How long a code works.
    pub code_lifetime: Duration,
    /// Whether the token endpoint takes JSON too.
    pub accept_json: bool,
    /// Which redirect URIs are allowed besides those on the web.
    pub redirect_policy: RedirectPolicy,
    /// What scopes mean.
    pub scopes: Scopes,
    /// Clients that the operator registered.
    pub clients: Vec<Client>,
    /// Names that only the operator may give to a client, in lower case.
    pub reserved_names: Vec<String>,
    /// Clients that register themselves.
    pub registration: RegistrationSettings,
    /// Clients whose id is the URL of a document.
    pub documents: DocumentSettings,
}

/// What access tokens look like.
#[derive(Clone)]
pub enum AccessTokenFormat {
    /// Random.
    Opaque,
    /// RFC 9068. The first key signs, all are published.
    Jwt(Vec<Arc<Signer>>),
}

/// Dynamic client registration (RFC 7591).
#[derive(Clone, Debug)]
pub struct RegistrationSettings {
    /// Whether it is offered.
    pub enabled: bool,
    /// How many clients are kept that nobody approved yet.
    pub max_clients: u32,
    /// And for how long.
    pub unused_retention: Duration,
}

/// Client ID Metadata Documents.
#[derive(Clone, Debug)]
pub struct DocumentSettings {
    /// Whether they are accepted.
    pub enabled: bool,
    /// Copies kept by the operator, by URL; these are not fetched.
    pub pinned: BTreeMap<String, String>,
}

/// The rates.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Requests without or with bad credentials, for each address.
    pub failures_per_address: Rate,
    /// Client registrations, for each address.
    pub registrations_per_address: Rate,
    /// Good requests, for each grant.
    pub requests_per_grant: Rate,
    /// Good requests, for each subject.
    pub requests_per_subject: Rate,
    /// Good requests, for each API key.
    pub requests_per_api_key: Rate,
}

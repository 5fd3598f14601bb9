//! What an MCP client asks for at the authorization endpoint, and what a user approves.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::model::client::ClientKind;
use crate::model::connection::ConnectionKey;
use crate::model::names::{Label, ProviderName, ServerName, Subject};
use crate::model::redirect_uri::RedirectUri;
use crate::model::scope::ScopeSet;

/// A valid authorization request (RFC 6749 section 4.1.1): the client is known and the redirect URI is its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationRequest {
    /// `client_id`.
    pub client_id: String,
    /// What the client calls itself.
    pub client_name: String,
    /// Whose word we have for it.
    pub client_kind: ClientKind,
    /// `redirect_uri`, as it was presented.
    pub redirect_uri: RedirectUri,
    /// Whether it is certain that who comes back there is this client.
    pub is_assured: bool,
    /// `state`, to be returned as it is.
    pub state: Option<String>,
    /// `code_challenge` (RFC 7636), always S256.
    pub code_challenge: String,
    /// The server that `resource` names.
    pub server: ServerName,
    /// Its canonical URI.
    pub resource: String,
    /// The scopes asked for, or the default ones.
    pub scopes: ScopeSet,
}

/// Who is signed in: a subject, and what people call the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Whose connections are used.
    pub subject: Subject,
    /// The account's name at the provider that identifies users.
    pub account: Option<String>,
}

/// 128 random bits that name a visit, as hexadecimal text.
pub type VisitId = String;

/// One browser visit: the client is approved, and what is missing is being connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// Stands in the address of its pages.
    pub id: VisitId,
    /// What the client asked for.
    pub request: AuthorizationRequest,
    /// What the user picked.
    pub providers: BTreeSet<ProviderName>,
    /// Who the user is, once that is known.
    pub user: Option<User>,
    /// SHA-256 of the cookie that this browser got.
    pub browser_binding: Digest,
    /// What went wrong at the last step, for people.
    pub notice: Option<String>,
    /// After this it is refused.
    pub expires_at: Timestamp,
}

/// What a user has approved: who may do what on whose behalf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// Who approved.
    pub user: User,
    /// Which client.
    pub client_id: String,
    /// What it called itself.
    pub client_name: String,
    /// At which server.
    pub server: ServerName,
    /// Its canonical URI: the audience of tokens.
    pub resource: String,
    /// With which scopes.
    pub scopes: ScopeSet,
    /// With whose help at which providers.
    pub providers: BTreeSet<ProviderName>,
    /// With which of several connections there; at the others, the one that is called `default`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<ProviderName, Label>,
}

impl Authorization {
    /// The connection that is used at a provider.
    pub fn connection(&self, provider: &ProviderName) -> ConnectionKey {
        let label = self.labels.get(provider).cloned().unwrap_or_default();
        ConnectionKey::new(self.user.subject.clone(), provider.clone(), label)
    }
}

/// A code that waits to be redeemed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingCode {
    /// What it stands for.
    pub authorization: Authorization,
    /// Must be the same at the token endpoint, where it is sent.
    pub redirect_uri: RedirectUri,
    /// What the verifier must match.
    pub code_challenge: String,
    /// After this it is refused.
    pub expires_at: Timestamp,
}

/// A remembered approval: the same user need not be asked again about the same client, if nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// What was approved.
    pub authorization: Authorization,
    /// Where the browser was sent back to.
    pub redirect_uri: RedirectUri,
    /// When.
    pub approved_at: Timestamp,
}

impl Approval {
    /// Whether it covers a request of the same user.
    pub fn covers(&self, request: &AuthorizationRequest) -> bool {
        let approved = &self.authorization;
        approved.client_id == request.client_id
            && approved.client_name == request.client_name
            && approved.resource == request.resource
            && approved.scopes.is_superset(&request.scopes)
            && self.redirect_uri == request.redirect_uri
    }
}

//! What an MCP client holds once its code is redeemed: a grant, with access and refresh tokens that come and go.

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::model::authorization::Authorization;
use crate::model::connection::ConnectionKey;
use crate::model::names::ProviderName;
use crate::model::scope::ScopeSet;

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Public name, for listing and revoking.
    pub id: String,
    /// What was approved.
    pub authorization: Authorization,
    /// When the code was redeemed.
    pub created_at: Timestamp,
    /// When it ends, however often it is refreshed.
    pub expires_at: Timestamp,
    /// When and why it ended before.
    pub ended: Option<Ended>,
}

/// The end of a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
}

/// Why a grant ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The client gave it back (RFC 7009).
    RevokedByClient,
    /// The user ended it.
    RevokedByUser,
    /// The operator ended it.
    RevokedByOperator,
    /// Its code was presented again.
    CodeReplayed,
    /// A refresh token that was replaced long ago was presented again.
    RefreshTokenReused,
    /// A provider without which the server is of no use has ended the connection.
    ProviderGone,
}

impl EndReason {
    /// The word for it in logs and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::RevokedByClient => "revoked_by_client",
            Self::RevokedByUser => "revoked_by_user",
            Self::RevokedByOperator => "revoked_by_operator",
            Self::CodeReplayed => "code_replayed",
            Self::RefreshTokenReused => "refresh_token_reused",
            Self::ProviderGone => "provider_gone",
        }
    }
}

impl Grant {
    /// Whether it can still be used at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.ended.is_none() && self.expires_at > now
    }

    /// The connection that its calls to `provider` use.
    pub fn connection(&self, provider: &ProviderName) -> ConnectionKey {
        self.authorization.connection(provider)
    }
}

/// What is kept of an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// To which grant it belongs.
    pub grant_id: String,
    /// What it may be used for.
    pub scopes: ScopeSet,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// What is kept of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    /// To which grant it belongs.
    pub grant_id: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it stops working if it is not used.
    pub expires_at: Timestamp,
    /// When its successor was issued.
    pub replaced_at: Option<Timestamp>,
}

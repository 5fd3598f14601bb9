//! The errors of the issuer's endpoints: one table of status, code and sentence (RFC 6749 section 5.2).

use crate::store::StoreError;

/// An error of the token endpoint and its relatives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OAuthError {
    /// The request is malformed.
    InvalidRequest(String),
    /// The client is unknown, or did not prove who it is.
    InvalidClient {
        /// What is wrong.
        why: &'static str,
        /// Whether it tried with `Authorization: Basic`.
        is_basic: bool,
    },
    /// The code or refresh token is not good.
    InvalidGrant(&'static str),
    /// This client may not do that.
    UnauthorizedClient(&'static str),
    /// There is no such grant type here.
    UnsupportedGrantType,
    /// The scope is unknown, or more than was granted.
    InvalidScope(&'static str),
    /// The resource is unknown, or not the one granted (RFC 8707).
    InvalidTarget(&'static str),
    /// A redirect URI cannot be registered (RFC 7591).
    InvalidRedirectUri(String),
    /// Other metadata cannot be registered.
    InvalidClientMetadata(String),
    /// The body is not of the right kind.
    UnsupportedMediaType(&'static str),
    /// The store failed.
    Store(StoreError),
}

impl OAuthError {
    /// Status, code and description.
    pub fn parts(&self) -> (u16, &'static str, String) {
        match self {
            Self::InvalidRequest(why) => (400, "invalid_request", why.clone()),
            Self::InvalidClient { why, .. } => (401, "invalid_client", (*why).to_owned()),
            Self::InvalidGrant(why) => (400, "invalid_grant", (*why).to_owned()),
            Self::UnauthorizedClient(why) => (400, "unauthorized_client", (*why).to_owned()),
            Self::UnsupportedGrantType => {
                let supported = "supported are authorization_code and refresh_token";
                (400, "unsupported_grant_type", supported.to_owned())
            }
            Self::InvalidScope(why) => (400, "invalid_scope", (*why).to_owned()),
            Self::InvalidTarget(why) => (400, "invalid_target", (*why).to_owned()),
            Self::InvalidRedirectUri(why) => (400, "invalid_redirect_uri", why.clone()),
            Self::InvalidClientMetadata(why) => (400, "invalid_client_metadata", why.clone()),
            Self::UnsupportedMediaType(why) => (415, "invalid_request", (*why).to_owned()),
            Self::Store(_) => (503, "temporarily_unavailable", "the store failed; try again in a moment".to_owned()),
        }
    }
}

impl From<StoreError> for OAuthError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<super::parameters::Repeated> for OAuthError {
    fn from(_: super::parameters::Repeated) -> Self {
        Self::InvalidRequest("a parameter is there twice".to_owned())
    }
}

//! Every refusal of the egress listener: one table of status, type, title and next step. `docs/errors.md` explains each.

use std::time::Duration;

use http::HeaderName;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};

use super::caller::CallerError;
use super::inject::InjectError;
use super::policy::PolicyError;
use super::target::TargetError;
use crate::base::problem_details::ProblemDetails;
use crate::model::connection::ConnectionKey;
use crate::model::handle::HandleError;
use crate::vault::TokenError;

/// Why a request does not go to the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The method is not one that APIs use.
    Method,
    /// The request target is odd.
    Target(TargetError),
    /// The first path segment names no API.
    UnknownApi,
    /// Nobody is identified.
    Caller(CallerError),
    /// An access token in the query (RFC 6750 section 2.3).
    TokenInQuery,
    /// The path is not allowed.
    Policy(PolicyError),
    /// The headers cannot go out.
    Inject(InjectError),
    /// There is no token.
    Token(TokenError),
    /// The connection's own host is not within the provider's bounds.
    Origin,
    /// The provider's host name cannot be resolved.
    Unresolved,
    /// The connection to the provider failed before it answered.
    Unreachable,
    /// The provider's certificate is not accepted.
    Certificate,
    /// The provider did not answer in time.
    TimedOut,
    /// The request contradicts itself.
    Malformed,
    /// Sidekey itself failed.
    Internal,
}

/// The methods that APIs use.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

impl Refusal {
    /// The slug of the error type; also the label in metrics.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Method => "method-not-allowed",
            Self::Target(_) => "odd-request-target",
            Self::UnknownApi => "unknown-api",
            Self::Caller(CallerError::BadHost) => "bad-host",
            Self::Caller(CallerError::ForeignHost) => "foreign-host",
            Self::Caller(CallerError::Browser) => "browser-request",
            Self::Caller(CallerError::TwoCredentials) => "two-credentials",
            Self::Caller(CallerError::NoHandle) => "handle-required",
            Self::Caller(CallerError::UnknownHandle) => "unknown-handle",
            Self::Caller(CallerError::Handle(HandleError::Expired)) => "expired-handle",
            Self::Caller(CallerError::Handle(HandleError::Revoked)) => "revoked-handle",
            Self::Caller(CallerError::Handle(HandleError::OtherProvider)) => "handle-for-other-provider",
            Self::Caller(CallerError::GrantOver) => "grant-over",
            Self::Caller(CallerError::ProviderNotPicked) => "provider-not-picked",
            Self::TokenInQuery => "token-in-query",
            Self::Policy(PolicyError::NotAllowed) => "path-not-allowed",
            Self::Policy(PolicyError::OtherTenant { .. }) => "other-tenant",
            Self::Policy(PolicyError::NotCaptured { .. }) => "tenant-unknown",
            Self::Policy(PolicyError::EncodedSlash) => "encoded-slash",
            Self::Inject(InjectError::OddHeaderName) => "odd-header-name",
            Self::Inject(InjectError::HandleWouldLeave) => "handle-would-leave",
            Self::Inject(InjectError::Header(_)) => "header-not-built",
            Self::Token(TokenError::NotConnected) => "not-connected",
            Self::Token(TokenError::NeedsReauth { .. }) => "needs-reauth",
            Self::Token(TokenError::Unavailable { .. }) => "token-unavailable",
            Self::Token(TokenError::Operator { .. }) => "operator-needed",
            Self::Origin => "host-out-of-bounds",
            Self::Unresolved | Self::Unreachable => "provider-unreachable",
            Self::Certificate => "provider-certificate",
            Self::TimedOut => "provider-timeout",
            Self::Malformed => "malformed-request",
            Self::Internal => "internal-error",
        }
    }

    /// The problem to answer with, for a caller of `provider` and, where known, of this connection.
    pub fn problem(&self, provider: &str, key: Option<&ConnectionKey>) -> ProblemDetails {
        let connect = match key {
            Some(key) => format!("connect it: `sidekey connect {} --subject {}`", key.provider, key.subject),
            None => "connect the subject".to_owned(),
        };
        let whose = key.map_or_else(|| "the caller".to_owned(), |key| format!("subject {}", key.subject));
        let handle =
            "issue a handle (`sidekey handle issue --subject S`) and use it where the provider's token would be";
        let (status, title, detail, next_step): (u16, &'static str, String, String) = match self {
            Self::Method => (
                405,
                "Method not allowed",
                "APIs are called with the methods in the Allow header.".into(),
                "use one of them".into(),
            ),
            Self::Target(error) => (
                400,
                "Odd request target",
                format!("The request target is refused because {}.", error.text()),
                "send a plain, normalized path; percent-encode what does not belong into one".into(),
            ),
            Self::UnknownApi => (
                404,
                "Unknown API",
                "The first path segment is not the name of a configured provider or of one of its enabled APIs.".into(),
                "see [providers] in the configuration; base URLs look like http://127.0.0.1:8701/quickbooks".into(),
            ),
            Self::Caller(CallerError::BadHost) => (
                400,
                "Bad Host header",
                "The Host header is missing, repeated or malformed.".into(),
                "send exactly one".into(),
            ),
            Self::Caller(CallerError::ForeignHost) => (
                403,
                "Foreign Host header",
                "The Host header does not name this listener.".into(),
                "use a loopback address in the base URL, or list the name in egress.hosts".into(),
            ),
            Self::Caller(CallerError::Browser) => (
                403,
                "Browser request",
                "This listener serves MCP servers; a web page must not use somebody's connections.".into(),
                "call it from a program, without Origin and Sec-Fetch-Site headers".into(),
            ),
            Self::Caller(CallerError::TwoCredentials) => {
                (400, "Two credentials", "The credential header is there more than once.".into(), "send it once".into())
            }
            Self::Caller(CallerError::NoHandle) => (
                401,
                "Handle required",
                "The request holds no handle, and no fixed subject is configured.".into(),
                handle.into(),
            ),
            Self::Caller(CallerError::UnknownHandle) => {
                (401, "Unknown handle", "This handle was never issued here.".into(), handle.into())
            }
            Self::Caller(CallerError::Handle(HandleError::Expired)) => {
                (401, "Expired handle", "The time of this handle is over.".into(), handle.into())
            }
            Self::Caller(CallerError::Handle(HandleError::Revoked)) => {
                (401, "Revoked handle", "This handle was revoked.".into(), handle.into())
            }
            Self::Caller(CallerError::Handle(HandleError::OtherProvider)) => (
                403,
                "Handle for another provider",
                format!("This handle does not reach {provider}."),
                format!("issue one that does: `sidekey handle issue --subject S --provider {provider}`"),
            ),
            Self::Caller(CallerError::GrantOver) => (
                401,
                "Grant over",
                "The MCP client that this handle belongs to may no longer act for its user.".into(),
                "the user authorizes the MCP client again; the handle of the new grant comes with its requests".into(),
            ),
            Self::Caller(CallerError::ProviderNotPicked) => (
                403,
                "Provider not picked",
                format!("The user did not pick {provider} for this MCP client."),
                "the user authorizes the MCP client again and picks it".into(),
            ),
            Self::TokenInQuery => (
                400,
                "Token in the query",
                "The query holds an access_token parameter; the token is put into a header.".into(),
                "leave it out".into(),
            ),
            Self::Policy(PolicyError::NotAllowed) => (
                403,
                "Path not allowed",
                format!("This path is not among those that may be called at {provider}."),
                "compare it with `paths` in the provider's entry".into(),
            ),
            Self::Policy(PolicyError::OtherTenant { name }) => (
                403,
                "Another tenant",
                format!("The path names another {name} than the one that {whose} connected."),
                format!(
                    "send 0 or {{{name}}} in its place and it is filled in, or disconnect and connect the other one"
                ),
            ),
            Self::Policy(PolicyError::NotCaptured { name }) => {
                (403, "Tenant unknown", format!("The connection of {whose} has no {name}."), connect)
            }
            Self::Policy(PolicyError::EncodedSlash) => (
                400,
                "Encoded slash",
                "An encoded slash (%2F) is not allowed in this path.".into(),
                "see `encoded_slash_paths` in the provider's entry".into(),
            ),
            Self::Inject(InjectError::OddHeaderName) => (
                400,
                "Odd header name",
                "A header name with an underscore could be taken for a protected one.".into(),
                "write it with hyphens, or leave it out".into(),
            ),
            Self::Inject(InjectError::HandleWouldLeave) => (
                403,
                "Handle would leave",
                "A handle stands in the request outside the place of the token; it must never reach a provider.".into(),
                "put it where the provider's token would be, and nowhere else".into(),
            ),
            Self::Inject(InjectError::Header(why)) => {
                (403, "Header not built", format!("A declared header is missing: {why}."), connect)
            }
            Self::Token(TokenError::NotConnected) => {
                (403, "Not connected", format!("There is no connection of {whose} to {provider}."), connect)
            }
            Self::Token(TokenError::NeedsReauth { reason }) => (
                403,
                "Connection needs attention",
                format!("The connection of {whose} to {provider} has ended: {reason}."),
                connect.replace("connect it", "connect again"),
            ),
            Self::Token(TokenError::Unavailable { reason, .. }) => (
                503,
                "Token unavailable",
                format!("The access token of {whose} at {provider} has expired and could not be refreshed: {reason}."),
                "try again after the time in Retry-After; the connection is kept".into(),
            ),
            Self::Token(TokenError::Operator { reason }) => (
                503,
                "Operator needed",
                format!("The token of {whose} at {provider} cannot be used: {reason}."),
                "the operator of Sidekey must mend this; see its log".into(),
            ),
            Self::Origin => (
                403,
                "Host out of bounds",
                format!("The host stored with the connection of {whose} is not one of {provider}'s."),
                connect,
            ),
            Self::Unresolved => (
                502,
                "Provider unreachable",
                format!("The host name of {provider} cannot be resolved."),
                "try again; if it stays, check DNS where Sidekey runs".into(),
            ),
            Self::Unreachable => (
                502,
                "Provider unreachable",
                format!("The connection to {provider} failed before it answered."),
                "try again; a request that changes something may have been carried out".into(),
            ),
            Self::Certificate => (
                502,
                "Provider certificate not accepted",
                format!("The server at {provider}'s address did not prove to be {provider}. Nothing was sent."),
                "check what stands between Sidekey and the provider, and the root certificates".into(),
            ),
            Self::TimedOut => (
                504,
                "Provider timed out",
                format!("{provider} did not answer in time."),
                "try again; a request that changes something may have been carried out".into(),
            ),
            Self::Malformed => (
                400,
                "Malformed request",
                "The request is not one that all servers would read in the same way.".into(),
                "leave out Connection headers that name other headers, and what else is unusual".into(),
            ),
            Self::Internal => (
                500,
                "Internal error",
                "Sidekey failed to handle this request.".into(),
                "try again; if it stays, report it with the log".into(),
            ),
        };
        ProblemDetails::new(self.slug(), status, title, detail, next_step)
    }

    /// Whether the user whose connection it is can mend it by connecting.
    pub fn user_can_connect(&self) -> bool {
        matches!(
            self,
            Self::Token(TokenError::NotConnected | TokenError::NeedsReauth { .. })
                | Self::Policy(PolicyError::NotCaptured { .. })
        )
    }

    /// Headers that belong to the status.
    pub fn headers(&self) -> Vec<(HeaderName, String)> {
        match self {
            Self::Method => vec![(ALLOW, METHODS.join(", "))],
            Self::Caller(CallerError::NoHandle | CallerError::UnknownHandle | CallerError::GrantOver)
            | Self::Caller(CallerError::Handle(HandleError::Expired | HandleError::Revoked)) => {
                vec![(WWW_AUTHENTICATE, "Bearer realm=\"sidekey\"".to_owned())]
            }
            Self::Token(TokenError::Unavailable { retry_after, .. }) => {
                vec![(RETRY_AFTER, seconds_up(*retry_after).to_string())]
            }
            Self::Token(TokenError::Operator { .. }) => vec![(RETRY_AFTER, "60".to_owned())],
            _ => Vec::new(),
        }
    }
}

/// Whole seconds, rounded up, and at least one.
fn seconds_up(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

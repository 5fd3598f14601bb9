//! Every refusal of the MCP front: one table of status, type, title and next step. `docs/errors.md` explains each.

use crate::base::problem_details::ProblemDetails;
use crate::base::rate_limit::Verdict;

/// Why a request does not reach the MCP server, or its answer not the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request is not one that all servers would read in the same way.
    Malformed,
    /// It comes from a web page that is not allowed to.
    ForeignOrigin,
    /// The method is not one of MCP's.
    Method,
    /// An access token in the query (RFC 6750 section 2.3).
    TokenInQuery,
    /// The Authorization header is there twice.
    TwoCredentials,
    /// There is no bearer token.
    NoToken,
    /// The token is not good, or not for this server.
    InvalidToken,
    /// The token lacks a scope.
    InsufficientScope,
    /// A provider that is needed has ended the connection; so has the grant.
    ProviderGone,
    /// The session is unknown, or somebody else's.
    ForeignSession,
    /// The server opened a session under an id that is somebody else's.
    SessionMixUp,
    /// The server switched protocols, and nobody had asked it to.
    OddAnswer,
    /// The body is larger than a message to this server may be, or did not arrive in time.
    TooLarge(usize),
    /// There is no room for the body: those of others, or of the same user, wait for their servers.
    NoRoom,
    /// Too many requests.
    TooMany(Verdict),
    /// The server's host name cannot be resolved.
    Unresolved,
    /// The server does not accept connections, or hung up.
    Unreachable,
    /// Its certificate is not accepted.
    Certificate,
    /// It did not answer in time.
    TimedOut,
    /// Sidekey itself failed.
    Internal,
}

impl Refusal {
    /// The slug of the error type; also the label in metrics.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed-request",
            Self::ForeignOrigin => "foreign-origin",
            Self::Method => "method-not-allowed",
            Self::TokenInQuery => "token-in-query",
            Self::TwoCredentials => "two-credentials",
            Self::NoToken => "token-required",
            Self::InvalidToken => "invalid-token",
            Self::InsufficientScope => "insufficient-scope",
            Self::ProviderGone => "provider-gone",
            Self::ForeignSession => "unknown-session",
            Self::SessionMixUp => "session-mix-up",
            Self::OddAnswer => "server-odd-answer",
            Self::TooLarge(_) => "message-too-large",
            Self::NoRoom => "too-much-at-once",
            Self::TooMany(_) => "too-many-requests",
            Self::Unresolved | Self::Unreachable => "server-unreachable",
            Self::Certificate => "server-certificate",
            Self::TimedOut => "server-timeout",
            Self::Internal => "internal-error",
        }
    }

    /// Whether the operator should know: the MCP server fails, or we do.
    pub fn is_our_trouble(&self) -> bool {
        matches!(
            self,
            Self::SessionMixUp
                | Self::OddAnswer
                | Self::Unresolved
                | Self::Unreachable
                | Self::Certificate
                | Self::TimedOut
                | Self::Internal
        )
    }

    /// `error` and `error_description` of the challenge (RFC 6750 section 3.1); an empty error for a request that says
    /// nothing about who it is; `None` where there is no challenge.
    pub fn bearer_error(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::NoToken => Some(("", "")),
            Self::InvalidToken => {
                Some(("invalid_token", "the access token is expired, revoked, or not for this server"))
            }
            Self::ProviderGone => Some(("invalid_token", "a provider that is needed has ended the connection")),
            Self::InsufficientScope => Some(("insufficient_scope", "the access token lacks a scope")),
            _ => None,
        }
    }

    /// The problem to answer with.
    pub fn problem(&self) -> ProblemDetails {
        let authorize = "authorize the client again; resource_metadata in WWW-Authenticate says where";
        let again = "try again; a call that changes something may have been carried out";
        let (status, title, detail, next): (u16, &'static str, &str, &str) = match self {
            Self::TooMany(verdict) => return ProblemDetails::too_many_requests(verdict.reset_seconds()),
            Self::TooLarge(largest) => {
                let detail = format!("The body is larger than {largest} bytes, or did not arrive in time.");
                let next = "send less, or faster; the operator can raise servers.*.children.largest_message";
                return ProblemDetails::new(self.slug(), 413, "Message too large", detail, next);
            }
            Self::NoRoom => (
                503,
                "Too much at once",
                "As many bytes as may wait for MCP servers to read them, of this user or of all together.",
                "try again in 5 seconds, Retry-After says so too; send fewer large messages at a time",
            ),
            Self::Malformed => (
                400,
                "Malformed request",
                "The request is not one that all servers would read in the same way.",
                "send a plain path, say in one way where the body ends, and name no other header in Connection",
            ),
            Self::ForeignOrigin => (
                403,
                "Foreign origin",
                "The request comes from a web page that may not call this MCP server.",
                "if it is to, list its origin in public.allowed_origins",
            ),
            Self::Method => {
                (405, "Method not allowed", "MCP is spoken with the methods in the Allow header.", "use one of them")
            }
            Self::TokenInQuery => (
                400,
                "Token in the query",
                "The query holds an access_token parameter.",
                "send the token in the Authorization header, and take the one that was in a URL back",
            ),
            Self::TwoCredentials => {
                (400, "Two credentials", "The Authorization header is there more than once.", "send it once")
            }
            Self::NoToken => (401, "Token required", "The request holds no bearer token.", authorize),
            Self::InvalidToken => (
                401,
                "Invalid token",
                "The access token is unknown, expired, revoked, or not for this server.",
                authorize,
            ),
            Self::InsufficientScope => (
                403,
                "Insufficient scope",
                "The access token lacks a scope that this server needs.",
                "authorize the client again with the scopes in WWW-Authenticate",
            ),
            Self::ProviderGone => (
                401,
                "Provider gone",
                "A provider that this server needs has ended the user's connection, and with it this grant.",
                authorize,
            ),
            Self::ForeignSession => (
                404,
                "Unknown session",
                "There is no such session of this user at this server.",
                "initialize a new one, without Mcp-Session-Id",
            ),
            Self::SessionMixUp => (
                502,
                "Session mix-up",
                "The MCP server opened a session under an id that belongs to another user.",
                "the MCP server must make up session ids that nobody else has; tell its maker",
            ),
            Self::OddAnswer => (
                502,
                "Odd answer",
                "The MCP server switched protocols without being asked.",
                "the MCP server is broken or hostile; tell its maker",
            ),
            Self::Unresolved => (
                502,
                "MCP server unreachable",
                "The host name of the MCP server cannot be resolved.",
                "the operator must check servers.*.upstream",
            ),
            Self::Unreachable => {
                (502, "MCP server unreachable", "The connection to the MCP server failed before it answered.", again)
            }
            Self::Certificate => (
                502,
                "MCP server certificate not accepted",
                "The MCP server did not prove to be the configured one. Nothing was sent.",
                "the operator must check servers.*.upstream and the root certificates",
            ),
            Self::TimedOut => (504, "MCP server timed out", "The MCP server did not answer in time.", again),
            Self::Internal => (
                500,
                "Internal error",
                "Sidekey failed to handle this request.",
                "try again; if it stays, report it with the log",
            ),
        };
        ProblemDetails::new(self.slug(), status, title, detail, next)
    }
}

//! Every refusal of the egress listener: one table of status, type, title and next step. `docs/errors.md` explains each.

use std::time::Duration;

use http::HeaderName;
use http::header::{ALLOW, PROXY_AUTHENTICATE, RETRY_AFTER, WWW_AUTHENTICATE};

use super::caller::CallerError;
use super::inject::InjectError;
use super::placement::PlacementError;
use super::policy::PolicyError;
use super::target::TargetError;
use crate::base::problem_details::ProblemDetails;
use crate::model::connection::ConnectionKey;
use crate::model::handle::HandleError;
use crate::model::names::Label;
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
    /// What stands behind the name of the API is no label.
    BadLabel,
    /// Nobody is identified.
    Caller(CallerError),
    /// An access token in the query (RFC 6750 section 2.3).
    TokenInQuery,
    /// The path is not allowed.
    Policy(PolicyError),
    /// The call needs a value that depends on a choice which the user has yet to make.
    Unchosen {
        /// The name of the value.
        name: String,
    },
    /// The headers cannot go out.
    Inject(InjectError),
    /// Where the handle is, or where the token goes, is not clear.
    Placement(PlacementError),
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
    /// The upstream proxy does not let us through.
    Proxy,
    /// The provider's host leads back to us.
    Loop,
    /// DNS names an address for the provider's host at which no provider is.
    Forbidden,
    /// The provider did not answer in time.
    TimedOut,
    /// The request contradicts itself.
    Malformed,
    /// The request names another host than the connection was made for.
    Misdirected,
    /// The host is no provider's, and tunnels to it are not allowed.
    HostNotListed,
    /// A provider's host, but without TLS.
    PlainHttp,
    /// The credential for the proxy is not good, or is missing where one is needed.
    ProxyCredential(CallerError),
    /// A request for a tunnel that is not one beyond doubt.
    BadConnect(&'static str),
    /// A tunnel would lead to this machine, or next to it.
    ForbiddenAddress,
    /// The host that a tunnel is to lead to cannot be reached.
    TunnelFailed,
    /// What came where TLS was due is something else. There is no way to answer it.
    NoTls,
    /// A client did not accept our certificate. There is no way to answer it.
    HandshakeFailed,
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
            Self::BadLabel => "bad-label",
            Self::Caller(CallerError::BadHost) => "bad-host",
            Self::Caller(CallerError::ForeignHost) => "foreign-host",
            Self::Caller(CallerError::Browser) => "browser-request",
            Self::Caller(CallerError::NoHandle) => "handle-required",
            Self::Caller(CallerError::UnknownHandle) => "unknown-handle",
            Self::Caller(CallerError::Handle(HandleError::Expired)) => "expired-handle",
            Self::Caller(CallerError::Handle(HandleError::Revoked)) => "revoked-handle",
            Self::Caller(CallerError::Handle(HandleError::OtherProvider)) => "handle-for-other-provider",
            Self::Caller(CallerError::Handle(HandleError::OtherLabel)) => "handle-for-other-label",
            Self::Caller(CallerError::GrantOver) => "grant-over",
            Self::Caller(CallerError::ProviderNotPicked) => "provider-not-picked",
            Self::TokenInQuery => "token-in-query",
            Self::Policy(PolicyError::NotAllowed) => "path-not-allowed",
            Self::Policy(PolicyError::OtherTenant { .. }) => "other-tenant",
            Self::Policy(PolicyError::NotCaptured { .. }) => "tenant-unknown",
            Self::Policy(PolicyError::Denied { .. }) => "denied-by-policy",
            Self::Policy(PolicyError::EncodedSlash) => "encoded-slash",
            Self::Unchosen { .. } => "choice-needed",
            Self::Inject(InjectError::OddHeaderName) => "odd-header-name",
            Self::Inject(InjectError::HandleWouldLeave) => "handle-would-leave",
            Self::Inject(InjectError::Header(_)) => "header-not-built",
            Self::Placement(PlacementError::TwoCredentials) => "two-credentials",
            Self::Placement(PlacementError::TwoHandles) => "two-handles",
            Self::Placement(PlacementError::BodyTooLarge) => "body-too-large-for-placement",
            Self::Placement(PlacementError::NotWritable(_)) => "header-not-built",
            Self::Token(TokenError::NotConnected) => "not-connected",
            Self::Token(TokenError::NeedsReauth { .. }) => "needs-reauth",
            Self::Token(TokenError::Unavailable { .. }) => "token-unavailable",
            Self::Token(TokenError::Operator { .. }) => "operator-needed",
            Self::Origin => "host-out-of-bounds",
            Self::Unresolved | Self::Unreachable => "provider-unreachable",
            Self::Certificate => "provider-certificate",
            Self::Proxy => "upstream-proxy",
            Self::Loop => "loop",
            Self::Forbidden => "provider-address",
            Self::TimedOut => "provider-timeout",
            Self::Malformed => "malformed-request",
            Self::Misdirected => "misdirected-request",
            Self::HostNotListed => "host-not-listed",
            Self::PlainHttp => "plain-http",
            Self::ProxyCredential(_) => "proxy-credential",
            Self::BadConnect(_) => "bad-connect",
            Self::ForbiddenAddress => "forbidden-address",
            Self::TunnelFailed => "tunnel-failed",
            Self::NoTls => "no-tls",
            Self::HandshakeFailed => "tls-handshake",
            Self::Internal => "internal-error",
        }
    }

    /// The problem to answer with, for a caller of `provider` and, where known, of this connection.
    pub fn problem(&self, provider: &str, key: Option<&ConnectionKey>) -> ProblemDetails {
        let connect = match key {
            Some(key) => format!("connect it: `sidekey connect {}`", key.as_arguments()),
            None => "connect the subject".to_owned(),
        };
        let whose = key.map_or_else(|| "the caller".to_owned(), whose);
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
                "see [providers] in the configuration; a base URL is this address with /NAME behind it".into(),
            ),
            Self::BadLabel => (
                400,
                "Bad label",
                "What stands behind the @ in the first path segment is not the label of a connection.".into(),
                format!("write /NAME@LABEL behind this address; a label is {}", Label::EXPECTED),
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
            Self::Caller(CallerError::Handle(HandleError::OtherLabel)) => (
                403,
                "Handle for another label",
                format!("This handle does not reach the connection with this label at {provider}."),
                "leave the label out of the URL, or use a handle for it: `sidekey handle issue --subject S --label L`; what \
                 an MCP server gets is for the labels in its [servers.NAME.labels]"
                    .into(),
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
                format!("The request names another {name} than the one that {whose} connected."),
                format!(
                    "send 0 or {{{name}}} in its place and it is filled in, or disconnect and connect the other one"
                ),
            ),
            Self::Policy(PolicyError::NotCaptured { name }) => {
                (403, "Tenant unknown", format!("The connection of {whose} has no {name}."), connect)
            }
            Self::Policy(PolicyError::Denied { key }) => (
                403,
                "Denied by policy",
                match key.strip_suffix(".allow") {
                    Some(table) => format!("No rule of `allow` in [{table}] allows this call at {provider}."),
                    None => format!("The rule {key} denies this call at {provider}."),
                },
                format!("if the call is meant to be allowed, the operator changes {key} in the configuration"),
            ),
            Self::Policy(PolicyError::EncodedSlash) => (
                400,
                "Encoded slash",
                "An encoded slash (%2F) is not allowed in this path.".into(),
                "see `encoded_slash_paths` in the provider's entry".into(),
            ),
            Self::Unchosen { name } => (
                403,
                "Choice needed",
                format!("{whose} has connected {provider}, but not yet chosen for which {name}."),
                match key {
                    Some(key) => format!("choose one: `sidekey sites {}`", key.as_arguments()),
                    None => "choose one".to_owned(),
                },
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
            Self::Placement(PlacementError::TwoCredentials) => (
                400,
                "Two credentials",
                "A place of the token is there more than once, in several spellings, or beside another one in use."
                    .into(),
                "send one handle in one place".into(),
            ),
            Self::Placement(PlacementError::TwoHandles) => (
                400,
                "Two handles",
                "The request holds two different handles; it is not clear whose it is.".into(),
                "send one handle".into(),
            ),
            Self::Placement(PlacementError::BodyTooLarge) => (
                413,
                "Body too large for placement",
                "The handle may stand in the body, and bodies of more than 64 KiB are not searched for it.".into(),
                "send the handle in the Authorization header, or a shorter body".into(),
            ),
            Self::Placement(PlacementError::NotWritable(place)) => {
                (403, "Token not placed", format!("The token of {whose} cannot be written into {place}."), connect)
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
            Self::Proxy => (
                502,
                "Upstream proxy in the way",
                format!("The upstream proxy opened no way to {provider}. Nothing was sent to {provider}."),
                "check egress.upstream_proxy: its address, its credential, and whether it lets this host through"
                    .into(),
            ),
            Self::Loop => (
                502,
                "Loop",
                format!("The host of {provider} leads back to Sidekey itself. Nothing was sent."),
                "check egress.resolve, DNS and the origin of the API: none may name a listener of Sidekey".into(),
            ),
            Self::Forbidden => (
                502,
                "Provider's address not acceptable",
                format!(
                    "DNS names an address of this machine or its network link for the host of {provider}. Nothing was sent."
                ),
                "check DNS where Sidekey runs; if it is meant, write the address into egress.resolve".into(),
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
            Self::Misdirected => (
                421,
                "Misdirected request",
                "The host of the request is not the one that the connection was made for.".into(),
                "connect to each host separately; Host, the name in TLS and the tunnel's host must be the same".into(),
            ),
            Self::HostNotListed => (
                403,
                "Host not listed",
                "This host is not a provider's, or not at this port, and tunnels to it are not allowed.".into(),
                "configure the provider, or list the host in `egress.tunnel_hosts`".into(),
            ),
            Self::PlainHttp => (
                403,
                "Plain HTTP to a provider",
                "A token is never sent without TLS.".into(),
                "use https:// in the URL".into(),
            ),
            Self::ProxyCredential(error) => {
                let ProblemDetails { detail, .. } = Self::Caller(*error).problem(provider, key);
                let next_step = "use the proxy as `http://HANDLE@host:port`, with a handle that is in force: `sidekey \
                     handle issue --subject S`";
                (407, "Handle for the proxy required", detail, next_step.into())
            }
            Self::BadConnect(why) => (
                400,
                "Bad request for a tunnel",
                format!("The request for a tunnel is refused: {why}."),
                "send `CONNECT host:port HTTP/1.1` with one Host header that says the same, and no body".into(),
            ),
            Self::ForbiddenAddress => (
                403,
                "Forbidden address",
                "The tunnel would lead to this machine, or to what only its neighbours may reach.".into(),
                "connect directly (NO_PROXY), or list host and port in `egress.tunnel_hosts`".into(),
            ),
            Self::TunnelFailed => (
                502,
                "Tunnel failed",
                format!("{provider} cannot be reached."),
                "check the name, and the network where Sidekey runs".into(),
            ),
            Self::NoTls => (
                400,
                "No TLS",
                "A tunnel to a provider's host carries TLS and nothing else.".into(),
                "use https:// in the URL".into(),
            ),
            Self::HandshakeFailed => (
                400,
                "TLS handshake failed",
                "The client did not accept the certificate.".into(),
                "let it trust the local authority: `sidekey ca export`".into(),
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
                | Self::Unchosen { .. }
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
            Self::ProxyCredential(_) => {
                vec![(PROXY_AUTHENTICATE, "Basic realm=\"sidekey\"".to_owned())]
            }
            Self::Token(TokenError::Unavailable { retry_after, .. }) => {
                vec![(RETRY_AFTER, seconds_up(*retry_after).to_string())]
            }
            Self::Token(TokenError::Operator { .. }) => vec![(RETRY_AFTER, "60".to_owned())],
            _ => Vec::new(),
        }
    }
}

impl From<PlacementError> for Refusal {
    fn from(error: PlacementError) -> Self {
        Self::Placement(error)
    }
}

/// Whose connection it is, and which of several.
fn whose(key: &ConnectionKey) -> String {
    match key.label == Label::default() {
        true => format!("subject {}", key.subject),
        false => format!("subject {} (label {})", key.subject, key.label),
    }
}

/// Whole seconds, rounded up, and at least one.
fn seconds_up(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

//! Journey J3: an MCP client calls an MCP server through us. Its token is verified from memory, taken out, and a handle of
//! its grant is put in its place; everything else goes through as it is, in both directions, as it comes.
//!
//! The same path carries both eras of MCP's streamable HTTP (with sessions up to 2025-11-25, without since 2026-07-28):
//! nothing here looks into bodies, and what the two need to be told apart by (headers, statuses, bodies of 4xx) is left as
//! it is. When the client goes away the upstream connection is closed at once, which is what both ask for.

mod refusal;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, AUTHORIZATION, CACHE_CONTROL, CONNECTION,
    CONTENT_LENGTH, COOKIE, HOST, ORIGIN, PROXY_AUTHORIZATION, TRANSFER_ENCODING, UPGRADE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

pub use self::refusal::Refusal;
use super::peer::{tcp_peer, unix_peer};
use crate::base::address::ClientAddress;
use crate::base::rate_limit::Verdict;
use crate::base::resolver::Resolver;
use crate::base::safe_url::SafeUrl;
use crate::config::settings::Timeouts;
use crate::issuer::limits::Limits;
use crate::issuer::{Called, Issuer, LiveGrant, Refused};
use crate::model::cors::{ALLOWED_HEADERS, ALLOWED_METHODS, EXPOSED_HEADERS};
use crate::model::scope;
use crate::model::server::{McpServer, Upstream};

/// `Mcp-Session-Id`
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// What the MCP front is made of.
pub struct Parts {
    /// Verifies tokens.
    pub issuer: Arc<Issuer>,
    /// How often it may be used.
    pub limits: Arc<Limits>,
    /// Names to addresses.
    pub resolver: Arc<Resolver>,
    /// How long upstreams may take.
    pub timeouts: Timeouts,
    /// Where clients reach us.
    pub public_url: SafeUrl,
    /// Origins of web pages that may call, besides our own.
    pub allowed_origins: Vec<String>,
}

/// The MCP front.
pub struct Ingress {
    parts: Parts,
    routes: HashMap<String, Arc<Route>>,
}

/// One MCP server, prepared so that a request needs no parsing.
pub struct Route {
    /// The server.
    pub server: Arc<McpServer>,
    authority: HeaderValue,
    challenge: String,
}

/// A request that may go to the MCP server.
pub struct Admitted {
    route: Arc<Route>,
    grant: Arc<LiveGrant>,
    verdict: Verdict,
    addresses: Arc<[SocketAddr]>,
    /// How many of the addresses could not be connected to.
    pub unreachable: usize,
}

/// What becomes of a request at an MCP endpoint.
pub enum Decision {
    /// It goes on.
    Forward(Box<Admitted>),
    /// It is answered with what browsers ask before they send it.
    Preflight,
    /// It goes no further.
    Refuse(Refusal),
}

impl Ingress {
    /// Prepares a route for each server.
    pub fn new(parts: Parts) -> Self {
        let mut routes = HashMap::new();
        for server in parts.issuer.settings().servers.values() {
            let Ok(authority) = HeaderValue::from_str(&server.upstream.authority()) else { continue };
            let metadata = parts.issuer.resource_metadata_url(server);
            let scopes = scope::write(&server.scopes);
            let challenge = if scopes.is_empty() {
                format!("Bearer resource_metadata=\"{metadata}\"")
            } else {
                format!("Bearer resource_metadata=\"{metadata}\", scope=\"{scopes}\"")
            };
            let route = Route { server: Arc::clone(server), authority, challenge };
            routes.insert(server.path.clone(), Arc::new(route));
        }
        Self { parts, routes }
    }

    /// The server at a path, with or without a slash at its end: a redirect would confuse clients.
    pub fn route(&self, path: &str) -> Option<&Arc<Route>> {
        self.routes.get(path.strip_suffix('/').unwrap_or(path))
    }

    /// Decides about a request. Nothing has been sent yet.
    pub async fn decide(&self, route: &Arc<Route>, request: &RequestHeader, address: ClientAddress) -> Decision {
        if !self.is_allowed_origin(&request.headers) {
            return Decision::Refuse(Refusal::ForeignOrigin);
        }
        // Before anybody is asked who they are: browsers send no token along.
        if request.method == Method::OPTIONS {
            return Decision::Preflight;
        }
        match self.admit(route, request, address).await {
            Ok(admitted) => Decision::Forward(Box::new(admitted)),
            Err(refusal) => Decision::Refuse(refusal),
        }
    }

    async fn admit(
        &self,
        route: &Arc<Route>,
        request: &RequestHeader,
        address: ClientAddress,
    ) -> Result<Admitted, Refusal> {
        if ![Method::GET, Method::POST, Method::DELETE, Method::HEAD].contains(&request.method) {
            return Err(Refusal::Method);
        }
        if request.uri.query().is_some_and(super::has_access_token) {
            return Err(Refusal::TokenInQuery);
        }
        let presented = bearer(&request.headers)?;
        let verified = presented.ok_or(Refusal::NoToken).and_then(|presented| {
            self.parts.issuer.verify(presented, &route.server).map_err(|refused| match refused {
                Refused::InvalidToken => Refusal::InvalidToken,
                Refused::InsufficientScope => Refusal::InsufficientScope,
            })
        });
        let grant = match verified {
            Ok(admitted) => admitted.grant,
            Err(Refusal::InsufficientScope) => return Err(Refusal::InsufficientScope),
            Err(refusal) => {
                let verdict = self.parts.limits.unauthenticated(address);
                return Err(if verdict.allowed { refusal } else { Refusal::TooMany(verdict) });
            }
        };
        let authorization = &grant.grant.authorization;
        let verdict = self.parts.limits.authenticated(&grant.grant.id, &authorization.user.subject);
        if !verdict.allowed {
            return Err(Refusal::TooMany(verdict));
        }
        if self.parts.issuer.end_if_gone(&grant).await {
            return Err(Refusal::ProviderGone);
        }
        let mut sessions = request.headers.get_all(SESSION_ID).iter();
        let is_own = |id: &HeaderValue| {
            let sessions = self.parts.issuer.sessions();
            sessions.belongs(&route.server.name, id.as_bytes(), &authorization.user.subject)
        };
        if !sessions.all(is_own) {
            return Err(Refusal::ForeignSession);
        }
        let addresses = self.addresses(&route.server.upstream).await;
        if addresses.is_empty() && matches!(route.server.upstream, Upstream::Tcp { .. }) {
            return Err(Refusal::Unresolved);
        }
        Ok(Admitted { route: Arc::clone(route), grant, verdict, addresses, unreachable: 0 })
    }

    async fn addresses(&self, upstream: &Upstream) -> Arc<[SocketAddr]> {
        match upstream {
            Upstream::Tcp { host, port, .. } => self.parts.resolver.resolve_host(host, *port).await,
            Upstream::Unix { .. } | Upstream::Stdio(_) => Arc::new([]),
        }
    }

    /// Programs send no `Origin`; pages in browsers always do (DNS rebinding, specification of the transport).
    fn is_allowed_origin(&self, headers: &HeaderMap) -> bool {
        headers.get_all(ORIGIN).iter().all(|origin| {
            let own = self.parts.public_url.origin();
            let listed = || self.parts.allowed_origins.iter().any(|allowed| origin == allowed.as_str());
            origin == own.as_str() || listed()
        })
    }

    /// `WWW-Authenticate` of a refusal, in one header (RFC 6750 section 3, RFC 9728 section 5.1).
    pub fn challenge(&self, route: &Route, refusal: &Refusal) -> Option<String> {
        let (error, description) = refusal.bearer_error()?;
        Some(match error {
            "" => route.challenge.clone(),
            error => format!("{}, error=\"{error}\", error_description=\"{description}\"", route.challenge),
        })
    }

    /// Where an admitted request goes.
    pub fn peer(&self, admitted: &Admitted) -> pingora::Result<HttpPeer> {
        let mut timeouts = self.parts.timeouts;
        // A stream may be quiet for as long as the server likes.
        timeouts.read = std::time::Duration::from_secs(86_400);
        match &admitted.route.server.upstream {
            Upstream::Tcp { is_https, host, .. } => {
                let count = admitted.addresses.len();
                let address = admitted.addresses.get(admitted.unreachable % count.max(1));
                let address = address.ok_or_else(|| Error::new(ErrorType::ConnectError))?;
                Ok(tcp_peer(*address, *is_https, host, &timeouts))
            }
            Upstream::Unix { socket, .. } => unix_peer(socket, &timeouts),
            // The bridge answers; no request for such a server gets as far as here.
            Upstream::Stdio(_) => Err(Error::new(ErrorType::InternalError)),
        }
    }
}

impl Admitted {
    /// How many addresses there are.
    pub fn addresses(&self) -> usize {
        self.addresses.len()
    }

    /// Whose request it is.
    pub fn grant(&self) -> &LiveGrant {
        &self.grant
    }

    /// At which server.
    pub fn server(&self) -> &McpServer {
        &self.route.server
    }

    /// What the service that answers is told.
    pub fn called(&self) -> Called {
        Called { grant: Arc::clone(&self.grant), server: Arc::clone(&self.route.server) }
    }

    /// What clients and caches must know of every answer.
    pub fn headers(&self) -> Vec<(HeaderName, String)> {
        let mut headers = vec![(CACHE_CONTROL, "no-store".to_owned()), (VARY, "Authorization".to_owned())];
        let limits = self.verdict.headers();
        headers.extend(limits.map(|(name, value)| (HeaderName::from_static(name), value.to_string())));
        headers.extend(cors_headers().map(|(name, value)| (name, value.to_owned())));
        headers
    }

    /// Takes out what was meant for us or says where the request came from, and puts the handle in.
    pub fn rewrite_request(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        let server = &self.route.server;
        let target = match request.uri.query() {
            Some(query) => format!("{}?{query}", server.upstream.path()),
            None => server.upstream.path().to_owned(),
        };
        request.set_raw_path(target.as_bytes())?;
        let ours: Vec<HeaderName> = request.headers.keys().filter(|name| is_ours(name)).cloned().collect();
        for name in ours {
            request.remove_header(&name);
        }
        request.remove_header(&server.handle.header);
        let value = self.grant.handle_value(&server.handle.before);
        let value = value.map_err(|_| Error::new(ErrorType::InternalError))?;
        request.insert_header(server.handle.header.clone(), value)?;
        request.insert_header(HOST, self.route.authority.clone())
    }

    /// Takes out what the MCP server must not tell a client, and adds what clients and caches must know. The error says
    /// that a session is not the caller's.
    pub async fn rewrite_response(
        &self,
        issuer: &Issuer,
        asked_to_upgrade: bool,
        response: &mut ResponseHeader,
    ) -> pingora::Result<Result<(), Refusal>> {
        if response.status == StatusCode::SWITCHING_PROTOCOLS && !asked_to_upgrade {
            return Ok(Err(Refusal::OddAnswer));
        }
        for name in not_for_clients(&response.headers) {
            response.remove_header(&name);
        }
        if let Some(id) = response.headers.get(SESSION_ID) {
            let subject = &self.grant.grant.authorization.user.subject;
            if !issuer.sessions().begin(&self.route.server.name, id.as_bytes(), subject).await {
                return Ok(Err(Refusal::SessionMixUp));
            }
        }
        // To the client, 401 means that our token is not good. The server's own quarrel is with the handle.
        if response.status == StatusCode::UNAUTHORIZED {
            response.set_status(StatusCode::BAD_GATEWAY)?;
        }
        for (name, value) in self.headers() {
            // The server may vary its answers by more.
            if name == VARY {
                response.append_header(name, value)?;
            } else {
                response.insert_header(name, value)?;
            }
        }
        Ok(Ok(()))
    }
}

/// What lets clients in browsers read an answer.
pub fn cors_headers() -> [(HeaderName, &'static str); 2] {
    [(ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS)]
}

/// The answer to a preflight: what clients send, and of headers that a tool's parameters are sent in (`Mcp-Param-*`) those
/// that are asked for.
pub fn preflight_headers(asked: &HeaderMap) -> Vec<(HeaderName, String)> {
    let asked = asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|value| value.to_str().ok());
    let parameters = asked.flat_map(|value| value.split(',')).filter_map(|name| {
        let name = name.trim().parse::<HeaderName>().ok()?;
        name.as_str().starts_with("mcp-param-").then_some(name)
    });
    let parameters: String = parameters.take(64).map(|name| format!(", {name}")).collect();
    let mut headers: Vec<_> = cors_headers().into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    headers.push((ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS.to_owned()));
    headers.push((ACCESS_CONTROL_ALLOW_HEADERS, format!("{ALLOWED_HEADERS}{parameters}")));
    headers
}

/// The bearer token of a request (RFC 6750 section 2.1); `None` where there are no such credentials.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(Refusal::TwoCredentials);
    }
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some((scheme, token)) = text.split_once(' ') else { return Ok(None) };
    Ok(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()))
}

/// Response headers that an MCP server must not send to a client through us: what would speak for this origin, which is
/// that of the authorization server too, what is for one hop, and what was granted to the server and not to the client.
fn not_for_clients(headers: &HeaderMap) -> Vec<HeaderName> {
    const NAMES: [&str; 9] = [
        "www-authenticate",
        "proxy-authenticate",
        "set-cookie",
        "set-cookie2",
        "clear-site-data",
        "alt-svc",
        "strict-transport-security",
        "refresh",
        "keep-alive",
    ];
    let nominated = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let nominated: Vec<HeaderName> = nominated
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().to_ascii_lowercase().parse().ok())
        .filter(|name| ![UPGRADE, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH].contains(name))
        .collect();
    let is_dangerous = |name: &&HeaderName| {
        NAMES.contains(&name.as_str()) || name.as_str().starts_with("access-control-") || nominated.contains(name)
    };
    headers.keys().filter(is_dangerous).cloned().collect()
}

/// Headers that are for us, or that tell about the client's way to us. A name with an underscore could be read as one of
/// them further on.
fn is_ours(name: &HeaderName) -> bool {
    let text = name.as_str();
    [AUTHORIZATION, COOKIE, ORIGIN, PROXY_AUTHORIZATION].contains(name)
        || text == "forwarded"
        || text.starts_with("x-forwarded-")
        || text.starts_with("x-sidekey-")
        || text.starts_with("sec-fetch-")
        || ["x-real-ip", "x-client-cert", "x-original-url", "x-rewrite-url"].contains(&text)
        || text.contains('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().expect("a value"))).collect()
    }

    #[test]
    fn a_bearer_token_comes_in_one_header() {
        assert_eq!(bearer(&headers(&["Bearer a"])), Ok(Some("a")));
        assert_eq!(bearer(&headers(&["bearer  a "])), Ok(Some("a")));
        for none in [vec![], vec!["Basic a"], vec!["Bearer"], vec![""], vec!["a"]] {
            assert_eq!(bearer(&headers(&none)), Ok(None), "{none:?}");
        }
        let mut two = headers(&["Bearer a"]);
        two.append(AUTHORIZATION, "Bearer b".parse().expect("a value"));
        assert_eq!(bearer(&two), Err(Refusal::TwoCredentials));
    }

    #[test]
    fn headers_of_parameters_are_allowed_one_by_one() {
        let asked = HeaderMap::from_iter([(
            ACCESS_CONTROL_REQUEST_HEADERS,
            "authorization, Mcp-Param-City, x-other, mcp-param-bad name".parse().expect("a value"),
        )]);
        let allowed = preflight_headers(&asked).pop().expect("there").1;
        assert_eq!(allowed, format!("{ALLOWED_HEADERS}, mcp-param-city"));
    }

    #[test]
    fn what_is_ours_does_not_go_on() {
        let is_ours = |name: &str| super::is_ours(&name.parse().expect("a name"));
        for ours in
            ["authorization", "cookie", "origin", "x-forwarded-for", "forwarded", "x_forwarded_for", "x-real-ip"]
        {
            assert!(is_ours(ours), "{ours}");
        }
        for theirs in ["mcp-session-id", "mcp-protocol-version", "mcp-param-x", "last-event-id", "accept", "x-custom"] {
            assert!(!is_ours(theirs), "{theirs}");
        }
    }
}

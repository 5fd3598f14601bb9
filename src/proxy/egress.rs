//! Journey J4: an MCP server calls a provider's API through us. It has our address as base URL
//! (`http://127.0.0.1:8701/NAME/...`) or as proxy, or means the provider's host and was led here
//! ([`intercept`](super::intercept)).
//!
//! The phases in the order in which they run: [`ProxyHttp::request_filter`] decides everything ([`admit`]) and answers
//! refusals; `upstream_peer` names the connection; `upstream_request_filter` rewrites target and headers;
//! `upstream_response_filter` leads links back through us; `fail_to_proxy` explains failures; `logging` counts.

mod admit;
mod caller;
mod emulate;
mod expiry;
mod inject;
mod leak;
mod links;
mod placement;
mod policy;
mod refusal;
mod replay;
mod route;
mod rules;
mod target;
mod tenant;
mod token_endpoint;
mod way;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ALT_SVC, HOST, HeaderValue, LINK, LOCATION};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tracing::{debug, warn};
use zeroize::Zeroizing;

use self::admit::{Admitted, Decision};
use self::caller::OwnHosts;
use self::inject::InjectError;
use self::leak::LeakScanner;
use self::replay::{Doubtful, LONGEST_ERROR, REPLAY};
use self::route::Route;
use self::way::Way;
use super::failure::{Failure, is_caller_gone};
use super::intercept::Arrival;
use super::peer::peer;
use super::respond;
use crate::authority::Authority;
use crate::base::clock::Clock;
use crate::base::outbound::{NoWay, Outbound};
use crate::base::problem_details::ProblemDetails;
use crate::base::safe_url::SafeUrl;
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::config::settings::Timeouts;
use crate::model::connection::ConnectionKey;
use crate::model::names::{Label, ProviderName, ServerName};
use crate::model::server::McpServer;
use crate::telemetry::access::{self, Line, RequestId, RequestIds};
use crate::telemetry::metrics::{ApiOutcome, Metrics};
use crate::telemetry::refusals::{Refusals, Refused};
use crate::telemetry::stopwatch::Stopwatch;
use crate::vault::{TokenError, Vault};

pub use self::caller::{CallerError, Callers, Who, is_handle_shaped};
pub use self::refusal::Refusal;
pub use self::route::Hosts;

/// Where the certificates of the local authority are, for clients that are to trust it.
const CERTIFICATES: &str = "/.well-known/sidekey/ca.pem";

/// What a caller is told who gets no token for this connection.
pub fn explain(error: &TokenError, key: &ConnectionKey) -> ProblemDetails {
    Refusal::Token(error.clone()).problem(key.provider.as_str(), Some(key))
}

/// What the egress listener is made of.
pub struct Parts {
    /// The providers by name.
    pub providers: BTreeMap<ProviderName, Arc<Provider>>,
    /// Tokens.
    pub vault: Arc<Vault>,
    /// Who may call.
    pub callers: Arc<Callers>,
    /// The hosts of providers.
    pub hosts_of_providers: Arc<Hosts>,
    /// The MCP servers by name: the rules for them.
    pub servers: BTreeMap<ServerName, Arc<McpServer>>,
    /// Where users can connect what is missing.
    pub public_url: SafeUrl,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Further accepted values of `Host`.
    pub hosts: Vec<String>,
    /// How long upstreams may take.
    pub timeouts: Timeouts,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where calls go.
    pub outbound: Arc<Outbound>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Names requests.
    pub requests: Arc<RequestIds>,
    /// What was refused to whom.
    pub refusals: Arc<Refusals>,
    /// The certificates that clients are to trust.
    pub authority: Arc<Authority>,
}

/// The egress listener.
pub struct Egress {
    parts: Parts,
    own_hosts: OwnHosts,
    routes: BTreeMap<String, Arc<Route>>,
}

/// What is known about one request.
pub struct Context {
    request: RequestId,
    stopwatch: Stopwatch,
    way: Option<Way>,
    /// The handle in the base URL.
    handle_in_url: Option<Secret>,
    /// The label in the base URL.
    label_in_url: Option<Label>,
    route: Option<Arc<Route>>,
    who: Option<Who>,
    key: Option<ConnectionKey>,
    /// Whether the connection is that of a user of an MCP client, who can mend it on a page of ours.
    is_user: bool,
    /// Whether the request was sent again with another token: at most once.
    replayed: bool,
    /// The body to send in place of the caller's: the token is in it.
    body: Option<Zeroizing<Vec<u8>>>,
    /// Looks for handles in the request's body as it passes.
    scanner: LeakScanner,
    /// An answer whose body may say that the token has expired.
    doubtful: Option<Doubtful>,
    admitted: Option<Admitted>,
    refused: Option<Refusal>,
}

impl Egress {
    /// Prepares one route for each name of a provider and of an enabled API.
    pub fn new(parts: Parts) -> Self {
        let routes = route::all(&parts.providers, &parts.outbound, &parts.metrics);
        let usual = parts.listen.iter().filter(|listen| listen.ip().is_loopback()).map(ToString::to_string).collect();
        let own_hosts = OwnHosts { listed: parts.hosts.clone(), usual };
        Self { parts, own_hosts, routes }
    }

    /// Whether it is the certificates of the local authority that a client asks for, at our own listener.
    fn wants_certificates(&self, session: &Session) -> bool {
        let request = session.req_header();
        request.raw_path() == CERTIFICATES.as_bytes()
            && request.method == http::Method::GET
            && Arrival::of(session).is_none()
    }

    /// They are no secret: whoever gets them can tell our certificates from others, and nothing else.
    async fn show_certificates(&self, session: &mut Session) -> pingora::Result<bool> {
        respond::text(session, "application/x-pem-file", self.parts.authority.bundle()).await.map(|()| true)
    }

    /// The line of the access log.
    fn note(&self, session: &Session, context: &Context, status: u16) {
        let path = leak::without_handles(session.req_header().uri.path());
        Line {
            listener: "egress",
            request: context.request,
            method: session.req_header().method.as_str(),
            path: Some(&path),
            status,
            received: session.as_downstream().body_bytes_read(),
            sent: session.as_downstream().body_bytes_sent(),
            duration_ms: context.stopwatch.millis(),
            address: session.client_addr().and_then(|address| address.as_inet()).map(SocketAddr::ip),
            server: context.who.as_ref().and_then(Who::server),
            grant: None,
            provider: context.route.as_ref().map(|route| &route.api.provider),
            connection: context.key.as_ref(),
            generation: context.generation(),
            handle: context.who.as_ref().and_then(Who::handle_id),
        }
        .write();
    }

    async fn refuse(&self, session: &mut Session, context: &mut Context, refusal: Refusal) -> u16 {
        let provider = context.route.as_ref().map_or("the provider", |route| route.api.provider.as_str());
        let mut problem = refusal.problem(provider, context.key.as_ref());
        if context.is_user && refusal.user_can_connect() {
            let origin = self.parts.public_url.origin();
            let label = context.key.as_ref().map(|key| &key.label).filter(|label| **label != Label::default());
            let label = label.map(|label| format!("?label={label}")).unwrap_or_default();
            problem.connect_url = Some(format!("{origin}/account/connect/{provider}{label}"));
            let done = if matches!(refusal, Refusal::Unchosen { .. }) { "chooses" } else { "connects" };
            problem.next_step = format!("the user opens connect_url and {done}; then the call works again");
        }
        self.parts.metrics.refused(refusal.slug());
        warn!(
            operation = "api_call",
            request = %context.request,
            provider = context.route.as_ref().map(|route| route.api.provider.as_str()),
            subject = context.key.as_ref().map(|key| key.subject.as_str()),
            label = context.key.as_ref().map(|key| key.label.as_str()),
            duration_ms = context.stopwatch.millis(),
            outcome = refusal.slug(),
        );
        if refusal == Refusal::Malformed {
            session.as_downstream_mut().set_keepalive(None);
        }
        // What is refused before anybody was identified is told to whoever asked for the tunnel.
        let of_tunnel = || {
            let handle = Arrival::of(session)?.handle.as_ref()?;
            self.parts.callers.of_handle(handle.expose()).ok()
        };
        if let Some(id) = context.who.clone().or_else(of_tunnel).as_ref().and_then(Who::handle_id) {
            let host = match &context.way {
                Some(Way::Host(host)) => host.as_str(),
                _ => "",
            };
            let request = session.req_header();
            let path = leak::without_handles(request.uri.path());
            let refused = Refused::new(host, request.method.as_str(), &path, &problem);
            self.parts.refusals.note(id, refused);
        }
        if let Err(error) = respond::problem(session, &problem, &refusal.headers()).await {
            debug!(operation = "api_call", %error, "the caller went away");
        }
        context.refused = Some(refusal);
        problem.status
    }
}

#[async_trait]
impl ProxyHttp for Egress {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context {
            request: self.parts.requests.next(),
            stopwatch: Stopwatch::start(),
            way: None,
            handle_in_url: None,
            label_in_url: None,
            route: None,
            who: None,
            key: None,
            is_user: false,
            replayed: false,
            body: None,
            scanner: LeakScanner::new(),
            doubtful: None,
            admitted: None,
            refused: None,
        }
    }

    /// None of Pingora's own modules: the default one would look at every answer for something to compress.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> pingora::Result<bool> {
        if self.wants_certificates(session) {
            return self.show_certificates(session).await;
        }
        match self.admit(session, context).await {
            Ok(Decision::Send(admitted)) => {
                context.admitted = Some(admitted);
                Ok(false)
            }
            Ok(Decision::Answer(answer)) => {
                Box::pin(respond::whole(session, answer.status, answer.headers, answer.body)).await.map(|()| true)
            }
            Err(refusal) => {
                Box::pin(self.refuse(session, context, refusal)).await;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, context: &mut Context) -> pingora::Result<Box<HttpPeer>> {
        let admitted = context.admitted.as_ref().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        let peer = peer(&admitted.upstream.url, &admitted.route, admitted.unreachable, &self.parts.timeouts);
        peer.map(Box::new).ok_or_else(|| Error::new(ErrorType::InternalError))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        let (Some(route), Some(admitted)) = (&context.route, &context.admitted) else {
            return Err(Error::new(ErrorType::InternalError));
        };
        // Once more, if the request is sent once more.
        context.scanner = LeakScanner::new();
        match inject::inject(request, &route.api, admitted) {
            Ok(body) => {
                context.body = body;
                Ok(())
            }
            Err(refusal) => {
                context.refused = Some(refusal);
                Err(Error::new(ErrorType::InternalError))
            }
        }
    }

    /// A handle in a body never arrives: what holds its beginning is not sent, and neither is what follows.
    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        context: &mut Context,
    ) -> pingora::Result<()> {
        if let Some(with_token) = &context.body {
            // All of it was read before, so all of it comes at once.
            *body = Some(Bytes::copy_from_slice(with_token));
            return Ok(());
        }
        if !body.as_ref().is_some_and(|bytes| context.scanner.feed(bytes)) {
            return Ok(());
        }
        *body = None;
        context.refused = Some(Refusal::Inject(InjectError::HandleWouldLeave));
        Err(Error::new(ErrorType::InternalError))
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        self.replace_expired(session, response, context).await?;
        // It would lead a client past us.
        response.remove_header(&ALT_SVC);
        let (Some(route), Some(admitted), Some(Way::BaseUrl)) = (&context.route, &context.admitted, &context.way)
        else {
            return Ok(());
        };
        for name in [LOCATION, LINK] {
            if !response.headers.contains_key(&name) {
                continue;
            }
            let host = session.req_header().headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            // Whoever has its handle in the base URL has it nowhere else, and follows links by them alone.
            let handle =
                context.handle_in_url.as_ref().map(|handle| format!("~{}/", handle.expose())).unwrap_or_default();
            let label = context.label_in_url.as_ref().map(|label| format!("@{label}")).unwrap_or_default();
            let base = format!("http://{host}/{handle}{}{label}", route.segment);
            let rewritten: Vec<HeaderValue> = response
                .headers
                .get_all(&name)
                .iter()
                .map(|value| {
                    let changed =
                        value.to_str().ok().and_then(|text| links::rewrite(text, &admitted.upstream.prefix, &base));
                    changed.and_then(|text| HeaderValue::from_str(&text).ok()).unwrap_or_else(|| value.clone())
                })
                .collect();
            response.remove_header(&name);
            for value in rewritten {
                response.append_header(name.clone(), value)?;
            }
        }
        Ok(())
    }

    /// Looks at a body that may say that the token has expired; nothing is held back.
    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        context: &mut Context,
    ) -> pingora::Result<Option<Duration>> {
        let Some(doubtful) = &mut context.doubtful else { return Ok(None) };
        if let Some(bytes) = body {
            doubtful.body.extend_from_slice(bytes);
        }
        if doubtful.body.len() > LONGEST_ERROR {
            context.doubtful = None;
        } else if end_of_stream {
            self.judge_body(context);
        }
        Ok(None)
    }

    /// Pingora's own rule, but for a request that is to be sent again with another token.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        _context: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        let truncated = session.as_ref().retry_buffer_truncated();
        if *error.etype() == REPLAY {
            error.set_retry(!truncated);
        } else if !session.req_header().method.is_idempotent() || truncated {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(client_reused);
        }
        error
    }

    /// Another address of the same host may work; nothing was sent yet. A server that is there and does not prove who it is
    /// is told of at once, or what happens at the others would hide it.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Some(admitted) = &mut context.admitted {
            admitted.unreachable += 1;
            let is_there = Failure::of(&error) == Failure::Certificate;
            error.set_retry(!is_there && admitted.unreachable < admitted.route.addresses().len());
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let nothing = FailToProxy { error_code: 0, can_reuse_downstream: false };
        if is_caller_gone(error) {
            return nothing;
        }
        if session.response_written().is_some() {
            // The answer has begun: all that is left is to end the connection, so that nobody takes it for complete.
            warn!(operation = "api_call", request = %context.request, outcome = "cut", error = %error.etype().as_str());
            return nothing;
        }
        let refusal = context.refused.take().unwrap_or_else(|| Failure::of(error).into());
        let error_code = self.refuse(session, context, refusal).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        if access::is_written() {
            self.note(session, context, status);
        }
        let Some(route) = &context.route else { return };
        let outcome = match (&context.refused, error, status) {
            (
                Some(
                    Refusal::Unresolved
                    | Refusal::Unreachable
                    | Refusal::Certificate
                    | Refusal::TimedOut
                    | Refusal::Proxy
                    | Refusal::Loop
                    | Refusal::Forbidden,
                ),
                ..,
            ) => ApiOutcome::Failed,
            (Some(_), ..) => ApiOutcome::Refused,
            (None, Some(error), _) if is_caller_gone(error) => ApiOutcome::CallerGone,
            (None, Some(_), _) | (None, None, 0) => ApiOutcome::Failed,
            (None, None, 400..=499) => ApiOutcome::ClientError,
            (None, None, 500..) => ApiOutcome::ServerError,
            (None, None, _) => ApiOutcome::Ok,
        };
        let elapsed = context.stopwatch.elapsed();
        route.metrics.observe(outcome, elapsed.as_secs_f64());
    }

    /// Pingora's own line would show the path with its query; ours are written above.
    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        true
    }

    fn request_summary(&self, session: &Session, context: &Context) -> String {
        let segment = context.route.as_ref().map_or("", |route| route.segment.as_str());
        format!("{} /{segment}", session.req_header().method)
    }
}

impl Context {
    fn generation(&self) -> Option<u64> {
        self.admitted.as_ref().map(|admitted| admitted.token.generation)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Malformed => Self::Malformed,
            Failure::TimedOut => Self::TimedOut,
            Failure::Certificate => Self::Certificate,
            Failure::Internal => Self::Internal,
            Failure::Unreachable => Self::Unreachable,
            Failure::Proxy => Self::Proxy,
        }
    }
}

impl From<NoWay> for Refusal {
    fn from(reason: NoWay) -> Self {
        match reason {
            NoWay::Unresolved => Self::Unresolved,
            NoWay::NoProxy => Self::Proxy,
            NoWay::Loop => Self::Loop,
            NoWay::Forbidden => Self::Forbidden,
        }
    }
}

#[cfg(test)]
mod tests;

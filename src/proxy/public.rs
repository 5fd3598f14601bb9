//! The public listener: the endpoints of MCP servers (journey J3), and for everything else our own pages and endpoints, an
//! axum router called from Pingora.

mod exchange;

use std::convert::Infallible;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::MatchedPath;
use bytes::Bytes;
use http::header::{
    ALLOW, AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderValue, RETRY_AFTER, UPGRADE, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderName, Method, Request, Response, Version};
use ipnet::IpNet;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tracing::{debug, warn};

use exchange::{GRANT_IS_OVER, Unread, gone, read_body, stream_response, write_response};

use super::event_streams::{EventStream, EventStreams, Purpose, own_descriptor};
use super::failure::{Failure, is_caller_gone, is_gone};
use super::ingress::{self, Admitted, Decision, Ingress, Refusal, Route};
use super::{framing, respond};
use crate::base::address::ClientAddress;
use crate::base::byte_budget::ByteBudget;
use crate::base::problem_details::ProblemDetails;
use crate::base::safe_url::SafeUrl;
use crate::issuer::{Issuer, MessageRoom};
use crate::model::names::Subject;
use crate::model::server::Upstream;
use crate::telemetry::access::{self, Line, RequestId, RequestIds};
use crate::telemetry::metrics::{ApiOutcome, Metrics};
use crate::telemetry::stopwatch::Stopwatch;

/// Forms and JSON of ours are small.
const LARGEST_BODY: usize = 64 * 1024;
/// A whole body must arrive within this time.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// And a message for an MCP server within this, for it may be large.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(60);

/// Bodies for MCP servers that speak stdio, until their servers have been handed the message: of one user, and of all. Never
/// less than one of the largest.
pub const BODIES_OF_ONE: usize = 64 << 20;
/// See [`BODIES_OF_ONE`].
pub const BODIES_OF_ALL: usize = 256 << 20;

/// Answers requests that say whose they are ([`Called`](crate::issuer::Called), an extension), and what they take up
/// ([`MessageRoom`], another).
pub type BridgeService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The public listener.
pub struct Public {
    portal: Router,
    mark: fn(&mut Request<Body>, ClientAddress),
    bridge: Option<BridgeService>,
    ingress: Ingress,
    issuer: Arc<Issuer>,
    trusted_proxies: Vec<IpNet>,
    metrics: Arc<Metrics>,
    requests: Arc<RequestIds>,
    event_streams: Arc<EventStreams>,
    bodies: Arc<ByteBudget<Subject>>,
    /// The accepted value of `Host`, where the public URL names this machine: elsewhere DNS and whatever does TLS see to
    /// it that only requests for us arrive.
    loopback_host: Option<String>,
}

/// What the public listener is made of.
pub struct Parts {
    /// Our own pages and endpoints.
    pub portal: Router,
    /// Marks a request of the portal's with whom it is counted for.
    pub mark: fn(&mut Request<Body>, ClientAddress),
    /// What answers for MCP servers that speak stdio.
    pub bridge: Option<BridgeService>,
    /// The MCP servers.
    pub ingress: Ingress,
    /// Whose the sessions at MCP servers are.
    pub issuer: Arc<Issuer>,
    /// Where we are reached. On loopback, callers must name exactly that.
    pub public_url: SafeUrl,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Names requests.
    pub requests: Arc<RequestIds>,
    /// Event streams that are open.
    pub event_streams: Arc<EventStreams>,
    /// Bodies of requests whose servers have not been handed the message yet.
    pub bodies: Arc<ByteBudget<Subject>>,
}

/// What is known about one request.
pub struct Context {
    request: RequestId,
    stopwatch: Stopwatch,
    /// The route of ours that it took, such as `/connect/{token}`.
    page: Option<MatchedPath>,
    /// The MCP server that it is for.
    route: Option<Arc<Route>>,
    admitted: Option<Box<Admitted>>,
    refused: Option<Refusal>,
    /// Pingora's number of the connection to the MCP server.
    upstream: Option<RawFd>,
    stream: Option<EventStream>,
}

impl Public {
    /// Ready to serve.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            portal,
            mark,
            bridge,
            ingress,
            issuer,
            public_url,
            trusted_proxies,
            metrics,
            requests,
            event_streams,
            bodies,
        } = parts;
        let loopback_host = public_url.is_loopback().then(|| public_url.authority());
        Self {
            portal,
            mark,
            bridge,
            ingress,
            issuer,
            trusted_proxies,
            metrics,
            requests,
            event_streams,
            bodies,
            loopback_host,
        }
    }

    /// Whom a request is counted for.
    fn client_address(&self, session: &Session) -> ClientAddress {
        let peer = session.client_addr().and_then(|address| address.as_inet()).map(std::net::SocketAddr::ip);
        let forwarded: Vec<&str> = match self.trusted_proxies.as_slice() {
            [] => Vec::new(),
            _ => {
                let values = session.req_header().headers.get_all("x-forwarded-for").iter();
                values.filter_map(|value| value.to_str().ok()).collect()
            }
        };
        peer.map_or_else(ClientAddress::default, |peer| ClientAddress::of(peer, &forwarded, &self.trusted_proxies))
    }

    /// An answer of our own pages and endpoints.
    async fn serve(&self, session: &mut Session, context: &mut Context) -> pingora::Result<()> {
        let body = match read_body(session, LARGEST_BODY, BODY_DEADLINE, None).await {
            Ok(Ok(body)) => body,
            Err(error) if is_gone(&error) => return Err(error),
            Err(_) => {
                session.as_downstream_mut().set_keepalive(None);
                return respond::problem(session, &Refusal::Malformed.problem(), &[]).await;
            }
            Ok(Err(_)) => {
                let problem = ProblemDetails::new(
                    "body-too-large",
                    413,
                    "Body too large",
                    "The body is larger than 64 KiB, or did not arrive in time.",
                    "send less, or faster",
                );
                return respond::problem(session, &problem, &[]).await;
            }
        };
        let header = session.req_header();
        let mut request = Request::builder().method(header.method.clone()).uri(header.uri.clone());
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&header.headers);
        }
        let Ok(mut request) = request.body(Body::from(body)) else {
            return Err(Error::new(ErrorType::InvalidHTTPHeader));
        };
        (self.mark)(&mut request, self.client_address(session));
        let is_head = header.method == Method::HEAD;
        let Ok(response) = self.portal.clone().oneshot(request).await;
        context.page = response.extensions().get().cloned();
        write_response(session, response, is_head).await
    }

    /// A request at the endpoint of an MCP server. `false` if it goes on to it.
    async fn call(&self, session: &mut Session, context: &mut Context, route: &Arc<Route>) -> pingora::Result<bool> {
        context.route = Some(Arc::clone(route));
        let address = self.client_address(session);
        match self.ingress.decide(route, session.req_header(), address).await {
            Decision::Forward(admitted) => match &route.server.upstream {
                Upstream::Stdio(server) => {
                    let admitted = context.admitted.insert(admitted);
                    let bridged = self.bridged(session, admitted, server.largest_message).await;
                    match bridged {
                        Ok(None) => {}
                        Ok(Some(refusal)) => drop(self.refuse(session, context, route, refusal).await),
                        Err(error) => return Err(error),
                    }
                    Ok(true)
                }
                Upstream::Tcp { .. } | Upstream::Unix { .. } => {
                    context.admitted = Some(admitted);
                    Ok(false)
                }
            },
            Decision::Preflight => {
                let headers = ingress::preflight_headers(&session.req_header().headers);
                respond::nothing(session, &headers).await.map(|()| true)
            }
            Decision::Refuse(refusal) => {
                self.refuse(session, context, route, refusal).await;
                Ok(true)
            }
        }
    }

    /// The event stream that an answer is, to be ended when we stop.
    fn event_stream(
        &self,
        session: &Session,
        response: &ResponseHeader,
        upstream: Option<RawFd>,
    ) -> Option<EventStream> {
        let content_type = response.headers.get(CONTENT_TYPE)?.as_bytes();
        let is_event_stream = content_type.get(..EVENT_STREAM.len())?.eq_ignore_ascii_case(EVENT_STREAM);
        let connection = own_descriptor(upstream.filter(|_| is_event_stream)?).ok()?;
        let purpose = match session.req_header().method {
            Method::GET => Purpose::Listening,
            _ => Purpose::Answering,
        };
        Some(self.event_streams.begin(purpose, connection))
    }

    /// Has the bridge answer. A refusal if the request did not get as far.
    async fn bridged(
        &self,
        session: &mut Session,
        admitted: &Admitted,
        largest_message: usize,
    ) -> pingora::Result<Option<Refusal>> {
        let Some(bridge) = self.bridge.clone() else { return Ok(Some(Refusal::Internal)) };
        let called = admitted.called();
        let subject = called.grant.grant.authorization.user.subject.clone();
        let mut room = self.bodies.begin(subject, largest_message);
        let body = match read_body(session, largest_message, MESSAGE_DEADLINE, Some(&mut room)).await {
            Ok(Ok(body)) => body,
            Err(error) if is_gone(&error) => return Err(error),
            Err(_) => return Ok(Some(Refusal::Malformed)),
            Ok(Err(Unread::TooLarge)) => return Ok(Some(Refusal::TooLarge(largest_message))),
            Ok(Err(Unread::NoRoom)) => return Ok(Some(Refusal::NoRoom)),
        };
        let header = session.req_header();
        let mut request = Request::builder().method(header.method.clone()).uri(header.uri.clone());
        if let Some(headers) = request.headers_mut() {
            let is_for_us = |name: &HeaderName| *name == AUTHORIZATION || *name == COOKIE;
            headers.extend(
                header
                    .headers
                    .iter()
                    .filter(|(name, _)| !is_for_us(name))
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
        }
        let Ok(mut request) = request.body(Body::from(body)) else { return Ok(Some(Refusal::Malformed)) };
        request.extensions_mut().insert(called);
        let room: MessageRoom = Arc::new(room);
        request.extensions_mut().insert(room);
        let ends = self.issuer.grant_ends();
        // Who hangs up no longer waits: what waits for the child is dropped, and so it learns of it.
        let answered = tokio::select! {
            answered = bridge.oneshot(request) => answered,
            gone = gone(session) => return Err(gone),
        };
        let Ok(mut response) = answered;
        for (name, value) in admitted.headers() {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        stream_response(session, response, admitted, ends).await.map(|()| None)
    }

    async fn refuse(&self, session: &mut Session, context: &mut Context, route: &Route, refusal: Refusal) -> u16 {
        let problem = refusal.problem();
        let mut headers: Vec<(HeaderName, String)> = vec![(VARY, "Authorization".to_owned())];
        // Whoever may not call may not read why either.
        if refusal != Refusal::ForeignOrigin {
            headers.extend(ingress::cors_headers().into_iter().map(|(name, value)| (name, value.to_owned())));
        }
        if let Some(challenge) = self.ingress.challenge(route, &refusal) {
            headers.push((WWW_AUTHENTICATE, challenge));
        }
        match &refusal {
            Refusal::Method => headers.push((ALLOW, allowed(&route.server.upstream).to_owned())),
            Refusal::TooMany(verdict) => {
                headers.push((RETRY_AFTER, verdict.reset_seconds().to_string()));
                let limits = verdict.headers().map(|(name, value)| (HeaderName::from_static(name), value.to_string()));
                headers.extend(limits);
            }
            Refusal::NoRoom => headers.push((RETRY_AFTER, "5".to_owned())),
            _ => {}
        }
        let (request, server, outcome) = (&context.request, &route.server.name, refusal.slug());
        if refusal.is_our_trouble() {
            warn!(operation = "mcp_call", %request, %server, outcome);
        } else {
            debug!(operation = "mcp_call", %request, %server, outcome);
        }
        if let Err(error) = respond::problem(session, &problem, &headers).await {
            debug!(operation = "mcp_call", %error, "the client went away");
        }
        context.refused = Some(refusal);
        problem.status
    }

    /// The line of the access log.
    fn note(&self, session: &Session, context: &Context, status: u16) {
        let route = context.route.as_ref();
        let page = context.page.as_ref().map(MatchedPath::as_str);
        Line {
            listener: "public",
            request: context.request,
            method: session.req_header().method.as_str(),
            path: route.map(|route| route.server.path.as_str()).or(page),
            status,
            received: session.as_downstream().body_bytes_read(),
            sent: session.as_downstream().body_bytes_sent(),
            duration_ms: context.stopwatch.millis(),
            address: Some(self.client_address(session).0),
            server: route.map(|route| &route.server.name),
            grant: context.admitted.as_ref().map(|admitted| &admitted.grant().grant),
            provider: None,
            connection: None,
            generation: None,
            handle: None,
        }
        .write();
    }

    fn refused(&self, session: &Session) -> Option<ProblemDetails> {
        let request = session.req_header();
        // What two servers could read differently is not passed on, nor is what looks for a proxy.
        if request.version <= Version::HTTP_11 {
            let head = session.as_downstream().to_h1_raw();
            let target_is_path = head.split(|byte| *byte == b' ').nth(1).is_some_and(|target| target.starts_with(b"/"));
            if !framing::is_plain(&head) || !target_is_path {
                return Some(Refusal::Malformed.problem());
            }
        }
        let expected = self.loopback_host.as_ref()?;
        let mut hosts = request.headers.get_all(HOST).iter();
        let is_ours = match (hosts.next(), request.uri.authority()) {
            (Some(host), None) => host == expected.as_str(),
            // HTTP/2 names the host in `:authority` (RFC 9113 section 8.3.1).
            (None, Some(authority)) => authority == expected.as_str(),
            (Some(host), Some(authority)) => host == expected.as_str() && authority == expected.as_str(),
            (None, None) => false,
        };
        let is_ours = is_ours && hosts.next().is_none();
        (!is_ours).then(|| {
            ProblemDetails::new(
                "foreign-host",
                403,
                "Foreign Host header",
                "The Host header does not name this listener.",
                format!("use http(s)://{expected}, the public_url of the configuration"),
            )
        })
    }
}

#[async_trait]
impl ProxyHttp for Public {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        let request = self.requests.next();
        Context {
            request,
            stopwatch: Stopwatch::start(),
            page: None,
            route: None,
            admitted: None,
            refused: None,
            upstream: None,
            stream: None,
        }
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> pingora::Result<bool> {
        if let Some(problem) = self.refused(session) {
            session.as_downstream_mut().set_keepalive(None);
            return respond::problem(session, &problem, &[]).await.map(|()| true);
        }
        match self.ingress.route(session.req_header().uri.path()).cloned() {
            Some(route) => Box::pin(self.call(session, context, &route)).await,
            None => Box::pin(self.serve(session, context)).await.map(|()| true),
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, context: &mut Context) -> pingora::Result<Box<HttpPeer>> {
        let admitted = context.admitted.as_ref().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        self.ingress.peer(admitted).map(Box::new)
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        connection: RawFd,
        _digest: Option<&Digest>,
        context: &mut Context,
    ) -> pingora::Result<()> {
        context.upstream = Some(connection);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        let admitted = context.admitted.as_ref().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        admitted.rewrite_request(request)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        let Some(admitted) = &context.admitted else { return Ok(()) };
        let asked_to_upgrade = session.req_header().headers.contains_key(UPGRADE);
        match admitted.rewrite_response(&self.issuer, asked_to_upgrade, response).await? {
            Ok(()) => {
                context.stream = self.event_stream(session, response, context.upstream);
                Ok(())
            }
            Err(refusal) => {
                context.refused = Some(refusal);
                Err(Error::new(ErrorType::InternalError))
            }
        }
    }

    /// What goes to the client once the grant is over: nothing more.
    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        context: &mut Context,
    ) -> pingora::Result<Option<Duration>> {
        still_granted(context).map(|()| None)
    }

    /// And what comes from it.
    async fn request_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        context: &mut Context,
    ) -> pingora::Result<()> {
        still_granted(context)
    }

    /// Another address of the same host may work; nothing was sent yet.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Some(admitted) = &mut context.admitted {
            admitted.unreachable += 1;
            error.set_retry(admitted.unreachable < admitted.addresses());
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let nothing = FailToProxy { error_code: 0, can_reuse_downstream: false };
        if is_caller_gone(error) {
            return nothing;
        }
        if context.stream.as_ref().is_some_and(EventStream::is_ended) {
            // It ends as if its server had ended it. If that cannot be said anymore, the caller is gone.
            let _ = session.write_response_body(None, true).await;
            return nothing;
        }
        let Some(route) = context.route.clone().filter(|_| session.response_written().is_none()) else {
            return nothing;
        };
        let refusal = context.refused.take().unwrap_or_else(|| Failure::of(error).into());
        let error_code = self.refuse(session, context, &route, refusal).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        if let Some(route) = &context.route {
            let outcome = match (&context.refused, status) {
                (Some(refusal), _) if refusal.is_our_trouble() => ApiOutcome::Failed,
                (Some(_), _) => ApiOutcome::Refused,
                (None, 0) if error.is_some_and(is_caller_gone) => ApiOutcome::CallerGone,
                (None, 0) => ApiOutcome::Failed,
                (None, 400..=499) => ApiOutcome::ClientError,
                (None, 500..) => ApiOutcome::ServerError,
                (None, _) => ApiOutcome::Ok,
            };
            self.metrics.mcp_call(&route.server.name, outcome);
        }
        if access::is_written() {
            self.note(session, context, status);
        }
    }

    /// Pingora's own line would show the query of a callback: code and state.
    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        true
    }

    fn request_summary(&self, session: &Session, _context: &Context) -> String {
        session.req_header().method.to_string()
    }
}

/// What event streams are (HTML, section 9.2).
/// What the endpoint of an MCP server takes. The bridge has nothing to say about the head of what it would answer.
fn allowed(upstream: &Upstream) -> &'static str {
    match upstream {
        Upstream::Stdio(_) => "GET, POST, DELETE, OPTIONS",
        Upstream::Tcp { .. } | Upstream::Unix { .. } => "GET, POST, DELETE, HEAD, OPTIONS",
    }
}

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Streams may last longer than the grant that they were opened with.
fn still_granted(context: &Context) -> pingora::Result<()> {
    match &context.admitted {
        Some(admitted) if admitted.grant().has_ended() => Err(Error::new(ErrorType::Custom(GRANT_IS_OVER))),
        _ => Ok(()),
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Malformed => Self::Malformed,
            Failure::TimedOut => Self::TimedOut,
            Failure::Certificate => Self::Certificate,
            Failure::Internal => Self::Internal,
            Failure::Unreachable | Failure::Proxy => Self::Unreachable,
        }
    }
}

//! The public listener: the endpoints of MCP servers (journey J3), and for everything else our own pages and endpoints, an
//! axum router called from Pingora.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{
    ALLOW, CONTENT_LENGTH, EXPECT, HOST, RETRY_AFTER, TRANSFER_ENCODING, UPGRADE, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderName, Method, Request, Version};
use http_body_util::BodyExt;
use ipnet::IpNet;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tower::ServiceExt;
use tracing::{debug, warn};

use super::failure::{Failure, is_caller_gone, is_gone};
use super::ingress::{self, Admitted, Decision, Ingress, Refusal, Route};
use super::{framing, respond};
use crate::base::address::ClientAddress;
use crate::base::problem_details::ProblemDetails;
use crate::base::safe_url::SafeUrl;
use crate::issuer::Issuer;
use crate::telemetry::metrics::{ApiOutcome, Metrics};
use crate::telemetry::stopwatch::Stopwatch;

/// Forms and JSON of ours are small.
const LARGEST_BODY: usize = 64 * 1024;
/// A whole body must arrive within this time.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// The public listener.
pub struct Public {
    portal: Router,
    mark: fn(&mut Request<Body>, ClientAddress),
    ingress: Ingress,
    issuer: Arc<Issuer>,
    trusted_proxies: Vec<IpNet>,
    metrics: Arc<Metrics>,
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
}

/// What is known about one request to an MCP server.
pub struct Context {
    stopwatch: Stopwatch,
    route: Option<Arc<Route>>,
    admitted: Option<Box<Admitted>>,
    refused: Option<Refusal>,
}

impl Public {
    /// Ready to serve.
    pub fn new(parts: Parts) -> Self {
        let Parts { portal, mark, ingress, issuer, public_url, trusted_proxies, metrics } = parts;
        let loopback_host = public_url.is_loopback().then(|| public_url.authority());
        Self { portal, mark, ingress, issuer, trusted_proxies, metrics, loopback_host }
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
    async fn serve(&self, session: &mut Session) -> pingora::Result<()> {
        let body = match read_body(session).await {
            Ok(Some(body)) => body,
            Err(error) if is_gone(&error) => return Err(error),
            Err(_) => {
                session.as_downstream_mut().set_keepalive(None);
                return respond::problem(session, &Refusal::Malformed.problem(), &[]).await;
            }
            Ok(None) => {
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
        write_response(session, response, is_head).await
    }

    /// A request at the endpoint of an MCP server. `false` if it goes on to it.
    async fn call(&self, session: &mut Session, context: &mut Context, route: &Arc<Route>) -> pingora::Result<bool> {
        context.route = Some(Arc::clone(route));
        let address = self.client_address(session);
        match self.ingress.decide(route, session.req_header(), address).await {
            Decision::Forward(admitted) => {
                context.admitted = Some(admitted);
                Ok(false)
            }
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
            Refusal::Method => headers.push((ALLOW, "GET, POST, DELETE, HEAD, OPTIONS".to_owned())),
            Refusal::TooMany(verdict) => {
                headers.push((RETRY_AFTER, verdict.reset_seconds().to_string()));
                let limits = verdict.headers().map(|(name, value)| (HeaderName::from_static(name), value.to_string()));
                headers.extend(limits);
            }
            _ => {}
        }
        if refusal.is_our_trouble() {
            warn!(operation = "mcp_call", server = %route.server.name, outcome = refusal.slug());
        } else {
            debug!(operation = "mcp_call", server = %route.server.name, outcome = refusal.slug());
        }
        if let Err(error) = respond::problem(session, &problem, &headers).await {
            debug!(operation = "mcp_call", %error, "the client went away");
        }
        context.refused = Some(refusal);
        problem.status
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

/// The whole body; `None` if it is too large or too slow.
async fn read_body(session: &mut Session) -> pingora::Result<Option<Bytes>> {
    if session.req_header().headers.contains_key(EXPECT) {
        session.as_downstream_mut().write_continue_response().await?;
    }
    let mut body = BytesMut::new();
    let read = async {
        while let Some(chunk) = session.as_downstream_mut().read_request_body().await? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST_BODY {
                return Ok::<bool, Box<Error>>(false);
            }
        }
        Ok(true)
    };
    match tokio::time::timeout(BODY_DEADLINE, read).await {
        Ok(complete) => Ok(complete?.then(|| body.freeze())),
        Err(_) => Ok(None),
    }
}

async fn write_response(
    session: &mut Session,
    response: axum::response::Response,
    is_head: bool,
) -> pingora::Result<()> {
    let (parts, body) = response.into_parts();
    let mut header = ResponseHeader::build(parts.status, Some(parts.headers.len() + 1))?;
    for (name, value) in &parts.headers {
        header.append_header(name.clone(), value.clone())?;
    }
    // Without a length the connection could not be used again on HTTP/1.1.
    let has_length = parts.headers.contains_key(CONTENT_LENGTH);
    let is_h1 = session.req_header().version <= Version::HTTP_11;
    if !has_length && is_h1 && !is_head {
        header.insert_header(TRANSFER_ENCODING, "chunked")?;
    }
    session.write_response_header(Box::new(header), is_head).await?;
    if is_head {
        return Ok(());
    }
    let mut body = body;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    session.write_response_body(Some(data), false).await?;
                }
            }
            Err(error) => {
                warn!(operation = "portal", %error, "an answer ended early");
                return Err(Error::new(ErrorType::InternalError));
            }
        }
    }
    session.write_response_body(None, true).await
}

#[async_trait]
impl ProxyHttp for Public {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context { stopwatch: Stopwatch::start(), route: None, admitted: None, refused: None }
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> pingora::Result<bool> {
        if let Some(problem) = self.refused(session) {
            session.as_downstream_mut().set_keepalive(None);
            return respond::problem(session, &problem, &[]).await.map(|()| true);
        }
        match self.ingress.route(session.req_header().uri.path()).cloned() {
            Some(route) => Box::pin(self.call(session, context, &route)).await,
            None => Box::pin(self.serve(session)).await.map(|()| true),
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, context: &mut Context) -> pingora::Result<Box<HttpPeer>> {
        let admitted = context.admitted.as_ref().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        self.ingress.peer(admitted).map(Box::new)
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
            Ok(()) => Ok(()),
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
        let Some(route) = context.route.clone().filter(|_| session.response_written().is_none()) else {
            return nothing;
        };
        let refusal = context.refused.take().unwrap_or_else(|| Failure::of(error).into());
        let error_code = self.refuse(session, context, &route, refusal).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, context: &mut Context) {
        let Some(route) = &context.route else { return };
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let outcome = match (&context.refused, status) {
            (Some(refusal), _) if refusal.is_our_trouble() => ApiOutcome::Failed,
            (Some(_), _) => ApiOutcome::Refused,
            (None, 0) => ApiOutcome::Failed,
            (None, 400..=499) => ApiOutcome::ClientError,
            (None, 500..) => ApiOutcome::ServerError,
            (None, _) => ApiOutcome::Ok,
        };
        self.metrics.mcp_call(&route.server.name, outcome);
        let grant = context.admitted.as_ref().map(|admitted| &admitted.grant().grant);
        debug!(
            operation = "mcp_call", server = %route.server.name, grant = grant.map(|grant| grant.id.as_str()),
            subject = grant.map(|grant| grant.authorization.user.subject.as_str()),
            duration_ms = context.stopwatch.millis(), outcome = status,
        );
    }

    /// Pingora's own line would show the query of a callback: code and state.
    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        true
    }

    fn request_summary(&self, session: &Session, _context: &Context) -> String {
        session.req_header().method.to_string()
    }
}

/// Streams may last longer than the grant that they were opened with.
fn still_granted(context: &Context) -> pingora::Result<()> {
    match &context.admitted {
        Some(admitted) if admitted.grant().has_ended() => Err(Error::new(ErrorType::Custom("the grant is over"))),
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

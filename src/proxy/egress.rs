//! Journey J4, the base URL way: an MCP server calls `http://127.0.0.1:8701/quickbooks/...` instead of the provider.
//!
//! The phases in the order in which they run: [`ProxyHttp::request_filter`] decides everything ([`Egress::admit`]) and
//! answers refusals; `upstream_peer` names the connection; `upstream_request_filter` rewrites target and headers;
//! `upstream_response_filter` leads links back through us; `fail_to_proxy` explains failures; `logging` counts.

mod caller;
mod expiry;
mod inject;
mod links;
mod policy;
mod refusal;
mod replay;
mod route;
mod target;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{HOST, HeaderValue, LINK, LOCATION};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tracing::{debug, warn};

use self::caller::{Callers, OwnHosts};
use self::refusal::{METHODS, Refusal};
use self::replay::{Doubtful, LONGEST_ERROR, REPLAY};
use self::route::{Route, Upstream, captured_upstream};
use super::failure::{Failure, is_caller_gone};
use super::framing;
use super::peer::{Resolver, peer};
use super::respond;
use crate::base::clock::Clock;
use crate::base::safe_url::SafeUrl;
use crate::catalogue::Provider;
use crate::config::settings::Timeouts;
use crate::issuer::Issuer;
use crate::model::connection::ConnectionKey;
use crate::model::names::{ProviderName, Subject};
use crate::telemetry::metrics::{ApiOutcome, Metrics};
use crate::telemetry::stopwatch::Stopwatch;
use crate::vault::handles::HandleTable;
use crate::vault::{LiveToken, Vault};

/// What the egress listener is made of.
pub struct Parts {
    /// The providers by name.
    pub providers: BTreeMap<ProviderName, Arc<Provider>>,
    /// Tokens.
    pub vault: Arc<Vault>,
    /// Callers.
    pub handles: Arc<HandleTable>,
    /// The users of MCP clients.
    pub issuer: Arc<Issuer>,
    /// Where users can connect what is missing.
    pub public_url: SafeUrl,
    /// Whose connections callers without a handle use.
    pub fixed_subject: Option<Subject>,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Further accepted values of `Host`.
    pub hosts: Vec<String>,
    /// How long upstreams may take.
    pub timeouts: Timeouts,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Names to addresses.
    pub resolver: Resolver,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// The egress listener.
pub struct Egress {
    parts: Parts,
    callers: Callers,
    own_hosts: OwnHosts,
    routes: BTreeMap<String, Arc<Route>>,
}

/// What is known about one request.
pub struct Context {
    stopwatch: Stopwatch,
    route: Option<Arc<Route>>,
    key: Option<ConnectionKey>,
    /// Whether the connection is that of a user of an MCP client, who can mend it on a page of ours.
    is_user: bool,
    /// Whether the request was sent again with another token: at most once.
    replayed: bool,
    /// An answer whose body may say that the token has expired.
    doubtful: Option<Doubtful>,
    admitted: Option<Admitted>,
    refused: Option<Refusal>,
}

/// A request that may go out.
struct Admitted {
    token: Arc<LiveToken>,
    target: String,
    upstream: Arc<Upstream>,
    addresses: Arc<[SocketAddr]>,
    /// How many of the addresses could not be connected to.
    unreachable: usize,
}

impl Egress {
    /// Prepares one route for each name of a provider and of an enabled API.
    pub fn new(parts: Parts) -> Self {
        let routes = route::all(&parts.providers, &parts.metrics);
        let own_hosts = OwnHosts {
            listed: parts.hosts.clone(),
            usual: parts.listen.ip().is_loopback().then(|| parts.listen.to_string()),
        };
        let callers = Callers {
            handles: Arc::clone(&parts.handles),
            issuer: Arc::clone(&parts.issuer),
            fixed_subject: parts.fixed_subject.clone(),
        };
        Self { parts, callers, own_hosts, routes }
    }

    /// Decides whether a request may go out, and as what. Nothing has been sent yet.
    async fn admit(&self, session: &Session, context: &mut Context) -> Result<Admitted, Refusal> {
        let request = session.req_header();
        if !METHODS.contains(&request.method.as_str()) {
            return Err(Refusal::Method);
        }
        self.own_hosts.check(&request.headers).map_err(Refusal::Caller)?;
        // Pingora repairs odd targets and drops fragments; what counts is what the caller wrote.
        let head = session.as_downstream().to_h1_raw();
        if request.version <= http::Version::HTTP_11 && !framing::is_plain(&head) {
            return Err(Refusal::Malformed);
        }
        let raw = target::of_request_head(&head).unwrap_or_else(|| request.raw_path());
        let target = target::parse(raw).map_err(Refusal::Target)?;
        let route = target.segments.first().and_then(|segment| self.routes.get(*segment)).ok_or(Refusal::UnknownApi)?;
        context.route = Some(Arc::clone(route));
        let api = &route.api;
        let now = self.parts.clock.now();
        let caller = caller::identify(&request.headers, &api.credential.header, &api.provider, &self.callers, now)
            .map_err(Refusal::Caller)?;
        context.is_user = caller.is_user;
        let key = context.key.insert(caller.key.with_token(api.token.clone()));
        if target.query.is_some_and(super::has_access_token) {
            return Err(Refusal::TokenInQuery);
        }
        let token = self.parts.vault.token_at(key, now).await.map_err(Refusal::Token)?;
        let outgoing = policy::outgoing(api, &target, &token.captured).map_err(Refusal::Policy)?;
        inject::inspect(&request.headers, &api.credential.header, &outgoing).map_err(Refusal::Inject)?;
        let upstream = match &route.upstream {
            Some(upstream) => Arc::clone(upstream),
            None => captured_upstream(api, &token.captured).map(Arc::new).ok_or(Refusal::Origin)?,
        };
        let addresses = match &upstream.literal {
            Some(addresses) => Arc::clone(addresses),
            // In a box, so that the future of every request need not have room for it.
            None => Box::pin(self.parts.resolver.resolve(&upstream.url)).await,
        };
        if addresses.is_empty() {
            return Err(Refusal::Unresolved);
        }
        Ok(Admitted { token, target: outgoing, upstream, addresses, unreachable: 0 })
    }

    async fn refuse(&self, session: &mut Session, context: &mut Context, refusal: Refusal) -> u16 {
        let provider = context.route.as_ref().map_or("the provider", |route| route.api.provider.as_str());
        let mut problem = refusal.problem(provider, context.key.as_ref());
        if context.is_user && refusal.user_can_connect() {
            let origin = self.parts.public_url.origin();
            problem.connect_url = Some(format!("{origin}/account/connect/{provider}"));
            problem.next_step = "the user opens connect_url and connects; then the call works again".to_owned();
        }
        self.parts.metrics.refused(refusal.slug());
        warn!(
            operation = "api_call",
            provider = context.route.as_ref().map(|route| route.api.provider.as_str()),
            subject = context.key.as_ref().map(|key| key.subject.as_str()),
            duration_ms = context.stopwatch.millis(),
            outcome = refusal.slug(),
        );
        if refusal == Refusal::Malformed {
            session.as_downstream_mut().set_keepalive(None);
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
            stopwatch: Stopwatch::start(),
            route: None,
            key: None,
            is_user: false,
            replayed: false,
            doubtful: None,
            admitted: None,
            refused: None,
        }
    }

    /// None of Pingora's own modules: the default one would look at every answer for something to compress.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> pingora::Result<bool> {
        match self.admit(session, context).await {
            Ok(admitted) => {
                context.admitted = Some(admitted);
                Ok(false)
            }
            Err(refusal) => {
                Box::pin(self.refuse(session, context, refusal)).await;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, context: &mut Context) -> pingora::Result<Box<HttpPeer>> {
        let admitted = context.admitted.as_ref().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        let address = admitted.addresses[admitted.unreachable % admitted.addresses.len()];
        Ok(Box::new(peer(&admitted.upstream.url, address, &self.parts.timeouts)))
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
        request.set_raw_path(admitted.target.as_bytes())?;
        let injected = inject::inject(request, &route.api, &admitted.token, &admitted.upstream.authority);
        injected.map_err(|error| {
            context.refused = Some(Refusal::Inject(error));
            Error::new(ErrorType::InternalError)
        })
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        self.replace_expired(session, response, context).await?;
        let (Some(route), Some(admitted)) = (&context.route, &context.admitted) else { return Ok(()) };
        for name in [LOCATION, LINK] {
            if !response.headers.contains_key(&name) {
                continue;
            }
            let host = session.req_header().headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            let base = format!("http://{host}/{}", route.segment);
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
            error.set_retry(admitted.unreachable < admitted.addresses.len());
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
            warn!(operation = "api_call", outcome = "cut", error = %error.etype().as_str());
            return nothing;
        }
        let refusal = context.refused.take().unwrap_or_else(|| Failure::of(error).into());
        let error_code = self.refuse(session, context, refusal).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        let Some(route) = &context.route else { return };
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let outcome = match (&context.refused, error, status) {
            (Some(Refusal::Unresolved | Refusal::Unreachable | Refusal::Certificate | Refusal::TimedOut), ..) => {
                ApiOutcome::Failed
            }
            (Some(_), ..) => ApiOutcome::Refused,
            (None, Some(_), _) | (None, None, 0) => ApiOutcome::Failed,
            (None, None, 400..=499) => ApiOutcome::ClientError,
            (None, None, 500..) => ApiOutcome::ServerError,
            (None, None, _) => ApiOutcome::Ok,
        };
        let elapsed = context.stopwatch.elapsed();
        if let Some(metrics) = &route.metrics {
            metrics.observe(outcome, elapsed.as_secs_f64());
        }
        if context.refused.is_none() {
            debug!(
                operation = "api_call", provider = %route.api.provider,
                subject = context.key.as_ref().map(|key| key.subject.as_str()),
                duration_ms = context.stopwatch.millis(), outcome = status, generation = context.generation(),
            );
        }
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
        }
    }
}

#[cfg(test)]
mod tests;

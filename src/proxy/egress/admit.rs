//! Whether a request may go out, and as what. Everything is decided before anything is sent.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT};
use http::{HeaderName, HeaderValue, Version};
use pingora::proxy::Session;

use super::super::framing;
use super::super::intercept::Arrival;
use super::caller::{self, Caller, CallerError, Who, is_handle_shaped};
use super::inject::{self, InjectError};
use super::placement::{self, Body, Found, LONGEST_BODY, PlacementError};
use super::policy::{self, PolicyError};
use super::refusal::{METHODS, Refusal};
use super::route::{Route, Upstream, captured_upstream};
use super::target::{self, Target};
use super::way::{self, Address, Way};
use super::{Context, Egress, emulate, rules, tenant};
use crate::base::clock::Timestamp;
use crate::base::outbound;
use crate::base::secret::Secret;
use crate::catalogue::Api;
use crate::model::connection::Captured;
use crate::model::names::Label;
use crate::model::server::McpServer;
use crate::vault::LiveToken;

/// A request that may go out.
pub struct Admitted {
    /// The token to use.
    pub token: Arc<LiveToken>,
    /// Path and query, without the token.
    pub target: String,
    /// Where the caller put its handle, and so where the token goes.
    pub found: Found,
    /// The body, where it had to be read.
    pub body: Option<Bytes>,
    /// Headers in which the tenant is filled in.
    pub tenant: Vec<(HeaderName, HeaderValue)>,
    /// Where it goes.
    pub upstream: Arc<Upstream>,
    /// How it gets there.
    pub route: outbound::Way,
    /// How many of its addresses could not be connected to.
    pub unreachable: usize,
}

/// What becomes of a request.
pub enum Decision {
    /// It goes out.
    Send(Admitted),
    /// It is answered in the provider's place.
    Answer(emulate::Answer),
}

/// An API that a request may be for, and the segments of its path below it.
type Candidate<'a> = (&'a Arc<Route>, &'a [&'a str]);
/// The same, and the connection that would be used.
type Chosen<'a> = (&'a Arc<Route>, &'a [&'a str], Caller);

impl Egress {
    /// Decides whether a request may go out, and as what, or is answered here. Nothing has been sent yet.
    pub(super) async fn admit(&self, session: &mut Session, context: &mut Context) -> Result<Decision, Refusal> {
        let request = session.req_header();
        if !METHODS.contains(&request.method.as_str()) {
            return Err(Refusal::Method);
        }
        // Pingora repairs odd targets and drops fragments; what counts is what the caller wrote.
        let head = session.as_downstream().to_h1_raw();
        if request.version <= Version::HTTP_11 && !framing::is_plain(&head) {
            return Err(Refusal::Malformed);
        }
        let raw = target::of_request_head(&head).ok_or(Refusal::Malformed)?;
        let hosts = &self.parts.hosts_of_providers;
        let address = way::address(request, raw, Arrival::of(session), &self.own_hosts, hosts)?;
        context.way = Some(address.way.clone());
        context.label_in_url = address.label.clone();
        context.handle_in_url = address.handle.clone().filter(|_| address.way == Way::BaseUrl);
        if let Some(emulated) = self.emulated(session.req_header().method.as_str(), &address) {
            return Box::pin(self.emulate(session, context, &address, emulated)).await.map(Decision::Answer);
        }
        let candidates = self.candidates(&address)?;
        let Some((first, _)) = candidates.first() else { return Err(Refusal::Policy(PolicyError::NotAllowed)) };
        context.route = Some(Arc::clone(first));
        let body = match candidates.iter().any(|(route, _)| placement::needs_body(&route.api, &request.headers)) {
            // In a box, so that the future of every request need not have room for it.
            true => Box::pin(read_body(session)).await?,
            false => WholeBody::Unread,
        };
        let headers = &session.req_header().headers;
        let find = |route: &Route| {
            placement::find(&route.api, headers, &address.target, body.as_found()).map_err(Refusal::Placement)
        };
        let mut found = find(first)?;
        for (other, _) in candidates.iter().skip(1) {
            // Another API at this host may take its token in a place that the first one knows nothing of.
            if found.handle.is_none() {
                found = find(other)?;
            }
        }
        let elsewhere = address.handle.as_ref().map(Secret::expose);
        let who = caller::identify(headers, found.handle.as_deref().or(elsewhere), &self.parts.callers);
        let who = context.who.insert(who.map_err(Refusal::Caller)?).clone();
        let now = self.parts.clock.now();
        let (route, segments, caller) = self.choose(&candidates, &who, address.label.as_ref(), now).await?;
        if candidates.len() > 1 {
            found = find(route)?;
            context.route = Some(Arc::clone(route));
        }
        let api = &route.api;
        context.is_user = caller.is_user;
        let key = context.key.insert(caller.key.with_token(api.token.clone()));
        if address.target.query.is_some_and(|query| placement::has_undeclared_token(api, query)) {
            return Err(Refusal::TokenInQuery);
        }
        let token = self.parts.vault.token_at(key, now).await.map_err(Refusal::Token)?;
        let needs = |name: String| self.missing(api, &token.captured, name);
        tenant::needed(api, &token.captured).map_err(needs)?;
        let upstream = match &route.upstream {
            Some(upstream) => Arc::clone(upstream),
            None => {
                let upstream = captured_upstream(api, &token.captured, &self.parts.outbound);
                upstream.map(Arc::new).ok_or(Refusal::Origin)?
            }
        };
        // A host below a declared suffix is this connection's own, or somebody else's.
        if matches!(&address.way, Way::Host(host) if host != upstream.url.host()) {
            return Err(Refusal::Origin);
        }
        let judged = found.judged(&address.target);
        let below = &judged.segments[judged.segments.len() - segments.len()..];
        let refused = |error| match error {
            PolicyError::NotCaptured { name } => needs(name),
            other => Refusal::Policy(other),
        };
        let outgoing = policy::outgoing(api, &judged, below, &token.captured).map_err(refused)?;
        self.check_policies(session.req_header().method.as_str(), &who, api, &outgoing, &upstream)?;
        inject::inspect(headers, api, &outgoing).map_err(Refusal::Inject)?;
        if body.bytes().is_some_and(|body| is_handle_shaped(&found.body_without_credential(body))) {
            return Err(Refusal::Inject(InjectError::HandleWouldLeave));
        }
        let tenant = tenant::headers(api, headers, &token.captured).map_err(refused)?;
        let route = match &upstream.settled {
            Some(route) => route.clone(),
            None => Box::pin(self.parts.outbound.way_to(&upstream.url)).await?,
        };
        let body = body.into_bytes();
        let admitted = Admitted { token, target: outgoing, found, body, tenant, upstream, route, unreachable: 0 };
        Ok(Decision::Send(admitted))
    }

    /// A value that the call needs and the connection lacks: one that is looked up is there once the user has chosen.
    fn missing(&self, api: &Api, captured: &Captured, name: String) -> Refusal {
        let provider = self.parts.providers.get(&api.provider);
        let is_looked_up = provider.is_some_and(|provider| provider.looked_up.contains(&name));
        match is_looked_up && !captured.contains_key(&name) {
            true => Refusal::Unchosen { name },
            false => Refusal::Policy(PolicyError::NotCaptured { name }),
        }
    }

    /// The operator's rules for the provider, and for the MCP server that the caller acts for.
    fn check_policies(
        &self,
        method: &str,
        who: &Who,
        api: &Api,
        target: &str,
        upstream: &Upstream,
    ) -> Result<(), Refusal> {
        let of_provider = self.parts.providers.get(&api.provider).and_then(|provider| provider.policy.as_ref());
        let of_server = self.server_of(who)?.and_then(|server| server.policies.get(&api.provider));
        let call = rules::Call { host: upstream.url.host(), method, target };
        rules::check(of_provider.into_iter().chain(of_server), &call).map_err(Refusal::Policy)
    }

    /// The MCP server that the caller acts for, if for any.
    fn server_of(&self, who: &Who) -> Result<Option<&Arc<McpServer>>, Refusal> {
        let Some(name) = who.server() else { return Ok(None) };
        // Its rules are unknown where it is.
        self.parts.servers.get(name).map(Some).ok_or(Refusal::Caller(CallerError::GrantOver))
    }

    /// The APIs that a request may be for, each with the segments of the path that are below it.
    fn candidates<'a>(&'a self, address: &'a Address<'_>) -> Result<Vec<Candidate<'a>>, Refusal> {
        let Target { segments, .. } = &address.target;
        let host = match &address.way {
            Way::BaseUrl => {
                let route = segments.first().and_then(|segment| self.routes.get(*segment));
                return Ok(vec![(route.ok_or(Refusal::UnknownApi)?, &segments[1..])]);
            }
            Way::Host(host) => self.parts.hosts_of_providers.get(host).ok_or(Refusal::HostNotListed)?,
        };
        let below = |route: &'a Arc<Route>| route.below_base(segments).map(|segments| (route, segments));
        let all: Vec<_> = host.routes.iter().filter_map(below).collect();
        let fit = |(route, segments): &Candidate<'_>| policy::may_be_allowed(&route.api, segments);
        let fitting: Vec<_> = all.iter().copied().filter(fit).collect();
        // Where none fits, what is refused is still told in the name of a provider.
        if fitting.is_empty() { Ok(all) } else { Ok(fitting) }
    }

    /// The one that is meant: the first that the caller may use, and if several providers have it, one that is connected.
    async fn choose<'a>(
        &self,
        candidates: &[Candidate<'a>],
        who: &Who,
        label: Option<&Label>,
        now: Timestamp,
    ) -> Result<Chosen<'a>, Refusal> {
        let mut refusal = Refusal::Policy(PolicyError::NotAllowed);
        let mut possible = Vec::new();
        let server = self.server_of(who)?;
        for (route, segments) in candidates {
            let provider = &route.api.provider;
            // What a server may use is what its table says now, whatever its users picked when it said more.
            let is_its = server.is_none_or(|server| server.providers.contains(provider));
            let caller = if is_its { who.at(provider, label, now) } else { Err(CallerError::ProviderNotPicked) };
            match caller {
                Ok(caller) => possible.push((*route, *segments, caller)),
                Err(error) => refusal = Refusal::Caller(error),
            }
        }
        let is_one_provider =
            |possible: &[Chosen<'_>]| possible.windows(2).all(|two| two[0].0.api.provider == two[1].0.api.provider);
        if !is_one_provider(&possible) {
            for at in 0..possible.len() {
                if self.parts.vault.standing(&possible[at].2.key).await.is_connected() {
                    return Ok(possible.swap_remove(at));
                }
            }
        }
        possible.into_iter().next().ok_or(refusal)
    }
}

/// A body that may hold the handle.
pub enum WholeBody {
    /// It need not be read.
    Unread,
    /// All of it. Pingora keeps as much, and sends it.
    Read(Bytes),
    /// It says that it is longer than what Pingora keeps; nothing of it was read.
    TooLong,
}

impl WholeBody {
    fn as_found(&self) -> Body<'_> {
        match self {
            Self::Unread => Body::Unread,
            Self::Read(body) => Body::Whole(body),
            Self::TooLong => Body::TooLong,
        }
    }

    /// What was read.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Read(body) => Some(body),
            Self::Unread | Self::TooLong => None,
        }
    }

    fn into_bytes(self) -> Option<Bytes> {
        match self {
            Self::Read(body) => Some(body),
            Self::Unread | Self::TooLong => None,
        }
    }
}

/// Reads a body before it is decided about its request.
pub async fn read_body(session: &mut Session) -> Result<WholeBody, Refusal> {
    let request = session.req_header();
    let announced = request.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > LONGEST_BODY) {
        return Ok(WholeBody::TooLong);
    }
    let waits = request.headers.contains_key(EXPECT);
    let downstream = session.as_downstream_mut();
    downstream.enable_retry_buffering();
    if waits {
        downstream.write_continue_response().await.map_err(|_| Refusal::Malformed)?;
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = downstream.read_request_body().await.map_err(|_| Refusal::Malformed)? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_BODY {
            return Err(Refusal::Placement(PlacementError::BodyTooLarge));
        }
    }
    Ok(WholeBody::Read(body.freeze()))
}

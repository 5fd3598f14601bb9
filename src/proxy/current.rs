//! A Pingora application that can be replaced while it serves. Each request is served by the one that was current when its
//! head had arrived, from its first phase to its last: on connections that are kept alive, the next request gets the next
//! one. Connection pools are Pingora's and stay.

use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pingora::Error;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;

use crate::base::live::Live;

/// Whichever application is current.
pub struct Current<A>(Live<A>);

impl<A> Current<A> {
    /// Serves with what this holds at the time of each request.
    pub fn new(live: Live<A>) -> Self {
        Self(live)
    }
}

/// What is known about one request, and the application that serves it.
pub struct Exchange<A: ProxyHttp> {
    application: Arc<A>,
    context: A::CTX,
}

/// What an asynchronous phase returns.
type Phase<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Passes each phase on to the application of the request. The asynchronous ones are written as `async_trait` would have
/// them, so that nothing is boxed twice. `tests/architecture.rs` sees to it that none is missing.
impl<A> ProxyHttp for Current<A>
where
    A: ProxyHttp + Send + Sync + 'static,
    A::CTX: Send + Sync,
{
    type CTX = Exchange<A>;

    fn new_ctx(&self) -> Exchange<A> {
        let application = self.0.snapshot();
        let context = application.new_ctx();
        Exchange { application, context }
    }

    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        self.0.snapshot().init_downstream_modules(modules);
    }

    fn request_filter<'s, 'session, 'exchange, 'all>(
        &'s self,
        session: &'session mut Session,
        exchange: &'exchange mut Exchange<A>,
    ) -> Phase<'all, pingora::Result<bool>>
    where
        's: 'all,
        'session: 'all,
        'exchange: 'all,
        Self: 'all,
    {
        exchange.application.request_filter(session, &mut exchange.context)
    }

    fn upstream_peer<'s, 'session, 'exchange, 'all>(
        &'s self,
        session: &'session mut Session,
        exchange: &'exchange mut Exchange<A>,
    ) -> Phase<'all, pingora::Result<Box<HttpPeer>>>
    where
        's: 'all,
        'session: 'all,
        'exchange: 'all,
        Self: 'all,
    {
        exchange.application.upstream_peer(session, &mut exchange.context)
    }

    fn connected_to_upstream<'s, 'session, 'peer, 'digest, 'exchange, 'all>(
        &'s self,
        session: &'session mut Session,
        reused: bool,
        peer: &'peer HttpPeer,
        connection: RawFd,
        digest: Option<&'digest Digest>,
        exchange: &'exchange mut Exchange<A>,
    ) -> Phase<'all, pingora::Result<()>>
    where
        's: 'all,
        'session: 'all,
        'peer: 'all,
        'digest: 'all,
        'exchange: 'all,
        Self: 'all,
    {
        let Exchange { application, context } = exchange;
        application.connected_to_upstream(session, reused, peer, connection, digest, context)
    }

    fn request_body_filter<'s, 'session, 'body, 'exchange, 'all>(
        &'s self,
        session: &'session mut Session,
        body: &'body mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &'exchange mut Exchange<A>,
    ) -> Phase<'all, pingora::Result<()>>
    where
        's: 'all,
        'session: 'all,
        'body: 'all,
        'exchange: 'all,
        Self: 'all,
    {
        exchange.application.request_body_filter(session, body, end_of_stream, &mut exchange.context)
    }

    fn upstream_request_filter<'s, 'session, 'request, 'exchange, 'all>(
        &'s self,
        session: &'session mut Session,
        request: &'request mut RequestHeader,
        exchange: &'exchange mut Exchange<A>,
    ) -> Phase<'all, pingora::Result<()>>
    where
        's: 'all,
        'session: 'all,
        'request: 'all,
        'exchange: 'all,
        Self: 'all,
    {
        exchange.application.upstream_request_filter(session, request, &mut exchange.context)
    }

    fn upstream_response_filter<'s, 'session, 'response, 'exchange, 'all>(
        &'s self,
        session: &'session mut Session,
        response: &'response mut ResponseHeader,
        exchange: &'exchange mut Exchange<A>,
    ) -> Phase<'all, pingora::Result<()>>
    where
        's: 'all,
        'session: 'all,
        'response: 'all,
        'exchange: 'all,
        Self: 'all,
    {
        exchange.application.upstream_response_filter(session, response, &mut exchange.context)
    }

    fn response_filter<'s, 'session, 'response, 'exchange, 'all>(
        &'s self,
        session: &'session mut Session,
        response: &'response mut ResponseHeader,
        exchange: &'exchange mut Exchange<A>,
    ) -> Phase<'all, pingora::Result<()>>
    where
        's: 'all,
        'session: 'all,
        'response: 'all,
        'exchange: 'all,
        Self: 'all,
    {
        exchange.application.response_filter(session, response, &mut exchange.context)
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange<A>,
    ) -> pingora::Result<Option<Duration>> {
        exchange.application.upstream_response_body_filter(session, body, end_of_stream, &mut exchange.context)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange<A>,
    ) -> pingora::Result<Option<Duration>> {
        exchange.application.response_body_filter(session, body, end_of_stream, &mut exchange.context)
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        exchange: &mut Exchange<A>,
        client_reused: bool,
    ) -> Box<Error> {
        exchange.application.error_while_proxy(peer, session, error, &mut exchange.context, client_reused)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        peer: &HttpPeer,
        exchange: &mut Exchange<A>,
        error: Box<Error>,
    ) -> Box<Error> {
        exchange.application.fail_to_connect(session, peer, &mut exchange.context, error)
    }

    fn fail_to_proxy<'s, 'session, 'error, 'exchange, 'all>(
        &'s self,
        session: &'session mut Session,
        error: &'error Error,
        exchange: &'exchange mut Exchange<A>,
    ) -> Phase<'all, FailToProxy>
    where
        's: 'all,
        'session: 'all,
        'error: 'all,
        'exchange: 'all,
        Self: 'all,
    {
        exchange.application.fail_to_proxy(session, error, &mut exchange.context)
    }

    fn logging<'s, 'session, 'error, 'exchange, 'all>(
        &'s self,
        session: &'session mut Session,
        error: Option<&'error Error>,
        exchange: &'exchange mut Exchange<A>,
    ) -> Phase<'all, ()>
    where
        's: 'all,
        'session: 'all,
        'error: 'all,
        'exchange: 'all,
        Self: 'all,
    {
        exchange.application.logging(session, error, &mut exchange.context)
    }

    fn suppress_error_log(&self, session: &Session, exchange: &Exchange<A>, error: &Error) -> bool {
        exchange.application.suppress_error_log(session, &exchange.context, error)
    }

    fn request_summary(&self, session: &Session, exchange: &Exchange<A>) -> String {
        exchange.application.request_summary(session, &exchange.context)
    }
}

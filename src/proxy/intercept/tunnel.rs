//! Tunnels: which of them end here, which are passed on unseen, and which are refused.

use std::sync::Arc;

use tokio::net::TcpStream;
use tracing::{debug, warn};

use super::super::connection::Connection;
use super::super::egress::{CallerError, Callers, Hosts, Refusal, Who};
use super::connect::{ConnectRequest, Credential, Verdict};
use crate::base::clock::{Clock, Timestamp};
use crate::base::outbound::{NoWay, Outbound, Way, is_forbidden};
use crate::base::problem_details::ProblemDetails;
use crate::base::secret::Secret;
use crate::config::settings::Timeouts;
use crate::model::tunnel_host::TunnelHost;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::{Refusals, Refused};

/// What is known about tunnels.
pub struct Tunnels {
    /// The hosts of providers.
    pub hosts: Arc<Hosts>,
    /// Who may ask.
    pub callers: Arc<Callers>,
    /// Hosts to which every caller may open one.
    pub listed: Vec<TunnelHost>,
    /// Where calls go.
    pub outbound: Arc<Outbound>,
    /// How long connecting may take.
    pub timeouts: Timeouts,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What was refused to whom.
    pub refusals: Arc<Refusals>,
}

impl Tunnels {
    /// Decides what becomes of a tunnel. To a provider's host none is needed to ask: each request inside says whose it is.
    pub fn judge(&self, asked: &ConnectRequest) -> Result<Verdict, Refusal> {
        let now = self.clock.now();
        let who = self.who(asked, now)?;
        if let Some(ports) = self.hosts.ports(&asked.host) {
            if !ports.contains(&asked.port) {
                return Err(Refusal::HostNotListed);
            }
            let handle = asked.credential.as_ref().and_then(Credential::handle).cloned();
            return Ok(Verdict::Terminate { handle });
        }
        let may_go_anywhere = who.as_ref().is_some_and(Who::tunnels);
        if !may_go_anywhere && !self.is_listed(asked) {
            return Err(Refusal::HostNotListed);
        }
        if who.is_some() { Ok(Verdict::PassOn) } else { Err(Refusal::ProxyCredential(CallerError::NoHandle)) }
    }

    /// Whose tunnel it is: the handle that is presented is known and in force, or nothing is presented.
    fn who(&self, asked: &ConnectRequest, now: Timestamp) -> Result<Option<Who>, Refusal> {
        match &asked.credential {
            None => Ok(None),
            Some(Credential::Other) => Err(Refusal::ProxyCredential(CallerError::UnknownHandle)),
            Some(Credential::Handle(handle)) => {
                let who = self.callers.of_handle(handle.expose()).map_err(Refusal::ProxyCredential)?;
                who.check(now).map_err(Refusal::ProxyCredential)?;
                Ok(Some(who))
            }
        }
    }

    fn is_listed(&self, asked: &ConnectRequest) -> bool {
        self.listed.iter().any(|listed| listed.covers(&asked.host, asked.port))
    }

    /// Connects to where the tunnel leads. What is near us is out of bounds unless it is listed by its very name: our own
    /// listeners always.
    pub async fn reach(&self, asked: &ConnectRequest) -> Result<TcpStream, Refusal> {
        let way = self.outbound.way_anywhere(&asked.host, asked.port).await.map_err(|why| match why {
            NoWay::Loop | NoWay::Forbidden => Refusal::ForbiddenAddress,
            NoWay::Unresolved | NoWay::NoProxy => Refusal::TunnelFailed,
        })?;
        let is_named = || self.listed.iter().any(|listed| listed.names(&asked.host, asked.port));
        let is_direct = matches!(way, Way::Direct(_));
        if is_direct && way.addresses().iter().any(|address| is_forbidden(address.ip())) && !is_named() {
            return Err(Refusal::ForbiddenAddress);
        }
        way.open(self.timeouts.connect).await.map_err(|error| {
            debug!(operation = "tunnel", host = asked.host, %error);
            Refusal::TunnelFailed
        })
    }

    /// Counts and notes a tunnel that is refused, and says why in the form of an answer.
    pub fn refused(&self, refusal: &Refusal, asked: Option<&ConnectRequest>) -> ProblemDetails {
        let host = asked.map_or("", |asked| asked.host.as_str());
        let problem = refusal.problem(if host.is_empty() { "the host" } else { host }, None);
        self.metrics.refused(refusal.slug());
        let handle_id = asked.and_then(|asked| self.handle_id(asked));
        warn!(operation = "tunnel", host, outcome = refusal.slug());
        if let Some(id) = handle_id {
            let port = asked.map_or(443, |asked| asked.port);
            let host = if port == 443 { host.to_owned() } else { format!("{host}:{port}") };
            self.refusals.note(&id, Refused::new(&host, "CONNECT", "", &problem));
        }
        problem
    }

    fn handle_id(&self, asked: &ConnectRequest) -> Option<String> {
        let handle = asked.credential.as_ref().and_then(Credential::handle)?;
        self.callers.of_handle(handle.expose()).ok()?.handle_id().map(str::to_owned)
    }

    /// Counts what could not be answered, since there was nothing yet in which to answer.
    pub fn count(&self, refusal: &Refusal, host: &str) {
        self.metrics.refused(refusal.slug());
        warn!(operation = "intercept", host, outcome = refusal.slug());
    }
}

impl Credential {
    fn handle(&self) -> Option<&Secret> {
        match self {
            Self::Handle(handle) => Some(handle),
            Self::Other => None,
        }
    }
}

/// Passes bytes to and fro until both sides are done.
pub async fn pass_on(mut connection: Connection, mut upstream: TcpStream, host: &str) {
    match tokio::io::copy_bidirectional(&mut connection, &mut upstream).await {
        Ok((sent, received)) => debug!(operation = "tunnel", host, sent, received, outcome = "ok"),
        Err(error) => debug!(operation = "tunnel", host, %error),
    }
}

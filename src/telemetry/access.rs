//! The access log: one line for every request at the public and the egress listener, when it is over.
//!
//! What is written is safe by what it is made of: never a query, and of a path at the public listener not the path itself
//! but the route that it took, in which a one-time link reads `/connect/{token}`. A path at the egress listener goes to an
//! API and is shown, but for a handle in it.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tracing::{debug, info};

use crate::base::random::{self, Random};
use crate::model::connection::ConnectionKey;
use crate::model::grant::Grant;
use crate::model::names::{ProviderName, ServerName};

/// Whether lines are written at `info`; otherwise they are at `debug`.
static WANTED: AtomicBool = AtomicBool::new(false);

/// From here on lines are written at `info`, or at `debug` again.
pub fn want(wanted: bool) {
    WANTED.store(wanted, Ordering::Relaxed);
}

/// Whether lines are written at all. Where they are not, nobody need put one together.
pub fn is_written() -> bool {
    WANTED.load(Ordering::Relaxed) || tracing::enabled!(tracing::Level::DEBUG)
}

/// Names requests: each has another name, also after a restart.
pub struct RequestIds {
    process: u32,
    next: AtomicU64,
}

/// The name of a request. All lines about the request have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    process: u32,
    number: u64,
}

impl RequestIds {
    /// For one process.
    pub fn new(random: &dyn Random) -> Self {
        Self { process: u32::from_le_bytes(random::bytes(random)), next: AtomicU64::new(1) }
    }

    /// The next one.
    pub fn next(&self) -> RequestId {
        RequestId { process: self.process, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}-{}", self.process, self.number)
    }
}

/// What there is to say about one request.
pub struct Line<'a> {
    /// `public` or `egress`.
    pub listener: &'static str,
    /// Its name.
    pub request: RequestId,
    /// The method.
    pub method: &'a str,
    /// Where to, as it may be shown; none where nothing of ours is there.
    pub path: Option<&'a str>,
    /// The status of the answer; 0 if there was none.
    pub status: u16,
    /// Bytes of the request's body.
    pub received: usize,
    /// Bytes of the answer's body.
    pub sent: usize,
    /// How long it took.
    pub duration_ms: u64,
    /// Where it came from; behind a trusted proxy, where the proxy says.
    pub address: Option<IpAddr>,
    /// At an MCP server.
    pub server: Option<&'a ServerName>,
    /// In whose grant.
    pub grant: Option<&'a Grant>,
    /// At a provider.
    pub provider: Option<&'a ProviderName>,
    /// With whose connection.
    pub connection: Option<&'a ConnectionKey>,
    /// Which generation of its tokens.
    pub generation: Option<u64>,
    /// With which handle, by its id.
    pub handle: Option<&'a str>,
}

impl Line<'_> {
    /// Writes it.
    pub fn write(&self) {
        // One list of fields for both levels.
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    operation = "access",
                    listener = self.listener,
                    request = %self.request,
                    method = self.method,
                    path = self.path,
                    status = self.status,
                    received = self.received,
                    sent = self.sent,
                    duration_ms = self.duration_ms,
                    address = self.address.map(tracing::field::display),
                    server = self.server.map(ServerName::as_str),
                    client = self.grant.map(|grant| grant.authorization.client_id.as_str()),
                    grant = self.grant.map(|grant| grant.id.as_str()),
                    subject = self.subject(),
                    provider = self.provider.map(ProviderName::as_str),
                    label = self.connection.map(|key| key.label.as_str()),
                    generation = self.generation,
                    handle = self.handle,
                )
            };
        }
        if WANTED.load(Ordering::Relaxed) { line!(info) } else { line!(debug) }
    }

    fn subject(&self) -> Option<&str> {
        let of_grant = || self.grant.map(|grant| grant.authorization.user.subject.as_str());
        self.connection.map(|key| key.subject.as_str()).or_else(of_grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    #[test]
    fn each_request_has_a_name_of_its_own() {
        let (one, other) = (RequestIds::new(&SeededRandom::new(1)), RequestIds::new(&SeededRandom::new(2)));
        let names = [one.next(), one.next(), other.next()].map(|id| id.to_string());
        let [first, second, third] = names.each_ref().map(|name| name.split_once('-').expect("two parts"));
        assert_eq!((first.1, second.1, third.1), ("1", "2", "1"));
        assert_eq!(first.0, second.0);
        assert_ne!(first.0, third.0);
        assert_eq!(first.0.len(), 8);
    }
}

//! Where an upstream connection goes: host names resolved without blocking, and Pingora's peer with every limit set.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use pingora::protocols::ALPN;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};

use crate::base::clock::{Clock, Timestamp};
use crate::base::safe_url::SafeUrl;
use crate::config::settings::Timeouts;

/// How long an answer of DNS is used.
const LIFETIME: Duration = Duration::from_secs(30);

/// Resolves host names, and remembers the answers for a while.
pub struct Resolver {
    clock: Arc<dyn Clock>,
    known: DashMap<(String, u16), Answer>,
}

#[derive(Clone)]
struct Answer {
    addresses: Arc<[SocketAddr]>,
    until: Timestamp,
}

impl Resolver {
    /// A resolver that knows nothing yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: DashMap::new() }
    }

    /// All addresses of a host; empty if it cannot be resolved. While DNS fails, the last answer is used.
    pub async fn resolve(&self, url: &SafeUrl) -> Arc<[SocketAddr]> {
        self.resolve_host(url.host(), url.port()).await
    }

    /// The same for a host, as it stands in a URL, and a port.
    pub async fn resolve_host(&self, host: &str, port: u16) -> Arc<[SocketAddr]> {
        if let Some(address) = literal_host(host, port) {
            return Arc::new([address]);
        }
        let key = (host.to_owned(), port);
        let known = self.known.get(&key).map(|answer| answer.clone());
        if let Some(answer) = known.as_ref().filter(|answer| answer.until > self.clock.now()) {
            return Arc::clone(&answer.addresses);
        }
        match tokio::net::lookup_host((host, port)).await {
            Ok(found) => {
                let addresses: Arc<[SocketAddr]> = found.collect();
                let until = self.clock.now().plus(LIFETIME);
                self.known.insert(key, Answer { addresses: Arc::clone(&addresses), until });
                addresses
            }
            Err(error) => {
                tracing::warn!(operation = "resolve", host, %error);
                known.map_or_else(|| Arc::new([]) as Arc<[SocketAddr]>, |answer| answer.addresses)
            }
        }
    }
}

/// The address of a URL whose host is one.
pub fn literal(url: &SafeUrl) -> Option<SocketAddr> {
    literal_host(url.host(), url.port())
}

fn literal_host(host: &str, port: u16) -> Option<SocketAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port))
}

/// The peer for one address of an upstream. The certificate is checked against the host of `url`, never the address.
pub fn peer(url: &SafeUrl, address: SocketAddr, timeouts: &Timeouts) -> HttpPeer {
    tcp_peer(address, url.is_https(), url.host(), timeouts)
}

/// The same for a host as it stands in a URL.
pub fn tcp_peer(address: SocketAddr, is_https: bool, host: &str, timeouts: &Timeouts) -> HttpPeer {
    limited(HttpPeer::new(address, is_https, host.to_owned()), timeouts)
}

/// The peer for a Unix socket.
pub fn unix_peer(socket: &Path, timeouts: &Timeouts) -> pingora::Result<HttpPeer> {
    let path = socket.to_str().ok_or_else(|| pingora::Error::new(pingora::ErrorType::ConnectError))?;
    Ok(limited(HttpPeer::new_uds(path, false, String::new())?, timeouts))
}

fn limited(mut peer: HttpPeer, timeouts: &Timeouts) -> HttpPeer {
    let options = &mut peer.options;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.read);
    options.write_timeout = Some(timeouts.write);
    // Shorter than what servers, and what drops connections silently on the way, grant an idle one.
    options.idle_timeout = Some(Duration::from_secs(50));
    options.alpn = ALPN::H1;
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::standard();
    peer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;

    #[tokio::test]
    async fn addresses_need_no_resolving_and_unknown_names_give_none() {
        let resolver = Resolver::new(Arc::new(SystemClock));
        let url = |text: &str| text.parse::<SafeUrl>().expect("safe");
        assert_eq!(*resolver.resolve(&url("http://127.0.0.1:81/")).await, ["127.0.0.1:81".parse().expect("one")]);
        assert_eq!(*resolver.resolve(&url("https://[::1]:82/")).await, ["[::1]:82".parse().expect("one")]);
        assert!(resolver.resolve(&url("https://nowhere.invalid/")).await.is_empty());
        assert!(!resolver.resolve(&url("http://localhost:83/")).await.is_empty());
    }

    #[test]
    fn certificates_are_checked_and_limits_are_set() {
        let second = Duration::from_secs(1);
        let timeouts = Timeouts { connect: second, read: second, write: second, token: second, drain: second };
        let url = "https://api.example:8443/".parse().expect("safe");
        let peer = peer(&url, "127.0.0.1:8443".parse().expect("one"), &timeouts);
        assert!(peer.options.verify_cert && peer.options.verify_hostname);
        assert_eq!(peer.sni, "api.example");
        assert_eq!(peer.options.http_upstream_request_policy, HttpUpstreamRequestPolicy::standard());
        assert!(peer.options.total_connection_timeout.is_some() && peer.options.read_timeout.is_some());
    }
}

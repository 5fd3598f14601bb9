//! Pingora's peer for an upstream, with every limit set, and through the upstream proxy where the way leads there.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::ALPN;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::{Error, ErrorType};

use crate::base::outbound::{Tunnel, Way};
use crate::base::safe_url::SafeUrl;
use crate::config::settings::Timeouts;

/// The peer for the address of that number on the way to a provider. The certificate is checked against the host of `url`,
/// never the address.
pub fn peer(url: &SafeUrl, way: &Way, number: usize, timeouts: &Timeouts) -> Option<HttpPeer> {
    let addresses = way.addresses();
    let address = *addresses.get(number % addresses.len().max(1))?;
    let mut peer = tcp_peer(address, url.is_https(), url.host(), timeouts);
    if let Way::Tunnel(tunnel) = way {
        // Connections through one proxy share its address: what else they lead to keeps them apart.
        peer.group_key = tunnel.key;
        peer.options.custom_l4 = Some(Arc::new(ThroughProxy(Arc::clone(tunnel))));
    }
    Some(peer)
}

/// Opens connections through the upstream proxy.
#[derive(Debug)]
struct ThroughProxy(Arc<Tunnel>);

#[async_trait]
impl L4Connect for ThroughProxy {
    async fn connect(&self, address: &PeerAddress) -> pingora::Result<Stream> {
        let address = address.as_inet().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        match self.0.open(*address).await {
            Ok(stream) => Ok(stream.into()),
            Err(error) => {
                tracing::warn!(operation = "upstream_proxy", %error);
                Err(Error::new(ErrorType::ConnectProxyFailure))
            }
        }
    }
}

/// The peer at an address; `host` as it stands in a URL.
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

    fn timeouts() -> Timeouts {
        let second = Duration::from_secs(1);
        Timeouts { connect: second, read: second, write: second, token: second, drain: second }
    }

    #[test]
    fn certificates_are_checked_and_limits_are_set() {
        let url = "https://api.example:8443/".parse().expect("safe");
        let way = Way::Direct(Arc::new(["127.0.0.1:8443".parse().expect("one")]));
        let peer = peer(&url, &way, 0, &timeouts()).expect("a peer");
        assert!(peer.options.verify_cert && peer.options.verify_hostname);
        assert_eq!(peer.sni, "api.example");
        assert_eq!(peer.options.http_upstream_request_policy, HttpUpstreamRequestPolicy::standard());
        assert!(peer.options.custom_l4.is_none(), "connections are Pingora's own");
        assert!(peer.options.total_connection_timeout.is_some() && peer.options.read_timeout.is_some());
    }

    /// Nothing but the way through the upstream proxy replaces how Pingora connects, and what it then sends stays bounded by
    /// the same policy.
    #[test]
    fn only_the_upstream_proxy_has_a_connector_of_its_own() {
        let (proxy, address) = ("http://proxy.example:3128".parse().expect("a proxy"), "127.0.0.1:3128");
        let addresses: Arc<[SocketAddr]> = Arc::new([address.parse().expect("one")]);
        let tunnel = Tunnel { proxy, addresses, target: "api.example:443".to_owned(), key: 1 };
        let url = "https://api.example/".parse().expect("safe");
        let through = peer(&url, &Way::Tunnel(Arc::new(tunnel)), 0, &timeouts()).expect("a peer");
        assert!(format!("{:?}", through.options.custom_l4).contains("ThroughProxy"));
        for peer in [
            through,
            tcp_peer(address.parse().expect("one"), true, "api.example", &timeouts()),
            unix_peer(Path::new("/nowhere"), &timeouts()).expect("a peer"),
        ] {
            assert_eq!(peer.options.http_upstream_request_policy, HttpUpstreamRequestPolicy::standard());
            assert!(peer.options.custom_l4.is_none() || peer.group_key == 1);
        }
    }

    #[test]
    fn connections_are_shared_by_calls_to_one_host_along_one_way_only() {
        use pingora::upstreams::peer::Peer as _;
        let address: SocketAddr = "127.0.0.1:3128".parse().expect("one");
        let tunnel = |target: &str, key| {
            let proxy = "http://proxy.example:3128".parse().expect("a proxy");
            Way::Tunnel(Arc::new(Tunnel { proxy, addresses: Arc::new([address]), target: target.to_owned(), key }))
        };
        let hash =
            |url: &str, way: &Way| peer(&url.parse().expect("safe"), way, 0, &timeouts()).expect("a peer").reuse_hash();
        let direct = Way::Direct(Arc::new([address]));
        let elsewhere = Way::Direct(Arc::new(["127.0.0.1:3129".parse().expect("one")]));
        let ways = [
            hash("https://a.example/", &direct),
            hash("https://b.example/", &direct),
            hash("https://a.example/", &elsewhere),
            hash("https://a.example/", &tunnel("a.example:443", 1)),
            hash("https://a.example:8443/", &tunnel("a.example:8443", 3)),
            hash("https://b.example/", &tunnel("b.example:443", 5)),
        ];
        for (index, one) in ways.iter().enumerate() {
            assert!(ways.iter().skip(index + 1).all(|other| other != one), "{index}");
        }
        assert_eq!(ways[0], hash("https://a.example/", &direct));
    }
}

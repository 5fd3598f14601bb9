//! Where calls to providers really go, for API calls and token calls alike: to the addresses that DNS names, to those that
//! the operator wrote down, or through an upstream proxy; and never to ourselves.
//!
//! What a server must prove does not depend on any of it: its certificate is checked against the provider's host name.

pub mod connect;
mod local;
pub mod proxy_server;
pub mod roots;

pub use self::local::is_forbidden;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use self::proxy_server::ProxyServer;
use self::roots::Roots;
use crate::base::clock::Clock;
use crate::base::dns::Dns;
use crate::base::resolver::{Resolver, literal};
use crate::base::safe_url::SafeUrl;

/// What the operator says about where calls go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutboundSettings {
    /// Addresses by `host` or `host:port`.
    pub resolve: BTreeMap<String, Arc<[SocketAddr]>>,
    /// Roots besides those of the system.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Through which proxy.
    pub proxy: Option<ProxyServer>,
}

/// What [`Outbound`] is made of.
pub struct Parts {
    /// What the operator says.
    pub settings: OutboundSettings,
    /// The ports that we listen at.
    pub own_ports: Vec<u16>,
    /// Who is asked for addresses of providers.
    pub dns: Dns,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Knows where calls go.
pub struct Outbound {
    settings: OutboundSettings,
    own_ports: Vec<u16>,
    providers: Arc<Resolver>,
    /// The proxy, and what is no provider's: whatever the system knows of it counts.
    others: Arc<Resolver>,
    system: Arc<[CertificateDer<'static>]>,
    distrusted: ArcSwap<Vec<CertificateDer<'static>>>,
    roots: OnceLock<Roots>,
}

/// How a call gets to its host.
#[derive(Clone, Debug)]
pub enum Way {
    /// Straight to one of these addresses.
    Direct(Arc<[SocketAddr]>),
    /// Through a proxy.
    Tunnel(Arc<Tunnel>),
}

/// A way through a proxy.
#[derive(Debug)]
pub struct Tunnel {
    /// The proxy.
    pub proxy: ProxyServer,
    /// Its addresses.
    pub addresses: Arc<[SocketAddr]>,
    /// What it is asked for, `host:port`.
    pub target: String,
    /// Another one for any other proxy, credential or target.
    pub key: u64,
}

/// Why there is no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoWay {
    /// The name has no address.
    Unresolved,
    /// The name of the upstream proxy has no address.
    NoProxy,
    /// It leads to one of our own listeners.
    Loop,
    /// DNS names an address that belongs to this machine or its link, where no provider is.
    Forbidden,
}

impl std::fmt::Display for NoWay {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Unresolved => "the host name cannot be resolved",
            Self::NoProxy => "the host name of the upstream proxy cannot be resolved",
            Self::Loop => "the host leads back to Sidekey itself",
            Self::Forbidden => "DNS names an address of this machine or its link for the host",
        })
    }
}

impl Way {
    /// Where to connect to, all of them.
    pub fn addresses(&self) -> &Arc<[SocketAddr]> {
        match self {
            Self::Direct(addresses) => addresses,
            Self::Tunnel(tunnel) => &tunnel.addresses,
        }
    }
}

impl Outbound {
    /// Fails where nothing is trusted at all.
    pub fn new(parts: Parts) -> Result<Self, String> {
        let Parts { settings, own_ports, dns, clock } = parts;
        let outbound = Self {
            system: roots::of_system().into(),
            settings,
            own_ports,
            providers: Arc::new(Resolver::dns(dns, Arc::clone(&clock))),
            others: Arc::new(Resolver::system(clock)),
            distrusted: ArcSwap::default(),
            roots: OnceLock::new(),
        };
        outbound.trusting_somebody()
    }

    /// The same under other settings. What is known of names is shared; whom to distrust is to be said anew.
    pub fn under(&self, settings: OutboundSettings) -> Result<Self, String> {
        let next = Self {
            settings,
            own_ports: self.own_ports.clone(),
            providers: Arc::clone(&self.providers),
            others: Arc::clone(&self.others),
            system: Arc::clone(&self.system),
            distrusted: ArcSwap::default(),
            roots: OnceLock::new(),
        };
        next.trusting_somebody()
    }

    fn trusting_somebody(self) -> Result<Self, String> {
        if self.system.is_empty() && self.settings.extra_roots.is_empty() {
            return Err("no root certificates on this machine; install the package `ca-certificates`".to_owned());
        }
        Ok(self)
    }

    /// One that knows nothing but what it is told.
    #[cfg(test)]
    pub fn of_tests(settings: OutboundSettings, own_ports: &[u16]) -> Self {
        let (own_ports, clock) = (own_ports.to_vec(), Arc::new(crate::base::clock::SystemClock));
        Self::new(Parts { settings, own_ports, dns: Dns::at(&[]), clock }).expect("roots")
    }

    /// Has these certificates (PEM) count for nothing, whoever trusts them: those of our own authority, so that a call which
    /// was led back to us by some other way (a redirecting firewall rule) ends before a byte of it is sent. To be called
    /// before the first call.
    pub fn distrust(&self, pem: &str) {
        self.distrusted.store(Arc::new(roots::read(pem.as_bytes())));
    }

    /// What servers are judged by.
    pub fn roots(&self) -> &Roots {
        self.roots.get_or_init(|| {
            let trusted = self.system.iter().chain(&self.settings.extra_roots);
            Roots::new(trusted, &self.distrusted.load())
        })
    }

    /// The same, for rustls.
    pub fn root_store(&self) -> RootCertStore {
        self.roots().store()
    }

    /// The way to the host of `url`.
    pub async fn way_to(&self, url: &SafeUrl) -> Result<Way, NoWay> {
        let (host, port) = (url.host(), url.port());
        if let Some(way) = self.fixed_way(url) {
            return self.not_to_ourselves(way);
        }
        if let Some(proxy) = &self.settings.proxy {
            let target = format!("{host}:{port}");
            return self.tunnel(proxy, target).await;
        }
        if host.ends_with(".localhost") {
            return Err(NoWay::Unresolved);
        }
        let addresses = self.providers.resolve_host(host, port).await;
        if addresses.iter().any(|address| is_forbidden(address.ip())) {
            return Err(NoWay::Forbidden);
        }
        if addresses.is_empty() {
            return Err(NoWay::Unresolved);
        }
        self.not_to_ourselves(Way::Direct(addresses))
    }

    /// The way to any host or address, for tunnels that are passed on unseen: whatever the system knows of it counts, and
    /// whether it is forbidden is for others to say.
    pub async fn way_anywhere(&self, host: &str, port: u16) -> Result<Way, NoWay> {
        let written = self.settings.resolve.get(&format!("{host}:{port}")).or_else(|| self.settings.resolve.get(host));
        if let Some(addresses) = written {
            return self.not_to_ourselves(Way::Direct(Arc::clone(addresses)));
        }
        let is_near = literal(host, port).is_some_and(|address| is_forbidden(address.ip()));
        if let Some(proxy) = self.settings.proxy.as_ref().filter(|_| !is_near) {
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            return self.tunnel(proxy, format!("{host}:{port}")).await;
        }
        let addresses = self.others.resolve_host(host, port).await;
        if addresses.is_empty() {
            return Err(NoWay::Unresolved);
        }
        self.not_to_ourselves(Way::Direct(addresses))
    }

    /// The way to a host whose address is written down, and that no proxy leads to. It needs no asking, and never changes.
    pub fn settled_way(&self, url: &SafeUrl) -> Option<Way> {
        let way = self.fixed_way(url)?;
        self.not_to_ourselves(way).ok()
    }

    fn fixed_way(&self, url: &SafeUrl) -> Option<Way> {
        let (host, port) = (url.host(), url.port());
        let written = self.settings.resolve.get(&format!("{host}:{port}")).or_else(|| self.settings.resolve.get(host));
        match written {
            Some(addresses) => return Some(Way::Direct(Arc::clone(addresses))),
            None if host == "localhost" => {
                let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
                return Some(Way::Direct(Arc::new([SocketAddr::new(v4, port), SocketAddr::new(v6, port)])));
            }
            None => {}
        }
        let address = literal(host, port)?;
        let direct = self.settings.proxy.is_none() || address.ip().to_canonical().is_loopback();
        direct.then(|| Way::Direct(Arc::new([address])))
    }

    async fn tunnel(&self, proxy: &ProxyServer, target: String) -> Result<Way, NoWay> {
        let addresses = self.others.resolve_host(proxy.host(), proxy.port()).await;
        if addresses.is_empty() {
            return Err(NoWay::NoProxy);
        }
        let mut hasher = DefaultHasher::new();
        (proxy, &target).hash(&mut hasher);
        // None of what Pingora itself makes, which is 0.
        let key = hasher.finish() | 1;
        self.not_to_ourselves(Way::Tunnel(Arc::new(Tunnel { proxy: proxy.clone(), addresses, target, key })))
    }

    fn not_to_ourselves(&self, way: Way) -> Result<Way, NoWay> {
        let is_own = |address: &SocketAddr| self.own_ports.contains(&address.port()) && local::is_local(address.ip());
        if way.addresses().iter().any(is_own) { Err(NoWay::Loop) } else { Ok(way) }
    }
}

#[cfg(test)]
mod tests;

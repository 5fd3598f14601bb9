//! Host names to addresses, without blocking, remembered for a while.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;

use crate::base::clock::{Clock, Timestamp};
use crate::base::dns::Dns;
use crate::base::safe_url::SafeUrl;

/// How long an answer is used.
const LIFETIME: Duration = Duration::from_secs(30);

/// Resolves host names, and remembers the answers.
pub struct Resolver {
    names: Names,
    clock: Arc<dyn Clock>,
    known: DashMap<(String, u16), Answer>,
}

/// Who is asked.
enum Names {
    /// The system, with all that it looks into: for hosts that the operator runs.
    System,
    /// DNS alone.
    Dns(Dns),
}

#[derive(Clone)]
struct Answer {
    addresses: Arc<[SocketAddr]>,
    until: Timestamp,
}

impl Resolver {
    /// A resolver that asks the system: files of hosts and search domains count.
    pub fn system(clock: Arc<dyn Clock>) -> Self {
        Self { names: Names::System, clock, known: DashMap::new() }
    }

    /// A resolver that asks DNS and nothing else, for whole names.
    pub fn dns(dns: Dns, clock: Arc<dyn Clock>) -> Self {
        Self { names: Names::Dns(dns), clock, known: DashMap::new() }
    }

    /// All addresses of a host; empty if it cannot be resolved. While that fails, the last answer is used.
    pub async fn resolve(&self, url: &SafeUrl) -> Arc<[SocketAddr]> {
        self.resolve_host(url.host(), url.port()).await
    }

    /// The same for a host, as it stands in a URL, and a port.
    pub async fn resolve_host(&self, host: &str, port: u16) -> Arc<[SocketAddr]> {
        if let Some(address) = literal(host, port) {
            return Arc::new([address]);
        }
        let key = (host.to_owned(), port);
        let known = self.known.get(&key).map(|answer| answer.clone());
        if let Some(answer) = known.as_ref().filter(|answer| answer.until > self.clock.now()) {
            return Arc::clone(&answer.addresses);
        }
        match self.look_up(host, port).await {
            Ok(addresses) => {
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

    async fn look_up(&self, host: &str, port: u16) -> Result<Arc<[SocketAddr]>, String> {
        match &self.names {
            Names::System => {
                let found = tokio::net::lookup_host((host, port)).await.map_err(|error| error.to_string())?;
                Ok(found.collect())
            }
            Names::Dns(dns) => {
                let found = dns.look_up(host).await?;
                Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
            }
        }
    }
}

/// The address of a host that is one.
pub fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;

    #[tokio::test]
    async fn addresses_need_no_resolving_and_unknown_names_give_none() {
        let resolver = Resolver::system(Arc::new(SystemClock));
        let url = |text: &str| text.parse::<SafeUrl>().expect("safe");
        assert_eq!(*resolver.resolve(&url("http://127.0.0.1:81/")).await, ["127.0.0.1:81".parse().expect("one")]);
        assert_eq!(*resolver.resolve(&url("https://[::1]:82/")).await, ["[::1]:82".parse().expect("one")]);
        assert!(resolver.resolve(&url("https://nowhere.invalid/")).await.is_empty());
        assert!(!resolver.resolve(&url("http://localhost:83/")).await.is_empty());
    }
}

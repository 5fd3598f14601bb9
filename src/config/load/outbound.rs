//! Where calls to providers go.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use url::Url;

use super::Loader;
use crate::base::outbound::proxy_server::{EXPECTED, ProxyServer};
use crate::base::outbound::{OutboundSettings, roots};
use crate::base::toml_document::join;
use crate::config::file::EgressTable;
use crate::config::secret_ref::SecretRef;

impl Loader<'_> {
    pub(super) fn outbound(&mut self, table: &EgressTable) -> OutboundSettings {
        let mut resolve = BTreeMap::new();
        for (name, addresses) in &table.resolve {
            let key = join("egress.resolve", name);
            let addresses: Arc<[SocketAddr]> = addresses.all().into();
            match host(name) {
                Some(host) if !addresses.is_empty() => {
                    resolve.insert(host, addresses);
                }
                Some(_) => self.problem(&key, "is empty; expected at least one address"),
                None => {
                    let message = format!("{name:?} is not allowed here; expected the host of a provider's URL");
                    self.problem_with_hint(&key, message, "host or host:port, without a scheme: \"api.example.com\"");
                }
            }
        }
        let extra_roots = table.extra_ca.as_deref().map(|path| self.extra_roots(path)).unwrap_or_default();
        let proxy = table.upstream_proxy.as_deref().and_then(|text| self.upstream_proxy(text));
        OutboundSettings { resolve, extra_roots, proxy }
    }

    fn extra_roots(&mut self, path: &Path) -> Vec<CertificateDer<'static>> {
        let (key, path) = ("egress.extra_ca", self.home.join(path));
        match self.sources.read(&path) {
            Err(error) => self.problem(key, format!("cannot read {}: {error}", path.display())),
            Ok(pem) => {
                let roots = roots::read(&pem);
                if !roots.is_empty() {
                    return roots;
                }
                self.problem(key, format!("{} holds no certificate in PEM", path.display()));
            }
        }
        Vec::new()
    }

    /// No message repeats the value: it may hold a password.
    fn upstream_proxy(&mut self, text: &str) -> Option<ProxyServer> {
        let key = "egress.upstream_proxy";
        let proxy = match text.parse::<SecretRef>() {
            Ok(reference) => self.secret(key, &reference)?.expose().parse::<ProxyServer>(),
            Err(_) => text.parse::<ProxyServer>(),
        };
        proxy.map_err(|_| self.problem(key, format!("is not {EXPECTED}"))).ok()
    }
}

/// `host` or `host:port` as they stand in a URL, or nothing.
fn host(text: &str) -> Option<String> {
    let url = Url::parse(&format!("https://{text}")).ok()?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && !text.contains(['/', '@']);
    let host = url.host_str().filter(|_| bare)?;
    // A URL forgets the port that is its scheme's own.
    match text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(port) if !text.ends_with(']') => Some(format!("{host}:{port}")),
        _ => Some(host.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_they_stand_in_urls() {
        for (text, expected) in [
            ("api.github.com", Some("api.github.com")),
            ("API.GitHub.com", Some("api.github.com")),
            ("api.github.com:443", Some("api.github.com:443")),
            ("api.github.com:8443", Some("api.github.com:8443")),
            ("[fd00::1]", Some("[fd00::1]")),
            ("[fd00::1]:444", Some("[fd00::1]:444")),
            ("https://api.github.com", None),
            ("api.github.com/", None),
            ("user@api.github.com", None),
            ("", None),
        ] {
            assert_eq!(host(text).as_deref(), expected, "{text}");
        }
    }
}

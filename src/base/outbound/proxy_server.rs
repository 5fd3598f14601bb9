//! An upstream proxy: where it is, and who we are to it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::base::secret::Secret;

/// What the URL of a proxy looks like, for messages.
pub const EXPECTED: &str = "the URL of an HTTP proxy, http://[user:password@]host:port";

/// A proxy that is asked for tunnels by `CONNECT`.
#[derive(Clone)]
pub struct ProxyServer {
    host: String,
    port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<Secret>,
}

impl ProxyServer {
    /// Its host, as it stands in a URL.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The head of a request for a tunnel to `target`, which is `host:port`. It holds the credential.
    pub fn request(&self, target: &str) -> Secret {
        let credential = match &self.authorization {
            Some(value) => format!("Proxy-Authorization: {}\r\n", value.expose()),
            None => String::new(),
        };
        Secret::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credential}\r\n"))
    }
}

impl FromStr for ProxyServer {
    type Err = String;

    /// The error does not repeat the text: it may hold a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || EXPECTED.to_owned();
        let url = Url::parse(text).map_err(|_| wrong())?;
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        if url.scheme() != "http" || !bare {
            return Err(wrong());
        }
        let decoded = |part: &str| percent_decode_str(part).collect::<Vec<u8>>();
        let authorization = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let pair = [&decoded(url.username())[..], b":", &decoded(url.password().unwrap_or_default())].concat();
            Secret::new(format!("Basic {}", STANDARD.encode(pair)))
        });
        Ok(Self { host: host.to_owned(), port: url.port_or_known_default().unwrap_or(80), authorization })
    }
}

impl fmt::Debug for ProxyServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

/// Told apart where settings are compared with those before: nothing that others send is.
impl PartialEq for ProxyServer {
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.authorization.as_ref(), other.authorization.as_ref());
        self.host == other.host && self.port == other.port && ours.map(Secret::expose) == theirs.map(Secret::expose)
    }
}

impl Hash for ProxyServer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.host, self.port, self.authorization.as_ref().map(Secret::expose)).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credential_is_sent_as_it_was_meant_and_shown_nowhere() {
        let proxy: ProxyServer = "http://me:p%40ss%3Aword@proxy.corp:3128".parse().expect("a proxy");
        assert_eq!((proxy.host(), proxy.port()), ("proxy.corp", 3128));
        assert_eq!(
            proxy.request("api.example:443").expose(),
            "CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\
             Proxy-Authorization: Basic bWU6cEBzczp3b3Jk\r\n\r\n"
        );
        assert_eq!(format!("{proxy:?}"), "proxy.corp:3128");
        let plain: ProxyServer = "http://proxy.corp".parse().expect("a proxy");
        assert_eq!(plain.request("a:1").expose(), "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
        assert_eq!(plain.port(), 80);
    }

    #[test]
    fn only_http_proxies_are_known() {
        for bad in ["https://p:1", "socks5://p:1", "p:3128", "http://p:1/path", "http://p:1?x", "http://", ""] {
            assert_eq!(bad.parse::<ProxyServer>().err().as_deref(), Some(EXPECTED), "{bad}");
        }
    }
}

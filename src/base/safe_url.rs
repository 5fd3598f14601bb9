//! URLs that credentials may be sent to.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use url::{Host, Url};

/// An absolute `https` URL, or an `http` one to this machine, without user name, password or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafeUrl(Url);

/// What a safe URL looks like, for messages.
pub const EXPECTED: &str =
    "an https:// URL (http:// only to a loopback address) without user name, password or fragment";

impl SafeUrl {
    /// The URL.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Host name or address, as it stands in the URL.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The port, given or implied.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(443)
    }

    /// Whether the URL is an `https` one.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether the URL names this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// `scheme://host[:port]`, without a trailing slash.
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// `host[:port]` as it stands in a `Host` header: the port only where it is not the scheme's own.
    pub fn authority(&self) -> String {
        match self.0.port() {
            Some(port) => format!("{}:{port}", self.host()),
            None => self.host().to_owned(),
        }
    }
}

/// Whether the host of `url` is a loopback address, or `localhost`.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

impl FromStr for SafeUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|_| EXPECTED.to_owned())?;
        let scheme_is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if scheme_is_safe && bare && url.has_host() { Ok(Self(url)) } else { Err(EXPECTED.to_owned()) }
    }
}

impl fmt::Display for SafeUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl<'de> Deserialize<'de> for SafeUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for SafeUrl {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SafeUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "sidekey-url" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_or_this_machine() {
        for good in ["https://a.example/x?y=1", "http://127.0.0.1:80/", "http://[::1]:9/x", "http://localhost:1"] {
            assert!(good.parse::<SafeUrl>().is_ok(), "{good}");
        }
        for bad in
            ["http://a.example/", "https://u:p@a.example", "https://a.example/#f", "a.example", "ftp://127.0.0.1", ""]
        {
            assert_eq!(bad.parse::<SafeUrl>().err().as_deref(), Some(EXPECTED), "{bad}");
        }
    }

    #[test]
    fn the_authority_names_a_port_only_where_it_is_unusual() {
        let of = |text: &str| text.parse::<SafeUrl>().expect("safe").authority();
        assert_eq!(of("https://a.example:443/"), "a.example");
        assert_eq!(of("https://a.example:8443/"), "a.example:8443");
        assert_eq!(of("http://127.0.0.1:7000/"), "127.0.0.1:7000");
    }
}

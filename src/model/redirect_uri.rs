//! Where an MCP client may have the browser sent back to: `https` anywhere, `http` on loopback, and private-use schemes
//! that are allowed one by one.
//!
//! What is presented is compared with what is registered as text, character by character (RFC 9700 section 4.1.3); only
//! the port of a loopback address is left out (RFC 8252 section 7.3). Nothing is normalized, so no two readers can differ.

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// A redirect URI that a client may register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RedirectUri(String);

/// Which redirect URIs the operator allows besides those on the web.
#[derive(Clone, Debug, Default)]
pub struct RedirectPolicy {
    /// Private-use URIs, exactly as they are written.
    pub private: Vec<String>,
    /// Whether programs on the user's own machine may be called back.
    pub allow_loopback: bool,
    /// Our own origin, where nobody may be called back: a code would arrive at pages of ours. Empty for none.
    pub own_origin: String,
}

/// What kind of place a redirect URI leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A site on the web.
    Web,
    /// A program on the user's own machine, whichever listens.
    Loopback,
    /// A program that claimed a scheme.
    PrivateUse,
}

/// Longer ones are not registered.
const LONGEST: usize = 2048;

impl RedirectUri {
    /// Checks a URI for registration.
    pub fn register(text: &str, policy: &RedirectPolicy) -> Result<Self, String> {
        let refused = |why: &str| Err(why.to_owned());
        if text.len() > LONGEST {
            return refused("it is longer than 2048 characters");
        }
        if policy.private.iter().any(|allowed| allowed == text) {
            return Ok(Self(text.to_owned()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains(['\\', '*', '"', '<', '>', '`', '{', '}'])
        {
            return refused("it has characters that do not belong into a URI, or a wildcard");
        }
        let Ok(url) = Url::parse(text) else { return refused("it is not an absolute URI") };
        if text.contains('#') {
            return refused("it has a fragment");
        }
        if !url.username().is_empty() || url.password().is_some() || authority(text).contains('@') {
            return refused("it has a user name or password");
        }
        if url.origin().ascii_serialization() == policy.own_origin {
            return refused("it leads to this server itself");
        }
        let answers = ["code", "state", "iss", "error"];
        if url.query_pairs().any(|(name, _)| answers.contains(&name.as_ref())) {
            return refused("its query holds a parameter that answers are given in");
        }
        match url.scheme() {
            "https" | "http" if !text.starts_with(&format!("{}://", url.scheme())) => {
                refused("its scheme is not written in lower case and followed by ://")
            }
            "https" | "http" if has_dot_segments(text) => refused("its path has dot segments"),
            // `Url` reads 127.1 and 0x7f.1 as addresses; what is registered must say what it means.
            "https" | "http" if url.host_str() != Some(host(text)) => refused("its host is not in its plain form"),
            "https" => Ok(Self(text.to_owned())),
            "http" if is_loopback(&url) && !policy.allow_loopback => {
                refused("loopback addresses are not allowed here; use https")
            }
            "http" if is_loopback(&url) => Ok(Self(text.to_owned())),
            "http" => refused("http is allowed for loopback addresses only; use https"),
            _ => refused("its scheme is not https, and the operator has not allowed exactly this URI"),
        }
    }

    /// The text as registered.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a presented redirect URI is this one.
    pub fn matches(&self, presented: &str) -> bool {
        if self.0 == presented {
            return true;
        }
        match (without_loopback_port(&self.0), without_loopback_port(presented)) {
            (Some(registered), Some(presented)) => registered == presented,
            _ => false,
        }
    }

    /// Where it leads.
    pub fn destination(&self) -> Destination {
        if self.0.starts_with("https://") {
            Destination::Web
        } else if self.0.starts_with("http://") {
            Destination::Loopback
        } else {
            Destination::PrivateUse
        }
    }

    /// What people are shown: the host, or the scheme of a private-use URI.
    pub fn shown_host(&self) -> String {
        match self.destination() {
            Destination::Web | Destination::Loopback => authority(&self.0).to_owned(),
            Destination::PrivateUse => self.0.split_once(':').map_or(&*self.0, |(scheme, _)| scheme).to_owned(),
        }
    }
}

/// A presented URI with parameters added to its query (RFC 6749 section 4.1.2).
pub fn with_parameters(redirect_uri: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    let separator = match redirect_uri.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{redirect_uri}{separator}{}", query.finish())
}

/// What stands between `//` and the path.
fn authority(text: &str) -> &str {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn host(text: &str) -> &str {
    split_port(authority(text)).0
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    let after_address = authority.find(']').map_or(0, |end| end + 1);
    match authority[after_address..].find(':') {
        Some(colon) => (&authority[..after_address + colon], Some(&authority[after_address + colon + 1..])),
        None => (authority, None),
    }
}

fn has_dot_segments(text: &str) -> bool {
    let path = text.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let path = path.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase().replace("%2e", ".");
    path.split('/').any(|segment| segment == "." || segment == "..")
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address == std::net::Ipv4Addr::LOCALHOST,
        Some(Host::Ipv6(address)) => address == std::net::Ipv6Addr::LOCALHOST,
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// A loopback URI as its host and what follows the port; `None` for anything else.
fn without_loopback_port(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("http://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, port) = split_port(&rest[..end]);
    let port_is_plain = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number.to_string() == port));
    (["127.0.0.1", "[::1]", "localhost"].contains(&host) && port_is_plain).then(|| (host, &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURSOR: &str = "cursor://anysphere.cursor-mcp/oauth/callback";

    fn register(text: &str) -> Result<RedirectUri, String> {
        RedirectUri::register(
            text,
            &RedirectPolicy {
                private: vec![CURSOR.to_owned()],
                allow_loopback: true,
                own_origin: "https://sidekey.example".to_owned(),
            },
        )
    }

    #[test]
    fn web_loopback_and_listed_private_uris_are_registered() {
        for good in [
            "https://claude.ai/api/mcp/auth_callback",
            "https://app.example:8443/cb?x=1",
            "http://127.0.0.1/callback",
            "http://127.0.0.1:33418/",
            "http://[::1]:1/cb",
            "http://localhost:6274/oauth/callback",
            CURSOR,
        ] {
            assert_eq!(register(good).as_ref().map(RedirectUri::as_str), Ok(good));
        }
        for bad in [
            "",
            "javascript:alert(1)//",
            "data:text/html,x",
            "http://evil.example/cb",
            "https://*.x/cb",
            "myapp:/cb",
            "cursor://other",
            "https://a.example/cb#f",
            "https://u@a.example/cb",
            "https://u:p@a.example/cb",
            "http://127.0.0.1:80@evil.example/cb",
            "http://127.0.0.1.evil.example/cb",
            "http://127.1/cb",
            "http://0x7f.1/cb",
            "http://2130706433/cb",
            "https://a.example\\@evil.example/cb",
            "//evil.example/cb",
            "/cb",
            "https:/a.example",
            "HTTPS://a.example/cb",
            "https://A.example/cb",
            "https://a.example/x/../cb",
            "https://a.example/%2e%2e/cb",
            "https://bücher.example/cb",
            "https://a.example/a b",
            "https://a.example/\n",
            "file:///etc/passwd",
            "https://sidekey.example/callback/notion",
            "https://a.example/cb?code=1",
            "https://a.example/cb?x=1&state=2",
            "http://127.0.0.2/cb",
            "https://a%2eexample/cb",
            "vbscript:x",
            "blob:https://a/b",
        ] {
            assert!(register(bad).is_err(), "{bad}");
        }
        assert!(register(&format!("https://a.example/{}", "a".repeat(2048))).is_err());
    }

    #[test]
    fn loopback_can_be_switched_off() {
        let register = |text: &str| RedirectUri::register(text, &RedirectPolicy::default());
        assert!(register("https://a.example/cb").is_ok());
        for loopback in ["http://127.0.0.1/cb", "http://localhost:1/cb", "http://[::1]/cb"] {
            assert_eq!(register(loopback), Err("loopback addresses are not allowed here; use https".to_owned()));
        }
    }

    #[test]
    fn only_the_port_of_loopback_addresses_is_left_out() {
        let loopback = register("http://127.0.0.1/callback").expect("good");
        for same in ["http://127.0.0.1/callback", "http://127.0.0.1:49152/callback", "http://127.0.0.1:1/callback"] {
            assert!(loopback.matches(same), "{same}");
        }
        for other in [
            "http://127.0.0.1:1/other",
            "http://127.0.0.1.evil.example/callback",
            "http://localhost:1/callback",
            "https://127.0.0.1/callback",
            "http://127.0.0.1:80@evil.example/callback",
            "http://127.0.0.1:/callback",
            "http://127.0.0.1:1/callback/",
            "http://127.0.0.1:1/callback?x",
            "http://127.0.0.1:01/callback",
            "http://127.0.0.1:99999/callback",
            "http://[::1]:1/callback",
            "HTTP://127.0.0.1:1/callback",
        ] {
            assert!(!loopback.matches(other), "{other}");
        }
        let named = register("http://localhost:3000/callback").expect("good");
        assert!(named.matches("http://localhost:4711/callback") && !named.matches("http://127.0.0.1:3000/callback"));
    }

    #[test]
    fn parameters_are_added_to_whatever_query_there_is() {
        let add = |uri: &str| with_parameters(uri, &[("code", "a b"), ("state", "é&")]);
        assert_eq!(add("https://a.example/cb"), "https://a.example/cb?code=a+b&state=%C3%A9%26");
        assert_eq!(add("https://a.example/cb?x=1"), "https://a.example/cb?x=1&code=a+b&state=%C3%A9%26");
        assert_eq!(add("https://a.example/cb?"), "https://a.example/cb?code=a+b&state=%C3%A9%26");
    }

    #[test]
    fn people_are_shown_where_it_leads() {
        assert_eq!(register("https://a.example:8443/cb").expect("good").shown_host(), "a.example:8443");
        assert_eq!(register(CURSOR).expect("good").shown_host(), "cursor");
    }
}

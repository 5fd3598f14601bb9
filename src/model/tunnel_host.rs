//! A host, or all below a suffix, to which tunnels may be opened that are passed on unseen.

use std::str::FromStr;

use crate::base::host_name;

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelHost {
    name: String,
    is_suffix: bool,
    port: u16,
}

impl TunnelHost {
    /// What it looks like, for messages.
    pub const EXPECTED: &str =
        "a host such as \"registry.npmjs.org\", \"*.pypi.org\" or \"10.0.0.7:8443\" (without a port, 443)";

    /// Whether tunnels to this host and port are allowed by it.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let below = |name: &str| host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1);
        self.port == port && if self.is_suffix { below(&self.name) } else { host == self.name }
    }

    /// Whether it names this very host and port.
    pub fn names(&self, host: &str, port: u16) -> bool {
        !self.is_suffix && self.covers(host, port)
    }
}

impl FromStr for TunnelHost {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (is_suffix, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        let (name, port) = host_name::with_port(rest, Some(443)).map_err(|_| ())?;
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        if is_suffix && is_address { Err(()) } else { Ok(Self { name, is_suffix, port }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(listed: &str, host: &str, port: u16) -> bool {
        listed.parse::<TunnelHost>().expect("good").covers(host, port)
    }

    #[test]
    fn a_host_is_covered_by_its_name_or_by_a_suffix() {
        assert!(covers("registry.npmjs.org", "registry.npmjs.org", 443));
        assert!(covers("Registry.npmjs.org:8443", "registry.npmjs.org", 8443));
        assert!(!covers("registry.npmjs.org", "registry.npmjs.org", 22));
        assert!(!covers("npmjs.org", "registry.npmjs.org", 443));
        assert!(covers("*.pypi.org", "files.pypi.org", 443) && covers("*.pypi.org", "a.b.pypi.org", 443));
        assert!(!covers("*.pypi.org", "pypi.org", 443) && !covers("*.pypi.org", "evilpypi.org", 443));
        assert!(covers("127.0.0.1:5432", "127.0.0.1", 5432) && covers("[::1]:1", "::1", 1));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in ["", "*", "*.", "*.10.0.0.1", "a b", "https://a.example", "a:0", "*.*.a", "a/b"] {
            assert_eq!(bad.parse::<TunnelHost>(), Err(()), "{bad}");
        }
    }
}

//! The one way in which the name of a host is written here; what could be read in two ways is no name.

/// A text that is not the name of a host, or not beyond doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OddHost;

/// Lower case and without the one dot at the end that makes a name absolute. Addresses are no names.
pub fn canonical(name: &str) -> Result<String, OddHost> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(plain)
            && bytes.first() != Some(&b'-')
            && bytes.last() != Some(&b'-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    // A name that ends in a number is an address to some, in decimal, octal or hexadecimal (WHATWG URL, "ends in a number").
    let ends_in_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x");
    if name.len() > 253 || !name.split('.').all(is_label) || ends_in_number {
        return Err(OddHost);
    }
    Ok(name.to_ascii_lowercase())
}

/// Takes `host:port` apart; without a port, `default_port` counts. An address in place of a name is kept as it is, an
/// IPv6 one without its brackets.
pub fn with_port(authority: &str, default_port: Option<u16>) -> Result<(String, u16), OddHost> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or(OddHost)?;
            let address: std::net::Ipv6Addr = address.parse().map_err(|_| OddHost)?;
            (address.to_string(), rest.strip_prefix(':').or(rest.is_empty().then_some("")).ok_or(OddHost)?)
        }
        None => {
            let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
            match host.parse::<std::net::Ipv4Addr>() {
                Ok(address) => (address.to_string(), port),
                Err(_) => (canonical(host)?, port),
            }
        }
    };
    let port = match port {
        "" if !authority.ends_with(':') => default_port,
        port if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok().filter(|port| *port != 0),
        _ => None,
    };
    Ok((host, port.ok_or(OddHost)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_in_one_way() {
        for name in ["api.github.com", "API.GitHub.COM", "api.github.com."] {
            assert_eq!(canonical(name).as_deref(), Ok("api.github.com"));
        }
        assert_eq!(canonical("xn--bcher-kva.example").as_deref(), Ok("xn--bcher-kva.example"));
        assert_eq!(canonical("localhost").as_deref(), Ok("localhost"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_name() {
        for odd in [
            "",
            ".",
            "api.github.com..",
            "[api.github.com]",
            "api.github.com%00.evil",
            "api.github.com:443@evil",
            "api.github.com ",
            " api.github.com",
            "api..github.com",
            "*.github.com",
            "äpi.github.com",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.0x1",
            "::1",
            "-a.example",
            "a-.example",
            "a\0b",
            "😀.example",
        ] {
            assert_eq!(canonical(odd), Err(OddHost), "{odd:?}");
        }
        assert_eq!(canonical(&format!("{}.example", "a".repeat(64))), Err(OddHost));
        assert_eq!(canonical(&["a".repeat(60).as_str(); 5].join(".")), Err(OddHost));
    }

    #[test]
    fn ports_are_numbers() {
        assert_eq!(with_port("API.x.example:443", None), Ok(("api.x.example".to_owned(), 443)));
        assert_eq!(with_port("api.x.example", Some(443)), Ok(("api.x.example".to_owned(), 443)));
        assert_eq!(with_port("[::1]:22", None), Ok(("::1".to_owned(), 22)));
        assert_eq!(with_port("10.0.0.1:8443", None), Ok(("10.0.0.1".to_owned(), 8443)));
        for odd in
            ["api.x.example", "a:", "a:0", "a:65536", "a:+1", "a:443@evil", "u@a:443", "[::1]443", "[::1", "a:4:4"]
        {
            assert_eq!(with_port(odd, None), Err(OddHost), "{odd}");
        }
    }
}

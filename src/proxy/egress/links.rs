//! `Link` and `Location` headers that name the API's own host are led back through the egress listener, so that a server
//! which follows them stays behind it.

/// Rewrites each URL below `api` (scheme, host and base path) to the same path below `base`. `None` if there is none.
pub fn rewrite(value: &str, api: &str, base: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len() + base.len());
    let mut rest = value;
    let mut changed = false;
    while let Some(found) = rest.find(api) {
        let (before, after) = (&rest[..found], &rest[found + api.len()..]);
        out.push_str(before);
        // A URL begins the header or stands in angle brackets (RFC 8288 section 3), and the host must end here.
        let begins = (out.is_empty() && found == 0) || before.ends_with('<');
        let ends = after.is_empty() || after.starts_with(['/', '?', '#', '>']);
        if begins && ends {
            out.push_str(base);
            changed = true;
        } else {
            out.push_str(api);
        }
        rest = after;
    }
    out.push_str(rest);
    changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "https://api.github.com";
    const BASE: &str = "http://127.0.0.1:8701/github";

    fn rewritten(value: &str) -> Option<String> {
        rewrite(value, API, BASE)
    }

    #[test]
    fn locations_and_links_come_back_through_us() {
        assert_eq!(rewritten("https://api.github.com/a?b"), Some(format!("{BASE}/a?b")));
        assert_eq!(rewritten("https://api.github.com"), Some(BASE.to_owned()));
        let links = "<https://api.github.com/r?page=2>; rel=\"next\", <https://api.github.com/r?page=9>; rel=\"last\"";
        let expected = format!("<{BASE}/r?page=2>; rel=\"next\", <{BASE}/r?page=9>; rel=\"last\"");
        assert_eq!(rewritten(links), Some(expected));
    }

    #[test]
    fn other_hosts_are_left_alone() {
        for other in [
            "https://api.github.com.evil.example/",
            "https://api.github.com:8443/",
            "https://api.github.com@evil/",
            "https://evil/?x=https://api.github.com/a",
            "/relative",
        ] {
            assert_eq!(rewritten(other), None, "{other}");
        }
    }
}

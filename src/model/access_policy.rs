//! What an operator allows callers to do at a provider, beyond what the provider's entry already confines them to.

use std::str::FromStr;

use percent_encoding::percent_decode_str;

/// The rules for one provider, or for one MCP server at one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessPolicy {
    /// The table in the configuration, for messages.
    pub key: String,
    /// Only what one of these fits may be done; `None` means whatever the entry allows, and an empty list nothing.
    pub allow: Option<Vec<Rule>>,
    /// What one of these fits may not be done, whatever is allowed.
    pub deny: Vec<Rule>,
}

/// Conditions that must all hold; one that is `None` always does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The host is one of these.
    pub hosts: Option<Vec<HostPattern>>,
    /// The method is one of these.
    pub methods: Option<Vec<String>>,
    /// The path begins with one of these.
    pub paths: Option<Vec<PathPattern>>,
}

/// A host, or all hosts below a suffix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This one, in lower case.
    Exactly(String),
    /// Those that end like this, which begins with a dot.
    Below(String),
}

impl HostPattern {
    /// Whether a host in lower case is meant.
    pub fn fits(&self, host: &str) -> bool {
        match self {
            Self::Exactly(exactly) => host == exactly,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, is_below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let plain = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        match name.split('.').all(plain) {
            true if is_below => Ok(Self::Below(format!(".{name}"))),
            true => Ok(Self::Exactly(name.to_owned())),
            false => {
                Err(format!("{text:?} is not a host: expected a name in lower case without port, or \"*.\" and one"))
            }
        }
    }
}

/// The beginning of a path, by whole segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Any,
    Exactly(String),
}

impl PathPattern {
    /// Whether a path is meant for certain, to allow it: letter for letter, but for percent-encoding.
    pub fn fits(&self, segments: &[&str]) -> bool {
        let decoded: Vec<_> = segments.iter().map(|segment| percent_decode_str(segment).decode_utf8_lossy()).collect();
        self.begins(&decoded, |declared, found| declared == found)
    }

    /// Whether a path could be meant, to deny it: however a server may read it. Some do not tell upper from lower case, take an
    /// encoded slash for a slash, or ignore what follows a semicolon.
    pub fn could_fit(&self, segments: &[&str]) -> bool {
        let bare = |text: &str| text.split(';').next().unwrap_or_default().to_owned();
        let decoded: Vec<_> = segments.iter().map(|segment| percent_decode_str(segment).decode_utf8_lossy()).collect();
        let whole: Vec<_> = decoded.iter().map(|segment| bare(segment)).collect();
        let parts = decoded.iter().flat_map(|segment| segment.split('/'));
        let split: Vec<_> = parts.map(bare).filter(|part| !part.is_empty()).collect();
        let is_same = |declared: &str, found: &str| bare(declared).eq_ignore_ascii_case(found);
        self.begins(&whole, is_same) || self.begins(&split, is_same)
    }

    fn begins<T: AsRef<str>>(&self, segments: &[T], is_same: impl Fn(&str, &str) -> bool) -> bool {
        segments.len() >= self.0.len()
            && self.0.iter().zip(segments).all(|(declared, found)| match declared {
                Segment::Any => true,
                Segment::Exactly(declared) => is_same(declared, found.as_ref()),
            })
    }
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "{text:?} is not a path prefix: expected plain segments that begin with a slash; * stands for one segment"
            )
        };
        let path = text.strip_prefix('/').ok_or_else(expected)?;
        if path.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let plain = |text: &str| {
            let is_odd = |byte: u8| !byte.is_ascii_graphic() || b"*?#\\{}\"<>|^`;".contains(&byte);
            !text.is_empty() && ![".", ".."].contains(&text) && !text.bytes().any(is_odd)
        };
        let segment = |segment: &str| match segment {
            "*" => Ok(Segment::Any),
            _ if plain(segment) => {
                let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| expected())?;
                Ok(Segment::Exactly(decoded.into_owned()))
            }
            _ => Err(expected()),
        };
        path.split('/').map(segment).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PathPattern {
        text.parse().expect("a path prefix")
    }

    #[test]
    fn paths_are_compared_by_whole_segments() {
        let repos = path("/repos/acme/");
        assert!(
            repos.fits(&["repos", "acme"]) && repos.fits(&["repos", "acme", "x"]) && repos.fits(&["rep%6Fs", "acme"])
        );
        for other in
            [&["repos"][..], &["repos", "acme2"], &["Repos", "acme"], &["repos%2Facme"], &["x", "repos", "acme"]]
        {
            assert!(!repos.fits(other), "{other:?}");
        }
        assert!(path("/").fits(&[]) && path("/").fits(&["a"]));
        let company = path("/v3/company/*/invoice");
        assert!(company.fits(&["v3", "company", "1", "invoice"]) && !company.fits(&["v3", "company", "1", "bill"]));
    }

    #[test]
    fn a_denied_path_is_denied_however_it_is_written() {
        let denied = path("/repos/acme/secret");
        for written in [
            &["repos", "acme", "secret"][..],
            &["REPOS", "Acme", "secret", "x"],
            &["repos", "acme%2Fsecret"],
            &["repos%2facme%2Fsecret"],
            &["repos;v=1", "acme", "secret;x"],
            &["repos", "acme;x%2Fsecret"],
            &["%72epos", "acme", "s%65cret"],
        ] {
            assert!(denied.could_fit(written), "{written:?}");
        }
        assert!(!denied.could_fit(&["repos", "acme", "secrets"]) && !denied.could_fit(&["repos", "acme"]));
    }

    #[test]
    fn hosts_are_exact_or_below_a_suffix() {
        let host = |text: &str| text.parse::<HostPattern>();
        assert!(host("api.x.example").is_ok_and(|host| host.fits("api.x.example") && !host.fits("evil-api.x.example")));
        let below = host("*.x.example").expect("a host");
        assert!(below.fits("a.x.example") && below.fits("a.b.x.example"));
        assert!(!below.fits("x.example") && !below.fits(".x.example") && !below.fits("ax.example"));
        for bad in ["", "API.x", "a.x:443", "https://a.x", "*", "*.", "a..x", "*.*.x", "a.x.", "a_b.x"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn odd_paths_are_no_patterns() {
        for bad in
            ["", "repos", "//", "/a//b", "/a/../b", "/./", "/a*/", "/a?b", "/a#b", "/{x}/", "/a b", "/a;b", "/%ff"]
        {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad}");
        }
    }
}

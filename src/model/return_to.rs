//! Where a browser may be led once it has connected: pages of partners, below origins and paths that the operator lists.
//!
//! What is asked for is read in one way only. Whatever two readers could take for different addresses is refused, and then the
//! text must begin with the origin character by character, so that nothing depends on how it was parsed.

use serde::{Deserialize, Serialize};

use crate::model::names::{Label, Subject};
use crate::model::redirect_uri::{RedirectPolicy, RedirectUri};

/// One entry of the list: an origin, and a path that it begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    origin: String,
    path: String,
}

/// All that are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReturnTargets(Vec<Listed>);

/// Where one browser is led, and on whose behalf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnTo {
    /// The page, as it was asked for and allowed.
    pub url: String,
    /// Who connects.
    pub subject: Subject,
    /// Which of several connections.
    pub label: Label,
}

/// The parameters that the result is told in.
pub const RESULT_PARAMETERS: [&str; 6] = ["provider", "subject", "label", "result", "error", "choice_needed"];

impl Listed {
    /// What it looks like, for messages.
    pub const EXPECTED: &'static str = "an https URL (http only to a loopback address) without query or fragment, such as \
                                        \"https://app.example.com/settings\"; everything below its path is allowed too";
}

impl std::str::FromStr for Listed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || Self::EXPECTED.to_owned();
        let (origin, path) = plain(text).ok_or_else(expected)?;
        if text.contains('?') { Err(expected()) } else { Ok(Self { origin, path }) }
    }
}

impl ReturnTargets {
    /// These.
    pub fn new(listed: Vec<Listed>) -> Self {
        Self(listed)
    }

    /// Whether a browser may be led there.
    pub fn allows(&self, url: &str) -> bool {
        let Some((origin, path)) = plain(url) else { return false };
        // Somebody who looks at the result must see ours, and no other.
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let mut names = url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
        if names.any(|name| RESULT_PARAMETERS.contains(&name.as_ref())) {
            return false;
        }
        self.0.iter().any(|listed| listed.origin == origin && is_below(&path, &listed.path))
    }

    /// Whether a page of this origin is listed: then it is one of the partner's.
    pub fn has_origin(&self, origin: &str) -> bool {
        self.0.iter().any(|listed| listed.origin == origin)
    }
}

/// Whole segments: `/settings` allows `/settings/x`, and not `/settings-of-others`.
fn is_below(path: &str, listed: &str) -> bool {
    match path.strip_prefix(listed) {
        Some(rest) => rest.is_empty() || listed.ends_with('/') || rest.starts_with('/'),
        // A list that says `/settings/` means that page too.
        None => listed.strip_suffix('/') == Some(path),
    }
}

/// Origin and path of an address that every reader reads alike.
fn plain(text: &str) -> Option<(String, String)> {
    let policy = RedirectPolicy { private: Vec::new(), allow_loopback: true, own_origin: String::new() };
    RedirectUri::register(text, &policy).ok()?;
    let origin = url::Url::parse(text).ok()?.origin().ascii_serialization();
    let rest = text.strip_prefix(&origin)?;
    let path = rest.split('?').next().unwrap_or_default();
    let lower = path.to_ascii_lowercase();
    // A slash that some servers decode, empty segments that some leave out, and what follows a semicolon, which some take
    // away before they look at a segment: `..;` is `..` to them.
    let is_ambiguous = ["%2f", "%5c", "%25", "%00", "//", ";", "%3b"].iter().any(|part| lower.contains(part));
    let begins_well = path.is_empty() || path.starts_with('/');
    (begins_well && !is_ambiguous).then(|| (origin, if path.is_empty() { "/".to_owned() } else { path.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> ReturnTargets {
        let listed =
            ["https://app.example.com/settings", "https://eu.example.com:8443/", "http://127.0.0.1:3000/done/"];
        ReturnTargets::new(listed.iter().map(|text| text.parse().expect("good")).collect())
    }

    #[test]
    fn what_is_listed_and_what_is_below_it() {
        for good in [
            "https://app.example.com/settings",
            "https://app.example.com/settings/",
            "https://app.example.com/settings/integrations?tab=2",
            "https://app.example.com/settings/integrations?tab=2;3",
            "https://eu.example.com:8443",
            "https://eu.example.com:8443/",
            "https://eu.example.com:8443/anything",
            "http://127.0.0.1:3000/done",
            "http://127.0.0.1:3000/done/x",
        ] {
            assert!(targets().allows(good), "{good}");
        }
    }

    #[test]
    fn nothing_else() {
        let long = format!("https://app.example.com/settings/{}", "a".repeat(8192));
        for bad in [
            "",
            "/settings",
            "//app.example.com/settings",
            "//evil.example/settings",
            "/\\evil.example",
            "https:app.example.com/settings",
            "https:/app.example.com/settings",
            "https:///app.example.com/settings",
            "https://app.example.com",
            "https://app.example.com/",
            "https://app.example.com/settingsx",
            "https://app.example.com/settings-of-others",
            "https://app.example.com/Settings",
            "https://app.example.com/settings/../admin",
            "https://app.example.com/settings/..",
            "https://app.example.com/settings/%2e%2e/admin",
            "https://app.example.com/settings/%2E./admin",
            "https://app.example.com/settings/..%2fadmin",
            "https://app.example.com/settings%2f..%2fadmin",
            "https://app.example.com/settings/%5c..%5cadmin",
            "https://app.example.com/settings/%252e%252e/admin",
            "https://app.example.com/settings/..;/admin",
            "https://app.example.com/settings/..;x=1/admin",
            "https://app.example.com/settings/..%3b/admin",
            "https://app.example.com/settings/..%3B/admin",
            "https://app.example.com/settings/.;/x",
            "https://app.example.com/settings;x=1",
            "https://app.example.com//settings",
            "https://app.example.com/settings//evil.example",
            "https://app.example.com/settings#x",
            "https://app.example.com/settings#",
            "https://app.example.com/settings?result=connected",
            "https://app.example.com/settings?x=1&error=none",
            "https://app.example.com/settings?res%75lt=connected",
            "https://app.example.com:443/settings",
            "https://app.example.com:444/settings",
            "https://app.example.com:/settings",
            "https://app.example.com./settings",
            "http://app.example.com/settings",
            "HTTPS://app.example.com/settings",
            "https://APP.example.com/settings",
            "https://app.example.com@evil.example/settings",
            "https://evil.example@app.example.com/settings",
            "https://user:password@app.example.com/settings",
            "https://@app.example.com/settings",
            "https://app.example.com\\@evil.example/settings",
            "https://app.example.com\\settings",
            "https://evil.example/settings",
            "https://evil.example?https://app.example.com/settings",
            "https://evil.example#https://app.example.com/settings",
            "https://app.example.com.evil.example/settings",
            "https://app%2eexample.com/settings",
            "https://app\u{3002}example.com/settings",
            "https://xapp.example.com/settings",
            "https://app.example.com/settings\r\nSet-Cookie: a=b",
            "https://app.example.com/settings%00",
            "https://app.example.com/set\ttings",
            " https://app.example.com/settings",
            "https://app.example.com/settings ",
            "javascript:alert(1)",
            "javascript://app.example.com/settings%0aalert(1)",
            "data:text/html,x",
            "file:///settings",
            "ftp://app.example.com/settings",
            "https://eu.example.com/",
            "https://127.1:3000/done",
            "http://127.0.0.1:3001/done",
            "http://localhost:3000/done",
            "http://127.0.0.1:3000/don",
            "http://0x7f000001:3000/done",
            long.as_str(),
        ] {
            assert!(!targets().allows(bad), "{bad}");
        }
    }

    #[test]
    fn the_list_itself_is_plain() {
        for bad in [
            "",
            "app.example.com",
            "https://*.example.com/",
            "https://a.example/?x",
            "http://a.example/",
            "https://a.example/#",
            "https://a.example/x;y",
        ] {
            assert_eq!(bad.parse::<Listed>(), Err(Listed::EXPECTED.to_owned()), "{bad}");
        }
        assert!(
            targets().has_origin("https://app.example.com") && !targets().has_origin("https://app.example.com:443")
        );
    }
}

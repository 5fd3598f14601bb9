//! Cookies, and whether a form was sent from a page of ours.

use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::header::{COOKIE, ORIGIN};

use crate::base::safe_url::SafeUrl;

/// The name under which a cookie is set: with `__Host-`, no other site below our domain can set or read it.
pub fn cookie_key(name: &str, is_https: bool) -> String {
    if is_https { format!("__Host-{name}") } else { name.to_owned() }
}

/// A cookie that scripts cannot read and that comes along when the provider sends the browser back.
pub fn set_cookie(name: &str, value: &str, seconds: u64, is_https: bool) -> HeaderValue {
    let secure = if is_https { "; Secure" } else { "" };
    let name = cookie_key(name, is_https);
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).expect("names and values of ours are plain ASCII")
}

/// Removes a cookie that is there under this full name.
pub fn expire_cookie(full_name: &str, is_https: bool) -> Option<HeaderValue> {
    let secure = if is_https { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{full_name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax{secure}")).ok()
}

/// The value of a cookie of ours.
pub fn cookie(headers: &HeaderMap, name: &str, is_https: bool) -> Option<String> {
    let wanted = cookie_key(name, is_https);
    cookies(headers).find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
}

/// All cookies, names and values.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

/// Browsers say where a request comes from. Programs that are no browsers say nothing, and hold what a form holds all the
/// same.
pub fn is_from_our_page(headers: &HeaderMap, public_url: &SafeUrl) -> bool {
    match (headers.get("sec-fetch-site"), headers.get(ORIGIN)) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => origin == public_url.origin().as_str(),
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&'static str, &'static str)]) -> bool {
        let url = "https://sidekey.example".parse().expect("safe");
        let headers =
            pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        is_from_our_page(&headers.collect(), &url)
    }

    #[test]
    fn other_sites_cannot_send_our_forms() {
        assert!(from(&[]) && from(&[("origin", "https://sidekey.example")]));
        assert!(from(&[("sec-fetch-site", "same-origin"), ("origin", "null")]), "no-referrer makes the origin null");
        assert!(!from(&[("origin", "https://evil.example")]) && !from(&[("origin", "null")]));
        for site in ["cross-site", "same-site", "none"] {
            assert!(!from(&[("sec-fetch-site", site)]), "{site}");
        }
    }

    #[test]
    fn cookies_are_bound_to_the_host_over_tls() {
        assert_eq!(
            set_cookie("sidekey_flow_1", "v", 600, true),
            "__Host-sidekey_flow_1=v; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"
        );
        assert!(!set_cookie("n", "v", 600, false).to_str().expect("ASCII").contains("Secure"));
        let headers = HeaderMap::from_iter([(COOKIE, "a=1; __Host-b=2;c=3".parse().expect("a value"))]);
        assert_eq!(cookie(&headers, "b", true).as_deref(), Some("2"));
        assert_eq!((cookie(&headers, "b", false), cookie(&headers, "c", false).as_deref()), (None, Some("3")));
    }
}

//! The headers that go out: nothing that the caller brought as credential, and exactly one of ours.

use http::header::{HOST, HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use super::caller::is_handle_shaped;
use crate::catalogue::{Api, template};
use crate::vault::LiveToken;

/// Why a request cannot go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectError {
    /// A name that some servers read as one of the protected ones (`x_api_key`).
    OddHeaderName,
    /// A handle would leave.
    HandleWouldLeave,
    /// A declared header cannot be built from what was captured.
    Header(String),
}

/// Headers that never leave: credentials of any kind, and what speaks of the caller's surroundings.
fn is_removed(name: &str) -> bool {
    match name {
        "authorization" | "proxy-authorization" | "cookie" | "forwarded" | "origin" | "referer" => true,
        "x-api-key" | "private-token" | "job-token" | "deploy-token" => true,
        "x-real-ip" | "x-original-url" | "x-rewrite-url" => true,
        "x-http-method-override" | "x-method-override" | "x-client-cert" => true,
        "sec-fetch-site" | "sec-fetch-mode" => true,
        _ => name.starts_with("x-forwarded-") || name.starts_with("x-sidekey-"),
    }
}

/// Looks for what must be refused, before anything is sent. `target` is the path and query that will go out.
pub fn inspect(headers: &http::HeaderMap, credential: &HeaderName, target: &str) -> Result<(), InjectError> {
    for (name, value) in headers {
        let text = name.as_str();
        if memchr::memchr(b'_', text.as_bytes()).is_some()
            && (is_removed(&text.replace('_', "-")) || text.replace('_', "-") == credential.as_str())
        {
            return Err(InjectError::OddHeaderName);
        }
        if name != credential && !is_removed(text) && holds_handle(value.as_bytes()) {
            return Err(InjectError::HandleWouldLeave);
        }
    }
    if holds_handle(target.as_bytes()) { Err(InjectError::HandleWouldLeave) } else { Ok(()) }
}

/// Whether a handle stands there, as it is or percent-encoded.
fn holds_handle(bytes: &[u8]) -> bool {
    let is_encoded = memchr::memchr(b'%', bytes).is_some();
    is_handle_shaped(bytes)
        || (is_encoded && is_handle_shaped(&percent_encoding::percent_decode(bytes).collect::<Vec<u8>>()))
}

/// Rewrites the headers of the request that goes to the provider.
pub fn inject(
    request: &mut RequestHeader,
    api: &Api,
    token: &LiveToken,
    authority: &HeaderValue,
) -> Result<(), InjectError> {
    let goes = |name: &&HeaderName| **name != api.credential.header && is_removed(name.as_str());
    let removed: Vec<HeaderName> = request.headers.keys().filter(goes).cloned().collect();
    for name in &removed {
        request.remove_header(name);
    }
    let credential = token.header_value(&api.credential).map_err(InjectError::Header)?;
    let set = |request: &mut RequestHeader, name: &HeaderName, value: HeaderValue| {
        request.insert_header(name.clone(), value).map_err(|error| InjectError::Header(error.to_string()))
    };
    set(request, &HOST, authority.clone())?;
    for (name, value) in &api.always {
        let value = template::fill(value, |name| token.captured.get(name).map(String::as_str));
        let value = HeaderValue::from_str(&value)
            .map_err(|_| InjectError::Header(format!("{name} cannot be built from what was captured")))?;
        set(request, name, value)?;
    }
    // After these, so that nothing declared or sent can stand in its place.
    set(request, &api.credential.header, credential)?;
    for (name, value) in &api.default {
        if !request.headers.contains_key(name) {
            set(request, name, value.clone())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::model::handle::MARKER;

    fn inspected(name: &'static str, value: &str, target: &str) -> Result<(), InjectError> {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().expect("a value"))]);
        inspect(&headers, &AUTHORIZATION, target)
    }

    #[test]
    fn names_that_pass_for_protected_ones_are_refused() {
        for name in ["x_forwarded_for", "proxy_authorization", "x_api_key", "x_sidekey_session"] {
            assert_eq!(inspected(name, "v", "/"), Err(InjectError::OddHeaderName), "{name}");
        }
        assert_eq!(inspected("x_own_header", "v", "/"), Ok(()));
    }

    #[test]
    fn a_handle_never_leaves() {
        let handle = format!("{MARKER}abc");
        assert_eq!(inspected("x-echo", &handle, "/"), Err(InjectError::HandleWouldLeave));
        assert_eq!(inspected("accept", "a", &format!("/x?token={handle}")), Err(InjectError::HandleWouldLeave));
        assert_eq!(inspected("accept", "a", &format!("/{handle}/x")), Err(InjectError::HandleWouldLeave));
        let encoded = handle.replace('_', "%5F");
        assert_eq!(inspected("accept", "a", &format!("/{encoded}/x")), Err(InjectError::HandleWouldLeave));
        assert_eq!(inspected("x-echo", &encoded, "/"), Err(InjectError::HandleWouldLeave));
        assert_eq!(inspected("authorization", &handle, "/"), Ok(()), "there it is replaced");
        assert_eq!(inspected("cookie", &handle, "/"), Ok(()), "there it is removed");
    }
}

//! The headers that go out: nothing that the caller brought as credential, and exactly one of ours.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use pingora::http::RequestHeader;
use zeroize::Zeroizing;

use super::admit::Admitted;
use super::caller::is_handle_shaped;
use super::placement::{self, CredentialHeader};
use super::{Refusal, leak};
use crate::base::secret::Secret;
use crate::catalogue::{Api, template};

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
        "x-upstream-authorization" | "x-original-authorization" => true,
        "x-api-key" | "private-token" | "job-token" | "deploy-token" => true,
        "x-real-ip" | "x-original-url" | "x-rewrite-url" => true,
        "x-http-method-override" | "x-method-override" | "x-client-cert" => true,
        "sec-fetch-site" | "sec-fetch-mode" => true,
        _ => name.starts_with("x-forwarded-") || name.starts_with("x-sidekey-"),
    }
}

/// Whether a header is one that the API's entry fills in, with the tenant for example.
fn names_tenant(api: &Api, name: &str) -> bool {
    api.always.iter().any(|(always, _)| always == name) || api.fill.header.iter().any(|(filled, _)| filled == name)
}

/// Looks for what must be refused, before anything is sent. `target` is the path and query that will go out, without the
/// token.
pub fn inspect(headers: &http::HeaderMap, api: &Api, target: &str) -> Result<(), InjectError> {
    let is_carrier = |name: &str| placement::carriers(api).any(|carrier| carrier == name);
    for (name, value) in headers {
        let text = name.as_str();
        if memchr::memchr(b'_', text.as_bytes()).is_some() {
            let hyphenated = text.replace('_', "-");
            if is_removed(&hyphenated) || is_carrier(&hyphenated) || names_tenant(api, &hyphenated) {
                return Err(InjectError::OddHeaderName);
            }
        }
        let is_leak = is_handle_shaped(text.as_bytes()) || leak::in_header_value(value.as_bytes());
        if is_leak && !is_removed(text) && !is_carrier(text) {
            return Err(InjectError::HandleWouldLeave);
        }
    }
    if leak::in_target(target) { Err(InjectError::HandleWouldLeave) } else { Ok(()) }
}

/// Rewrites the request that goes to the provider; the body to send, if the token is in it.
pub fn inject(
    request: &mut RequestHeader,
    api: &Api,
    admitted: &Admitted,
) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal> {
    let Admitted { token, found, .. } = admitted;
    let header_error = |why: String| Refusal::Inject(InjectError::Header(why));
    let own = match found.header(token.access_token()).map_err(Refusal::Placement)? {
        CredentialHeader::Canonical => {
            let value = token.header_value(&api.credential).map_err(header_error)?;
            Some((api.credential.header.clone(), value))
        }
        CredentialHeader::Other(name, value) => Some((name, value)),
        CredentialHeader::None => None,
    };
    let is_own = |name: &HeaderName| own.as_ref().is_some_and(|(own, _)| own == name);
    let is_carrier = |name: &HeaderName| placement::carriers(api).any(|carrier| carrier == name);
    let goes = |name: &&HeaderName| !is_own(name) && (is_removed(name.as_str()) || is_carrier(name));
    let removed: Vec<HeaderName> = request.headers.keys().filter(goes).cloned().collect();
    for name in &removed {
        request.remove_header(name);
    }
    let set = |request: &mut RequestHeader, name: &HeaderName, value: HeaderValue| {
        request.insert_header(name.clone(), value).map_err(|error| header_error(error.to_string()))
    };
    let target = found.target(&admitted.target, token.access_token()).map_err(Refusal::Placement)?;
    let target = target.as_ref().map_or(admitted.target.as_str(), Secret::expose);
    request.set_raw_path(target.as_bytes()).map_err(|error| header_error(error.to_string()))?;
    set(request, &HOST, admitted.upstream.authority.clone())?;
    for (name, value) in &api.always {
        let value = template::fill(value, |name| token.captured.get(name).map(String::as_str));
        let value = HeaderValue::from_str(&value)
            .map_err(|_| header_error(format!("{name} cannot be built from what was captured")))?;
        set(request, name, value)?;
    }
    for (name, value) in &admitted.tenant {
        set(request, name, value.clone())?;
    }
    // After these, so that nothing declared or sent can stand in its place.
    if let Some((name, value)) = own {
        set(request, &name, value)?;
    }
    for (name, value) in &api.default {
        if !request.headers.contains_key(name) {
            set(request, name, value.clone())?;
        }
    }
    let body = admitted.body.as_ref().and_then(|body| found.body(body, token.access_token()));
    if admitted.body.is_some() {
        // The body is here: nobody need be asked for it.
        request.remove_header(&EXPECT);
    }
    if let Some(body) = &body {
        request.remove_header(&TRANSFER_ENCODING);
        set(request, &CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::catalogue::provider::tests::provider;
    use crate::model::handle::MARKER;

    fn inspected(name: &'static str, value: &str, target: &str) -> Result<(), InjectError> {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().expect("a value"))]);
        inspect(&headers, &provider("github").apis[0], target)
    }

    #[test]
    fn names_that_pass_for_protected_ones_are_refused() {
        for name in ["x_forwarded_for", "proxy_authorization", "x_api_key", "x_sidekey_session"] {
            assert_eq!(inspected(name, "v", "/"), Err(InjectError::OddHeaderName), "{name}");
        }
        assert_eq!(inspected("x_own_header", "v", "/"), Ok(()));
    }

    #[test]
    fn headers_of_the_tenant_are_refused_in_their_other_spelling() {
        let api = &provider("xero").apis[0];
        let inspected = |name: &'static str| {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(name), "other".parse().expect("a value"))]);
            inspect(&headers, api, "/")
        };
        for name in ["xero_tenant_id", "xero-tenant_id", "xero_tenant-id"] {
            assert_eq!(inspected(name), Err(InjectError::OddHeaderName), "{name}");
        }
        assert_eq!(inspected("xero_tenant"), Ok(()));
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
        let in_name = inspected("y-sidekey_h_abc", "v", "/");
        assert_eq!(in_name, Err(InjectError::HandleWouldLeave), "Pingora keeps the case of names");
        assert_eq!(inspected("authorization", &handle, "/"), Ok(()), "there it is replaced");
        assert_eq!(inspected("cookie", &handle, "/"), Ok(()), "there it is removed");
    }
}

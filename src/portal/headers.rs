//! Headers that every page carries: nothing from elsewhere, no framing, no sniffing, no traces in caches and referrers.

use axum::extract::Request;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::middleware::Next;
use axum::response::Response;

use super::branding;

/// A page without forms.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the headers; a page may have set a policy of its own.
pub async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    // Only where there is a picture of the operator's may pages load one.
    let with_logo = branding::current().logo.is_some();
    let headers = response.headers_mut();
    // What says something about these itself knows better.
    for (name, value) in [(CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-store")] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if with_logo && let Some(policy) = headers.get(CONTENT_SECURITY_POLICY).and_then(|policy| policy.to_str().ok()) {
        let policy = policy.replace("style-src 'self';", "style-src 'self'; img-src 'self';");
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
    }
    let fixed = [
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The policy of a page whose forms lead to pages of our own.
pub fn policy_with_own_form() -> HeaderValue {
    HeaderValue::from_static(
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    )
}

/// The policy of a page whose form leads, by a redirect, to the provider at `target`. Chromium applies `form-action` to
/// every redirect that follows, and providers lead on to sign-in pages on hosts that nobody can list: so all of `https`
/// is allowed there.
pub fn policy_with_form(target: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&POLICY.replace("form-action 'none'", &format!("form-action 'self' https: {target}"))).ok()
}

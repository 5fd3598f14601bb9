//! Too many requests: what is said, and the headers that say how many are left.

use axum::extract::{FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::pages;
use crate::base::address::ClientAddress;
use crate::base::problem_details::{CONTENT_TYPE as PROBLEM_JSON, ProblemDetails};
use crate::base::rate_limit::Verdict;

/// Whom a request is counted for; whoever serves the router says so.
pub struct From(pub ClientAddress);

impl<S: Sync> FromRequestParts<S> for From {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<ClientAddress>().copied().unwrap_or_default()))
    }
}

/// Marks a request as coming from `address`.
pub fn mark(request: &mut Request, address: ClientAddress) {
    request.extensions_mut().insert(address);
}

/// Writes the headers of a limit.
pub fn write_headers(headers: &mut HeaderMap, verdict: &Verdict) {
    for (name, value) in verdict.headers() {
        headers.insert(name, HeaderValue::from(value));
    }
    if !verdict.allowed {
        headers.insert(RETRY_AFTER, HeaderValue::from(verdict.reset_seconds()));
    }
}

/// The answer for programs.
pub fn too_many(verdict: &Verdict) -> Response {
    let problem = ProblemDetails::too_many_requests(verdict.reset_seconds());
    let mut response =
        (StatusCode::TOO_MANY_REQUESTS, [(CONTENT_TYPE, PROBLEM_JSON)], problem.to_json()).into_response();
    write_headers(response.headers_mut(), verdict);
    response
}

/// The answer for people.
pub fn too_many_page(verdict: &Verdict) -> Response {
    let wait = verdict.reset_seconds();
    let next = format!("Try again in {wait} seconds.");
    let what = "There were too many requests from your address.";
    let mut response = pages::message(StatusCode::TOO_MANY_REQUESTS, "Too many requests", what, &next);
    write_headers(response.headers_mut(), verdict);
    response
}

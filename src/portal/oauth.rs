//! The issuer's endpoints for programs: forms in, JSON out, never from a cache (RFC 6749 section 5).

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tracing::error;

use super::PublicState;
use super::limited::{From, too_many, write_headers};
use crate::base::address::ClientAddress;
use crate::issuer::Credentials;
use crate::issuer::error::OAuthError;
use crate::issuer::parameters::Parameters;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// `POST /token`
pub async fn token(
    State(state): State<PublicState>,
    From(address): From,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let accept_json = state.issuer.settings().accept_json;
    let answered = async {
        let parameters = parameters(query.as_deref(), &headers, &body, accept_json)?;
        let credentials = credentials(&state, address, &headers, &parameters)?;
        state.issuer.token(&credentials, &parameters).await
    };
    match answered.await {
        Ok(answer) => ([(CONTENT_TYPE, JSON)], answer.to_json()).into_response(),
        Err(error) => refused(&state, address, &error),
    }
}

/// `POST /revoke`
pub async fn revoke(
    State(state): State<PublicState>,
    From(address): From,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answered = async {
        let parameters = parameters(query.as_deref(), &headers, &body, false)?;
        let credentials = credentials(&state, address, &headers, &parameters)?;
        state.issuer.revoke(&credentials, &parameters).await
    };
    match answered.await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => refused(&state, address, &error),
    }
}

/// `POST /introspect`
pub async fn introspect(
    State(state): State<PublicState>,
    From(address): From,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answered = async {
        let parameters = parameters(query.as_deref(), &headers, &body, false)?;
        if parameters.is_empty() && !headers.contains_key(AUTHORIZATION) {
            let why = "introspection is for clients that authenticate";
            return Err(OAuthError::InvalidClient { why, is_basic: false });
        }
        let credentials = credentials(&state, address, &headers, &parameters).map_err(unauthenticated)?;
        state.issuer.introspect(&credentials, &parameters).await
    };
    match answered.await {
        Ok(answer) => ([(CONTENT_TYPE, JSON)], answer.to_string()).into_response(),
        Err(error) => refused(&state, address, &error),
    }
}

/// RFC 7662 section 2.1: who does not say who it is, is not told anything.
fn unauthenticated(error: OAuthError) -> OAuthError {
    match error {
        OAuthError::InvalidRequest(why) if why == "client_id is missing" => {
            OAuthError::InvalidClient { why: "introspection is for clients that authenticate", is_basic: false }
        }
        error => error,
    }
}

/// `POST /register`
pub async fn register(
    State(state): State<PublicState>,
    From(address): From,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let verdict = state.limits.registration(address);
    if !verdict.allowed {
        return too_many(&verdict);
    }
    let answered = async {
        if media_type(&headers) != JSON {
            return Err(OAuthError::UnsupportedMediaType("send application/json"));
        }
        state.issuer.register(&body).await
    };
    let mut response = match answered.await {
        Ok(answer) => (StatusCode::CREATED, [(CONTENT_TYPE, JSON)], answer.to_string()).into_response(),
        Err(error) => error_response(&error),
    };
    write_headers(response.headers_mut(), &verdict);
    response
}

/// Other methods at all of these.
pub async fn other_method() -> Response {
    let body = json!({ "error": "invalid_request", "error_description": "this address is not used with that method" });
    (StatusCode::METHOD_NOT_ALLOWED, [(CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

fn parameters(
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
    accept_json: bool,
) -> Result<Parameters, OAuthError> {
    if query.is_some_and(|query| !query.is_empty()) {
        return Err(OAuthError::InvalidRequest("parameters belong into the body, not into the URL".to_owned()));
    }
    match media_type(headers).as_str() {
        FORM => Ok(Parameters::from_form(body)),
        JSON if accept_json => Parameters::from_json(body)
            .ok_or_else(|| OAuthError::InvalidRequest("the body is not a JSON object of texts".to_owned())),
        _ => Err(OAuthError::UnsupportedMediaType("send application/x-www-form-urlencoded")),
    }
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn credentials(
    state: &PublicState,
    address: ClientAddress,
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<Credentials, OAuthError> {
    let values: Vec<&str> =
        headers.get_all(AUTHORIZATION).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    Credentials::read(&values, parameters, state.limits.is_suspect(address))
}

/// An error, or, for an address that has had too many of them, that it has.
fn refused(state: &PublicState, address: ClientAddress, error: &OAuthError) -> Response {
    if let OAuthError::Store(error) = error {
        error!(operation = "token", %error);
        return error_response(&OAuthError::Store(error.clone()));
    }
    let verdict = state.limits.unauthenticated(address);
    if !verdict.allowed {
        return too_many(&verdict);
    }
    let mut response = error_response(error);
    write_headers(response.headers_mut(), &verdict);
    response
}

fn error_response(error: &OAuthError) -> Response {
    let (status, code, description) = error.parts();
    let body = json!({ "error": code, "error_description": description }).to_string();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(CONTENT_TYPE, JSON)], body).into_response();
    if let OAuthError::InvalidClient { is_basic: true, .. } = error {
        let challenge = axum::http::HeaderValue::from_static("Basic realm=\"sidekey\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

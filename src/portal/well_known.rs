//! What clients read before they do anything: metadata documents and keys.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::PublicState;

/// `GET /.well-known/oauth-authorization-server` and `GET /.well-known/openid-configuration`
pub async fn authorization_server(State(state): State<PublicState>) -> Response {
    document(&state.issuer.metadata())
}

/// `GET /.well-known/oauth-protected-resource`
pub async fn root_resource(State(state): State<PublicState>) -> Response {
    state.issuer.protected_resource("").map_or_else(nothing, |found| document(&found))
}

/// `GET /.well-known/oauth-protected-resource/{path}`
pub async fn resource(State(state): State<PublicState>, Path(path): Path<String>) -> Response {
    state.issuer.protected_resource(&format!("/{path}")).map_or_else(nothing, |found| document(&found))
}

/// `GET /jwks.json`
pub async fn keys(State(state): State<PublicState>) -> Response {
    document(&state.issuer.key_set())
}

fn document(document: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=300")];
    (headers, document.to_string()).into_response()
}

/// Clients take anything but 404 for a broken server, and try no further.
pub fn nothing() -> Response {
    let body = json!({ "error": "not_found" }).to_string();
    (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// Everything else below `/.well-known/`.
pub async fn unknown() -> Response {
    nothing()
}

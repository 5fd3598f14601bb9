//! Metrics and probes. They hold no subject and no secret.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// `/metrics`, `/livez`, `/readyz`.
pub fn router(metrics: Arc<Metrics>, health: Arc<Health>) -> Router {
    let exposition = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let of_parts = Arc::clone(&health);
    Router::new()
        .route("/metrics", get(move || async move { (exposition, metrics.render(&of_parts)) }))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { ready(&health) }))
}

fn ready(health: &Health) -> Response {
    let troubles = health.troubles();
    if troubles.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(troubles)).into_response()
    }
}

//! Our own pages and HTTP APIs, as axum routers. Where they are served is the server's business.
//!
//! [`public`] is for browsers: connect links, callbacks, results. [`admin`] is for the command line, on a Unix socket.
//! [`probes`] is for Prometheus and for whoever watches the process.

pub mod admin;
mod callback;
mod connect;
mod headers;
mod pages;
pub mod probes;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use crate::base::safe_url::SafeUrl;
use crate::dance::Dance;

/// What the pages for browsers need.
#[derive(Clone)]
pub struct PublicState {
    /// Journey J1.
    pub dance: Arc<Dance>,
    /// Where browsers reach us.
    pub public_url: Arc<SafeUrl>,
}

/// The routes of the public listener.
pub fn public(state: PublicState) -> Router {
    Router::new()
        .route("/connect/{token}", get(connect::page).post(connect::begin))
        .route("/callback/{provider}", get(callback::callback).fallback(callback::other_method))
        .route("/connected/{provider}", get(callback::connected))
        .route(pages::STYLESHEET_PATH, get(pages::stylesheet))
        .fallback(|| async { pages::not_found() })
        .method_not_allowed_fallback(|| async {
            pages::message(StatusCode::METHOD_NOT_ALLOWED, "Not possible", "This address is not used like that.", "")
        })
        .layer(axum::middleware::from_fn(headers::secure))
        .with_state(state)
}

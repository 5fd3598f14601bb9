//! What the pages look like: the operator's name, picture and colour, known to every page of a request without being handed
//! from one function to the next.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::pages;
use crate::base::colour::Colour;
use crate::model::branding::{Accent, Branding};

/// Where the stylesheet is.
pub const STYLESHEET_PATH: &str = "/assets/sidekey.css";
/// Where the picture is.
pub const LOGO_PATH: &str = "/assets/logo";

tokio::task_local! {
    static CURRENT: Arc<Branding>;
}

/// Has all pages of a request look like this.
pub async fn dress(State(branding): State<Arc<Branding>>, request: Request, next: Next) -> Response {
    CURRENT.scope(branding, next.run(request)).await
}

/// What the page that is being made looks like.
pub fn current() -> Arc<Branding> {
    CURRENT.try_with(Arc::clone).unwrap_or_default()
}

/// `GET /assets/sidekey.css`: light and dark, phone to desktop.
pub async fn stylesheet() -> Response {
    let accent = current().accent.map(|accent| rules(&accent)).unwrap_or_default();
    let text = format!("{}{accent}", include_str!("pages/sidekey.css"));
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], text).into_response()
}

fn rules(accent: &Accent) -> String {
    let dark_text: Colour = Colour([0x10, 0x15, 0x1b]);
    let on = |colour: Colour| {
        if colour.contrast(Colour::WHITE) >= colour.contrast(dark_text) { Colour::WHITE } else { dark_text }
    };
    let rule = |colour: Colour| format!(":root {{ --accent: {colour}; --on-accent: {}; }}", on(colour));
    format!("\n{}\n@media (prefers-color-scheme: dark) {{ {} }}\n", rule(accent.light), rule(accent.dark))
}

/// `GET /assets/logo`: a picture, and never more than that, also where somebody opens it as a page.
pub async fn logo() -> Response {
    let branding = current();
    let Some(logo) = &branding.logo else { return pages::not_found() };
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox");
    let headers = [(CONTENT_TYPE, HeaderValue::from_static(logo.media_type)), (CONTENT_SECURITY_POLICY, policy)];
    (headers, logo.bytes.clone()).into_response()
}

//! Pages that need no JavaScript and load nothing from elsewhere. Maud escapes everything that is put into them.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

/// Where the stylesheet is.
pub const STYLESHEET_PATH: &str = "/assets/sidekey.css";

/// The stylesheet: light and dark, phone to desktop.
pub async fn stylesheet() -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("pages/sidekey.css")).into_response()
}

/// A page with a heading and some text.
pub fn page(status: StatusCode, title: &str, content: Markup) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (title) " · Sidekey" }
                link rel="stylesheet" href=(STYLESHEET_PATH);
            }
            body {
                main {
                    h1 { (title) }
                    (content)
                }
            }
        }
    };
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], markup.into_string()).into_response()
}

/// A page that says what happened and what to do next.
pub fn message(status: StatusCode, title: &str, what: &str, next: &str) -> Response {
    page(
        status,
        title,
        html! {
            p { (what) }
            @if !next.is_empty() {
                p.next { (next) }
            }
        },
    )
}

/// There is nothing here.
pub fn not_found() -> Response {
    message(StatusCode::NOT_FOUND, "Nothing here", "There is no page at this address.", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_is_escaped() {
        let response = message(StatusCode::BAD_REQUEST, "<b>", "<script>alert(1)</script>", "\"onx='");
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.expect("a body");
        let text = String::from_utf8(body.to_vec()).expect("text");
        assert!(!text.contains("<script") && !text.contains("<b>") && text.contains("&lt;script&gt;"), "{text}");
    }
}

//! Pages that need no JavaScript and load nothing from elsewhere. Maud escapes everything that is put into them.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::headers;

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

/// A page with forms that lead to pages of our own.
pub fn page_with_form(status: StatusCode, title: &str, content: Markup) -> Response {
    let mut response = page(status, title, content);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, headers::policy_with_own_form());
    response
}

/// A page that the browser leaves at once for another site. A redirect in answer to a form would count as a part of that
/// form's submission, and be held back by our own content security policy, or by that of the site that it came from.
pub fn leave(url: &str, name: &str) -> Response {
    let refresh = format!("0;url={url}");
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                meta http-equiv="refresh" content=(refresh);
                title { "On to " (name) " · Sidekey" }
                link rel="stylesheet" href=(STYLESHEET_PATH);
            }
            body {
                main {
                    h1 { "On to " (name) }
                    p { a.leave href=(url) rel="noreferrer" { "Continue" } " if nothing happens." }
                }
            }
        }
    };
    (StatusCode::OK, [(CONTENT_TYPE, "text/html; charset=utf-8")], markup.into_string()).into_response()
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

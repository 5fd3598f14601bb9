//! Pages that need no JavaScript and load nothing from elsewhere. Maud escapes everything that is put into them.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::branding::{LOGO_PATH, STYLESHEET_PATH, current};
use super::headers;

/// A page with a heading and some text.
pub fn page(status: StatusCode, title: &str, content: Markup) -> Response {
    whole(status, title, None, &html! { main { h1 { (title) } (content) } })
}

/// A page with forms that lead to pages of our own.
pub fn page_with_form(status: StatusCode, title: &str, content: Markup) -> Response {
    with_own_form(page(status, title, content))
}

/// The same with room for cards side by side.
pub fn wide_page_with_form(status: StatusCode, title: &str, content: Markup) -> Response {
    with_own_form(whole(status, title, None, &html! { main.wide { h1 { (title) } (content) } }))
}

fn with_own_form(mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, headers::policy_with_own_form());
    response
}

/// A page that the browser leaves at once for another site. A redirect in answer to a form would count as a part of that
/// form's submission, and be held back by our own content security policy, or by that of the site that it came from.
pub fn leave(url: &str, name: &str) -> Response {
    let title = format!("On to {name}");
    let content = html! {
        main {
            h1 { (title) }
            p { a.leave href=(url) rel="noreferrer" { "Continue" } " if nothing happens." }
        }
    };
    whole(StatusCode::OK, &title, Some(url), &content)
}

fn whole(status: StatusCode, title: &str, leads_to: Option<&str>, main: &Markup) -> Response {
    let branding = current();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                @if let Some(url) = leads_to { meta http-equiv="refresh" content={ "0;url=" (url) }; }
                title { (title) " · " (branding.name) }
                link rel="stylesheet" href=(STYLESHEET_PATH);
                @if branding.logo.is_some() { link rel="icon" href=(LOGO_PATH); }
            }
            body {
                header.brand {
                    @if branding.logo.is_some() { img src=(LOGO_PATH) alt="" width="28" height="28"; }
                    span { (branding.name) }
                }
                (main)
            }
        }
    };
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], markup.into_string()).into_response()
}

/// A page that says what happened and what to do next.
pub fn message(status: StatusCode, title: &str, what: &str, next: &str) -> Response {
    page(status, title, said(what, next))
}

/// The same, with a way back to where the user came from.
pub fn message_with_way_back(status: StatusCode, title: &str, what: &str, next: &str, back: &str) -> Response {
    page(status, title, html! { (said(what, next)) p { a.button href=(back) { "Back" } } })
}

fn said(what: &str, next: &str) -> Markup {
    html! {
        p { (what) }
        @if !next.is_empty() { p.next { (next) } }
    }
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

//! The connect link: a GET shows what it would do and consumes nothing (chat programs fetch links); the POST begins.

use axum::extract::{Path, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::html;
use tracing::error;

use super::cookies::{is_from_our_page, set_cookie};
use super::{PublicState, branding, connected, headers, icons, pages};
use crate::base::digest::Digest;
use crate::base::safe_url::SafeUrl;
use crate::base::secret::Secret;
use crate::dance::{BeginError, Begun};
use crate::model::flow::{ConnectLink, RETURN_LIFETIME};
use crate::model::names::Label;

/// `GET /connect/{token}`
pub async fn page(State(state): State<PublicState>, Path(token): Path<String>) -> Response {
    let link = match good_link(&state, &Secret::new(token)).await {
        Ok(link) => link,
        Err(error) => return begin_error(&error),
    };
    let Some(provider) = state.dance.provider(&link.key.provider) else {
        return begin_error(&BeginError::UnknownProvider(link.key.provider));
    };
    let name = &provider.entry.display_name;
    let content = html! {
        div.card-head {
            (icons::tile(name))
            p { "You are about to sign in at " (name) " and to let " (branding::current().name) " use your account there on behalf of:" }
        }
        dl {
            dt { "Subject" } dd { (link.key.subject) }
            dt { "Provider" } dd { (name) }
            @if link.key.label != Label::default() { dt { "Label" } dd { (link.key.label) } }
            @if !provider.scopes.is_empty() {
                dt { "Access" } dd { (provider.scopes.join(", ")) }
            }
        }
        form method="post" { button type="submit" { "Continue to " (name) } }
        p.next { "Continue only if you asked for this link yourself. It works once, and for ten minutes." }
    };
    let mut response = pages::page(StatusCode::OK, &format!("Connect {name}"), content);
    if let Some(policy) = headers::policy_with_form(&provider.entry.authorize.url.origin()) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// What a link would connect, if it is still good: one that a partner's program made is over once its API key is.
pub async fn good_link(state: &PublicState, token: &Secret) -> Result<ConnectLink, BeginError> {
    let link = state.dance.link(token).await?;
    let vouches = |digest: &Digest| state.api.vouches_for(digest, &link.key, state.clock.now());
    let is_good = link.api_key.as_ref().is_none_or(vouches);
    if is_good { Ok(link) } else { Err(BeginError::LinkOver) }
}

/// `POST /connect/{token}`
pub async fn begin(State(state): State<PublicState>, Path(token): Path<String>, headers: HeaderMap) -> Response {
    if !is_from_our_page(&headers, &state.public_url) {
        return pages::message(
            StatusCode::FORBIDDEN,
            "Not from here",
            "This request came from another site.",
            "Open the link itself, and continue from there.",
        );
    }
    let token = Secret::new(token);
    let begun = async {
        let key = good_link(&state, &token).await?.key;
        Ok((state.dance.begin(&token).await?, key))
    };
    match begun.await {
        Ok((begun, key)) => {
            let mut response = to_provider(&begun, &state.public_url);
            // Who has used up the link may try again in this browser, for a quarter of an hour.
            if let Some(allowance) = begun.allowance {
                response.headers_mut().append(SET_COOKIE, connected::ticket(&state, &key, None, allowance));
            }
            response
        }
        Err(error) => begin_error(&error),
    }
}

/// 303, never 307: the form must not be posted again to the provider (RFC 9700 section 4.12).
pub fn to_provider(begun: &Begun, public_url: &SafeUrl) -> Response {
    let mut response = (StatusCode::SEE_OTHER, [(LOCATION, begun.authorize_url.to_string())]).into_response();
    response.headers_mut().append(SET_COOKIE, flow_cookie(begun, public_url));
    response
}

/// The cookie that binds a flow to this browser.
pub fn flow_cookie(begun: &Begun, public_url: &SafeUrl) -> HeaderValue {
    set_cookie(&begun.cookie_name, begun.cookie_value.expose(), RETURN_LIFETIME.as_secs(), public_url.is_https())
}

/// Why a dance does not begin.
pub fn begin_error(error: &BeginError) -> Response {
    match error {
        BeginError::LinkOver => pages::message(
            StatusCode::NOT_FOUND,
            "This link is over",
            "It was used already, it is older than ten minutes, or it never existed.",
            "Ask for a new one.",
        ),
        BeginError::UnknownProvider(_) => pages::message(
            StatusCode::NOT_FOUND,
            "Not configured",
            "The provider of this link is no longer configured.",
            "Ask the operator of Sidekey.",
        ),
        BeginError::Store(error) => {
            error!(operation = "connect", %error);
            pages::message(
                StatusCode::SERVICE_UNAVAILABLE,
                "Not possible right now",
                "Sidekey cannot reach its store.",
                "Try again in a moment.",
            )
        }
    }
}

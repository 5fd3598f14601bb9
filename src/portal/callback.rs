//! The provider sends the browser back. Bad input is 400 and never more; the code is gone from the address bar at once.

use axum::extract::{Path, RawQuery, State};
use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::html;
use tracing::error;

use super::connect::cookie_key;
use super::{PublicState, pages};
use crate::dance::{CallbackError, CallbackParameters};
use crate::model::names::ProviderName;

/// `GET /callback/{provider}`
pub async fn callback(
    State(state): State<PublicState>,
    Path(provider): Path<String>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Ok(provider) = provider.parse::<ProviderName>() else { return pages::not_found() };
    let Some(configured) = state.dance.provider(&provider) else { return pages::not_found() };
    if method != Method::GET {
        return other_method().await;
    }
    let parameters = CallbackParameters(
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect(),
    );
    let is_https = state.public_url.is_https();
    let cookie = |name: &str| cookie_value(&headers, &cookie_key(name, is_https));
    match state.dance.callback(&provider, &parameters, &cookie).await {
        Ok(_) => {
            let mut response = (StatusCode::SEE_OTHER, [(LOCATION, format!("/connected/{provider}"))]).into_response();
            for name in flow_cookies(&headers, is_https) {
                let secure = if is_https { "; Secure" } else { "" };
                let expired = format!("{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax{secure}");
                if let Ok(value) = expired.parse() {
                    response.headers_mut().append(SET_COOKIE, value);
                }
            }
            response
        }
        Err(error) => callback_error(&configured.entry.display_name, &error),
    }
}

/// Anything but GET at the callback path.
pub async fn other_method() -> Response {
    pages::message(
        StatusCode::BAD_REQUEST,
        "Not a sign-in",
        "A sign-in comes back here by a plain redirect.",
        "Begin again from a connect link.",
    )
}

/// `GET /connected/{provider}`
pub async fn connected(State(state): State<PublicState>, Path(provider): Path<String>) -> Response {
    let provider = provider.parse::<ProviderName>().ok();
    let Some(provider) = provider.and_then(|name| state.dance.provider(&name).cloned()) else {
        return pages::not_found();
    };
    let name = &provider.entry.display_name;
    let content = html! {
        p { "Sidekey now keeps the connection to " (name) " and refreshes it by itself." }
        p.next { "You can close this page." }
    };
    pages::page(StatusCode::OK, &format!("{name} is connected"), content)
}

fn cookie_value(headers: &HeaderMap, wanted: &str) -> Option<String> {
    cookies(headers).find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
}

/// The flow cookies of this browser; they have done their work.
fn flow_cookies(headers: &HeaderMap, is_https: bool) -> Vec<String> {
    let prefix = cookie_key("sidekey_flow_", is_https);
    cookies(headers).filter(|(name, _)| name.starts_with(&prefix)).map(|(name, _)| name.to_owned()).take(16).collect()
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

/// One table: what happened, and what to do next.
fn callback_error(provider: &str, error: &CallbackError) -> Response {
    const AGAIN: &str = "Begin again from a new connect link.";
    let bad = |title: &str, what: &str, next: &str| pages::message(StatusCode::BAD_REQUEST, title, what, next);
    match error {
        CallbackError::Malformed(why) => bad("Not a sign-in", &format!("The address is incomplete: {why}."), AGAIN),
        CallbackError::ForgedState => bad("Not our sign-in", "This sign-in was not begun here.", AGAIN),
        CallbackError::ExpiredState => bad("Too late", "This sign-in was begun more than ten minutes ago.", AGAIN),
        CallbackError::AlreadyUsed => bad(
            "Already done",
            "This sign-in came back once before; nothing was done again.",
            "If the connection is there, all is well. Otherwise begin again from a new connect link.",
        ),
        CallbackError::OtherBrowser => bad(
            "Another browser",
            "This sign-in was begun in another browser, or cookies were removed meanwhile.",
            "Open a new connect link, and stay in the same browser.",
        ),
        CallbackError::OtherProvider => bad("Another provider", "This sign-in belongs to another provider.", AGAIN),
        CallbackError::WrongIssuer => {
            bad("Another issuer", &format!("The answer does not come from {provider}; it was not used."), AGAIN)
        }
        CallbackError::Denied { code } => {
            let said = code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
            bad(
                "Not allowed",
                &format!("{provider} reports that access was not granted{said}."),
                "If that was a mistake, begin again. An administrator may have to agree first.",
            )
        }
        CallbackError::BadCapture { parameter, missing } => {
            let what = if *missing { "is missing" } else { "looks wrong" };
            bad("Incomplete answer", &format!("The parameter {parameter} in {provider}'s answer {what}."), AGAIN)
        }
        CallbackError::CodeRefused { summary } => {
            bad("Not accepted", &format!("{provider} did not accept its own code: {summary}."), AGAIN)
        }
        CallbackError::Registration { summary } => pages::message(
            StatusCode::BAD_GATEWAY,
            "Registration refused",
            &format!("{provider} does not accept Sidekey's registration: {summary}."),
            "The operator must check client id, client secret and redirect URI.",
        ),
        CallbackError::ProviderDown { summary } => pages::message(
            StatusCode::BAD_GATEWAY,
            "No answer",
            &format!("{provider} could not complete the sign-in: {summary}."),
            AGAIN,
        ),
        CallbackError::Store(error) => {
            error!(operation = "connect", %error, "a granted connection could not be stored");
            pages::message(
                StatusCode::SERVICE_UNAVAILABLE,
                "Not stored",
                "Sidekey could not store the connection.",
                "Tell the operator, then begin again from a new connect link.",
            )
        }
    }
}

//! The provider sends the browser back. Bad input is 400 and never more; the code is gone from the address bar at once.

use axum::extract::{Path, RawQuery, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::html;
use tracing::error;

use super::authorize::{store_failed, visit_error};
use super::cookies::{cookie, cookie_key, expire_cookie};
use super::{PublicState, pages, session};
use crate::dance::{CallbackError, CallbackParameters, Connected, Returned};
use crate::issuer::visit::{VisitError, cookie_name};
use crate::model::continuation::Continuation;
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
    let find = |name: &str| cookie(&headers, name, is_https);
    let mut returned = state.dance.callback(&provider, &parameters, &find).await;
    let spent = returned.spent_cookie.take().and_then(|name| expire_cookie(&cookie_key(&name, is_https), is_https));
    let name = &configured.entry.display_name;
    let mut response = go_on(&state, &headers, &provider, name, returned).await;
    if let Some(expired) = spent {
        response.headers_mut().append(SET_COOKIE, expired);
    }
    response
}

/// Where the browser goes once the dance is over, well or not.
async fn go_on(
    state: &PublicState,
    headers: &HeaderMap,
    provider: &ProviderName,
    name: &str,
    returned: Returned,
) -> Response {
    let Some(continuation) = returned.continuation else {
        let error = returned.result.err().unwrap_or(CallbackError::OtherBrowser);
        return explained(&explain(name, &error, AGAIN));
    };
    let mut sign_in = None;
    if let Ok(Connected { user: Some(user), .. }) = &returned.result {
        match session::sign_in(state, headers, user.clone()).await {
            Ok(cookie) => sign_in = Some(cookie),
            Err(error) => return store_failed(&error),
        }
    }
    let mut response = match (continuation, returned.result) {
        (Continuation::Visit(id), result) => {
            let kept = keep_in_visit(state, headers, &id, name, result).await;
            kept.map_or_else(|error| visit_error(&error), |()| see_other(&format!("/visit/{id}")))
        }
        (_, Err(error)) => explained(&explain(name, &error, AGAIN)),
        (Continuation::Done, Ok(_)) => see_other(&format!("/connected/{provider}")),
        (Continuation::Account, Ok(_)) => see_other("/account"),
        (Continuation::Connect(next), Ok(_)) => see_other(&format!("/account/connect/{next}")),
    };
    if let Some(cookie) = sign_in {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// A visit remembers who has signed in, or what went wrong.
async fn keep_in_visit(
    state: &PublicState,
    headers: &HeaderMap,
    id: &str,
    name: &str,
    result: Result<Connected, CallbackError>,
) -> Result<(), VisitError> {
    let mut visit = state.issuer.visit(id, cookie(headers, &cookie_name(id), state.public_url.is_https())).await?;
    match result {
        Ok(Connected { user: None, .. }) => return Ok(()),
        Ok(Connected { user: Some(user), .. }) => match &visit.user {
            // What one user approved is not carried out for another.
            Some(known) if known.subject != user.subject => visit.notice = Some(OTHER_ACCOUNT.to_owned()),
            _ => visit.user = Some(user),
        },
        Err(error) => visit.notice = Some(explain(name, &error, AGAIN).what),
    }
    state.issuer.change_visit(visit).await
}

fn see_other(path: &str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response()
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

const OTHER_ACCOUNT: &str = "This is another account than the one that the visit was begun with.";
const AGAIN: &str = "Begin again where you came from: with a new connect link, or in your MCP client.";

/// What a page says.
struct Explanation {
    status: StatusCode,
    title: &'static str,
    what: String,
    next: String,
}

fn explained(explanation: &Explanation) -> Response {
    pages::message(explanation.status, explanation.title, &explanation.what, &explanation.next)
}

/// One table: what happened, and what to do next. `again` says how to begin again.
fn explain(provider: &str, error: &CallbackError, again: &str) -> Explanation {
    let status = match error {
        CallbackError::Registration { .. } | CallbackError::ProviderDown { .. } => StatusCode::BAD_GATEWAY,
        CallbackError::NotIdentified { .. } => StatusCode::BAD_GATEWAY,
        CallbackError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        CallbackError::OtherRealm { .. } => StatusCode::CONFLICT,
        _ => StatusCode::BAD_REQUEST,
    };
    let (title, what, next): (_, String, &str) = match error {
        CallbackError::Malformed(why) => ("Not a sign-in", format!("The address is incomplete: {why}."), again),
        CallbackError::ForgedState => ("Not our sign-in", "This sign-in was not begun here.".into(), again),
        CallbackError::ExpiredState => ("Too late", "This sign-in was begun more than ten minutes ago.".into(), again),
        CallbackError::AlreadyUsed => (
            "Already done",
            "This sign-in came back once before; nothing was done again.".into(),
            "If the connection is there, all is well. Otherwise begin again where you came from.",
        ),
        CallbackError::OtherBrowser => (
            "Another browser",
            "This sign-in was begun in another browser, or cookies were removed meanwhile.".into(),
            "Begin again where you came from, and stay in the same browser.",
        ),
        CallbackError::OtherProvider => ("Another provider", "This sign-in belongs to another provider.".into(), again),
        CallbackError::WrongIssuer => {
            ("Another issuer", format!("The answer does not come from {provider}; it was not used."), again)
        }
        CallbackError::Denied { code } => {
            let said = code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
            let what = format!("{provider} reports that access was not granted{said}.");
            ("Not allowed", what, "If that was a mistake, begin again. An administrator may have to agree first.")
        }
        CallbackError::BadCapture { parameter, missing } => {
            let what = if *missing { "is missing" } else { "looks wrong" };
            ("Incomplete answer", format!("The parameter {parameter} in {provider}'s answer {what}."), again)
        }
        CallbackError::OtherRealm { name, connected, chosen } => {
            let differs = format!(
                "{provider} answers for another {name} ({chosen}) than the one that is connected ({connected})."
            );
            let what =
                format!("{differs} The connection was left as it is: disconnect it first if the other one is meant.");
            ("Not the one that is connected", what, "That is done on your account page, or by the operator.")
        }
        CallbackError::CodeRefused { summary } => {
            ("Not accepted", format!("{provider} did not accept its own code: {summary}."), again)
        }
        CallbackError::NotIdentified { summary } => (
            "Nobody identified",
            format!("{provider} did not say who you are: {summary}."),
            "Try again; if it stays, the operator must check how this provider identifies users.",
        ),
        CallbackError::Registration { summary } => (
            "Registration refused",
            format!("{provider} does not accept Sidekey's registration: {summary}."),
            "The operator must check client id, client secret and redirect URI.",
        ),
        CallbackError::ProviderDown { summary } => {
            ("No answer", format!("{provider} could not complete the sign-in: {summary}."), again)
        }
        CallbackError::Store(error) => {
            error!(operation = "connect", %error, "a granted connection could not be stored");
            let next = "Tell the operator, then begin again where you came from.";
            ("Not stored", "Sidekey could not store the connection.".into(), next)
        }
    };
    Explanation { status, title, what, next: next.to_owned() }
}

//! Where a one-time link has led to: what it has connected, for the browser that used the link up, and for a quarter of an hour. That
//! it is this browser says a ticket, signed, in a cookie of its own; others learn nothing here.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::html;
use serde::{Deserialize, Serialize};

use super::authorize::{not_from_here, store_failed};
use super::connect::{begin_error, flow_cookie};
use super::connections::card::{Place, card};
use super::connections::{bucket, choose};
use super::cookies::{cookie, is_from_our_page, set_cookie};
use super::explain::{ELSEWHERE, explain};
use super::limited::{From, too_many_page};
use super::{PublicState, branding, connections, notice, pages};
use crate::catalogue::Provider;
use crate::dance::{CallbackError, Wanted};
use crate::issuer::parameters::Parameters;
use crate::model::connection::ConnectionKey;
use crate::model::continuation::Continuation;
use crate::model::flow::{Allowance, Purpose};
use crate::model::names::{Label, ProviderName, Subject};
use crate::store::StoreError;

const COOKIE: &str = "sidekey_link";

/// What the browser may go on with.
#[derive(Serialize, Deserialize)]
struct Ticket {
    subject: Subject,
    provider: ProviderName,
    label: Label,
    /// The connection that it has made. Before it has, it may try, and learns nothing of what is there.
    connection: Option<String>,
    allowance: Allowance,
}

/// The ticket of a browser that has used up a link, and then that of one that has made this connection by it.
pub fn ticket(
    state: &PublicState,
    key: &ConnectionKey,
    connection: Option<String>,
    allowance: Allowance,
) -> HeaderValue {
    let left = allowance.until.since(state.clock.now());
    let ConnectionKey { subject, provider, label, .. } = key.clone();
    let text = state.seals.seal(&Ticket { subject, provider, label, connection, allowance });
    set_cookie(COOKIE, &text, left.as_secs(), state.public_url.is_https())
}

/// What a ticket that is good says.
struct CameFor {
    key: ConnectionKey,
    connection: Option<String>,
    allowance: Allowance,
}

/// What this browser has come for, if it has come for this provider, and the connection that it has made.
fn came_for(state: &PublicState, headers: &HeaderMap, provider: &Provider) -> Option<CameFor> {
    let text = cookie(headers, COOKIE, state.public_url.is_https())?;
    let ticket: Ticket = state.seals.open(&text)?;
    let Ticket { subject, provider: name, label, connection, allowance } = ticket;
    let (key, now) = (ConnectionKey::new(subject, name, label), state.clock.now());
    let is_vouched_for = allowance.api_key.is_none_or(|digest| state.api.vouches_for(&digest, &key, now));
    let is_good = allowance.until > now && key.provider == provider.name && is_vouched_for;
    is_good.then_some(CameFor { key, connection, allowance })
}

/// The connection that this browser has made, if it is still the one that is there.
async fn made(
    state: &PublicState,
    headers: &HeaderMap,
    provider: &Provider,
) -> Result<Option<ConnectionKey>, StoreError> {
    let Some(CameFor { key, connection: Some(id), .. }) = came_for(state, headers, provider) else {
        return Ok(None);
    };
    let there = state.store.connection(key.clone()).await?;
    Ok(there.is_some_and(|there| there.id == id).then_some(key))
}

/// `GET /connected/{provider}`
pub async fn page(State(state): State<PublicState>, Path(provider): Path<String>, headers: HeaderMap) -> Response {
    let Some(provider) = connections::find(&state, &provider) else { return pages::not_found() };
    let name = &provider.entry.display_name;
    let key = match made(&state, &headers, provider).await {
        Ok(Some(key)) => key,
        Ok(None) => return done(name),
        Err(error) => return store_failed(&error),
    };
    let found = bucket(&state, provider, Some(&key.subject), Some(&key.label), None).await;
    let bucket = match found {
        Ok(bucket) => bucket,
        Err(error) => return store_failed(&error),
    };
    let (notice, spent) = notice::take(&state, &headers);
    let usable = bucket.rows.iter().any(is_usable);
    let title = if usable { format!("{name} is connected") } else { format!("Connect {name}") };
    let content = html! {
        @if let Some(notice) = &notice { (notice.show()) }
        (card(&bucket, Place::Link, false))
        @if usable { (closing()) }
    };
    let mut response = pages::page_with_form(StatusCode::OK, &title, content);
    if let Some(spent) = spent {
        response.headers_mut().append(SET_COOKIE, spent);
    }
    response
}

/// What is said when the dance that a link has begun did not end well; the same browser may try again.
pub fn failed(state: &PublicState, headers: &HeaderMap, provider: &Provider, error: &CallbackError) -> Response {
    let name = &provider.entry.display_name;
    if came_for(state, headers, provider).is_none() {
        return explain(name, error, ELSEWHERE).page();
    }
    let said = explain(name, error, "You can try it again here, for a quarter of an hour after the link was opened.");
    let content = html! {
        p { (said.what) }
        p.next { (said.next) }
        form method="post" action=(Place::Link.step("again", &provider.name)) {
            button type="submit" { "Try again" }
        }
    };
    pages::page_with_form(said.status, said.title, content)
}

fn is_usable(row: &connections::Row) -> bool {
    matches!(row.status, connections::Status::Connected | connections::Status::Troubled { .. })
}

fn closing() -> maud::Markup {
    html! {
        p { (branding::current().name) " now keeps the connection and refreshes it by itself." }
        p.next { "You can close this page." }
    }
}

/// For a browser without a ticket, or long after.
fn done(name: &str) -> Response {
    pages::page(StatusCode::OK, &format!("{name} is connected"), closing())
}

/// `POST /connected/{provider}/again`
pub async fn again(
    State(state): State<PublicState>,
    From(address): From,
    Path(provider): Path<String>,
    headers: HeaderMap,
) -> Response {
    if !is_from_our_page(&headers, &state.public_url) {
        return not_from_here();
    }
    let verdict = state.limits.unauthenticated(address);
    if !verdict.allowed {
        return too_many_page(&verdict);
    }
    let Some(provider) = connections::find(&state, &provider) else { return pages::not_found() };
    let Some(CameFor { key, allowance, .. }) = came_for(&state, &headers, provider) else { return over() };
    let wanted = Wanted { allowance: Some(allowance), ..Wanted::default() };
    match state.dance.start(Purpose::Connect(key), Continuation::Done, wanted).await {
        Ok(begun) => {
            let mut response = pages::leave(begun.authorize_url.as_str(), &provider.entry.display_name);
            response.headers_mut().append(SET_COOKIE, flow_cookie(&begun, &state.public_url));
            response
        }
        Err(error) => begin_error(&error),
    }
}

/// `GET /connected/{provider}/choose`
pub async fn choose_page(
    State(state): State<PublicState>,
    Path(provider): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(provider) = connections::find(&state, &provider) else { return pages::not_found() };
    match made(&state, &headers, provider).await {
        Ok(Some(key)) => choose::page(&state, provider, &key, &paths(provider)).await,
        Ok(None) => over(),
        Err(error) => store_failed(&error),
    }
}

/// `POST /connected/{provider}/choose`
pub async fn choose(
    State(state): State<PublicState>,
    Path(provider): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !is_from_our_page(&headers, &state.public_url) {
        return not_from_here();
    }
    let Some(provider) = connections::find(&state, &provider) else { return pages::not_found() };
    let key = match made(&state, &headers, provider).await {
        Ok(Some(key)) => key,
        Ok(None) => return over(),
        Err(error) => return store_failed(&error),
    };
    let form = Parameters::from_form(&body);
    match choose::carry_out(&state, &key, &form).await {
        Ok(_) => (StatusCode::SEE_OTHER, [(LOCATION, paths(provider).back)]).into_response(),
        Err(error) => choose::refused(&provider.entry.display_name, &error, &paths(provider).action),
    }
}

fn paths(provider: &Provider) -> choose::Paths {
    let back = format!("/connected/{}", provider.name);
    choose::Paths { action: format!("{back}/choose"), back }
}

fn over() -> Response {
    pages::message(
        StatusCode::FORBIDDEN,
        "This link is over",
        "It was used more than fifteen minutes ago, or in another browser.",
        "Ask for a new one.",
    )
}

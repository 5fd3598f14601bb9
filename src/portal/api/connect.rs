//! How a user of a partner connects: the partner's program makes a one-time URL and leads the user's browser there, which is
//! sent on to the provider.
//!
//! Whoever gets somebody else to open such a URL would have that person's account connected to a subject of their own. So a
//! browser is sent on at once only where it comes from a page of the partner's, and is asked first wherever else it comes from:
//! browsers say truthfully where they come from. Only what says nothing and is evidently a program is sent on too.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{ACCEPT, HeaderName, LOCATION, REFERER, SET_COOKIE, USER_AGENT};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::error;

use super::access::{About, Call, body, connection_in, query};
use super::problem::{self, Refused, wants_json};
use crate::base::digest::Digest;
use crate::base::secret::Secret;
use crate::dance::NewLink;
use crate::model::connection::ConnectionKey;
use crate::model::continuation::Continuation;
use crate::model::names::Label;
use crate::model::return_to::ReturnTo;
use crate::portal::connect::{good_link, to_provider};
use crate::portal::limited::{From, too_many, too_many_page};
use crate::portal::{PublicState, connected, pages, session};

/// What a program may say when it has a subject connect.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectRequest {
    /// Which of several connections of the subject; `default` if it is not said.
    #[schemars(with = "Option<String>", regex(pattern = r"^[A-Za-z0-9._-]{1,40}$"))]
    pub label: Option<Label>,
    /// The page that the browser is led to afterwards, with the result in its query. It must be one that the operator allows.
    pub return_to: Option<String>,
    /// The APIs that are needed; all that are enabled if it is not said.
    pub apis: Option<BTreeSet<String>>,
}

/// A one-time URL.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConnectAnswer {
    /// The provider.
    pub provider: String,
    /// Who connects.
    pub subject: String,
    /// Which of several connections.
    pub label: String,
    /// Where to lead the subject's browser. It works once; whoever has it can connect an account for the subject.
    pub url: String,
    /// When it stops working.
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: String,
}

/// The query of the URL that a browser opens.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OpenQuery {
    /// What makes the URL a one-time URL.
    token: Option<String>,
    /// For a user who is signed in: which of several connections.
    label: Option<Label>,
    /// For a user who is signed in: the page to return to.
    return_to: Option<String>,
}

/// `POST /api/v1/oauth/{provider}/connect/{subject}`
pub async fn create(
    call: Call,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let mut about = About::default();
    let done = make(&call, path, &headers, &bytes, &mut about).await;
    call.answer("api_connect", about, done.map(|answer| (StatusCode::CREATED, answer)))
}

async fn make(
    call: &Call,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: &HeaderMap,
    bytes: &[u8],
    about: &mut About,
) -> Result<ConnectAnswer, Refused> {
    let request: ConnectRequest = body(headers, bytes)?.unwrap_or_default();
    let key = call.covered(path, request.label, about)?;
    let known =
        call.state.dance.provider(&key.provider).map(|provider| &provider.apis).ok_or(Refused::UnknownProvider)?;
    if let Some(apis) = &request.apis
        && (apis.is_empty() || !apis.iter().all(|name| known.iter().any(|api| api.name == *name)))
    {
        let names: Vec<&str> = known.iter().map(|api| api.name.as_str()).collect();
        return Err(Refused::Malformed(format!(
            "`apis` is not a choice of those that are enabled: {}.",
            names.join(", ")
        )));
    }
    let link = link(&call.state, &key, request.return_to, request.apis, Some(call.digest)).await?;
    let origin = call.state.public_url.origin();
    let token = link.token.expose();
    Ok(ConnectAnswer {
        url: format!(
            "{origin}/api/v1/oauth/{}/connect/{}?token={token}",
            key.provider,
            path_segment(key.subject.as_str())
        ),
        expires_at: link.expires_at.to_string(),
        provider: key.provider.to_string(),
        subject: key.subject.to_string(),
        label: key.label.to_string(),
    })
}

/// Subjects may hold `+`, which some readers of URLs take for a blank.
fn path_segment(text: &str) -> String {
    text.replace('+', "%2B")
}

async fn link(
    state: &PublicState,
    key: &ConnectionKey,
    return_to: Option<String>,
    apis: Option<BTreeSet<String>>,
    api_key: Option<Digest>,
) -> Result<NewLink, Refused> {
    let continuation = match return_to {
        Some(url) if state.api.may_return_to(&url) => {
            Continuation::Return(ReturnTo { url, subject: key.subject.clone(), label: key.label.clone() })
        }
        Some(_) => return Err(Refused::ReturnTo),
        None => Continuation::Done,
    };
    Ok(state.dance.create_link(key.clone(), continuation, apis, api_key).await?)
}

/// `GET /api/v1/oauth/{provider}/connect/{subject}`: for browsers.
pub async fn open(
    State(state): State<PublicState>,
    From(address): From,
    method: Method,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(text): RawQuery,
    headers: HeaderMap,
) -> Response {
    // To look is not to open.
    if method == Method::HEAD {
        return Refused::Method.into_response();
    }
    let refused = match lead_on(&state, path, text.as_deref(), &headers).await {
        Ok(response) => return response,
        Err(refused) => refused,
    };
    if let Refused::Store(error) = &refused {
        error!(operation = "connect", %error);
    }
    let verdict = state.limits.unauthenticated(address);
    match (verdict.allowed, wants_json(&headers)) {
        (true, true) => refused.into_response(),
        (true, false) => page(&refused),
        (false, true) => too_many(&verdict),
        (false, false) => too_many_page(&verdict),
    }
}

async fn lead_on(
    state: &PublicState,
    path: Result<Path<(String, String)>, PathRejection>,
    text: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, Refused> {
    let asked: OpenQuery = query(text)?;
    let named = connection_in(path, asked.label)?;
    let token = match asked.token {
        Some(token) => Secret::new(token),
        None => of_session(state, &named, asked.return_to, headers).await?,
    };
    let key = good_link(state, &token).await?.key;
    if (&key.subject, &key.provider) != (&named.subject, &named.provider) {
        return Err(Refused::Browser);
    }
    if !comes_from_partner(state, headers) {
        return Ok((StatusCode::SEE_OTHER, [(LOCATION, format!("/connect/{}", token.expose()))]).into_response());
    }
    let begun = state.dance.begin(&token).await?;
    let mut response = to_provider(&begun, &state.public_url);
    if let Some(allowance) = begun.allowance {
        response.headers_mut().append(SET_COOKIE, connected::ticket(state, &key, None, allowance));
    }
    Ok(response)
}

/// A user who is signed in here needs no program to vouch for them.
async fn of_session(
    state: &PublicState,
    key: &ConnectionKey,
    return_to: Option<String>,
    headers: &HeaderMap,
) -> Result<Secret, Refused> {
    let user = session::user(state, headers).await?;
    // Before anything is said of the provider: who is not signed in learns nothing.
    if user.is_none_or(|user| user.subject != key.subject) {
        return Err(Refused::Browser);
    }
    Ok(link(state, key, return_to, None, None).await?.token)
}

/// Whether a browser was led here by a page of ours or of the partner's, or it is no browser at all.
fn comes_from_partner(state: &PublicState, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // What is only fetched ahead, nobody has asked for yet.
    if text("sec-purpose").contains("prefetch") || text("purpose").contains("prefetch") {
        return false;
    }
    match headers.get("sec-fetch-site") {
        None if !headers.contains_key(REFERER) => !may_be_browser(headers),
        None => is_listed(state, text("referer")),
        Some(site) if site == "same-origin" => true,
        Some(_) => is_listed(state, text("referer")),
    }
}

/// Browsers from before 2023 say nothing of where they come from if the page that leads them here keeps it to itself. They still
/// ask for a page, and all of them have called themselves Mozilla for decades.
fn may_be_browser(headers: &HeaderMap) -> bool {
    let says = |name: HeaderName, word: &[u8]| {
        let mut values = headers.get_all(name).iter();
        values.any(|value| value.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word)))
    };
    says(ACCEPT, b"text/html") || says(USER_AGENT, b"mozilla/")
}

fn is_listed(state: &PublicState, referer: &str) -> bool {
    let origin = url::Url::parse(referer).map(|url| url.origin().ascii_serialization());
    origin.is_ok_and(|origin| state.api.settings.return_to.has_origin(&origin))
}

/// The same refusal for people.
fn page(refused: &Refused) -> Response {
    let problem = refused.problem();
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let next = match refused {
        Refused::Browser => "Go back to where you came from, and begin again.".to_owned(),
        _ => problem::sentence(&problem.next_step),
    };
    pages::message(status, problem.title, &problem.detail, &next)
}

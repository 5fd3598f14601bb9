//! Between approval and code: the user signs in, and connects what is missing. The browser leaves only from pages of its
//! own (200), so that no form is followed to another site.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use maud::{Markup, html};

use super::authorize::{not_from_here, visit_error};
use super::connect::{begin_error, to_provider};
use super::cookies::{cookie, is_from_our_page};
use super::limited::{From, too_many_page};
use super::{PublicState, pages, session};
use crate::issuer::visit::{VisitError, cookie_name};
use crate::model::authorization::{User, Visit};
use crate::model::connection::ConnectionKey;
use crate::model::continuation::Continuation;
use crate::model::flow::Purpose;
use crate::model::names::{Label, ProviderName};
use crate::model::server::McpServer;
use crate::vault::Standing;

/// What comes next.
enum Step {
    /// The user must sign in.
    SignIn(ProviderName),
    /// These are to be connected.
    Connect(User, Vec<ProviderName>),
    /// Nothing is missing.
    Finish(User),
}

async fn current(state: &PublicState, headers: &HeaderMap, id: &str) -> Result<Visit, VisitError> {
    if id.len() != 32 {
        return Err(VisitError::Over);
    }
    state.issuer.visit(id, cookie(headers, &cookie_name(id), state.public_url.is_https())).await
}

async fn next_step(state: &PublicState, visit: &Visit) -> Result<Step, VisitError> {
    let Some(user) = visit.user.clone() else {
        let identity = state.issuer.settings().identity.clone();
        return identity.map(Step::SignIn).ok_or(VisitError::Over);
    };
    let missing = state.missing(&user, &visit.providers).await;
    Ok(if missing.is_empty() { Step::Finish(user) } else { Step::Connect(user, missing) })
}

/// `GET /visit/{id}`
pub async fn page(State(state): State<PublicState>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match show(&state, &headers, &id).await {
        Ok(response) => response,
        Err(error) => visit_error(&error),
    }
}

async fn show(state: &PublicState, headers: &HeaderMap, id: &str) -> Result<Response, VisitError> {
    let visit = current(state, headers, id).await?;
    let Some(server) = state.issuer.server(&visit.request.server) else { return Err(VisitError::Over) };
    Ok(match next_step(state, &visit).await? {
        Step::Finish(user) => finished(state, &visit, user).await?,
        Step::SignIn(provider) if visit.notice.is_none() => leave_to(state, &visit, &provider),
        Step::SignIn(provider) => steps_page(state, &visit, server, None, &[provider]).await,
        Step::Connect(_, missing) if missing.len() == 1 && visit.notice.is_none() => {
            leave_to(state, &visit, &missing[0])
        }
        Step::Connect(user, missing) => steps_page(state, &visit, server, Some(&user), &missing).await,
    })
}

async fn finished(state: &PublicState, visit: &Visit, user: User) -> Result<Response, VisitError> {
    let url = state.issuer.finish_visit(visit, user).await?;
    Ok(pages::leave(&url, &visit.request.client_name))
}

fn leave_to(state: &PublicState, visit: &Visit, provider: &ProviderName) -> Response {
    let name = state.dance.provider(provider).map_or(provider.as_str(), |provider| &provider.entry.display_name);
    pages::leave(&format!("/visit/{}/connect/{provider}", visit.id), name)
}

async fn steps_page(
    state: &PublicState,
    visit: &Visit,
    server: &McpServer,
    user: Option<&User>,
    missing: &[ProviderName],
) -> Response {
    let may_finish = user.is_some() && !missing.iter().any(|name| server.required.contains(name));
    let shown: Vec<&ProviderName> = match user {
        Some(_) => visit.providers.iter().collect(),
        None => missing.iter().collect(),
    };
    let mut rows = Vec::new();
    for name in shown {
        rows.push(row(state, visit, server, user, name).await);
    }
    let content = html! {
        @if let Some(notice) = &visit.notice { p.notice role="alert" { (notice) } }
        p {
            @match user {
                Some(user) => { "You are signed in as " strong { (session::shown(user)) } ". Connect what " (visit.request.client_name) " is to use:" }
                None => { "Sign in to go on:" }
            }
        }
        ul.steps { @for row in &rows { (row) } }
        div.decisions {
            @if may_finish {
                form method="post" action={ "/visit/" (visit.id) "/finish" } { button type="submit" { "Continue" } }
            }
            form method="post" action={ "/visit/" (visit.id) "/cancel" } { button.quiet type="submit" { "Cancel" } }
        }
    };
    pages::page_with_form(StatusCode::OK, "Connect your accounts", content)
}

async fn row(
    state: &PublicState,
    visit: &Visit,
    server: &McpServer,
    user: Option<&User>,
    name: &ProviderName,
) -> Markup {
    let display = state.dance.provider(name).map_or(name.as_str(), |provider| &provider.entry.display_name);
    let standing = match user {
        Some(user) => state.vault.standing(&key(user, name)).await,
        None => Standing::Missing,
    };
    let url = format!("/visit/{}/connect/{name}", visit.id);
    html! {
        li {
            span { strong { (display) } @if server.required.contains(name) { " (required)" } }
            @match (standing, user) {
                (Standing::Usable, _) => { span.state { "connected" } }
                (Standing::Dead { .. }, _) => { span.state { "has ended" } a.button href=(url) { "Connect again" } }
                (Standing::Missing, Some(_)) => { span.state { "not connected" } a.button href=(url) { "Connect" } }
                (Standing::Missing, None) => { a.button href=(url) { "Sign in with " (display) } }
            }
        }
    }
}

/// The connection of a user at a provider.
pub fn key(user: &User, provider: &ProviderName) -> ConnectionKey {
    ConnectionKey::new(user.subject.clone(), provider.clone(), Label::default())
}

/// `GET /visit/{id}/connect/{provider}`
pub async fn connect(
    State(state): State<PublicState>,
    From(address): From,
    Path((id, provider)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let mut visit = match current(&state, &headers, &id).await {
        Ok(visit) => visit,
        Err(error) => return visit_error(&error),
    };
    let verdict = state.limits.unauthenticated(address);
    if !verdict.allowed {
        return too_many_page(&verdict);
    }
    let Ok(provider) = provider.parse::<ProviderName>() else { return pages::not_found() };
    let is_identity = state.issuer.settings().identity.as_ref() == Some(&provider);
    let purpose = match &visit.user {
        None if is_identity => Purpose::SignIn(provider),
        // Another account there is another user: the callback sees to it that this one stays.
        Some(_) if is_identity && visit.providers.contains(&provider) => Purpose::SignIn(provider),
        Some(user) if visit.providers.contains(&provider) => Purpose::Connect(key(user, &provider)),
        _ => return pages::not_found(),
    };
    if visit.notice.take().is_some()
        && let Err(error) = state.issuer.change_visit(visit.clone()).await
    {
        return visit_error(&error);
    }
    match state.dance.start(purpose, Continuation::Visit(id)).await {
        Ok(begun) => to_provider(&begun, &state.public_url),
        Err(error) => begin_error(&error),
    }
}

/// `POST /visit/{id}/finish`: goes on with what is connected.
pub async fn finish(State(state): State<PublicState>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    if !is_from_our_page(&headers, &state.public_url) {
        return not_from_here();
    }
    match finish_with_what_there_is(&state, &headers, &id).await {
        Ok(response) => response,
        Err(error) => visit_error(&error),
    }
}

async fn finish_with_what_there_is(state: &PublicState, headers: &HeaderMap, id: &str) -> Result<Response, VisitError> {
    let mut visit = current(state, headers, id).await?;
    let Some(server) = state.issuer.server(&visit.request.server) else { return Err(VisitError::Over) };
    match next_step(state, &visit).await? {
        Step::Finish(user) => finished(state, &visit, user).await,
        Step::Connect(user, missing) if !missing.iter().any(|name| server.required.contains(name)) => {
            visit.providers.retain(|name| !missing.contains(name));
            finished(state, &visit, user).await
        }
        Step::Connect(..) | Step::SignIn(_) => Ok(pages::message(
            StatusCode::CONFLICT,
            "Something is missing",
            "What is marked as required must be connected first.",
            "Go back, and connect it or cancel.",
        )),
    }
}

/// `POST /visit/{id}/cancel`
pub async fn cancel(State(state): State<PublicState>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    if !is_from_our_page(&headers, &state.public_url) {
        return not_from_here();
    }
    let cancelled = async {
        let visit = current(&state, &headers, &id).await?;
        let url = state.issuer.cancel_visit(&visit).await?;
        Ok::<_, VisitError>(pages::leave(&url, &visit.request.client_name))
    };
    cancelled.await.unwrap_or_else(|error| visit_error(&error))
}

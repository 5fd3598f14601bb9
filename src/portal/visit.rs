//! Between approval and code: the user signs in, and connects what is missing. The browser leaves only from pages of its
//! own (200), so that no form is followed to another site.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::authorize::{not_from_here, visit_error};
use super::connect::{begin_error, to_provider};
use super::connections::card::{Place, card};
use super::connections::{self, Bucket, bucket, choose};
use super::cookies::{cookie, is_from_our_page};
use super::limited::{From, too_many_page};
use super::notice::Notice;
use super::{PublicState, pages, session};
use crate::catalogue::Provider;
use crate::dance::Wanted;
use crate::issuer::parameters::Parameters;
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
    /// These are to be connected, and of those something is to be chosen.
    Connect(User, Missing),
    /// Nothing is missing.
    Finish(User),
}

/// What is missing.
struct Missing {
    /// Providers without a connection that is good for all that is needed.
    connections: Vec<ProviderName>,
    /// Providers of which it is not known which site is meant.
    choices: Vec<ProviderName>,
}

impl Missing {
    fn holds_any_of(&self, providers: &BTreeSet<ProviderName>) -> bool {
        self.connections.iter().chain(&self.choices).any(|name| providers.contains(name))
    }
}

async fn current(state: &PublicState, headers: &HeaderMap, id: &str) -> Result<Visit, VisitError> {
    if id.len() != 32 {
        return Err(VisitError::Over);
    }
    state.issuer.visit(id, cookie(headers, &cookie_name(id), state.public_url.is_https())).await
}

async fn next_step(state: &PublicState, visit: &Visit, server: &McpServer) -> Result<Step, VisitError> {
    let Some(user) = visit.user.clone() else {
        let identity = state.issuer.settings().identity.clone();
        return identity.map(Step::SignIn).ok_or(VisitError::Over);
    };
    let connections = state.missing(&user, server, &visit.providers).await?;
    let mut choices = Vec::new();
    for name in visit.providers.iter().filter(|name| !connections.contains(name)) {
        if state.vault.standing(&key_for(server, &user, name)).await == Standing::Unchosen {
            choices.push(name.clone());
        }
    }
    let is_complete = connections.is_empty() && choices.is_empty();
    Ok(if is_complete { Step::Finish(user) } else { Step::Connect(user, Missing { connections, choices }) })
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
    let goes_on = visit.notice.is_none();
    match next_step(state, &visit, server).await? {
        Step::Finish(user) => finished(state, &visit, user).await,
        Step::SignIn(provider) if goes_on => Ok(leave_to(state, &visit, &provider)),
        Step::SignIn(provider) => Ok(sign_in_page(state, &visit, &provider)),
        // One step left needs no page.
        Step::Connect(_, Missing { connections, choices })
            if goes_on && choices.is_empty() && connections.len() == 1 =>
        {
            Ok(leave_to(state, &visit, &connections[0]))
        }
        Step::Connect(_, Missing { connections, choices })
            if goes_on && connections.is_empty() && choices.len() == 1 =>
        {
            Ok(see_other(&Place::Visit(&visit.id).step("choose", &choices[0])))
        }
        Step::Connect(user, missing) => steps_page(state, &visit, server, &user, &missing).await,
    }
}

async fn finished(state: &PublicState, visit: &Visit, user: User) -> Result<Response, VisitError> {
    let url = state.issuer.finish_visit(visit, user).await?;
    Ok(pages::leave(&url, &visit.request.client_name))
}

fn leave_to(state: &PublicState, visit: &Visit, provider: &ProviderName) -> Response {
    pages::leave(&Place::Visit(&visit.id).step("connect", provider), display_name(state, provider))
}

fn display_name<'s>(state: &'s PublicState, provider: &'s ProviderName) -> &'s str {
    state.dance.provider(provider).map_or(provider.as_str(), |provider| &provider.entry.display_name)
}

fn sign_in_page(state: &PublicState, visit: &Visit, provider: &ProviderName) -> Response {
    let name = display_name(state, provider);
    let content = html! {
        @if let Some(notice) = &visit.notice { (said(notice)) }
        p { "Sign in to go on to " (visit.request.client_name) ":" }
        div.decisions {
            a.button href=(Place::Visit(&visit.id).step("connect", provider)) { "Sign in with " (name) }
            (cancel_form(visit))
        }
    };
    pages::page_with_form(StatusCode::OK, "Sign in", content)
}

fn said(notice: &str) -> Markup {
    Notice::bad("That did not work.", notice).show()
}

fn cancel_form(visit: &Visit) -> Markup {
    html! {
        form method="post" action={ "/visit/" (visit.id) "/cancel" } { button.quiet type="submit" { "Cancel" } }
    }
}

async fn steps_page(
    state: &PublicState,
    visit: &Visit,
    server: &McpServer,
    user: &User,
    missing: &Missing,
) -> Result<Response, VisitError> {
    let mut buckets = Vec::new();
    for name in &visit.providers {
        if let Some(provider) = state.dance.provider(name) {
            let (label, apis) = (server.label(name), server.apis.get(name));
            let found = bucket(state, provider, Some(&user.subject), Some(&label), apis).await?;
            buckets.push(Bucket { is_required: server.required.contains(name), ..found });
        }
    }
    buckets.sort_by_key(|bucket| !bucket.is_required);
    let may_finish = !missing.holds_any_of(&server.required);
    let content = html! {
        @if let Some(notice) = &visit.notice { (said(notice)) }
        p { "You are signed in as " strong { (session::shown(user)) } ". Connect what " (visit.request.client_name) " is to use:" }
        div.cards { @for bucket in &buckets { (card(bucket, Place::Visit(&visit.id), false)) } }
        div.decisions {
            @if may_finish {
                form method="post" action={ "/visit/" (visit.id) "/finish" } { button type="submit" { "Continue" } }
            }
            (cancel_form(visit))
        }
        p.next {
            @if may_finish { "What you do not connect now can be connected later, on " a href="/account" { "your account page" } "." }
            @else { "You can continue once everything marked as required is connected." }
        }
    };
    Ok(pages::wide_page_with_form(StatusCode::OK, "Connect your accounts", content))
}

fn see_other(path: &str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response()
}

/// `GET /visit/{id}/choose/{provider}`
pub async fn choose_page(
    State(state): State<PublicState>,
    Path((id, provider)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    match to_choose(&state, &headers, &id, &provider).await {
        Ok(Some((provider, key))) => choose::page(&state, provider, &key, &choose_paths(&id, provider)).await,
        Ok(None) => pages::not_found(),
        Err(error) => visit_error(&error),
    }
}

/// `POST /visit/{id}/choose/{provider}`
pub async fn choose(
    State(state): State<PublicState>,
    Path((id, provider)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !is_from_our_page(&headers, &state.public_url) {
        return not_from_here();
    }
    let (provider, key) = match to_choose(&state, &headers, &id, &provider).await {
        Ok(Some(found)) => found,
        Ok(None) => return pages::not_found(),
        Err(error) => return visit_error(&error),
    };
    let form = Parameters::from_form(&body);
    let paths = choose_paths(&id, provider);
    match choose::carry_out(&state, &key, &form).await {
        Ok(_) => see_other(&paths.back),
        Err(error) => choose::refused(&provider.entry.display_name, &error, &paths.back),
    }
}

/// What a visit may choose about: a connection of its own user, at a provider that was picked.
async fn to_choose<'s>(
    state: &'s PublicState,
    headers: &HeaderMap,
    id: &str,
    provider: &str,
) -> Result<Option<(&'s Arc<Provider>, ConnectionKey)>, VisitError> {
    let mut visit = current(state, headers, id).await?;
    let Some(server) = state.issuer.server(&visit.request.server) else { return Err(VisitError::Over) };
    let Some(provider) = connections::find(state, provider) else { return Ok(None) };
    let user = visit.user.clone().filter(|_| visit.providers.contains(&provider.name));
    let Some(user) = user else { return Ok(None) };
    if visit.notice.take().is_some() {
        state.issuer.change_visit(visit).await?;
    }
    Ok(Some((provider, key_for(server, &user, &provider.name))))
}

fn choose_paths(id: &str, provider: &Provider) -> choose::Paths {
    choose::Paths { action: Place::Visit(id).step("choose", &provider.name), back: format!("/visit/{id}") }
}

/// The connection of a user that a server uses at a provider.
pub fn key_for(server: &McpServer, user: &User, provider: &ProviderName) -> ConnectionKey {
    ConnectionKey::new(user.subject.clone(), provider.clone(), server.label(provider))
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
    let Some(server) = state.issuer.server(&visit.request.server) else { return visit_error(&VisitError::Over) };
    let is_first = server.label(&provider) == Label::default();
    let purpose = match &visit.user {
        None if is_identity => Purpose::SignIn(provider),
        // Another account there is another user: the callback sees to it that this one stays.
        Some(_) if is_identity && is_first && visit.providers.contains(&provider) => Purpose::SignIn(provider),
        Some(user) if visit.providers.contains(&provider) => Purpose::Connect(key_for(server, user, &provider)),
        _ => return pages::not_found(),
    };
    if visit.notice.take().is_some()
        && let Err(error) = state.issuer.change_visit(visit.clone()).await
    {
        return visit_error(&error);
    }
    let wanted = Wanted {
        apis: server.apis.get(purpose.provider()),
        subject: visit.user.as_ref().map(|user| &user.subject),
        ..Wanted::default()
    };
    match state.dance.start(purpose, Continuation::Visit(id), wanted).await {
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
    match next_step(state, &visit, server).await? {
        Step::Finish(user) => finished(state, &visit, user).await,
        Step::Connect(user, missing) if !missing.holds_any_of(&server.required) => {
            // What is connected and lacks only a part of what it might do, or a choice, can still be used, or be mended later.
            let mut left_out = Vec::new();
            for name in missing.connections {
                if !state.vault.standing(&key_for(server, &user, &name)).await.is_connected() {
                    left_out.push(name);
                }
            }
            visit.providers.retain(|name| !left_out.contains(name));
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

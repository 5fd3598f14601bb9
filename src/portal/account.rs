//! The user's own page: which clients may act in their name, and which accounts are connected.

use axum::extract::{Path, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::authorize::{not_from_here, store_failed};
use super::connect::{begin_error, flow_cookie};
use super::cookies::is_from_our_page;
use super::limited::{From, too_many_page};
use super::visit::key;
use super::{PublicState, pages, session};
use crate::base::address::ClientAddress;
use crate::catalogue::Provider;
use crate::model::authorization::User;
use crate::model::continuation::Continuation;
use crate::model::flow::Purpose;
use crate::model::grant::{EndReason, Grant};
use crate::model::names::ProviderName;
use crate::store::StoreError;
use crate::vault::Standing;

/// `GET /account`
pub async fn page(State(state): State<PublicState>, headers: HeaderMap) -> Response {
    match session::user(&state, &headers).await {
        Ok(Some(user)) => overview(&state, &user).await.unwrap_or_else(|error| store_failed(&error)),
        Ok(None) => sign_in_page(&state, "/account/sign-in"),
        Err(error) => store_failed(&error),
    }
}

fn sign_in_page(state: &PublicState, action: &str) -> Response {
    let Some(provider) = identity(state) else { return pages::not_found() };
    let content = html! {
        p { "Sign in to see which clients act in your name, and which accounts they use." }
        form method="post" action=(action) {
            button type="submit" { "Sign in with " (provider.entry.display_name) }
        }
    };
    pages::page_with_form(StatusCode::OK, "Your account", content)
}

fn identity(state: &PublicState) -> Option<&Provider> {
    let name = state.issuer.settings().identity.as_ref()?;
    state.dance.provider(name).map(AsRef::as_ref)
}

async fn overview(state: &PublicState, user: &User) -> Result<Response, StoreError> {
    let now = state.clock.now();
    let mut grants = state.issuer.grants(Some(user.subject.clone())).await?;
    grants.retain(|grant| grant.is_live(now));
    let mut connections = Vec::new();
    for name in state.offered() {
        if let Some(provider) = state.dance.provider(&name) {
            let standing = state.vault.standing(&key(user, &name)).await;
            connections.push(connection_row(provider, &name, &standing));
        }
    }
    let content = html! {
        p { "You are signed in as " strong { (session::shown(user)) } "." }
        form method="post" action="/account/sign-out" { button.link type="submit" { "Sign out" } }
        h2 { "Clients" }
        @if grants.is_empty() { p { "No client acts in your name." } }
        ul.steps { @for grant in &grants { (grant_row(grant)) } }
        h2 { "Accounts" }
        ul.steps { @for row in &connections { (row) } }
    };
    Ok(pages::page_with_form(StatusCode::OK, "Your account", content))
}

fn grant_row(grant: &Grant) -> Markup {
    let authorization = &grant.authorization;
    let providers: Vec<&str> = authorization.providers.iter().map(ProviderName::as_str).collect();
    html! {
        li {
            span {
                strong { (authorization.client_name) } " at " (authorization.server)
                br;
                small {
                    "since " (grant.created_at)
                    @if !providers.is_empty() { ", with " (providers.join(", ")) }
                }
            }
            form method="post" action={ "/account/grants/" (grant.id) "/revoke" } {
                button.quiet type="submit" { "Revoke" }
            }
        }
    }
}

fn connection_row(provider: &Provider, name: &ProviderName, standing: &Standing) -> Markup {
    let (state, action) = match standing {
        Standing::Usable => ("connected", "Connect again"),
        Standing::Dead { .. } => ("has ended", "Connect again"),
        Standing::Missing => ("not connected", "Connect"),
    };
    html! {
        li {
            span { strong { (provider.entry.display_name) } } span.state { (state) }
            form method="post" action={ "/account/connect/" (name) } { button.quiet type="submit" { (action) } }
            @if !matches!(standing, Standing::Missing) {
                form method="post" action={ "/account/disconnect/" (name) } {
                    button.quiet type="submit" { "Disconnect" }
                }
            }
        }
    }
}

/// `POST /account/sign-in`
pub async fn sign_in(State(state): State<PublicState>, From(address): From, headers: HeaderMap) -> Response {
    begin_sign_in(&state, address, &headers, Continuation::Account).await
}

async fn begin_sign_in(
    state: &PublicState,
    address: ClientAddress,
    headers: &HeaderMap,
    continuation: Continuation,
) -> Response {
    let Some(provider) = identity(state) else { return pages::not_found() };
    let purpose = Purpose::SignIn(provider.name.clone());
    begin(state, address, headers, provider, purpose, continuation).await
}

async fn begin(
    state: &PublicState,
    address: ClientAddress,
    headers: &HeaderMap,
    provider: &Provider,
    purpose: Purpose,
    continuation: Continuation,
) -> Response {
    if !is_from_our_page(headers, &state.public_url) {
        return not_from_here();
    }
    let verdict = state.limits.unauthenticated(address);
    if !verdict.allowed {
        return too_many_page(&verdict);
    }
    match state.dance.start(purpose, continuation).await {
        Ok(begun) => {
            let mut response = pages::leave(begun.authorize_url.as_str(), &provider.entry.display_name);
            response.headers_mut().append(SET_COOKIE, flow_cookie(&begun, &state.public_url));
            response
        }
        Err(error) => begin_error(&error),
    }
}

/// `GET /account/connect/{provider}`: where an API call leads that found no connection.
pub async fn connect_page(
    State(state): State<PublicState>,
    Path(provider): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(provider) = offered(&state, &provider) else { return pages::not_found() };
    match session::user(&state, &headers).await {
        Ok(None) => sign_in_page(&state, &format!("/account/connect/{}", provider.name)),
        Ok(Some(user)) => {
            let name = &provider.entry.display_name;
            let content = html! {
                p { "You are signed in as " strong { (session::shown(&user)) } ". Connect the account at " (name) " that your MCP clients are to use." }
                form method="post" action={ "/account/connect/" (provider.name) } {
                    button type="submit" { "Continue to " (name) }
                }
            };
            pages::page_with_form(StatusCode::OK, &format!("Connect {name}"), content)
        }
        Err(error) => store_failed(&error),
    }
}

/// `POST /account/connect/{provider}`
pub async fn connect(
    State(state): State<PublicState>,
    From(address): From,
    Path(provider): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(provider) = offered(&state, &provider) else { return pages::not_found() };
    match session::user(&state, &headers).await {
        Ok(None) => begin_sign_in(&state, address, &headers, Continuation::Connect(provider.name.clone())).await,
        Ok(Some(user)) => {
            // Another account at the provider that identifies users is another user, not another account of this one.
            let purpose = match identity(&state) {
                Some(identity) if identity.name == provider.name => Purpose::SignIn(provider.name.clone()),
                _ => Purpose::Connect(key(&user, &provider.name)),
            };
            begin(&state, address, &headers, provider, purpose, Continuation::Account).await
        }
        Err(error) => store_failed(&error),
    }
}

/// A provider that some MCP server uses, or that identifies users.
fn offered<'s>(state: &'s PublicState, name: &str) -> Option<&'s Provider> {
    let name = name.parse::<ProviderName>().ok()?;
    state.offered().contains(&name).then(|| state.dance.provider(&name).map(AsRef::as_ref)).flatten()
}

/// `POST /account/disconnect/{provider}`
pub async fn disconnect(
    State(state): State<PublicState>,
    Path(provider): Path<String>,
    headers: HeaderMap,
) -> Response {
    if !is_from_our_page(&headers, &state.public_url) {
        return not_from_here();
    }
    let Some(provider) = offered(&state, &provider) else { return pages::not_found() };
    let disconnected = async {
        let Some(user) = session::user(&state, &headers).await? else { return Ok(None) };
        state.dance.disconnect(&key(&user, &provider.name)).await
    };
    match disconnected.await {
        Ok(Some(_)) => to_account(),
        Ok(None) => pages::not_found(),
        Err(error) => store_failed(&error),
    }
}

/// `POST /account/grants/{id}/revoke`
pub async fn revoke(State(state): State<PublicState>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    if !is_from_our_page(&headers, &state.public_url) {
        return not_from_here();
    }
    let revoked = async {
        let Some(user) = session::user(&state, &headers).await? else { return Ok(false) };
        let grants = state.issuer.grants(Some(user.subject.clone())).await?;
        if !grants.iter().any(|grant| grant.id == id) {
            return Ok(false);
        }
        state.issuer.end_grant(&id, EndReason::RevokedByUser).await?;
        Ok::<_, StoreError>(true)
    };
    match revoked.await {
        Ok(true) => to_account(),
        Ok(false) => pages::not_found(),
        Err(error) => store_failed(&error),
    }
}

/// `POST /account/sign-out`
pub async fn sign_out(State(state): State<PublicState>, headers: HeaderMap) -> Response {
    if !is_from_our_page(&headers, &state.public_url) {
        return not_from_here();
    }
    let mut response = to_account();
    match session::sign_out(&state, &headers, response.headers_mut()).await {
        Ok(()) => response,
        Err(error) => store_failed(&error),
    }
}

fn to_account() -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, "/account")]).into_response()
}

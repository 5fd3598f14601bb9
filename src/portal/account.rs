//! The user's own page: which accounts are connected, and which clients may act in their name.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::authorize::{not_from_here, store_failed};
use super::connect::{begin_error, flow_cookie};
use super::connections::card::{Place, card, label_field, query as query_of, since};
use super::connections::{Bucket, bucket, choose, disconnect, label};
use super::cookies::is_from_our_page;
use super::limited::{From, too_many_page};
use super::notice::{self, Notice};
use super::{PublicState, branding, icons, pages, session};
use crate::base::address::ClientAddress;
use crate::catalogue::Provider;
use crate::dance::Wanted;
use crate::issuer::parameters::Parameters;
use crate::model::authorization::User;
use crate::model::connection::ConnectionKey;
use crate::model::continuation::Continuation;
use crate::model::flow::Purpose;
use crate::model::grant::{EndReason, Grant};
use crate::model::names::{Label, ProviderName};
use crate::store::StoreError;
use crate::vault::Standing;

/// `GET /account`
pub async fn page(State(state): State<PublicState>, headers: HeaderMap) -> Response {
    let (notice, spent) = notice::take(&state, &headers);
    let mut response = match session::user(&state, &headers).await {
        Ok(Some(user)) => overview(&state, &user, notice).await.unwrap_or_else(|error| store_failed(&error)),
        Ok(None) => sign_in_page(&state, "/account/sign-in", None, notice),
        Err(error) => store_failed(&error),
    };
    if let Some(spent) = spent {
        response.headers_mut().append(SET_COOKIE, spent);
    }
    response
}

/// What a browser is shown that nobody is signed in to.
fn sign_in_page(state: &PublicState, action: &str, label: Option<&Label>, notice: Option<Notice>) -> Response {
    let Some(provider) = identity(state) else { return pages::not_found() };
    let content = html! {
        @if let Some(notice) = &notice { (notice.show()) }
        p { "Sign in to see which accounts are connected, and which clients act in your name." }
        form method="post" action=(action) {
            @if let Some(label) = label { (label_field(label)) }
            button type="submit" { "Sign in with " (provider.entry.display_name) }
        }
    };
    pages::page_with_form(StatusCode::OK, "Your account", content)
}

fn identity(state: &PublicState) -> Option<&Provider> {
    let name = state.issuer.settings().identity.as_ref()?;
    state.dance.provider(name).map(AsRef::as_ref)
}

async fn overview(state: &PublicState, user: &User, notice: Option<Notice>) -> Result<Response, StoreError> {
    let grants = live_grants(state, user).await?;
    let mut buckets = Vec::new();
    for name in state.offered() {
        buckets.extend(bucket_of(state, user, &name).await?);
    }
    let content = html! {
        @if let Some(notice) = &notice { (notice.show()) }
        div.who {
            p { "You are signed in as " strong { (session::shown(user)) } "." }
            form method="post" action="/account/sign-out" { button.link type="submit" { "Sign out" } }
        }
        section aria-labelledby="accounts" {
            h2 #accounts { "Accounts" }
            div.cards { @for bucket in &buckets { (card(bucket, Place::Account, true)) } }
        }
        section aria-labelledby="clients" {
            h2 #clients { "Clients" }
            @if grants.is_empty() {
                p { "No client acts in your name." }
            } @else {
                p.next { "These programs use your accounts through " (branding::current().name) "." }
                ul.steps { @for grant in &grants { (grant_row(state, grant)) } }
            }
        }
    };
    Ok(pages::wide_page_with_form(StatusCode::OK, "Your account", content))
}

async fn live_grants(state: &PublicState, user: &User) -> Result<Vec<Grant>, StoreError> {
    let now = state.clock.now();
    let mut grants = state.issuer.grants(Some(user.subject.clone())).await?;
    grants.retain(|grant| grant.is_live(now));
    Ok(grants)
}

async fn bucket_of(state: &PublicState, user: &User, name: &ProviderName) -> Result<Option<Bucket>, StoreError> {
    let Some(provider) = state.dance.provider(name) else { return Ok(None) };
    let apis = state.apis_of_servers(name);
    bucket(state, provider, Some(&user.subject), None, apis.as_ref()).await.map(Some)
}

fn grant_row(state: &PublicState, grant: &Grant) -> Markup {
    let authorization = &grant.authorization;
    let name = |name: &ProviderName| {
        state.dance.provider(name).map_or_else(|| name.to_string(), |provider| provider.entry.display_name.clone())
    };
    let providers: Vec<String> = authorization.providers.iter().map(name).collect();
    html! {
        li {
            span {
                strong { (authorization.client_name) } " at " (authorization.server)
                br;
                small {
                    (since(grant.created_at))
                    @if !providers.is_empty() { ", with " (providers.join(", ")) }
                }
            }
            form method="post" action={ "/account/grants/" (grant.id) "/revoke" } {
                button.quiet type="submit" { "Revoke" span.unseen { " " (authorization.client_name) } }
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
    begin(state, address, headers, provider, purpose, continuation, None).await
}

async fn begin(
    state: &PublicState,
    address: ClientAddress,
    headers: &HeaderMap,
    provider: &Provider,
    purpose: Purpose,
    continuation: Continuation,
    user: Option<&User>,
) -> Response {
    if !is_from_our_page(headers, &state.public_url) {
        return not_from_here();
    }
    let verdict = state.limits.unauthenticated(address);
    if !verdict.allowed {
        return too_many_page(&verdict);
    }
    let apis = state.apis_of_servers(&provider.name);
    let wanted = Wanted { apis: apis.as_ref(), subject: user.map(|user| &user.subject), ..Wanted::default() };
    match state.dance.start(purpose, continuation, wanted).await {
        Ok(begun) => {
            let mut response = pages::leave(begun.authorize_url.as_str(), &provider.entry.display_name);
            response.headers_mut().append(SET_COOKIE, flow_cookie(&begun, &state.public_url));
            response
        }
        Err(error) => begin_error(&error),
    }
}

/// `GET /account/connect/{provider}`: where an API call leads that found no connection, or one that needs a choice.
pub async fn connect_page(
    State(state): State<PublicState>,
    Path(provider): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Some(provider) = offered(&state, &provider) else { return pages::not_found() };
    let Some(label) = label_of(query.as_deref()) else { return pages::not_found() };
    let action = Place::Account.step("connect", &provider.name);
    let user = match session::user(&state, &headers).await {
        Ok(Some(user)) => user,
        Ok(None) => return sign_in_page(&state, &action, Some(&label), None),
        Err(error) => return store_failed(&error),
    };
    let key = ConnectionKey::new(user.subject.clone(), provider.name.clone(), label);
    if state.vault.standing(&key).await == Standing::Unchosen {
        let choose = format!("{}{}", Place::Account.step("choose", &provider.name), query_of(&key.label));
        return (StatusCode::SEE_OTHER, [(LOCATION, choose)]).into_response();
    }
    let name = &provider.entry.display_name;
    let content = html! {
        div.card-head {
            (icons::tile(name))
            p { "You are signed in as " strong { (session::shown(&user)) } ". Connect the account at " (name) " that your MCP clients are to use." }
        }
        @if key.label != Label::default() { p { "It will be called " strong { (key.label) } "." } }
        div.decisions {
            form method="post" action=(action) {
                (label_field(&key.label))
                button type="submit" { "Continue to " (name) }
            }
            a.button.quiet href="/account" { "Not now" }
        }
    };
    pages::page_with_form(StatusCode::OK, &format!("Connect {name}"), content)
}

/// `POST /account/connect/{provider}`
pub async fn connect(
    State(state): State<PublicState>,
    From(address): From,
    Path(provider): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(provider) = offered(&state, &provider) else { return pages::not_found() };
    if !is_from_our_page(&headers, &state.public_url) {
        return not_from_here();
    }
    let form = Parameters::from_form(&body);
    let label = label_in(&form);
    let user = match session::user(&state, &headers).await {
        Ok(Some(user)) => user,
        Ok(None) => {
            let next = Continuation::Connect(provider.name.clone(), label.unwrap_or_default());
            return begin_sign_in(&state, address, &headers, next).await;
        }
        Err(error) => return store_failed(&error),
    };
    let Some(label) = label else {
        let text = format!("It must have {}. Nothing was connected.", Label::EXPECTED);
        return to_account_with(&state, Notice::bad("Not a name for an account.", text));
    };
    let key = ConnectionKey::new(user.subject.clone(), provider.name.clone(), label);
    if form.one("new").is_ok_and(|new| new.is_some()) {
        match state.store.connection(key.clone()).await {
            Ok(None) => {}
            Ok(Some(_)) => {
                let text = format!("You have an account called {} there already. Choose another name.", key.label);
                return to_account_with(&state, Notice::bad("This name is taken.", text));
            }
            Err(error) => return store_failed(&error),
        }
    }
    // Another account at the provider that identifies users is another user, not another account of this one.
    let purpose = match identity(&state) {
        Some(identity) if identity.name == provider.name && key.label == Label::default() => {
            Purpose::SignIn(provider.name.clone())
        }
        _ => Purpose::Connect(key),
    };
    begin(&state, address, &headers, provider, purpose, Continuation::Account, Some(&user)).await
}

/// A provider that some MCP server uses, or that identifies users.
fn offered<'s>(state: &'s PublicState, name: &str) -> Option<&'s Arc<Provider>> {
    let name = name.parse::<ProviderName>().ok()?;
    state.offered().contains(&name).then(|| state.dance.provider(&name)).flatten()
}

/// `GET /account/disconnect/{provider}`: what will happen.
pub async fn disconnect_page(
    State(state): State<PublicState>,
    Path(provider): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Some(provider) = offered(&state, &provider) else { return pages::not_found() };
    let asked = async {
        let Some(user) = session::user(&state, &headers).await? else {
            return Ok(sign_in_page(&state, "/account/sign-in", None, None));
        };
        let Some(label) = label_of(query.as_deref()) else { return Ok(pages::not_found()) };
        let bucket = bucket(&state, provider, Some(&user.subject), Some(&label), None).await?;
        let Some(row) = bucket.rows.first() else { return Ok(pages::not_found()) };
        let mut grants = live_grants(&state, &user).await?;
        grants.retain(|grant| grant.authorization.providers.contains(&provider.name));
        Ok::<_, StoreError>(disconnect::page(&bucket, row, &grants, "/account"))
    };
    asked.await.unwrap_or_else(|error| store_failed(&error))
}

/// `POST /account/disconnect/{provider}`
pub async fn disconnect(
    State(state): State<PublicState>,
    Path(provider): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !is_from_our_page(&headers, &state.public_url) {
        return not_from_here();
    }
    let Some(provider) = offered(&state, &provider) else { return pages::not_found() };
    let form = Parameters::from_form(&body);
    let Some(label) = label_in(&form) else { return pages::not_found() };
    let disconnected = async {
        let Some(user) = session::user(&state, &headers).await? else { return Ok(None) };
        let key = ConnectionKey::new(user.subject, provider.name.clone(), label);
        let shown = form.one(choose::CONNECTION).ok().flatten();
        match state.store.connection(key.clone()).await? {
            Some(there) if shown == Some(there.id.as_str()) => state.dance.disconnect(&key).await,
            _ => Ok(None),
        }
    };
    match disconnected.await {
        Ok(Some(_)) => {
            let title = format!("{} is disconnected.", provider.entry.display_name);
            to_account_with(&state, Notice::good(title, "It is not used any more."))
        }
        Ok(None) => pages::not_found(),
        Err(error) => store_failed(&error),
    }
}

/// `GET /account/choose/{provider}`
pub async fn choose_page(
    State(state): State<PublicState>,
    Path(provider): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Some(provider) = offered(&state, &provider) else { return pages::not_found() };
    let Some(label) = label_of(query.as_deref()) else { return pages::not_found() };
    match session::user(&state, &headers).await {
        Ok(Some(user)) => {
            let key = ConnectionKey::new(user.subject, provider.name.clone(), label);
            choose::page(&state, provider, &key, &choose_paths(provider)).await
        }
        Ok(None) => sign_in_page(&state, "/account/sign-in", None, None),
        Err(error) => store_failed(&error),
    }
}

/// `POST /account/choose/{provider}`
pub async fn choose(
    State(state): State<PublicState>,
    Path(provider): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !is_from_our_page(&headers, &state.public_url) {
        return not_from_here();
    }
    let Some(provider) = offered(&state, &provider) else { return pages::not_found() };
    let form = Parameters::from_form(&body);
    let Some(label) = label_in(&form) else { return pages::not_found() };
    let name = &provider.entry.display_name;
    match session::user(&state, &headers).await {
        Ok(Some(user)) => {
            let key = ConnectionKey::new(user.subject, provider.name.clone(), label);
            match choose::carry_out(&state, &key, &form).await {
                Ok(site) => {
                    let text = format!("From now on {} is used at {name}.", site.name);
                    to_account_with(&state, Notice::good("Chosen.", text))
                }
                Err(error) => choose::refused(name, &error, "/account"),
            }
        }
        Ok(None) => sign_in_page(&state, "/account/sign-in", None, None),
        Err(error) => store_failed(&error),
    }
}

fn choose_paths(provider: &Provider) -> choose::Paths {
    choose::Paths { action: Place::Account.step("choose", &provider.name), back: "/account".to_owned() }
}

/// The label that an address names.
fn label_of(query: Option<&str>) -> Option<Label> {
    let parameters = Parameters::from_form(query.unwrap_or_default().as_bytes());
    label_in(&parameters)
}

/// The label that a form names; `None` if it is none, or if there are two.
fn label_in(form: &Parameters) -> Option<Label> {
    label(form.one("label").ok()?)
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

/// Back to the user's own page, which says this.
pub fn to_account_with(state: &PublicState, notice: Notice) -> Response {
    let mut response = to_account();
    response.headers_mut().append(SET_COOKIE, notice::send(state, notice));
    response
}

fn to_account() -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, "/account")]).into_response()
}

//! Journey J2 in the browser: the user sees which client asks, picks the providers, and decides. No JavaScript.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use tracing::error;

use super::cookies::{cookie, is_from_our_page, set_cookie};
use super::limited::{From, too_many_page};
use super::session;
use super::{PublicState, connections, pages};
use crate::catalogue::Provider;
use crate::issuer::authorize::{AuthorizeError, PageError};
use crate::issuer::consent::{self, ConsentError, Shown};
use crate::issuer::parameters::Parameters;
use crate::issuer::visit::{self, VisitError};
use crate::issuer::{ClientError, DocumentError};
use crate::model::authorization::{AuthorizationRequest, User};
use crate::model::client::ClientKind;
use crate::model::connection::HeldScopes;
use crate::model::names::ProviderName;
use crate::model::redirect_uri::Destination;
use crate::model::server::McpServer;
use crate::oauth::scopes::{self, ApiStanding};
use crate::store::StoreError;

/// `GET /authorize`
pub async fn page(
    State(state): State<PublicState>,
    From(address): From,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let user = match session::user(&state, &headers).await {
        Ok(user) => user,
        Err(error) => return store_failed(&error),
    };
    // Who is signed in shares an address with nobody who tries things out.
    if user.is_none() {
        let verdict = state.limits.unauthenticated(address);
        if !verdict.allowed {
            return too_many_page(&verdict);
        }
    }
    let parameters = Parameters::from_form(query.unwrap_or_default().as_bytes());
    let (request, prompt) = match state.issuer.read_authorization(&parameters).await {
        Ok(read) => read,
        Err(AuthorizeError::Redirect(error)) => return redirect(&state.issuer.error_url(&error)),
        Err(AuthorizeError::Page(error)) => return refused(&error),
    };
    if let Some(user) = user.as_ref().filter(|_| !prompt.consent && !prompt.login) {
        match approved_before(&state, &request, user, prompt.none).await {
            Ok(Some(response)) => return response,
            Ok(None) => {}
            Err(error) => return visit_error(&error),
        }
    }
    if prompt.none {
        let (code, why) = match user {
            Some(_) => ("interaction_required", "the user must approve this client"),
            None => ("login_required", "nobody is signed in"),
        };
        return redirect(&state.issuer.denied_url(&request, code, why));
    }
    consent_page(&state, &headers, request, user, prompt.login)
}

/// What needs no page because the same user approved the same before.
async fn approved_before(
    state: &PublicState,
    request: &AuthorizationRequest,
    user: &User,
    silent: bool,
) -> Result<Option<Response>, VisitError> {
    let Some(providers) = state.issuer.approved_before(request, user).await? else { return Ok(None) };
    let Some(server) = state.issuer.server(&request.server) else { return Ok(None) };
    if state.missing(user, server, &providers).await?.is_empty() {
        let url = state.issuer.answer_at_once(request, providers, user.clone()).await?;
        return Ok(Some(redirect(&url)));
    }
    if silent {
        return Ok(None);
    }
    begin_visit(state, request.clone(), providers, Some(user.clone())).await.map(Some)
}

fn consent_page(
    state: &PublicState,
    headers: &HeaderMap,
    request: AuthorizationRequest,
    user: Option<User>,
    sign_in_again: bool,
) -> Response {
    let Some(server) = state.issuer.server(&request.server) else { return pages::not_found() };
    let is_https = state.public_url.is_https();
    let name = consent::cookie_name(&request.client_id);
    let present = cookie(headers, &name, is_https);
    // Bound to who is signed in even where that does not count for this request.
    let subject = user.as_ref().map(|user| user.subject.clone());
    let shown = Shown { request: request.clone(), subject, sign_in_again };
    let (ticket, secret) = state.issuer.consent_ticket(shown, present);
    let user = user.filter(|_| !sign_in_again);
    let content = html! {
        (who_asks(&request))
        form method="post" action="/authorize" {
            input type="hidden" name="ticket" value=(ticket);
            (what_it_gets(state, &request, server))
            (whose_it_is(state, user.as_ref()))
            div.decisions {
                button type="submit" name="decision" value="approve" { "Approve" }
                button.quiet type="submit" name="decision" value="deny" { "Deny" }
            }
            @if user.is_some() {
                button.link type="submit" name="decision" value="other_account" { "Approve with another account" }
            }
        }
        p.next { "Approve only if you have just added this server to " (request.client_name) " yourself." }
    };
    let title = format!("Allow {} to use {}?", request.client_name, server.name);
    let mut response = pages::page_with_form(StatusCode::OK, &title, content);
    let seconds = consent::LIFETIME.as_secs();
    response.headers_mut().append(SET_COOKIE, set_cookie(&name, secret.expose(), seconds, is_https));
    response
}

fn who_asks(request: &AuthorizationRequest) -> Markup {
    let host = url::Url::parse(&request.client_id).ok().and_then(|url| url.host_str().map(str::to_owned));
    html! {
        dl {
            dt { "Client" } dd { (request.client_name) }
            @match (request.client_kind, host) {
                (ClientKind::Document, Some(host)) => { dt { "Vouched for by" } dd { (host) } }
                (ClientKind::Static, _) => { dt { "Vouched for by" } dd { "the operator of this Sidekey" } }
                _ => { dt { "Vouched for by" } dd.warning { "nobody: this client registered itself under this name" } }
            }
            dt { "Sends you back to" } dd { (request.redirect_uri.shown_host()) }
        }
        @match request.redirect_uri.destination() {
            Destination::Web => {}
            Destination::Loopback => {
                p.warning { "It leads to a program on this computer. Any program here could claim to be this client." }
            }
            Destination::PrivateUse => {
                p.warning { "It leads to whichever program on this computer opens such addresses." }
            }
        }
    }
}

fn what_it_gets(state: &PublicState, request: &AuthorizationRequest, server: &McpServer) -> Markup {
    let scopes = &state.issuer.settings().scopes;
    html! {
        h2 { "What it may do" }
        ul {
            li { "Use the MCP server " strong { (server.name) } " in your name" }
            @for scope in request.scopes.iter() {
                li { code { (scope) } @if let Some(text) = scopes.description(scope) { ": " (text) } }
            }
        }
        @if !server.providers.is_empty() {
            h2 { "With which of your accounts" }
            @for name in &server.providers {
                @if let Some(provider) = state.dance.provider(name) {
                    label.choice {
                        @if server.required.contains(name) {
                            input type="hidden" name="provider" value=(name);
                            input type="checkbox" checked disabled;
                        } @else {
                            input type="checkbox" name="provider" value=(name) checked;
                        }
                        span {
                            strong { (provider.entry.display_name) }
                            @if let Some(label) = server.labels.get(name) { ": " (label) }
                            @if server.required.contains(name) { " (required)" }
                            @if let Some(apis) = apis_shown(provider, server) { br; small { (apis) } }
                        }
                    }
                }
            }
        }
    }
}

/// What the server uses of a provider, where there is more than one thing to use.
fn apis_shown(provider: &Provider, server: &McpServer) -> Option<String> {
    let is_used = |name: &String| server.apis.get(&provider.name).is_none_or(|apis| apis.contains(name));
    let used: Vec<String> = provider.apis.iter().map(|api| api.name.clone()).filter(is_used).collect();
    let chips = connections::chips(provider, &used, |_| ApiStanding::Unknown);
    let names: Vec<String> = chips.into_iter().map(|chip| chip.name).collect();
    if names.as_slice() != [provider.entry.display_name.as_str()] && !names.is_empty() {
        return Some(names.join(", "));
    }
    let scopes = scopes::to_ask(provider, server.apis.get(&provider.name), HeldScopes::default());
    (!scopes.is_empty()).then(|| scopes.join(", "))
}

fn whose_it_is(state: &PublicState, user: Option<&User>) -> Markup {
    let identity = state.issuer.settings().identity.as_ref().and_then(|name| state.dance.provider(name));
    html! {
        @match (user, identity) {
            (Some(user), _) => { p { "You are signed in as " strong { (session::shown(user)) } "." } }
            (None, Some(provider)) => { p { "You will sign in with " (provider.entry.display_name) " next." } }
            (None, None) => {}
        }
    }
}

/// `POST /authorize`
pub async fn decide(
    State(state): State<PublicState>,
    From(address): From,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !is_from_our_page(&headers, &state.public_url) {
        return not_from_here();
    }
    let form = Parameters::from_form(&body);
    let user = match session::user(&state, &headers).await {
        Ok(user) => user,
        Err(error) => return store_failed(&error),
    };
    let verdict = state.limits.unauthenticated(address);
    if !verdict.allowed {
        return too_many_page(&verdict);
    }
    let is_https = state.public_url.is_https();
    let find = |name: &str| cookie(&headers, name, is_https);
    let ticket = form.one("ticket").ok().flatten().unwrap_or_default();
    let consented = state.issuer.consented(ticket, user.as_ref().map(|user| &user.subject), &find);
    let Shown { request, sign_in_again, .. } = match consented {
        Ok(shown) => shown,
        Err(error) => return consent_error(error),
    };
    let Some(server) = state.issuer.server(&request.server) else { return pages::not_found() };
    if matches!(form.one("decision"), Ok(Some("approve" | "deny" | "other_account"))) {
        match state.issuer.use_ticket(ticket).await {
            Ok(true) => {}
            Ok(false) => return consent_error(ConsentError::Decided),
            Err(error) => return store_failed(&error),
        }
    }
    match form.one("decision") {
        Ok(Some("deny")) => {
            let url = state.issuer.denied_url(&request, "access_denied", "the user denied the request");
            pages::leave(&url, &request.client_name)
        }
        Ok(Some(decision @ ("approve" | "other_account"))) => {
            let user = user.filter(|_| decision == "approve" && !sign_in_again);
            let providers = picked(server, &form);
            match begin_visit(&state, request, providers, user).await {
                Ok(response) => response,
                Err(error) => visit_error(&error),
            }
        }
        _ => pages::message(
            StatusCode::BAD_REQUEST,
            "No decision",
            "The form came without a decision.",
            "Go back and choose one of the buttons.",
        ),
    }
}

/// What the user ticked, of what there is, and what is needed in any case.
fn picked(server: &McpServer, form: &Parameters) -> BTreeSet<ProviderName> {
    let ticked: BTreeSet<&str> = form.all("provider").collect();
    let is_picked = |name: &&ProviderName| ticked.contains(name.as_str()) || server.required.contains(*name);
    server.providers.iter().filter(is_picked).cloned().collect()
}

async fn begin_visit(
    state: &PublicState,
    request: AuthorizationRequest,
    providers: BTreeSet<ProviderName>,
    user: Option<User>,
) -> Result<Response, VisitError> {
    let (begun, secret) = state.issuer.begin_visit(request, providers, user).await?;
    let name = visit::cookie_name(&begun.id);
    let cookie = set_cookie(&name, secret.expose(), visit::LIFETIME.as_secs(), state.public_url.is_https());
    let mut response = (StatusCode::SEE_OTHER, [(LOCATION, format!("/visit/{}", begun.id))]).into_response();
    response.headers_mut().append(SET_COOKIE, cookie);
    Ok(response)
}

/// Nothing was posted, so no form can follow (RFC 9700 section 4.12).
fn redirect(url: &str) -> Response {
    match axum::http::HeaderValue::from_str(url) {
        Ok(location) => (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response(),
        Err(_) => pages::not_found(),
    }
}

fn refused(error: &PageError) -> Response {
    let page = |title: &str, what: &str, next: &str| pages::message(StatusCode::BAD_REQUEST, title, what, next);
    const AGAIN: &str = "Remove this server in the client and add it again; then the client registers anew.";
    match error {
        PageError::NoClientId => page("No client", "The request does not say which client it comes from.", AGAIN),
        PageError::Client(ClientError::Unknown) => {
            page("Unknown client", "This client is not registered here, or was not used for long.", AGAIN)
        }
        PageError::Client(ClientError::Document(error)) => match error {
            DocumentError::NotAccepted(why) => page("Client not accepted", &format!("{why}."), "Ask the operator."),
            DocumentError::Unavailable(_) => page(
                "Client not reachable",
                "The document that describes this client could not be fetched.",
                "Try again in a few minutes. The operator can keep a copy of it (pinned client documents).",
            ),
            DocumentError::Invalid(why) => page(
                "Client not understood",
                &format!("The document that describes this client is no use: {why}."),
                "Tell its maker.",
            ),
        },
        PageError::Client(ClientError::Store(error)) => store_failed(error),
        PageError::NoRedirectUri => {
            page("No way back", "The request does not say, or not clearly, where you are to be sent back.", AGAIN)
        }
        PageError::ForeignRedirectUri => page(
            "Not the client's address",
            "The address that you would be sent back to is not one that this client registered.",
            "You were not sent there. If you know this client, remove this server in it and add it again.",
        ),
    }
}

fn consent_error(error: ConsentError) -> Response {
    let (title, what) = match error {
        ConsentError::Forged => ("Not our form", "The form was not made here, or was changed."),
        ConsentError::Expired => ("Too late", "The page was open for more than ten minutes."),
        ConsentError::OtherBrowser => {
            ("Another browser", "The form belongs to another browser or another client, or cookies were removed.")
        }
        ConsentError::OtherUser => ("Another account", "Another account has signed in here meanwhile."),
        ConsentError::Decided => ("Decided already", "This form was sent before; nothing was done again."),
    };
    let next = match error {
        ConsentError::Decided => "If the client is not connected, begin again from there.",
        _ => "Nothing was approved. Begin again from the client.",
    };
    pages::message(StatusCode::FORBIDDEN, title, what, next)
}

/// A form from elsewhere.
pub fn not_from_here() -> Response {
    pages::message(
        StatusCode::FORBIDDEN,
        "Not from here",
        "This request came from another site.",
        "Nothing was done. Begin again from the client.",
    )
}

/// What is said when a visit cannot go on.
pub fn visit_error(error: &VisitError) -> Response {
    match error {
        VisitError::Over => pages::message(
            StatusCode::NOT_FOUND,
            "This visit is over",
            "It was finished already, it is older than fifteen minutes, or it never existed.",
            "If the client is not connected, begin again from there.",
        ),
        VisitError::OtherBrowser => pages::message(
            StatusCode::FORBIDDEN,
            "Another browser",
            "This visit was begun in another browser, or cookies were removed meanwhile.",
            "Begin again from the client, and stay in the same browser.",
        ),
        VisitError::Store(error) => store_failed(error),
    }
}

/// The store failed.
pub fn store_failed(error: &StoreError) -> Response {
    error!(operation = "authorize", %error);
    pages::message(
        StatusCode::SERVICE_UNAVAILABLE,
        "Not possible right now",
        "Sidekey cannot reach its store.",
        "Try again in a moment.",
    )
}

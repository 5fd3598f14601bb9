//! Our own pages and HTTP APIs, as axum routers. Where they are served is the server's business.
//!
//! [`public`] is for browsers, MCP clients and partners' programs: connect links and callbacks, consent and visits, the issuer's endpoints, [`api`]. [`admin`] is for the command line, on a Unix socket.
//! [`probes`] is for Prometheus and for whoever watches the process.

mod account;
pub mod admin;
pub mod api;
mod authorize;
mod branding;
mod callback;
mod connect;
mod connected;
mod connections;
mod cookies;
mod cors;
mod explain;
mod headers;
mod icons;
pub mod limited;
mod notice;
mod oauth;
mod pages;
pub mod probes;
mod session;
mod visit;
mod well_known;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{any, get, post};

use crate::base::clock::Clock;
use crate::base::safe_url::SafeUrl;
use crate::dance::Dance;
use crate::issuer::Issuer;
use crate::issuer::limits::Limits;
use crate::model::authorization::User;
use crate::model::branding::Branding;
use crate::model::names::ProviderName;
use crate::model::server::McpServer;
use crate::store::seal::Sealer;
use crate::store::{Store, StoreError};
use crate::telemetry::audit::Audit;
use crate::vault::Vault;

pub use api::{Memory as ApiMemory, PartnerApi};
pub use notice::Seals;

/// What the pages for browsers and the issuer's endpoints need.
#[derive(Clone)]
pub struct PublicState {
    /// Journey J1.
    pub dance: Arc<Dance>,
    /// Journey J2.
    pub issuer: Arc<Issuer>,
    /// How connections stand.
    pub vault: Arc<Vault>,
    /// How often all this may be used.
    pub limits: Arc<Limits>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where browsers reach us.
    pub public_url: Arc<SafeUrl>,
    /// What is known of connections.
    pub store: Arc<dyn Store>,
    /// Signs what goes through cookies.
    pub seals: Arc<Seals>,
    /// What the pages look like.
    pub branding: Arc<Branding>,
    /// The HTTP API for partners.
    pub api: Arc<PartnerApi>,
    /// Whether what is stored can be opened.
    pub sealer: Sealer,
    /// What was done.
    pub audit: Arc<Audit>,
}

impl PublicState {
    /// Which of the providers the user has yet to connect, or to connect again.
    async fn missing(
        &self,
        user: &User,
        server: &McpServer,
        providers: &BTreeSet<ProviderName>,
    ) -> Result<Vec<ProviderName>, StoreError> {
        let mut missing = Vec::new();
        for name in providers {
            let key = visit::key_for(server, user, name);
            let is_connected = self.vault.standing(&key).await.is_connected();
            if !is_connected || connections::lacks_something(self, &key, server.apis.get(name)).await? {
                missing.push(name.clone());
            }
        }
        Ok(missing)
    }

    /// The APIs that the MCP servers use at a provider; `None` for all that are enabled.
    fn apis_of_servers(&self, provider: &ProviderName) -> Option<BTreeSet<String>> {
        let servers = self.issuer.settings().servers.values().filter(|server| server.providers.contains(provider));
        let mut named = BTreeSet::new();
        for server in servers {
            named.extend(server.apis.get(provider)?.iter().cloned());
        }
        Some(named)
    }

    /// The providers that users of MCP clients deal with.
    fn offered(&self) -> BTreeSet<ProviderName> {
        let settings = self.issuer.settings();
        let of_servers = settings.servers.values().flat_map(|server| server.providers.iter().cloned());
        of_servers.chain(settings.identity.clone()).collect()
    }
}

/// The routes of the public listener.
pub fn public(state: PublicState) -> Router {
    Router::new()
        .route("/connect/{token}", get(connect::page).post(connect::begin))
        .route("/callback/{provider}", get(callback::callback).fallback(callback::other_method))
        .nest("/api/v1", api::routes())
        .route(branding::STYLESHEET_PATH, get(branding::stylesheet))
        .route(branding::LOGO_PATH, get(branding::logo))
        .merge(for_users())
        .merge(for_programs())
        .fallback(|| async { pages::not_found() })
        .method_not_allowed_fallback(not_like_that)
        .layer(axum::middleware::from_fn(headers::secure))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state.branding), branding::dress))
        .layer(axum::middleware::from_fn(note_route))
        .with_state(state)
}

/// Whoever called is told which route it was: it can be shown, where the path itself may hold a one-time link.
async fn note_route(route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

async fn not_like_that() -> Response {
    pages::message(StatusCode::METHOD_NOT_ALLOWED, "Not possible", "This address is not used like that.", "")
}

/// Pages for the users of MCP clients.
fn for_users() -> Router<PublicState> {
    let authorize = || get(authorize::page).post(authorize::decide);
    Router::new()
        .route("/authorize", authorize())
        .route("/oauth/authorize", authorize())
        .route("/visit/{id}", get(visit::page))
        .route("/visit/{id}/connect/{provider}", get(visit::connect))
        .route("/visit/{id}/choose/{provider}", get(visit::choose_page).post(visit::choose))
        .route("/visit/{id}/finish", post(visit::finish))
        .route("/visit/{id}/cancel", post(visit::cancel))
        .route("/connected/{provider}", get(connected::page))
        .route("/connected/{provider}/again", post(connected::again))
        .route("/connected/{provider}/choose", get(connected::choose_page).post(connected::choose))
        .route("/account", get(account::page))
        .route("/account/sign-in", post(account::sign_in))
        .route("/account/sign-out", post(account::sign_out))
        .route("/account/connect/{provider}", get(account::connect_page).post(account::connect))
        .route("/account/choose/{provider}", get(account::choose_page).post(account::choose))
        .route("/account/disconnect/{provider}", get(account::disconnect_page).post(account::disconnect))
        .route("/account/grants/{id}/revoke", post(account::revoke))
        .layer(axum::middleware::from_fn(looking_is_not_asking))
}

/// These pages do things when they are opened: a program that only looks (HEAD) must not have them done.
async fn looking_is_not_asking(request: Request, next: Next) -> Response {
    if request.method() == Method::HEAD { not_like_that().await } else { next.run(request).await }
}

/// The issuer's endpoints for programs, in browsers too. The second names are those that older clients fall back to.
fn for_programs() -> Router<PublicState> {
    Router::new()
        .route("/.well-known/oauth-authorization-server", get(well_known::authorization_server))
        .route("/.well-known/openid-configuration", get(well_known::authorization_server))
        .route("/.well-known/oauth-protected-resource", get(well_known::root_resource))
        .route("/.well-known/oauth-protected-resource/", get(well_known::root_resource))
        .route("/.well-known/oauth-protected-resource/{*path}", get(well_known::resource))
        .route("/.well-known/{*path}", any(well_known::unknown))
        .route("/jwks.json", get(well_known::keys))
        .route("/token", post(oauth::token))
        .route("/oauth/token", post(oauth::token))
        .route("/register", post(oauth::register))
        .route("/oauth/register", post(oauth::register))
        .route("/revoke", post(oauth::revoke))
        .route("/oauth/revoke", post(oauth::revoke))
        .route("/introspect", post(oauth::introspect))
        // Here and not at the end only, so that the layer below is around it: what it answers are preflights most of all.
        .method_not_allowed_fallback(oauth::other_method)
        .layer(axum::middleware::from_fn(cors::for_programs))
}

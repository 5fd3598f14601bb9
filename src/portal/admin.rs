//! The admin API: what the command line asks of a running server. Only its owner can open the socket.
//!
//! The command line asks the same routes in its own process when no server runs.

mod api_keys;
mod backup;
mod ca;
mod configuration;
mod connection;
mod grants;
mod handles;
mod keys;
mod links;
mod missing;
mod server;
mod sites;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};

use crate::authority::Authority;
use crate::base::clock::Clock;
use crate::base::problem_details::{CONTENT_TYPE as PROBLEM_JSON, ProblemDetails};
use crate::base::safe_url::SafeUrl;
use crate::dance::Dance;
use crate::issuer::Issuer;
use crate::model::child_status::ChildStatus;
use crate::model::connection::ConnectionKey;
use crate::portal::PartnerApi;
use crate::store::keyring::KeyRing;
use crate::store::seal::Sealer;
use crate::store::{Store, StoreError};
use crate::telemetry::audit::Audit;
use crate::telemetry::health::Health;
use crate::telemetry::refusals::Refusals;
use crate::vault::handles::HandleTable;
use crate::vault::{TokenError, Vault};

pub use api_keys::{ApiKeyStatus, ApiKeysAnswer};
pub use backup::{DATABASE, FORMAT, FileOfBackup, MANIFEST, Manifest, PURPOSE};
pub use ca::CaAnswer;
pub use configuration::{ConfigurationStatus, Outcome, ReloadAnswer, Reloads};
pub use connection::{ConnectionRequest, DisconnectAnswer};
pub use handles::{NewHandleAnswer, NewHandleRequest, RenewRequest};
pub use keys::ResealRequest;
pub use links::{NewLinkAnswer, NewLinkRequest};
pub use server::{Addresses, ServerAnswer};
pub use sites::{ChooseRequest, SitesQuery};
pub use status::{ConfirmAnswer, StatusQuery};

/// Asks how all child processes stand.
pub type ChildrenStatus = Arc<dyn Fn() -> Vec<ChildStatus> + Send + Sync>;

/// What the admin API needs.
#[derive(Clone)]
pub struct AdminState {
    /// Records.
    pub store: Arc<dyn Store>,
    /// Seals them.
    pub sealer: Sealer,
    /// Ids of keys that are gone for good.
    pub lost_keys: Arc<Vec<String>>,
    /// Journey J1.
    pub dance: Arc<Dance>,
    /// Whether the store is the right one.
    pub vault: Arc<Vault>,
    /// Handles.
    pub handles: Arc<HandleTable>,
    /// Grants of MCP clients.
    pub issuer: Arc<Issuer>,
    /// What was done.
    pub audit: Arc<Audit>,
    /// Certificates for the hosts of providers.
    pub authority: Arc<Authority>,
    /// What was refused to whom.
    pub refusals: Arc<Refusals>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where browsers reach us.
    pub public_url: Arc<SafeUrl>,
    /// The HTTP API for partners.
    pub api: Arc<PartnerApi>,
    /// How child processes stand; absent where there are none.
    pub children: Option<ChildrenStatus>,
    /// Where this server listens, if it does.
    pub listens: Option<Addresses>,
    /// Whether all is well.
    pub health: Arc<Health>,
    /// Where the store and the authority are.
    pub store_directory: Arc<PathBuf>,
    /// Reads the keys as they are now.
    pub read_keys: KeyReader,
    /// What callers are told who get no token.
    pub explain: Explain,
    /// How long an exchange with a token endpoint may take, and the storing of what it brings.
    pub exchange: Duration,
    /// Has the settings read again, where a server runs.
    pub reloads: Option<Arc<dyn Reloads>>,
}

/// Reads the keys that seal the store, from where the configuration says.
pub type KeyReader = Arc<dyn Fn() -> Result<KeyRing, String> + Send + Sync>;

/// What a caller is told who gets no token for a connection: the data plane knows.
pub type Explain = fn(&TokenError, &ConnectionKey) -> ProblemDetails;

/// The routes of the admin socket.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/v1/server", get(server::show))
        .route("/v1/status", get(status::status))
        .route("/v1/configuration/reload", post(configuration::reload))
        .route("/v1/configuration/changes", get(configuration::changes))
        .route("/v1/ca", get(ca::show))
        .route("/v1/keys", get(keys::list))
        .route("/v1/keys/reload", post(keys::reload))
        .route("/v1/keys/reseal", post(keys::reseal))
        .route("/v1/backup", get(backup::take))
        .route("/v1/connection", get(connection::inspect))
        .route("/v1/refresh", post(connection::refresh))
        .route("/v1/validate", post(connection::validate))
        .route("/v1/simulate-failure", post(connection::simulate_failure))
        .route("/v1/store/confirm", post(status::confirm_store))
        .route("/v1/connect-links", post(links::create))
        .route("/v1/disconnect", post(connection::disconnect))
        .route("/v1/sites", get(sites::list).post(sites::choose))
        .route("/v1/api-keys", get(api_keys::list))
        .route("/v1/handles", get(handles::list).post(handles::issue))
        .route("/v1/handles/{id}", delete(handles::revoke))
        .route("/v1/handles/{id}/renew", post(handles::renew))
        .route("/v1/refusals", get(handles::refusals))
        .route("/v1/grants", get(grants::list))
        .route("/v1/grants/{id}", delete(grants::revoke))
        .with_state(state)
}

/// A problem as the answer of a handler.
struct Failure(ProblemDetails);

impl Failure {
    fn bad_request(detail: String) -> Self {
        Self(ProblemDetails::new("bad-request", 400, "Bad request", detail, "correct it and ask again"))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let next = "see the log of the server; the disk may be full or read-only";
        Self(ProblemDetails::new("store-failed", 503, "Store failed", error.to_string(), next))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(CONTENT_TYPE, PROBLEM_JSON)], self.0.to_json()).into_response()
    }
}

//! The admin API: what the command line asks of a running server. Only its owner can open the socket.
//!
//! The command line asks the same routes in its own process when no server runs.

mod api_keys;
mod backup;
mod ca;
mod configuration;
mod connection;
mod keys;
mod server;
mod sites;
mod status;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::authority::Authority;
use crate::base::clock::{Clock, Timestamp};
use crate::base::duration::DurationText;
use crate::base::problem_details::{CONTENT_TYPE as PROBLEM_JSON, ProblemDetails};
use crate::base::safe_url::SafeUrl;
use crate::base::toml_schema::did_you_mean;
use crate::dance::{BeginError, Dance, Disconnected};
use crate::issuer::Issuer;
use crate::model::child_status::ChildStatus;
use crate::model::connection::ConnectionKey;
use crate::model::continuation::Continuation;
use crate::model::grant::{EndReason, Grant};
use crate::model::handle::{self, HandleRecord};
use crate::model::names::{Label, ProviderName, ServerName, Subject, TokenName};
use crate::model::scope::ScopeSet;
use crate::portal::PartnerApi;
use crate::store::keyring::KeyRing;
use crate::store::record::ConnectionRecord;
use crate::store::seal::Sealer;
use crate::store::{Store, StoreError};
use crate::telemetry::audit::{Audit, Record};
use crate::telemetry::health::Health;
use crate::telemetry::refusals::Refusals;
use crate::vault::handles::{HandleTable, NewHandle};
use crate::vault::{TokenError, Vault};

pub use api_keys::{ApiKeyStatus, ApiKeysAnswer};
pub use backup::{DATABASE, FORMAT, FileOfBackup, MANIFEST, Manifest, PURPOSE};
pub use ca::CaAnswer;
pub use configuration::{ConfigurationStatus, Outcome, ReloadAnswer, Reloads};
pub use connection::ConnectionRequest;
pub use keys::ResealRequest;
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
        .route("/v1/connect-links", post(create_link))
        .route("/v1/disconnect", post(disconnect))
        .route("/v1/sites", get(sites::list).post(sites::choose))
        .route("/v1/api-keys", get(api_keys::list))
        .route("/v1/handles", get(list_handles).post(issue_handle))
        .route("/v1/handles/{id}", delete(revoke_handle))
        .route("/v1/handles/{id}/renew", post(renew_handle))
        .route("/v1/refusals", get(list_refusals))
        .route("/v1/grants", get(list_grants))
        .route("/v1/grants/{id}", delete(revoke_grant))
        .with_state(state)
}

/// Body of `POST /v1/connect-links`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewLinkRequest {
    /// Who connects.
    pub subject: Subject,
    /// To what.
    pub provider: ProviderName,
    /// Which of several.
    #[serde(default)]
    pub label: Label,
}

/// Answer of `POST /v1/connect-links`.
#[derive(Debug, Deserialize, Serialize)]
pub struct NewLinkAnswer {
    /// Opens once, for ten minutes. Whoever has it can connect an account for the subject.
    pub url: String,
    /// When it stops working.
    pub expires_at: String,
}

async fn create_link(
    State(state): State<AdminState>,
    Json(request): Json<NewLinkRequest>,
) -> Result<Json<NewLinkAnswer>, Failure> {
    let NewLinkRequest { subject, provider, label } = request;
    let key = ConnectionKey::new(subject, provider, label);
    let link = state.dance.create_link(key, Continuation::Done, None, None).await;
    let link = link.map_err(|error| begin_failure(&state, error))?;
    let url = format!("{}/connect/{}", state.public_url.origin(), link.token.expose());
    Ok(Json(NewLinkAnswer { url, expires_at: link.expires_at.to_string() }))
}

/// Answer of `POST /v1/disconnect`, whose body is that of `POST /v1/connect-links`.
#[derive(Debug, Deserialize, Serialize)]
pub struct DisconnectAnswer {
    /// What became of the grant at the provider: `done`, `queued` or `not_offered`.
    pub revocation: String,
    /// What the provider answered, one for each access token; none where it was not asked.
    pub provider_answers: Vec<String>,
}

async fn disconnect(
    State(state): State<AdminState>,
    Json(request): Json<NewLinkRequest>,
) -> Result<Json<DisconnectAnswer>, Failure> {
    let NewLinkRequest { subject, provider, label } = request;
    let key = ConnectionKey::new(subject, provider, label);
    match state.dance.disconnect(&key).await? {
        Some(Disconnected { revocation, answers }) => {
            Ok(Json(DisconnectAnswer { revocation: revocation.word().to_owned(), provider_answers: answers }))
        }
        None => Err(unknown_connection(&state, &key).await),
    }
}

/// There is no such connection; what might be meant is said.
async fn unknown_connection(state: &AdminState, key: &ConnectionKey) -> Failure {
    let all = state.store.connections(None).await.unwrap_or_default();
    let of_subject: Vec<&ConnectionKey> =
        all.iter().map(|record| &record.key).filter(|known| known.subject == key.subject).collect();
    let labels: BTreeSet<&str> =
        of_subject.iter().filter(|known| known.provider == key.provider).map(|known| known.label.as_str()).collect();
    let providers: BTreeSet<&str> = of_subject.iter().map(|known| known.provider.as_str()).collect();
    let tokens: Vec<&str> = of_subject
        .iter()
        .filter(|known| known.with_token(None) == key.with_token(None))
        .filter_map(|known| known.token.as_ref().map(TokenName::as_str))
        .collect();
    if let (Some(token), true) = (&key.token, labels.contains(key.label.as_str())) {
        return unknown_token(key, token, &tokens);
    }
    let next = if !labels.is_empty() {
        format!("give --label: there are {}", Vec::from_iter(labels).join(", "))
    } else if state.dance.provider(&key.provider).is_none() && !providers.contains(key.provider.as_str()) {
        return unknown_provider(state, &key.provider);
    } else if !providers.is_empty() {
        format!("{} is connected to {}", key.subject, Vec::from_iter(providers).join(", "))
    } else {
        match similar_subject(&all, &key.subject) {
            Some(similar) => format!("did you mean `{similar}`?"),
            None => "`sidekey status` shows the connections there are".to_owned(),
        }
    };
    Failure(ProblemDetails::new(
        "unknown-connection",
        404,
        "Unknown connection",
        format!("{} has no connection to {} with the label {}.", key.subject, key.provider, key.label),
        next,
    ))
}

/// The connection is there, and its grant has no such access token.
fn unknown_token(key: &ConnectionKey, token: &TokenName, tokens: &[&str]) -> Failure {
    let next = match tokens {
        [] => "leave out --token: the grant has one access token".to_owned(),
        tokens => format!("leave out --token for the first, or give one of {}", tokens.join(", ")),
    };
    let detail = format!("The grant of {} has no access token {token}.", key.with_token(None));
    Failure(ProblemDetails::new("unknown-connection", 404, "Unknown connection", detail, next))
}

fn similar_subject(all: &[ConnectionRecord], subject: &Subject) -> Option<String> {
    did_you_mean(subject.as_str(), all.iter().map(|record| record.key.subject.as_str())).map(str::to_owned)
}

fn unknown_provider(state: &AdminState, name: &ProviderName) -> Failure {
    let next = match did_you_mean(name.as_str(), state.dance.provider_names().map(ProviderName::as_str)) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None => format!("add [providers.{name}] to the configuration, or correct the name"),
    };
    Failure(ProblemDetails::new(
        "unknown-provider",
        404,
        "Unknown provider",
        format!("No provider {name} is configured."),
        next,
    ))
}

fn begin_failure(state: &AdminState, error: BeginError) -> Failure {
    match error {
        BeginError::Store(error) => error.into(),
        BeginError::UnknownProvider(name) => unknown_provider(state, &name),
        BeginError::LinkOver => {
            Failure(ProblemDetails::new("link-over", 404, "Link over", "The link is used up.", "make a new one"))
        }
    }
}

/// Body of `POST /v1/handles`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewHandleRequest {
    /// Whose connections it reaches.
    pub subject: Subject,
    /// At which providers; absent means all.
    pub providers: Option<BTreeSet<ProviderName>>,
    /// Which of several connections; absent for the one that a request names, or `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// Whether it may open tunnels to hosts that are neither a provider's nor listed.
    #[serde(default)]
    pub tunnels: bool,
    /// For how long, such as `30d`; absent means until it is revoked.
    pub expires: Option<String>,
}

/// Answer of `POST /v1/handles`.
#[derive(Debug, Deserialize, Serialize)]
pub struct NewHandleAnswer {
    /// For listing and revoking.
    pub id: String,
    /// Shown this once.
    pub handle: String,
    /// When it stops working by itself.
    pub expires_at: Option<String>,
    /// What its operator may not know: that it reaches nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

async fn issue_handle(
    State(state): State<AdminState>,
    Json(request): Json<NewHandleRequest>,
) -> Result<Json<NewHandleAnswer>, Failure> {
    for provider in request.providers.iter().flatten() {
        if state.dance.provider(provider).is_none() {
            return Err(unknown_provider(&state, provider));
        }
    }
    let expires_at = match request.expires.as_deref().map(str::parse::<DurationText>) {
        Some(Ok(duration)) if duration.0.is_zero() => {
            return Err(Failure::bad_request(
                "`expires` is over at once; leave it out for a handle without an end".to_owned(),
            ));
        }
        Some(Ok(duration)) => Some(state.clock.now().plus(duration.0)),
        Some(Err(expected)) => return Err(Failure::bad_request(format!("`expires` is not {expected}"))),
        None => None,
    };
    let notice = reaches_nothing(&state, &request).await?;
    let NewHandleRequest { subject, providers, label, tunnels, .. } = request;
    // A handle for one provider looks like that provider's tokens.
    let only = providers.iter().flatten().next().filter(|_| providers.as_ref().is_some_and(|all| all.len() == 1));
    let prefix =
        only.and_then(|provider| state.dance.provider(provider)).map(|provider| provider.handle_prefix.clone());
    let (handle, record) = state.handles.issue(NewHandle { subject, providers, label, tunnels, expires_at }).await?;
    state.audit.record(handle_record("issue_handle", &record));
    Ok(Json(NewHandleAnswer {
        id: record.id,
        handle: handle::with_prefix(prefix.as_deref().unwrap_or_default(), &handle).expose().to_owned(),
        expires_at: expires_at.map(|time| time.to_string()),
        notice,
    }))
}

/// A handle may be there before its connection is; more often the name is misspelt.
async fn reaches_nothing(state: &AdminState, request: &NewHandleRequest) -> Result<Option<String>, StoreError> {
    let all = state.store.connections(None).await?;
    let is_meant = |record: &&ConnectionRecord| {
        record.key.subject == request.subject
            && request.providers.as_ref().is_none_or(|providers| providers.contains(&record.key.provider))
            && request.label.as_ref().is_none_or(|label| record.key.label == *label)
    };
    if all.iter().any(|record| is_meant(&record)) {
        return Ok(None);
    }
    let subject = &request.subject;
    let is_known = all.iter().any(|record| record.key.subject == *subject);
    Ok(Some(match similar_subject(&all, subject).filter(|_| !is_known) {
        Some(similar) => format!("{subject} has no connection; did you mean `{similar}`?"),
        None => format!("{subject} has no connection yet that this handle reaches: `sidekey connect` makes one"),
    }))
}

#[derive(Serialize)]
struct HandleStatus {
    id: String,
    subject: Subject,
    providers: Option<BTreeSet<ProviderName>>,
    /// `null` for any.
    label: Option<Label>,
    tunnels: bool,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
}

impl From<&HandleRecord> for HandleStatus {
    fn from(record: &HandleRecord) -> Self {
        Self {
            id: record.id.clone(),
            subject: record.subject.clone(),
            providers: record.providers.clone(),
            label: record.label.clone(),
            tunnels: record.tunnels,
            created_at: record.created_at.to_string(),
            expires_at: record.expires_at.map(|time| time.to_string()),
            revoked_at: record.revoked_at.map(|time| time.to_string()),
        }
    }
}

fn handle_record(operation: &str, handle: &HandleRecord) -> Record {
    let reason = Some(handle.id.clone());
    Record { subject: Some(handle.subject.clone()), reason, ..Record::new(operation, "ok") }
}

async fn list_handles(State(state): State<AdminState>) -> Json<serde_json::Value> {
    let handles: Vec<_> = state.handles.list().iter().map(|record| HandleStatus::from(record.as_ref())).collect();
    Json(serde_json::json!({ "handles": handles }))
}

/// Body of `POST /v1/handles/{id}/renew`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// For how long from now on, such as `10m`.
    pub expires: String,
}

async fn renew_handle(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    Json(request): Json<RenewRequest>,
) -> Result<StatusCode, Failure> {
    let duration = request.expires.parse::<DurationText>();
    let duration = duration.map_err(|expected| Failure::bad_request(format!("`expires` is not {expected}")))?;
    match state.handles.renew(&id, state.clock.now().plus(duration.0)).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(unknown_handle_id("There is no such handle that could be renewed.")),
    }
}

async fn revoke_handle(State(state): State<AdminState>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    let known = state.handles.list().into_iter().find(|record| record.id == id);
    if state.handles.revoke(&id).await? {
        if let Some(record) = known {
            state.audit.record(handle_record("revoke_handle", &record));
        }
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown_handle_id("There is no such handle."))
    }
}

fn unknown_handle_id(detail: &str) -> Failure {
    Failure(ProblemDetails::new(
        "unknown-handle-id",
        404,
        "Unknown handle id",
        detail,
        "`sidekey handle list` shows the ids",
    ))
}

/// Query of `GET /v1/refusals`.
#[derive(Debug, Deserialize)]
struct RefusalsOf {
    /// The id of the handle.
    handle: String,
}

async fn list_refusals(State(state): State<AdminState>, Query(of): Query<RefusalsOf>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "refusals": state.refusals.of(&of.handle) }))
}

#[derive(Serialize)]
struct GrantStatus {
    id: String,
    subject: Subject,
    account: Option<String>,
    client_id: String,
    client_name: String,
    server: ServerName,
    scopes: ScopeSet,
    providers: BTreeSet<ProviderName>,
    state: &'static str,
    reason: Option<&'static str>,
    created_at: String,
    expires_at: String,
    ended_at: Option<String>,
}

impl GrantStatus {
    fn new(grant: Grant, now: Timestamp) -> Self {
        let state = match &grant.ended {
            Some(_) => "ended",
            None if grant.expires_at <= now => "expired",
            None => "live",
        };
        let authorization = grant.authorization;
        Self {
            id: grant.id,
            subject: authorization.user.subject,
            account: authorization.user.account,
            client_id: authorization.client_id,
            client_name: authorization.client_name,
            server: authorization.server,
            scopes: authorization.scopes,
            providers: authorization.providers,
            state,
            reason: grant.ended.as_ref().map(|ended| ended.reason.word()),
            created_at: grant.created_at.to_string(),
            expires_at: grant.expires_at.to_string(),
            ended_at: grant.ended.map(|ended| ended.at.to_string()),
        }
    }
}

async fn list_grants(
    State(state): State<AdminState>,
    Query(query): Query<StatusQuery>,
) -> Result<Json<serde_json::Value>, Failure> {
    let now = state.clock.now();
    let grants = state.issuer.grants(query.subject).await?;
    let grants: Vec<_> = grants.into_iter().map(|grant| GrantStatus::new(grant, now)).collect();
    Ok(Json(serde_json::json!({ "grants": grants })))
}

async fn revoke_grant(State(state): State<AdminState>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    if state.issuer.end_grant(&id, EndReason::RevokedByOperator).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Failure(ProblemDetails::new(
            "unknown-grant-id",
            404,
            "Unknown grant id",
            "There is no live grant of this id.",
            "`sidekey grants list` shows the ids",
        )))
    }
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

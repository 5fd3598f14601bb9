//! How the connections stand, and whether the store is trusted.

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::{AdminState, Failure};
use crate::base::clock::Timestamp;
use crate::base::problem_details::ProblemDetails;
use crate::model::connection::{Captured, ConnectionState, RefreshTrouble};
use crate::model::names::{Label, ProviderName, Subject, TokenName};
use crate::store::record::ConnectionRecord;
use crate::vault::guard::ConfirmError;

/// Query of `GET /v1/status`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StatusQuery {
    /// Only this subject's connections.
    pub subject: Option<Subject>,
}

/// Answer of `GET /v1/status`.
#[derive(Serialize)]
pub struct Status {
    version: &'static str,
    public_url: String,
    /// Why nothing is refreshed just now, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_back: Option<String>,
    connections: Vec<ConnectionStatus>,
}

#[derive(Serialize)]
struct ConnectionStatus {
    subject: Subject,
    provider: ProviderName,
    label: Label,
    /// Which of the grant's access tokens; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenName>,
    state: &'static str,
    reason: Option<String>,
    captured: Captured,
    scopes: Option<Vec<String>>,
    generation: u64,
    connected_at: String,
    refreshed_at: Option<String>,
    access_expires_at: Option<String>,
    refresh_due_at: Option<String>,
    refresh_expires_at: Option<String>,
    grant_expires_at: Option<String>,
    has_refresh_token: bool,
    trouble: Option<RefreshTrouble>,
}

impl From<ConnectionRecord> for ConnectionStatus {
    fn from(record: ConnectionRecord) -> Self {
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
        Self {
            state: record.state.word(),
            reason: match record.state {
                ConnectionState::NeedsReauth { reason } => Some(reason),
                _ => None,
            },
            subject: record.key.subject,
            provider: record.key.provider,
            label: record.key.label,
            token: record.key.token,
            captured: record.captured,
            scopes: record.scopes,
            generation: record.generation,
            connected_at: record.connected_at.to_string(),
            refreshed_at: text(record.refreshed_at),
            access_expires_at: text(record.access_expires_at),
            refresh_due_at: text(record.refresh_due_at),
            refresh_expires_at: text(record.refresh_expires_at),
            grant_expires_at: text(record.grant_expires_at),
            has_refresh_token: record.refresh_token.is_some(),
            trouble: record.trouble,
        }
    }
}

/// `GET /v1/status`
pub(super) async fn status(
    State(state): State<AdminState>,
    Query(query): Query<StatusQuery>,
) -> Result<Json<Status>, Failure> {
    let records = state.store.connections(query.subject).await?;
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        public_url: state.public_url.origin(),
        held_back: state.vault.held_back(),
        connections: records.into_iter().map(ConnectionStatus::from).collect(),
    }))
}

/// Answer of `POST /v1/store/confirm`.
#[derive(Debug, Deserialize, Serialize)]
pub struct ConfirmAnswer {
    /// Which store it is from now on.
    pub store_id: String,
    /// From which count it goes on; every other copy has counted less.
    pub refreshes: u64,
    /// Why it was not trusted, if it was not.
    pub was_held_back: Option<String>,
}

/// `POST /v1/store/confirm`: the operator says that this store is the right one.
pub(super) async fn confirm_store(State(state): State<AdminState>) -> Result<Json<ConfirmAnswer>, Failure> {
    let was_held_back = state.vault.held_back();
    let problem =
        |slug, status, title, detail: String, next| Failure(ProblemDetails::new(slug, status, title, detail, next));
    match state.vault.confirm_store().await {
        Ok(guard) => Ok(Json(ConfirmAnswer { store_id: guard.store_id, refreshes: guard.refreshes, was_held_back })),
        Err(ConfirmError::NoSentinel) => Err(problem(
            "no-sentinel",
            409,
            "No sentinel",
            "Nothing watches over this store, so there is nothing to confirm.".to_owned(),
            "set store.sentinel to a file outside the store's directory to have restored and copied stores noticed",
        )),
        Err(ConfirmError::Sentinel(why)) => Err(problem(
            "sentinel-unusable",
            503,
            "The sentinel cannot be written",
            format!("The store was not confirmed: {why}."),
            "make the file that store.sentinel names writable for Sidekey, then confirm again",
        )),
        Err(ConfirmError::Store(error)) => Err(error.into()),
    }
}

//! How the connections stand, and whether the store is trusted.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::{Addresses, AdminState, ConfigurationStatus, Failure};
use crate::base::clock::Timestamp;
use crate::base::problem_details::ProblemDetails;
use crate::catalogue::Provider;
use crate::model::child_status::ChildStatus;
use crate::model::connection::{Captured, ConnectionKey, ConnectionState, RefreshTrouble};
use crate::model::names::{Label, ProviderName, Subject, TokenName};
use crate::store::record::{ConnectionRecord, WaitingRevocation};
use crate::store::seal::Sealer;
use crate::vault::guard::ConfirmError;

/// Query of `GET /v1/status`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StatusQuery {
    /// Only this subject's connections.
    pub subject: Option<Subject>,
    /// Only connections with this label.
    pub label: Option<Label>,
}

/// Answer of `GET /v1/status`.
#[derive(Serialize)]
pub struct Status {
    version: &'static str,
    public_url: String,
    /// The server that answers; `null` where a command answers itself, without one.
    server: Option<ServerStatus>,
    /// Why nothing is refreshed just now, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_back: Option<String>,
    /// What the settings were read from, where a server runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<Arc<ConfigurationStatus>>,
    connections: Vec<ConnectionStatus>,
    /// Grants that were disconnected, and of which their providers could not be told yet.
    revocations_waiting: Vec<RevocationStatus>,
    /// The child processes of MCP servers that speak stdio.
    children: Vec<ChildStatus>,
}

/// The server that answers.
#[derive(Serialize)]
struct ServerStatus {
    /// Whether it is ready for traffic, as `/readyz` says.
    ready: bool,
    /// What is not well, by part.
    troubles: BTreeMap<&'static str, String>,
    listens: Addresses,
}

#[derive(Serialize)]
struct RevocationStatus {
    subject: Subject,
    provider: ProviderName,
    label: Label,
    /// Which of the grant's access tokens; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenName>,
    since: String,
    next_try_at: String,
    attempts: u32,
}

impl From<WaitingRevocation> for RevocationStatus {
    fn from(waiting: WaitingRevocation) -> Self {
        let WaitingRevocation { key, since, next_try_at, attempts } = waiting;
        let ConnectionKey { subject, provider, label, token } = key;
        let (since, next_try_at) = (since.to_string(), next_try_at.to_string());
        Self { subject, provider, label, token, since, next_try_at, attempts }
    }
}

#[derive(Serialize)]
pub(super) struct ConnectionStatus {
    subject: Subject,
    provider: ProviderName,
    label: Label,
    /// Which of the grant's access tokens; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenName>,
    state: &'static str,
    reason: Option<String>,
    /// Whose account it is, where the provider says.
    account: Option<String>,
    captured: Captured,
    /// Whether it has yet to be chosen which of several sites it is for.
    choice_needed: bool,
    scopes: Option<Vec<String>>,
    generation: u64,
    connected_at: String,
    refreshed_at: Option<String>,
    access_expires_at: Option<String>,
    refresh_due_at: Option<String>,
    refresh_expires_at: Option<String>,
    grant_expires_at: Option<String>,
    has_refresh_token: bool,
    trouble: Option<TroubleStatus>,
}

/// How the last refresh went.
#[derive(Serialize)]
struct TroubleStatus {
    failures: u32,
    last_error: String,
    needs_operator: bool,
    in_doubt_since: Option<String>,
}

impl From<RefreshTrouble> for TroubleStatus {
    fn from(trouble: RefreshTrouble) -> Self {
        Self {
            failures: trouble.failures,
            last_error: trouble.last_error,
            needs_operator: trouble.needs_operator,
            in_doubt_since: trouble.in_doubt_since.map(|since| since.to_string()),
        }
    }
}

impl ConnectionStatus {
    pub(super) fn of(record: ConnectionRecord, sealer: &Sealer, provider: Option<&Provider>) -> Self {
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
        // Its key was given up: it cannot be used, whatever its record says.
        let lost_key = record.access_token.key_id().filter(|id| !sealer.knows(*id));
        let lost = lost_key.map(|id| {
            format!("sealed with key {id}, which is not in store.keys; put it back, or connect again if it is gone")
        });
        Self {
            state: if lost.is_some() { "unreadable" } else { record.state.word() },
            reason: match record.state {
                _ if lost.is_some() => lost,
                ConnectionState::NeedsReauth { reason } => Some(reason),
                _ => None,
            },
            subject: record.key.subject,
            provider: record.key.provider,
            label: record.key.label,
            token: record.key.token,
            choice_needed: provider.is_some_and(|provider| !provider.is_finished(&record.captured)),
            account: record.account,
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
            trouble: record.trouble.map(TroubleStatus::from),
        }
    }
}

/// `GET /v1/status`
pub(super) async fn status(
    State(state): State<AdminState>,
    Query(query): Query<StatusQuery>,
) -> Result<Json<Status>, Failure> {
    let mut children = state.children.as_ref().map(|children| children()).unwrap_or_default();
    children.retain(|child| query.subject.as_ref().is_none_or(|subject| child.subject == *subject));
    let mut waiting = state.store.revocations_waiting(query.subject.clone()).await?;
    waiting.retain(|waiting| query.label.as_ref().is_none_or(|label| waiting.key.label == *label));
    let records = state.store.connections(query.subject).await?;
    let is_meant = |record: &ConnectionRecord| query.label.as_ref().is_none_or(|label| record.key.label == *label);
    let of = |record: ConnectionRecord| {
        let provider = state.dance.provider(&record.key.provider).map(AsRef::as_ref);
        ConnectionStatus::of(record, &state.sealer, provider)
    };
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        public_url: state.public_url.origin(),
        server: state.listens.clone().map(|listens| {
            let troubles = state.health.troubles();
            ServerStatus { ready: troubles.is_empty(), troubles, listens }
        }),
        held_back: state.vault.held_back(),
        configuration: state.reloads.as_ref().map(|reloads| reloads.status()),
        connections: records.into_iter().filter(is_meant).map(of).collect(),
        revocations_waiting: waiting.into_iter().map(RevocationStatus::from).collect(),
        children,
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

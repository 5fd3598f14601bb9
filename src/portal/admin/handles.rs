//! Handles: what MCP servers hold instead of a token.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::missing::{similar_subject, unknown_provider};
use super::{AdminState, Failure};
use crate::base::duration::DurationText;
use crate::base::problem_details::ProblemDetails;
use crate::model::handle::{self, HandleRecord};
use crate::model::names::{Label, ProviderName, Subject};
use crate::store::StoreError;
use crate::store::record::ConnectionRecord;
use crate::telemetry::audit::Record;
use crate::vault::handles::NewHandle;

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

/// `POST /v1/handles`
pub(super) async fn issue(
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

/// `GET /v1/handles`
pub(super) async fn list(State(state): State<AdminState>) -> Json<serde_json::Value> {
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

/// `POST /v1/handles/{id}/renew`
pub(super) async fn renew(
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

/// `DELETE /v1/handles/{id}`
pub(super) async fn revoke(State(state): State<AdminState>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
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
pub(super) struct RefusalsOf {
    /// The id of the handle.
    handle: String,
}

/// `GET /v1/refusals`
pub(super) async fn refusals(State(state): State<AdminState>, Query(of): Query<RefusalsOf>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "refusals": state.refusals.of(&of.handle) }))
}

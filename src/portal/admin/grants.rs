//! Grants: which MCP clients act for whom.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Serialize;

use super::{AdminState, Failure, StatusQuery};
use crate::base::clock::Timestamp;
use crate::base::problem_details::ProblemDetails;
use crate::model::grant::{EndReason, Grant};
use crate::model::names::{ProviderName, ServerName, Subject};
use crate::model::scope::ScopeSet;

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

/// `GET /v1/grants`
pub(super) async fn list(
    State(state): State<AdminState>,
    Query(query): Query<StatusQuery>,
) -> Result<Json<serde_json::Value>, Failure> {
    let now = state.clock.now();
    let grants = state.issuer.grants(query.subject).await?;
    let grants: Vec<_> = grants.into_iter().map(|grant| GrantStatus::new(grant, now)).collect();
    Ok(Json(serde_json::json!({ "grants": grants })))
}

/// `DELETE /v1/grants/{id}`
pub(super) async fn revoke(State(state): State<AdminState>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
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

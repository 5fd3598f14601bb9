//! One connection: everything about it but its tokens, its refresh at an operator's word, whether it works, and its end.

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::missing::unknown_connection;
use super::status::ConnectionStatus;
use super::{AdminState, Failure, NewLinkRequest};
use crate::base::clock::Timestamp;
use crate::base::problem_details::ProblemDetails;
use crate::catalogue::Provider;
use crate::dance::{Disconnected, Validity};
use crate::model::connection::{ConnectionKey, ConnectionState};
use crate::model::names::{Label, ProviderName, Subject, TokenName};
use crate::oauth::revoke;
use crate::store::record::ConnectionRecord;
use crate::telemetry::audit::Record;
use crate::vault::attempts::Attempt;
use crate::vault::forced::Forced;
use crate::vault::simulate::Simulated;
use crate::vault::{RefreshResult, TokenError};

/// Which connection is meant.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionRequest {
    /// Whose.
    pub subject: Subject,
    /// To what.
    pub provider: ProviderName,
    /// Which of several.
    #[serde(default)]
    pub label: Label,
    /// Which of the grant's access tokens; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenName>,
}

impl ConnectionRequest {
    fn key(self) -> ConnectionKey {
        let Self { subject, provider, label, token } = self;
        ConnectionKey { subject, provider, label, token }
    }
}

/// `GET /v1/connection`
pub(super) async fn inspect(
    State(state): State<AdminState>,
    Query(request): Query<ConnectionRequest>,
) -> Result<Json<Value>, Failure> {
    let key = request.key();
    let all = state.store.connections(Some(key.subject.clone())).await?;
    let mut of_grant: Vec<ConnectionRecord> =
        all.into_iter().filter(|record| record.key.with_token(key.token.clone()) == key).collect();
    of_grant.sort_by(|one, other| one.key.token.cmp(&other.key.token));
    let position = of_grant.iter().position(|record| record.key == key);
    let Some(position) = position else { return Err(unknown_connection(&state, &key).await) };
    let record = of_grant.remove(position);
    let alternates = state.store.alternates(record.id.clone()).await?.len();
    let provider = state.dance.provider(&key.provider).map(AsRef::as_ref);
    let now = state.clock.now();
    let left = |time: Option<Timestamp>| time.map(|time| (time.as_millis() - now.as_millis()).div_euclid(1000));
    let of = |record: ConnectionRecord| ConnectionStatus::of(record, &state.sealer, provider);
    Ok(Json(json!({
        "now": now.to_string(),
        "access_expires_in_seconds": left(record.access_expires_at),
        "refresh_due_in_seconds": left(record.refresh_due_at),
        "grant_expires_in_seconds": left(record.grant_expires_at),
        "sealed_by": record.access_token.key_id().map(|id| id.to_string()),
        "has_previous_refresh_token": record.previous_refresh_token.is_some(),
        "alternate_refresh_tokens": alternates,
        "refresh_under_way": record.intent.is_some(),
        "requested_scopes": record.requested_scopes,
        "provider": provider.map(of_provider),
        "connection": of(record),
        "further_tokens": of_grant.into_iter().map(of).collect::<Vec<_>>(),
    })))
}

fn of_provider(provider: &Provider) -> Value {
    let rotation = &provider.entry.rotation;
    let duration = |duration: Option<crate::base::duration::DurationText>| {
        duration.map(|duration| humantime::format_duration(duration.0).to_string())
    };
    json!({
        "display_name": provider.entry.display_name,
        "apis": provider.apis.iter().map(|api| api.name.as_str()).collect::<Vec<_>>(),
        "rotation": {
            "model": rotation.model,
            "interval": duration(rotation.interval),
            "grace": duration(rotation.grace),
            "grace_cap": duration(rotation.grace_cap),
            "reuse": rotation.reuse,
            "ends_access_tokens": rotation.kills_access,
        },
        "can_be_revoked": revoke::offered(provider).is_some(),
    })
}

/// One request to a token endpoint in the answers.
#[derive(Serialize)]
struct AttemptAnswer {
    attempt: u32,
    outcome: &'static str,
    said: Option<String>,
    took_ms: u64,
    wait_ms: Option<u64>,
}

impl From<Attempt> for AttemptAnswer {
    fn from(attempt: Attempt) -> Self {
        let Attempt { number, outcome, said, took, wait, .. } = attempt;
        Self { attempt: number, outcome, said, took_ms: millis(took), wait_ms: wait.map(millis) }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn attempts(refresh: &Forced) -> Vec<AttemptAnswer> {
    refresh.attempts.iter().cloned().map(AttemptAnswer::from).collect()
}

/// `POST /v1/refresh`
pub(super) async fn refresh(
    State(state): State<AdminState>,
    Json(request): Json<ConnectionRequest>,
) -> Result<Json<Value>, Failure> {
    let key = request.key();
    let done = match state.vault.refresh_now(&key).await {
        Ok(done) => done,
        Err(error) => return Err(no_token(&state, &key, &error).await),
    };
    let record = state.store.connection(key.clone()).await?;
    let provider = state.dance.provider(&key.provider).map(AsRef::as_ref);
    Ok(Json(json!({
        "outcome": done.word(),
        "reason": done.reason,
        "joined": done.has_joined,
        "took_ms": millis(done.took),
        "attempts": attempts(&done),
        "connection": record.map(|record| ConnectionStatus::of(record, &state.sealer, provider)),
    })))
}

/// `POST /v1/validate`
pub(super) async fn validate(
    State(state): State<AdminState>,
    Json(request): Json<ConnectionRequest>,
) -> Result<Json<Validity>, Failure> {
    let key = request.key();
    match state.dance.validate(&key).await? {
        Some(validity) => Ok(Json(validity)),
        None => Err(unknown_connection(&state, &key).await),
    }
}

/// `POST /v1/simulate-failure`
pub(super) async fn simulate_failure(
    State(state): State<AdminState>,
    Json(request): Json<ConnectionRequest>,
) -> Result<Json<Value>, Failure> {
    let key = request.key();
    let record = state.store.connection(key.clone()).await?;
    if record.is_some_and(|record| record.refresh_token.is_none()) {
        let error = TokenError::NeedsReauth { reason: "the provider gave no refresh token".to_owned() };
        return Err(no_token(&state, &key, &error).await);
    }
    let simulated = match state.vault.simulate_failure(&key).await {
        Ok(simulated) => simulated,
        Err(error) => return Err(no_token(&state, &key, &error).await),
    };
    let Simulated { refresh, state: standing, next_try, unnoticed_until, told } = simulated;
    let outcome = Some(refresh.word().to_owned());
    state.audit.record(Record { reason: outcome, ..Record::of_connection("simulate_failure", "done", &key) });
    let callers = told.map(|error| (state.explain)(&error, &key));
    Ok(Json(json!({
        "outcome": refresh.word(),
        "accepted": refresh.result == RefreshResult::Refreshed,
        "reason": refresh.reason,
        "took_ms": millis(refresh.took),
        "attempts": attempts(&refresh),
        "connection_would_be": {
            "state": standing.word(),
            "reason": match standing {
                ConnectionState::NeedsReauth { reason } => Some(reason),
                _ => None,
            },
            "next_try_at": next_try.map(|time| time.to_string()),
        },
        "callers_would_see": {
            "nothing_until": unnoticed_until.map(|time| time.to_string()),
            "then": callers,
        },
    })))
}

/// Why nothing was asked of the provider.
async fn no_token(state: &AdminState, key: &ConnectionKey, error: &TokenError) -> Failure {
    let (slug, status, title, detail, next) = match error {
        TokenError::NotConnected => return unknown_connection(state, key).await,
        TokenError::NeedsReauth { reason } => (
            "needs-reauth",
            409,
            "Connection needs attention",
            format!("{key} cannot be refreshed: {reason}."),
            format!("`sidekey connect {}` makes a link to connect again", key.as_arguments()),
        ),
        TokenError::Unavailable { reason, .. } => (
            "token-unavailable",
            503,
            "Token unavailable",
            format!("{key} cannot be refreshed just now: {reason}."),
            "try again in a moment".to_owned(),
        ),
        TokenError::Operator { reason } => (
            "operator-needed",
            503,
            "Operator needed",
            format!("{key} cannot be refreshed: {reason}."),
            "mend that; `sidekey doctor` looks at everything that is needed".to_owned(),
        ),
    };
    Failure(ProblemDetails::new(slug, status, title, detail, next))
}

/// Answer of `POST /v1/disconnect`, whose body is that of `POST /v1/connect-links`.
#[derive(Debug, Deserialize, Serialize)]
pub struct DisconnectAnswer {
    /// What became of the grant at the provider: `done`, `queued` or `not_offered`.
    pub revocation: String,
    /// What the provider answered, one for each access token; none where it was not asked.
    pub provider_answers: Vec<String>,
}

/// `POST /v1/disconnect`
pub(super) async fn disconnect(
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

//! Which keys are in use, and how an old one gets out of use.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{AdminState, Failure};
use crate::authority::AuthorityError;
use crate::base::problem_details::ProblemDetails;
use crate::store::StoreError;
use crate::store::keyring::KeyId;
use crate::store::reseal::{self, KeyUse, SealedPlace};
use crate::telemetry::audit::Record;

/// One key in the answer of `GET /v1/keys`.
#[derive(Debug, Deserialize, Serialize)]
pub struct KeyStatus {
    /// Its id; it tells nothing about the key.
    pub id: String,
    /// `seals`, `opens`, `missing`, or `given_up` (`store.lost_keys`).
    pub role: String,
    /// How many stored values need it.
    pub values: u64,
}

/// `GET /v1/keys`
pub(super) async fn list(State(state): State<AdminState>) -> Result<Json<Vec<KeyStatus>>, Failure> {
    let used = state.store.key_use().await?;
    let values = |id| used.iter().find(|used| used.id == id).map_or(0, |used| used.values);
    let configured = state.sealer.keys().into_iter().enumerate().map(|(index, id)| KeyStatus {
        id: id.to_string(),
        role: (if index == 0 { "seals" } else { "opens" }).to_owned(),
        values: values(id),
    });
    let is_missing = |used: &&KeyUse| !state.sealer.knows(used.id);
    let missing = used.iter().filter(is_missing);
    let missing = missing.map(|used| {
        let id = used.id.to_string();
        let role = if state.lost_keys.contains(&id) { "given_up" } else { "missing" };
        KeyStatus { id, role: role.to_owned(), values: used.values }
    });
    let mut keys: Vec<KeyStatus> = configured.chain(missing).collect();
    if let Some(AuthorityError::UnknownKey(_, id)) = state.authority.missing_key() {
        add_missing(&mut keys, id.to_string(), &state.lost_keys);
    }
    Ok(Json(keys))
}

/// Lists the key of the local authority, which is no value of the store, where no value needs it too.
fn add_missing(keys: &mut Vec<KeyStatus>, id: String, lost_keys: &[String]) {
    if keys.iter().all(|key| key.id != id) {
        let role = if lost_keys.contains(&id) { "given_up" } else { "missing" };
        keys.push(KeyStatus { id, role: role.to_owned(), values: 1 });
    }
}

/// Answer of `POST /v1/keys/reseal`.
#[derive(Debug, Deserialize, Serialize)]
pub struct ResealAnswer {
    /// How many values the first key has sealed again.
    pub resealed: u64,
    /// How many could not be opened and were left as they are.
    pub unreadable: u64,
    /// Where to go on; absent once that was all.
    pub after: Option<SealedPlace>,
}

/// Body of `POST /v1/keys/reseal`: some of it at a time, so that whoever waits sees how far it has come.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ResealRequest {
    /// Where the last answer said that it has stopped; absent for the beginning.
    pub after: Option<SealedPlace>,
}

/// `POST /v1/keys/reseal`
pub(super) async fn reseal(
    State(state): State<AdminState>,
    Json(request): Json<ResealRequest>,
) -> Result<Json<ResealAnswer>, Failure> {
    let (done, after) = reseal::reseal_batch(state.store.as_ref(), &state.sealer, request.after).await?;
    let mut authority = 0;
    if after.is_none() {
        let resealed = state.authority.reseal();
        let failed = |error: AuthorityError| Failure::from(StoreError::Failed(error.to_string()));
        authority = u64::from(resealed.map_err(failed)?);
    }
    let resealed = done.values + authority;
    if resealed + done.unreadable > 0 {
        let reason = Some(format!("{resealed} values sealed again, {} unreadable", done.unreadable));
        state.audit.record(Record { reason, ..Record::new("reseal", "done") });
    }
    Ok(Json(ResealAnswer { resealed, unreadable: done.unreadable, after }))
}

/// `POST /v1/keys/reload`: reads the keys again and uses them from now on. What was sealed by those before and is not stored yet
/// is stored when this answers.
pub(super) async fn reload(State(state): State<AdminState>) -> Result<Json<Vec<KeyStatus>>, Failure> {
    let read = Arc::clone(&state.read_keys);
    let ring = tokio::task::spawn_blocking(move || read()).await;
    let ring = ring.unwrap_or_else(|error| Err(error.to_string()));
    let ring = ring.map_err(|why| {
        refused("keys-unreadable", 422, "Keys unreadable", why, "correct store.keys; the keys before are in use")
    })?;
    let known: Vec<KeyId> = ring.ids().collect();
    let needed = state.store.key_use().await?;
    let forgotten = needed.iter().find(|used| state.sealer.knows(used.id) && !known.contains(&used.id));
    if let Some(used) = forgotten {
        let why = format!("{} stored values are sealed with key {}, which is not among them.", used.values, used.id);
        let next = "put it back behind the first one; `sidekey keys reseal` gets it out of use";
        return Err(refused("key-still-needed", 409, "Key still needed", why, next));
    }
    let is_new = state.sealer.keys() != known;
    state.sealer.use_keys(ring);
    if is_new {
        state.audit.record(Record { reason: Some(known[0].to_string()), ..Record::new("keys", "taken") });
    }
    // A refresh that has sealed its result by the key before, and has not stored it yet.
    if tokio::time::timeout(state.exchange, state.vault.earlier_work_ended()).await.is_err() {
        let why = "A refresh that was begun before has not ended: what it brings may need the keys before.";
        return Err(refused("exchange-under-way", 503, "Exchange under way", why, "ask again"));
    }
    list(State(state)).await
}

fn refused(slug: &str, status: u16, title: &'static str, detail: impl Into<String>, next: &str) -> Failure {
    Failure(ProblemDetails::new(slug, status, title, detail, next))
}

//! Which keys are in use, and how an old one gets out of use.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{AdminState, Failure};
use crate::store::reseal::{self, KeyUse};
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
    let configured = state.sealer.keys().enumerate().map(|(index, id)| KeyStatus {
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
    Ok(Json(configured.chain(missing).collect()))
}

/// Answer of `POST /v1/keys/reseal`.
#[derive(Debug, Deserialize, Serialize)]
pub struct ResealAnswer {
    /// How many values the first key has sealed again.
    pub resealed: u64,
    /// How many could not be opened and were left as they are.
    pub unreadable: u64,
}

/// `POST /v1/keys/reseal`
pub(super) async fn reseal(State(state): State<AdminState>) -> Result<Json<ResealAnswer>, Failure> {
    let done = reseal::reseal(state.store.as_ref(), &state.sealer).await?;
    let reason = Some(format!("{} values sealed again, {} unreadable", done.values, done.unreadable));
    state.audit.record(Record { reason, ..Record::new("reseal", "done") });
    Ok(Json(ResealAnswer { resealed: done.values, unreadable: done.unreadable }))
}

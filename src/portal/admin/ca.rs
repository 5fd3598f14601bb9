//! The certificates that clients must trust to be answered in a provider's place. They are no secret.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::AdminState;
use crate::authority::Root;

/// Answer of `GET /v1/ca`.
#[derive(Debug, Deserialize, Serialize)]
pub struct CaAnswer {
    /// All roots that clients should trust.
    pub certificates_pem: String,
    /// The same, described; the oldest first.
    pub roots: Vec<Root>,
    /// What is intercepted now: host names, and `*.suffix` for all hosts below a suffix.
    pub hosts: BTreeSet<String>,
    /// What clients must know.
    pub notice: Option<String>,
    /// Why nothing is intercepted, for the operator.
    pub trouble: Option<String>,
}

/// `GET /v1/ca`
pub(super) async fn show(State(state): State<AdminState>) -> Json<CaAnswer> {
    let authority = &state.authority;
    Json(CaAnswer {
        certificates_pem: authority.bundle(),
        roots: authority.roots(),
        hosts: authority.hosts().clone(),
        notice: authority.notice().map(|notice| notice.to_string()),
        trouble: authority.missing_key().map(|error| error.to_string()),
    })
}

//! What the settings were read from, and having them read again.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{AdminState, Failure};
use crate::base::problem_details::ProblemDetails;
use crate::base::toml_document::Problem;
use crate::config::diff::Change;

/// Has a running server read its settings again.
#[async_trait]
pub trait Reloads: Send + Sync {
    /// Reads them, and takes them over if they are good.
    async fn reload(&self) -> ReloadAnswer;
    /// Reads them, and says what would change.
    async fn compare(&self) -> ReloadAnswer;
    /// How the last attempt ended.
    fn status(&self) -> Arc<ConfigurationStatus>;
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new settings are in force.
    Applied,
    /// The files say something else than what is in force; nothing was changed.
    Differs,
    /// The files say what is in force already.
    Unchanged,
    /// Something is wrong; what was in force before still is.
    Refused,
}

impl Outcome {
    /// The word for it, in logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Differs => "differs",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// Answer of `POST /v1/configuration/reload` and of `GET /v1/configuration/changes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// What it came to; of changes that were only looked at, what it would come to.
    pub outcome: Outcome,
    /// What changed, or would.
    pub changes: Vec<Change>,
    /// Keys whose new values take effect with a restart only.
    pub needs_restart: Vec<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// The part of `GET /v1/status` about the settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// The configuration file.
    pub file: PathBuf,
    /// Since when its settings are in force.
    pub in_force_since: String,
    /// Whether what is on the disk is in force, but for what needs a restart.
    pub is_current: bool,
    /// Since when what is on the disk is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_at: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// Keys whose values in the file take effect with a restart only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
}

/// `POST /v1/configuration/reload`
pub(super) async fn reload(State(state): State<AdminState>) -> Result<Json<ReloadAnswer>, Failure> {
    Ok(Json(of_server(&state)?.reload().await))
}

/// `GET /v1/configuration/changes`
pub(super) async fn changes(State(state): State<AdminState>) -> Result<Json<ReloadAnswer>, Failure> {
    Ok(Json(of_server(&state)?.compare().await))
}

fn of_server(state: &AdminState) -> Result<&Arc<dyn Reloads>, Failure> {
    state.reloads.as_ref().ok_or_else(|| {
        Failure(ProblemDetails::new(
            "no-server",
            409,
            "No server runs",
            "There is no running server, so nothing is in force.",
            "`sidekey serve` reads the configuration when it starts; `sidekey check` says what is wrong with it",
        ))
    })
}

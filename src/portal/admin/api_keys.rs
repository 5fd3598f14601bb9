//! The API keys of partners, as far as anybody may see them.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::AdminState;

/// Answer of `GET /v1/api-keys`.
#[derive(Debug, Deserialize, Serialize)]
pub struct ApiKeysAnswer {
    /// All keys, by name.
    pub api_keys: Vec<ApiKeyStatus>,
}

/// One key.
#[derive(Debug, Deserialize, Serialize)]
pub struct ApiKeyStatus {
    /// What the configuration calls it.
    pub name: String,
    /// The providers that it is good for; `null` for all.
    pub providers: Option<Vec<String>>,
    /// What the subjects begin with that it is good for; `null` for all.
    pub subject_prefix: Option<String>,
    /// When it stops working; `null` for never.
    pub expires_at: Option<String>,
    /// `live` or `expired`.
    pub state: String,
    /// When it was last used since the server was started.
    pub last_used_at: Option<String>,
}

/// `GET /v1/api-keys`
pub(super) async fn list(State(state): State<AdminState>) -> Json<ApiKeysAnswer> {
    let now = state.clock.now();
    let status =
        |(key, used): (std::sync::Arc<crate::model::api_key::ApiKey>, Option<crate::base::clock::Timestamp>)| {
            ApiKeyStatus {
                name: key.name.to_string(),
                providers: key.providers.as_ref().map(|names| names.iter().map(ToString::to_string).collect()),
                subject_prefix: key.subjects.as_ref().map(|prefix| prefix.as_str().to_owned()),
                expires_at: key.expires_at.map(|time| time.to_string()),
                state: if key.is_live(now) { "live" } else { "expired" }.to_owned(),
                last_used_at: used.map(|time| time.to_string()),
            }
        };
    Json(ApiKeysAnswer { api_keys: state.api.keys().into_iter().map(status).collect() })
}

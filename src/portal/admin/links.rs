//! One-time links with which a subject connects.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::missing::unknown_provider;
use super::{AdminState, Failure};
use crate::base::problem_details::ProblemDetails;
use crate::dance::BeginError;
use crate::model::connection::ConnectionKey;
use crate::model::continuation::Continuation;
use crate::model::names::{Label, ProviderName, Subject};

/// Body of `POST /v1/connect-links`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewLinkRequest {
    /// Who connects.
    pub subject: Subject,
    /// To what.
    pub provider: ProviderName,
    /// Which of several.
    #[serde(default)]
    pub label: Label,
}

/// Answer of `POST /v1/connect-links`.
#[derive(Debug, Deserialize, Serialize)]
pub struct NewLinkAnswer {
    /// Opens once, for ten minutes. Whoever has it can connect an account for the subject.
    pub url: String,
    /// When it stops working.
    pub expires_at: String,
}

/// `POST /v1/connect-links`
pub(super) async fn create(
    State(state): State<AdminState>,
    Json(request): Json<NewLinkRequest>,
) -> Result<Json<NewLinkAnswer>, Failure> {
    let NewLinkRequest { subject, provider, label } = request;
    let key = ConnectionKey::new(subject, provider, label);
    let link = state.dance.create_link(key, Continuation::Done, None, None).await;
    let link = link.map_err(|error| begin_failure(&state, error))?;
    let url = format!("{}/connect/{}", state.public_url.origin(), link.token.expose());
    Ok(Json(NewLinkAnswer { url, expires_at: link.expires_at.to_string() }))
}

fn begin_failure(state: &AdminState, error: BeginError) -> Failure {
    match error {
        BeginError::Store(error) => error.into(),
        BeginError::UnknownProvider(name) => unknown_provider(state, &name),
        BeginError::LinkOver => {
            Failure(ProblemDetails::new("link-over", 404, "Link over", "The link is used up.", "make a new one"))
        }
    }
}

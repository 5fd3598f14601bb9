//! Which of several sites a connection is for.

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::missing::unknown_connection;
use super::{AdminState, Failure};
use crate::base::problem_details::ProblemDetails;
use crate::dance::{ChoiceError, Site};
use crate::model::connection::{Captured, ConnectionKey};
use crate::model::names::{Label, ProviderName, Subject};
use crate::vault::TokenError;

/// Query of `GET /v1/sites`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SitesQuery {
    /// Whose connection.
    pub subject: Subject,
    /// To what.
    pub provider: ProviderName,
    /// Which of several.
    #[serde(default)]
    pub label: Label,
}

/// Body of `POST /v1/sites`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChooseRequest {
    /// Whose connection.
    pub subject: Subject,
    /// To what.
    pub provider: ProviderName,
    /// Which of several.
    #[serde(default)]
    pub label: Label,
    /// The site, by the id that `GET /v1/sites` tells.
    pub site: String,
}

/// One site in the answers.
#[derive(Serialize)]
pub(super) struct SiteAnswer {
    id: String,
    name: String,
    captured: Captured,
    chosen: bool,
}

impl From<Site> for SiteAnswer {
    fn from(site: Site) -> Self {
        Self { id: site.id, name: site.name, captured: site.captured, chosen: site.chosen }
    }
}

/// `GET /v1/sites`
pub(super) async fn list(
    State(state): State<AdminState>,
    Query(query): Query<SitesQuery>,
) -> Result<Json<serde_json::Value>, Failure> {
    let key = ConnectionKey::new(query.subject, query.provider, query.label);
    let sites = match state.dance.sites(&key).await {
        Ok(sites) => sites,
        Err(error) => return Err(failure(&state, &key, &error).await),
    };
    let sites: Vec<_> = sites.into_iter().map(SiteAnswer::from).collect();
    Ok(Json(serde_json::json!({ "sites": sites })))
}

/// `POST /v1/sites`
pub(super) async fn choose(
    State(state): State<AdminState>,
    Json(request): Json<ChooseRequest>,
) -> Result<Json<SiteAnswer>, Failure> {
    let key = ConnectionKey::new(request.subject, request.provider, request.label);
    match state.dance.choose(&key, &request.site).await {
        Ok(site) => Ok(Json(site.into())),
        Err(error) => Err(failure(&state, &key, &error).await),
    }
}

async fn failure(state: &AdminState, key: &ConnectionKey, error: &ChoiceError) -> Failure {
    let (slug, status, title, next) = match error {
        ChoiceError::NotConnected | ChoiceError::Token(TokenError::NotConnected) => {
            return unknown_connection(state, key).await;
        }
        ChoiceError::Store(error) => return error.clone().into(),
        ChoiceError::NothingToChoose => {
            ("nothing-to-choose", 409, "Nothing to choose", "a provider whose entry has [[post_connect]] has sites")
        }
        ChoiceError::Token(TokenError::NeedsReauth { .. }) => {
            ("needs-reauth", 409, "Connection needs attention", "connect again: `sidekey connect`")
        }
        ChoiceError::Token(_) => ("token-unavailable", 503, "Token unavailable", "try again in a moment"),
        ChoiceError::LookUp { .. } => ("look-up-failed", 502, "Look-up failed", "try again; the connection is kept"),
        ChoiceError::NotOffered => ("unknown-site", 404, "Unknown site", "`sidekey sites` shows the ones there are"),
        ChoiceError::Replaced => ("connection-replaced", 409, "Connection replaced", "look again, and choose then"),
    };
    Failure(ProblemDetails::new(slug, status, title, format!("For {key}, {error}."), next))
}

//! Which of several sites, tenants or organizations a connection is for.

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{About, Call, body, query};
use super::connections::StatusQuery;
use super::problem::Refused;
use crate::dance;
use crate::model::connection::Captured;
use crate::model::names::Label;

/// One of the sites that a connection may be for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Site {
    /// What to choose it by.
    pub id: String,
    /// What the provider calls it.
    pub name: String,
    /// The values that say which it is.
    pub captured: Captured,
    /// Whether the connection is for this one.
    pub chosen: bool,
}

/// All that a connection may be for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Sites {
    /// As the provider tells them now.
    pub sites: Vec<Site>,
}

/// Which one it is to be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChooseRequest {
    /// The `id` of a site.
    pub site: String,
    /// Which of several connections; `default` if it is not said.
    #[serde(default)]
    #[schemars(with = "Option<String>", regex(pattern = r"^[A-Za-z0-9._-]{1,40}$"))]
    pub label: Option<Label>,
}

impl From<dance::Site> for Site {
    fn from(site: dance::Site) -> Self {
        Self { id: site.id, name: site.name, captured: site.captured, chosen: site.chosen }
    }
}

/// `GET /api/v1/oauth/{provider}/sites/{subject}`
pub async fn list(
    call: Call,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(text): RawQuery,
) -> Response {
    let mut about = About::default();
    let done = offered(&call, path, text.as_deref(), &mut about).await;
    call.answer("api_sites", about, done.map(|answer| (StatusCode::OK, answer)))
}

async fn offered(
    call: &Call,
    path: Result<Path<(String, String)>, PathRejection>,
    text: Option<&str>,
    about: &mut About,
) -> Result<Sites, Refused> {
    let asked: StatusQuery = query(text)?;
    let key = call.covered(path, asked.label, about)?;
    let sites = call.state.dance.sites(&key).await.map_err(|error| Refused::Site(key, error))?;
    Ok(Sites { sites: sites.into_iter().map(Site::from).collect() })
}

/// `POST /api/v1/oauth/{provider}/sites/{subject}`
pub async fn choose(
    call: Call,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let mut about = About::default();
    let done = choose_one(&call, path, &headers, &bytes, &mut about).await;
    call.answer("api_choose", about, done.map(|answer| (StatusCode::OK, answer)))
}

async fn choose_one(
    call: &Call,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: &HeaderMap,
    bytes: &[u8],
    about: &mut About,
) -> Result<Site, Refused> {
    let request: Option<ChooseRequest> = body(headers, bytes)?;
    let request = request.ok_or_else(|| Refused::Malformed("The body is empty.".to_owned()))?;
    let key = call.covered(path, request.label, about)?;
    let site = call.state.dance.choose(&key, &request.site).await.map_err(|error| Refused::Site(key, error))?;
    Ok(site.into())
}

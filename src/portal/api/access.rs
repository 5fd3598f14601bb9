//! Whose request it is and what it is about; and what is written down of it.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::info;

use super::problem::Refused;
use crate::base::address::ClientAddress;
use crate::base::digest::Digest;
use crate::base::rate_limit::Verdict;
use crate::base::shown::shown;
use crate::model::api_key::ApiKey;
use crate::model::connection::ConnectionKey;
use crate::model::issued_token::{self, Kind};
use crate::model::names::{Label, ProviderName, Subject};
use crate::portal::PublicState;
use crate::portal::limited::{too_many, write_headers};
use crate::telemetry::audit::Record;

/// A request with a key that is good.
pub struct Call {
    /// What everything is done with.
    pub state: PublicState,
    /// The key.
    pub key: Arc<ApiKey>,
    /// What it is found by.
    pub digest: Digest,
    verdict: Verdict,
}

/// What a request is about, as far as it is known.
#[derive(Default)]
pub struct About {
    /// Which connection.
    pub connection: Option<ConnectionKey>,
    /// What else there is to say.
    pub reason: Option<String>,
}

impl FromRequestParts<PublicState> for Call {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &PublicState) -> Result<Self, Response> {
        let address = parts.extensions.get::<ClientAddress>().copied().unwrap_or_default();
        let Some((digest, key)) = good_key(state, &parts.headers) else {
            let verdict = state.limits.unauthenticated(address);
            if !verdict.allowed {
                return Err(too_many(&verdict));
            }
            let mut response = Refused::Key.into_response();
            write_headers(response.headers_mut(), &verdict);
            return Err(response);
        };
        let verdict = state.limits.api_key(&key.name);
        if !verdict.allowed {
            return Err(too_many(&verdict));
        }
        state.api.memory.used.insert(Arc::clone(&key.name), state.clock.now());
        Ok(Self { state: state.clone(), key, digest, verdict })
    }
}

/// The key that a request bears. What is compared is digests, so the time that it takes tells nothing.
fn good_key(state: &PublicState, headers: &HeaderMap) -> Option<(Digest, Arc<ApiKey>)> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, presented) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let digest = issued_token::digest(Kind::ApiKey, presented.trim())?;
    let key = state.api.settings.keys.find(&digest)?;
    if key.is_live(state.clock.now()) {
        return Some((digest, Arc::clone(key)));
    }
    info!(operation = "api", api_key = %key.name, outcome = "expired");
    let record = Record { api_key: Some(key.name.to_string()), ..Record::new("api_call", "expired") };
    state.audit.record(record);
    None
}

impl Call {
    /// Writes down what was done, and answers.
    pub fn answer<T: Serialize>(
        &self,
        operation: &'static str,
        about: About,
        done: Result<(StatusCode, T), Refused>,
    ) -> Response {
        let outcome = done.as_ref().map_or_else(Refused::slug, |_| "ok".to_owned());
        let record = match &about.connection {
            Some(key) => Record::of_connection(operation, outcome.clone(), key),
            None => Record::new(operation, outcome.clone()),
        };
        let api_key = Some(self.key.name.to_string());
        self.state.audit.record(Record { api_key, reason: about.reason, ..record });
        let connection = about.connection.as_ref().map(ToString::to_string);
        info!(operation = "api", what = operation, api_key = %self.key.name, connection, outcome);
        let mut response = match done {
            Ok((status, body)) => (status, axum::Json(body)).into_response(),
            Err(refused) => refused.into_response(),
        };
        write_headers(response.headers_mut(), &self.verdict);
        response
    }

    /// The connection that path and label name, if the key covers it. Whether there is one is not yet known.
    pub fn covered(
        &self,
        path: Result<Path<(String, String)>, PathRejection>,
        label: Option<Label>,
        about: &mut About,
    ) -> Result<ConnectionKey, Refused> {
        let key = connection_in(path, label)?;
        about.connection = Some(key.clone());
        if !self.key.covers_provider(&key.provider) || !self.key.covers_subject(&key.subject) {
            return Err(Refused::Scope);
        }
        match self.state.dance.provider(&key.provider) {
            Some(_) => Ok(key),
            None => Err(Refused::UnknownProvider),
        }
    }
}

/// The connection that a path names.
pub fn connection_in(
    path: Result<Path<(String, String)>, PathRejection>,
    label: Option<Label>,
) -> Result<ConnectionKey, Refused> {
    let Ok(Path((provider, subject))) = path else {
        return Err(Refused::Malformed("The path cannot be read.".to_owned()));
    };
    let bad = |what: &str, expected: &str| Refused::Malformed(format!("The {what} in the path is not {expected}."));
    let provider: ProviderName = provider.parse().map_err(|_| bad("provider", ProviderName::EXPECTED))?;
    let subject: Subject = subject.parse().map_err(|_| bad("subject", Subject::EXPECTED))?;
    Ok(ConnectionKey::new(subject, provider, label.unwrap_or_default()))
}

/// What the query says.
pub fn query<T: DeserializeOwned>(query: Option<&str>) -> Result<T, Refused> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs))
        .map_err(|error| Refused::Malformed(format!("The query is not as expected: {}.", told(&error))))
}

/// What is wrong, and where if that does not say it.
fn told(error: &serde_path_to_error::Error<impl std::error::Error>) -> String {
    let (path, why) = (error.path().to_string(), error.inner().to_string());
    let is_said = matches!(path.as_str(), "." | "?") || why.contains(&format!("`{path}`"));
    shown(&if is_said { why } else { format!("`{path}`: {why}") })
}

/// What the body says. One that is empty says nothing.
pub fn body<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<Option<T>, Refused> {
    if body.is_empty() {
        return Ok(None);
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(Refused::MediaType);
    }
    // A list would be read as an object without its names.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refused::Malformed("The body is not a JSON object.".to_owned()));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json);
    let read = read.map_err(|error| Refused::Malformed(format!("The body is not as expected: {}.", told(&error))))?;
    let ended = json.end();
    ended
        .map_err(|error| Refused::Malformed(format!("The body is not as expected: {}.", shown(&error.to_string()))))?;
    Ok(Some(read))
}

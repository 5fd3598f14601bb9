//! What is refused, and how that is said: problem details (RFC 9457), one type for each cause.

use axum::http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::base::problem_details::{CONTENT_TYPE as PROBLEM_JSON, ProblemDetails};
use crate::dance::{BeginError, ChoiceError};
use crate::model::connection::ConnectionKey;
use crate::store::StoreError;
use crate::vault::TokenError;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No key, or none that is good: which of the two is for the log alone.
    Key,
    /// The key is not for this.
    Scope,
    /// Neither a one-time URL that is good, nor a user who is signed in.
    Browser,
    /// Something in the request cannot be read.
    Malformed(String),
    /// The body is no JSON.
    MediaType,
    /// The page to return to is not allowed.
    ReturnTo,
    /// No such provider is configured.
    UnknownProvider,
    /// There is no such connection.
    UnknownConnection(ConnectionKey),
    /// The site cannot be told or chosen.
    Site(ConnectionKey, ChoiceError),
    /// The store failed.
    Store(StoreError),
    /// There is nothing at this path.
    NotFound,
    /// The path is not used with this method.
    Method,
}

impl Refused {
    /// The last part of the problem's type.
    pub fn slug(&self) -> String {
        let kind = self.problem().kind;
        kind.rsplit(':').next().unwrap_or_default().to_owned()
    }

    /// What is said.
    pub fn problem(&self) -> ProblemDetails {
        match self {
            Self::Key => ProblemDetails::new(
                "api-key-refused",
                401,
                "API key refused",
                "The request bears no API key that is good here.",
                "send Authorization: Bearer with a key that the operator has issued and that has not expired",
            ),
            Self::Scope => ProblemDetails::new(
                "api-key-scope",
                403,
                "Not covered by the API key",
                "The API key is not for this provider or for this subject.",
                "use the key that is for it, or ask the operator to widen this one",
            ),
            Self::Browser => ProblemDetails::new(
                "connect-url-over",
                401,
                "This link is over",
                "It was used already, it is older than ten minutes, or it never was one; and nobody is signed in whom it is for.",
                "have the program that made it make a new one",
            ),
            Self::Malformed(detail) => ProblemDetails::new(
                "bad-request",
                400,
                "Bad request",
                detail.clone(),
                "correct it and ask again; /api/v1/openapi.json says what is expected",
            ),
            Self::MediaType => ProblemDetails::new(
                "unsupported-media-type",
                415,
                "Unsupported media type",
                "The body is not announced as JSON.",
                "send Content-Type: application/json",
            ),
            Self::ReturnTo => ProblemDetails::new(
                "return-to-refused",
                400,
                "Page to return to refused",
                "`return_to` is not one of the pages that browsers may be led to.",
                "send the full address of a page below one that the operator has listed in [api] return_to, without fragment, user name \
                 or dot segments",
            ),
            Self::UnknownProvider => ProblemDetails::new(
                "unknown-provider",
                404,
                "Unknown provider",
                "No provider of this name is configured.",
                "correct the name, or ask the operator to add it to [providers]",
            ),
            Self::UnknownConnection(key) => ProblemDetails::new(
                "unknown-connection",
                404,
                "Unknown connection",
                format!("{} has no connection to {} with the label {}.", key.subject, key.provider, key.label),
                "have the subject connect first",
            ),
            Self::Site(key, error) => site(key, error),
            Self::Store(error) => ProblemDetails::new(
                "store-failed",
                503,
                "Store failed",
                error.to_string(),
                "try again in a moment; the operator sees more in the log",
            ),
            Self::NotFound => ProblemDetails::new(
                "not-found",
                404,
                "Nothing here",
                "There is nothing at this path.",
                "/api/v1/openapi.json has all paths",
            ),
            Self::Method => ProblemDetails::new(
                "method-not-allowed",
                405,
                "Method not allowed",
                "This path is not used with that method.",
                "use one of those that the Allow header names",
            ),
        }
    }
}

fn site(key: &ConnectionKey, error: &ChoiceError) -> ProblemDetails {
    let detail = format!("For {key}, {error}.");
    let problem = |slug, status, title, next| ProblemDetails::new(slug, status, title, detail.clone(), next);
    match error {
        ChoiceError::NotConnected | ChoiceError::Token(TokenError::NotConnected) => {
            Refused::UnknownConnection(key.clone()).problem()
        }
        ChoiceError::Store(error) => Refused::Store(error.clone()).problem(),
        ChoiceError::NothingToChoose => problem(
            "nothing-to-choose",
            409,
            "Nothing to choose",
            "connections to this provider are for one thing only",
        ),
        ChoiceError::Token(TokenError::NeedsReauth { .. }) => {
            problem("needs-reauth", 409, "Connection needs attention", "have the subject connect again")
        }
        ChoiceError::Token(_) => problem("token-unavailable", 503, "Token unavailable", "try again in a moment"),
        ChoiceError::LookUp { .. } => {
            problem("look-up-failed", 502, "Look-up failed", "try again; the connection is kept")
        }
        ChoiceError::NotOffered => {
            problem("unknown-site", 404, "Unknown site", "GET the same path to see those there are")
        }
        ChoiceError::Replaced => {
            problem("connection-replaced", 409, "Connection replaced", "GET the same path again, and choose then")
        }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<BeginError> for Refused {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::LinkOver => Self::Browser,
            BeginError::UnknownProvider(_) => Self::UnknownProvider,
            BeginError::Store(error) => Self::Store(error),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = answer(&self.problem());
        if matches!(self, Self::Key | Self::Browser) {
            // RFC 6750 section 3: without saying what is wrong with the key, if there was one.
            let challenge = HeaderValue::from_static("Bearer realm=\"sidekey\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// A problem as an answer.
pub fn answer(problem: &ProblemDetails) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, PROBLEM_JSON)], problem.to_json()).into_response()
}

/// A next step as a sentence of a page.
pub fn sentence(next_step: &str) -> String {
    let mut letters = next_step.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

/// Whether the caller asks for JSON rather than for a page.
pub fn wants_json(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds: Vec<String> = accepted
        .by_ref()
        .flat_map(|value| value.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .collect();
    let takes = |kind: &str| kinds.iter().any(|range| range == kind);
    (takes("application/json") || takes(PROBLEM_JSON)) && !takes("text/html")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_pages_and_programs_that_ask_for_it_json() {
        let wants = |accept: &str| wants_json(&HeaderMap::from_iter([(ACCEPT, accept.parse().expect("a value"))]));
        assert!(
            wants("application/json") && wants("Application/JSON; q=0.9, */*") && wants("application/problem+json")
        );
        assert!(!wants("text/html,application/json") && !wants("*/*") && !wants("application/xml"));
        assert!(!wants_json(&HeaderMap::new()));
    }
}

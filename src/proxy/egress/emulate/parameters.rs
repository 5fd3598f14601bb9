//! The parameters of a request to a token endpoint, in a form, in JSON, or in the query.

use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::Request;

/// Names and values, those of the body first.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads them. What is no form and no JSON object holds none.
    pub fn of(request: &Request<'_>) -> Self {
        let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut found = if content_type.to_ascii_lowercase().contains("json") {
            of_json(request.body)
        } else {
            serde_urlencoded::from_bytes(request.body).unwrap_or_default()
        };
        found.extend(
            serde_urlencoded::from_str::<Vec<(String, String)>>(request.query.unwrap_or_default()).unwrap_or_default(),
        );
        Self(found)
    }

    /// The first of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, value)| value.as_str())
    }
}

fn of_json(body: &[u8]) -> Vec<(String, String)> {
    let Ok(Value::Object(object)) = serde_json::from_slice(body) else { return Vec::new() };
    let text = |(name, value)| match value {
        Value::String(value) => Some((name, value)),
        _ => None,
    };
    object.into_iter().filter_map(text).collect()
}

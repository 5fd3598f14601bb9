//! `application/problem+json` (RFC 9457): how a machine is told what happened and what to do next.

use serde::Serialize;

/// One problem, as it goes over the wire.
#[derive(Clone, Debug, Serialize)]
pub struct ProblemDetails {
    /// A stable URN; `docs/errors.md` has a paragraph for each.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every occurrence of this type.
    pub title: &'static str,
    /// The HTTP status it is sent with.
    pub status: u16,
    /// What happened this time. Never a secret, never unescaped input.
    pub detail: String,
    /// What the reader can do about it.
    pub next_step: String,
}

/// The media type of [`ProblemDetails`].
pub const CONTENT_TYPE: &str = "application/problem+json";

impl ProblemDetails {
    /// A problem of the type `urn:sidekey:error:<slug>`.
    pub fn new(
        slug: &str,
        status: u16,
        title: &'static str,
        detail: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Self {
        let kind = format!("urn:sidekey:error:{slug}");
        Self { kind, title, status, detail: detail.into(), next_step: next_step.into() }
    }

    /// The JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain strings and numbers serialize")
    }
}

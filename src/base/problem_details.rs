//! `application/problem+json` (RFC 9457): how a machine is told what happened and what to do next.

use schemars::JsonSchema;
use serde::Serialize;

/// One problem, as it goes over the wire.
#[derive(Clone, Debug, Serialize, JsonSchema)]
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
    /// Where a person can do it: a page of ours that asks who they are. It carries no authority of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_url: Option<String>,
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
        Self { kind, title, status, detail: detail.into(), next_step: next_step.into(), connect_url: None }
    }

    /// The same for everybody who asks too often.
    pub fn too_many_requests(seconds: u64) -> Self {
        let next = format!("try again in {seconds} seconds; Retry-After and the RateLimit headers say so too");
        Self::new("too-many-requests", 429, "Too many requests", "This was asked too often.", next)
    }

    /// The JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain strings and numbers serialize")
    }
}

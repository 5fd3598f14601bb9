//! The provider's shapes of answers, written from the places where its entry says that things are read.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use serde_json::{Map, Value};

use super::{Answer, Connected, uncached};
use crate::base::clock::Timestamp;
use crate::base::duration::DurationText;
use crate::catalogue::Provider;
use crate::catalogue::entry::ReplyFormat;

/// What kind of error to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request is incomplete.
    Request,
    /// There is no such code.
    Code,
    /// There is no such refresh token.
    RefreshToken,
    /// That grant is not offered.
    GrantType,
}

/// Tokens: the stand-in wherever the provider puts one.
pub fn tokens(provider: &Provider, headers: &HeaderMap, caller: &Connected<'_>, token: &str, now: Timestamp) -> Answer {
    let (declared, lifetime) = (&provider.entry.token.response, &provider.entry.lifetime);
    let mut body = Body::default();
    if let Some(ok) = &declared.ok {
        body.put(ok, true);
    }
    for (name, place) in &declared.capture {
        if let Some(value) = caller.captured.get(name) {
            body.put(place, value.as_str());
        }
    }
    body.put(&declared.access_token, token);
    body.put(&declared.token_type, declared.token_types.first().map_or("Bearer", String::as_str));
    body.put_seconds(Some(&declared.expires_in), lifetime.access);
    // Where the provider's replies to refreshes hold none, clients keep the one they have: the same handle.
    if declared.refresh_reply_has_refresh_token {
        body.put(&declared.refresh_token, token);
        body.put_seconds(declared.refresh_expires_in.as_ref(), lifetime.refresh_idle);
        body.put_seconds(declared.refresh_hard_expires_in.as_ref(), lifetime.refresh_absolute);
    }
    if let Some(place) = &declared.issued_at {
        body.put(place, now.as_millis() / 1000);
    }
    if let Some(scopes) = caller.scopes {
        let separator = declared.scope_separator.as_deref().unwrap_or(&provider.entry.authorize.scope_separator);
        body.put(&declared.scope, scopes.join(separator));
    }
    for named in &declared.more_tokens {
        body.put(&named.access_token, token);
        if let Some(place) = &named.refresh_token {
            body.put(place, token);
        }
        body.put_seconds(named.expires_in.as_ref(), lifetime.access);
    }
    body.answer(provider, headers, 200)
}

/// An error as the provider words it.
pub fn refused(provider: &Provider, headers: &HeaderMap, refusal: Refusal, description: &str) -> Answer {
    let declared = &provider.entry.token.response;
    let mut body = Body::default();
    if let Some(ok) = &declared.ok {
        body.put(ok, false);
    }
    body.put(&declared.error, code(provider, refusal));
    body.put(&declared.error_description, description);
    body.answer(provider, headers, if declared.error_with_status_200 { 200 } else { 400 })
}

/// A revocation that worked.
pub fn revoked(provider: &Provider) -> Answer {
    let revoke = provider.entry.revoke.as_ref();
    let status = revoke.and_then(|revoke| revoke.ok_status.first().copied()).unwrap_or(200);
    let mut headers = uncached();
    if status == 204 {
        return Answer { status, headers, body: Vec::new() };
    }
    let mut body = Body::default();
    if let Some(ok) = revoke.and_then(|revoke| revoke.ok.as_ref()) {
        body.put(ok, true);
    }
    headers.push((CONTENT_TYPE, JSON.to_owned()));
    Answer { status, headers, body: body.0.to_string().into_bytes() }
}

/// The provider's own word for it, where its entry knows one.
fn code(provider: &Provider, refusal: Refusal) -> &str {
    let permanent = &provider.entry.errors.permanent;
    let usual = "invalid_grant";
    match (refusal, permanent.first()) {
        (Refusal::Request, _) => "invalid_request",
        (Refusal::GrantType, _) => "unsupported_grant_type",
        (Refusal::Code | Refusal::RefreshToken, Some(first)) if !permanent.iter().any(|code| code == usual) => first,
        (Refusal::Code | Refusal::RefreshToken, _) => usual,
    }
}

const JSON: &str = "application/json; charset=utf-8";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// A body in the making.
struct Body(Value);

impl Default for Body {
    fn default() -> Self {
        Self(Value::Object(Map::new()))
    }
}

impl Body {
    /// Writes a value to a place (RFC 6901), making the objects on the way. What is there already stays.
    fn put(&mut self, place: &str, value: impl Into<Value>) {
        let mut here = &mut self.0;
        for step in place.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            if here.is_null() {
                *here = Value::Object(Map::new());
            }
            let Value::Object(object) = here else { return };
            here = object.entry(step).or_insert(Value::Null);
        }
        if here.is_null() {
            *here = value.into();
        }
    }

    fn put_seconds(&mut self, place: Option<&String>, lifetime: Option<DurationText>) {
        if let (Some(place), Some(DurationText(lifetime))) = (place, lifetime) {
            self.put(place, lifetime.max(Duration::from_secs(1)).as_secs());
        }
    }

    /// As a form, where the provider writes forms unless it is asked for JSON.
    fn answer(&self, provider: &Provider, headers: &HeaderMap, status: u16) -> Answer {
        let is_asked_for_json = headers
            .get_all(ACCEPT)
            .iter()
            .any(|accept| accept.to_str().is_ok_and(|accept| accept.to_ascii_lowercase().contains("json")));
        let is_form = provider.entry.token.response.format == ReplyFormat::JsonOrForm && !is_asked_for_json;
        let (content_type, body) = if is_form { (FORM, self.form()) } else { (JSON, self.0.to_string()) };
        let mut headers = uncached();
        headers.push((CONTENT_TYPE, content_type.to_owned()));
        Answer { status, headers, body: body.into_bytes() }
    }

    fn form(&self) -> String {
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ => None,
        };
        let fields = self.0.as_object().into_iter().flatten();
        let pairs: Vec<(&String, String)> = fields.filter_map(|(name, value)| Some((name, text(value)?))).collect();
        serde_urlencoded::to_string(pairs).unwrap_or_default()
    }
}

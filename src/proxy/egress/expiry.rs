//! What an API's answer says about the access token: that it has expired, that only the body can tell, or nothing.
//!
//! Once the head of an answer goes out to the caller there is no way back, and a body cannot be waited for before: so
//! status and headers alone decide whether a request is sent again.

use http::HeaderMap;
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use serde_json::Value;

use crate::catalogue::entry::{ApiCommon, ExpirySignature};

/// What the head of an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// The token has expired.
    Expired,
    /// It may have: the body tells.
    BodyTells,
    /// The token is not the trouble.
    Good,
}

/// Judges status and headers. `is_past_expiry` says whether the token's recorded time is over, or was never known.
pub fn judge_head(declared: &ApiCommon, status: StatusCode, headers: &HeaderMap, is_past_expiry: bool) -> Head {
    let fits = |signature: &ExpirySignature| head_fits(signature, status, headers, is_past_expiry);
    let is_something_else = |signature: &ExpirySignature| signature.body.is_none() && fits(signature);
    if declared.not_expired.iter().any(|other| is_something_else(&other.when)) {
        return Head::Good;
    }
    let mut head = Head::Good;
    for signature in declared.expired.iter().filter(|signature| fits(signature)) {
        // 401 says it all (RFC 9110 section 15.5.2); what a body adds to it comes too late.
        if signature.body.is_none() || status == StatusCode::UNAUTHORIZED {
            return Head::Expired;
        }
        head = Head::BodyTells;
    }
    head
}

/// Judges a body whose head left it open.
pub fn judge_body(declared: &ApiCommon, status: StatusCode, headers: &HeaderMap, past: bool, body: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
    let fits = |signature: &ExpirySignature| head_fits(signature, status, headers, past) && body_fits(signature, &body);
    !declared.not_expired.iter().any(|other| fits(&other.when)) && declared.expired.iter().any(fits)
}

fn head_fits(signature: &ExpirySignature, status: StatusCode, headers: &HeaderMap, is_past_expiry: bool) -> bool {
    let error_fits = signature.www_authenticate_error.as_deref().is_none_or(|error| challenge_error(headers, error));
    signature.status == status.as_u16() && error_fits && (is_past_expiry || !signature.only_past_expiry)
}

/// Whether a challenge names this error (RFC 6750 section 3).
fn challenge_error(headers: &HeaderMap, error: &str) -> bool {
    let challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let mut parameters = challenges.flat_map(|challenge| challenge.split([',', ' ']));
    parameters.any(|parameter| {
        let (name, value) = parameter.trim().split_once('=').unwrap_or_default();
        name.eq_ignore_ascii_case("error") && value.trim_matches('"') == error
    })
}

fn body_fits(signature: &ExpirySignature, body: &Value) -> bool {
    let Some(place) = &signature.body else { return true };
    let text = match body.pointer(place) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        _ => return false,
    };
    let listed = signature.body_values.is_empty() || signature.body_values.contains(&text);
    listed && signature.body_contains.as_deref().is_none_or(|part| text.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::provider::tests::provider;
    use crate::oauth::documented::{self, Says};

    fn declared(json: Value) -> ApiCommon {
        serde_json::from_value(json).expect("declared")
    }

    fn challenge(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(WWW_AUTHENTICATE, http::HeaderValue::from_static(text))])
    }

    #[test]
    fn a_401_is_decided_by_its_head() {
        let quickbooks = declared(serde_json::json!({ "expired": [{
            "status": 401, "www_authenticate_error": "invalid_token", "body": "/code", "body_values": ["3200"]
        }] }));
        let judge = |status: u16, headers: &HeaderMap| {
            judge_head(&quickbooks, StatusCode::from_u16(status).expect("a status"), headers, false)
        };
        let expired = challenge("Bearer realm=\"Intuit\", error=\"invalid_token\"");
        assert_eq!(judge(401, &expired), Head::Expired);
        assert_eq!(judge(401, &challenge("Bearer error=\"insufficient_scope\"")), Head::Good);
        assert_eq!((judge(401, &HeaderMap::new()), judge(403, &expired)), (Head::Good, Head::Good));
    }

    /// By the files that were written from providers' documentation.
    #[test]
    fn documented_answers_are_understood() {
        for documented in documented::all() {
            let declared = &provider(&documented.name).entry.api;
            for answer in &documented.api {
                let (status, headers) = (StatusCode::from_u16(answer.status).expect("a status"), answer.headers());
                let head = judge_head(declared, status, &headers, answer.past_expiry);
                let body = answer.body.as_bytes();
                let says = match head {
                    Head::Expired => Says::Expired,
                    Head::BodyTells if judge_body(declared, status, &headers, answer.past_expiry, body) => {
                        Says::ExpiredByItsBody
                    }
                    Head::BodyTells | Head::Good => Says::Nothing,
                };
                assert_eq!(says, answer.says, "{}: {}", documented.name, answer.what);
            }
        }
    }

    #[test]
    fn other_statuses_need_their_body_and_perhaps_the_clock() {
        let odd = declared(serde_json::json!({
            "expired": [
                { "status": 200, "body": "/error", "body_values": ["token_expired"] },
                { "status": 404, "only_past_expiry": true }
            ],
            "not_expired": [{ "when": { "status": 404, "www_authenticate_error": "other" }, "action": "reconnect" }]
        }));
        let none = HeaderMap::new();
        assert_eq!(judge_head(&odd, StatusCode::OK, &none, false), Head::BodyTells);
        assert!(judge_body(&odd, StatusCode::OK, &none, false, br#"{"ok":false,"error":"token_expired"}"#));
        for other in [&br#"{"ok":true}"#[..], br#"{"error":"x"}"#, b"not JSON", b""] {
            assert!(!judge_body(&odd, StatusCode::OK, &none, false, other));
        }
        assert_eq!(judge_head(&odd, StatusCode::NOT_FOUND, &none, false), Head::Good);
        assert_eq!(judge_head(&odd, StatusCode::NOT_FOUND, &none, true), Head::Expired);
        assert_eq!(judge_head(&odd, StatusCode::NOT_FOUND, &challenge("Bearer error=other"), true), Head::Good);
    }
}
